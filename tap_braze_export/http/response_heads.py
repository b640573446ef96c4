"""Limits what is not body in an HTTP response: its head, interim responses included, and the lines around chunks."""

from __future__ import annotations

import http.client
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    import io
    import socket
    from collections.abc import Iterator

    from urllib3 import PoolManager

_MAX_HEAD_BYTES = 2**20
_TIMEOUTS_PER_HEAD = 2
"""Read timeouts that a head may take: the timeout itself begins anew with each byte."""


class LimitedHeadAdapter(HTTPAdapter):
    """A transport whose responses fail like broken connections if what is not body is too long or takes too long."""

    @override
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _limit(self.poolmanager)

    @override
    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        _limit(manager)
        return manager


class _Head:
    """The lines of a head, or around a chunk, within limits.

    Args:
        file: The connection.
        timeout: Seconds that each read of it may take; None for no limit.
    """

    def __init__(self, file: io.BufferedReader, timeout: float | None) -> None:
        self._file = file
        self._bytes_left = _MAX_HEAD_BYTES
        self._end = None if timeout is None else time.monotonic() + _TIMEOUTS_PER_HEAD * timeout
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        """Read a line of at most so many bytes; empty at the end.

        Raises:
            HTTPException: They are too long, or are still coming in.
        """
        line = bytearray()
        while len(line) < limit and not line.endswith(b"\n"):
            if not (buffered := self._file.peek(1)):  # one read of the connection at most
                break
            length = buffered.find(b"\n") + 1 or len(buffered)
            line += self._file.read(min(length, limit - len(line)))
            if len(line) > self._bytes_left or (self._end is not None and time.monotonic() > self._end):
                raise http.client.HTTPException(
                    "the head of the response, or of a chunk, is too long, or takes too long"
                )
        self._bytes_left -= len(line)
        return bytes(line)


class _Response(http.client.HTTPResponse):
    @override
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._timeout = sock.gettimeout()

    @override
    def begin(self) -> None:
        with self._limited():
            super().begin()

    # `http.client` reads each line of a chunked body in one of these two.

    def _read_next_chunk_size(self) -> int:
        with self._limited():
            return super()._read_next_chunk_size()  # type: ignore[misc, no-any-return]

    def _read_and_discard_trailer(self) -> None:
        with self._limited():
            super()._read_and_discard_trailer()  # type: ignore[misc]

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Read lines within limits."""
        file: Any = self.fp
        head: Any = _Head(file, self._timeout)
        self.fp = head
        try:
            yield
        finally:
            if self.fp is head:  # else it was closed
                self.fp = file


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _limit(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
