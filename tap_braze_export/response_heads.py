"""Limits the head of an HTTP response: what comes before its body, interim responses included."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    import io
    import socket

    from urllib3 import PoolManager

_MAX_HEAD_BYTES = 2**20
_TIMEOUTS_PER_HEAD = 2
"""Read timeouts that a head may take: the timeout itself begins anew with each byte."""


class LimitedHeadAdapter(HTTPAdapter):
    """A transport whose responses fail like broken connections if their heads are too long or take too long."""

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
    """The lines of a head, within limits.

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
            HTTPException: The head is too long, or is still coming in.
        """
        line = bytearray()
        while len(line) < limit and not line.endswith(b"\n"):
            if not (buffered := self._file.peek(1)):  # one read of the connection at most
                break
            length = buffered.find(b"\n") + 1 or len(buffered)
            line += self._file.read(min(length, limit - len(line)))
            if len(line) > self._bytes_left or (self._end is not None and time.monotonic() > self._end):
                raise http.client.HTTPException("the head of the response is too long, or takes too long")
        self._bytes_left -= len(line)
        return bytes(line)


class _Response(http.client.HTTPResponse):
    @override
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._timeout = sock.gettimeout()

    @override
    def begin(self) -> None:
        file: Any = self.fp
        head: Any = _Head(file, self._timeout)
        self.fp = head
        try:
            super().begin()
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
