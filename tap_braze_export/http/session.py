"""HTTP sessions, and responses within limits: with the environment's proxies and certificates, never with a .netrc."""

from __future__ import annotations

import http.client
import io
import time
import zlib
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection

from tap_braze_export.http.certificates import OVER_REQUESTS, trusted_by_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.clock import Clock

_MAX_CONNECTIONS = 64
_MAX_HEAD_BYTES = 2**20
_TIMEOUTS_PER_HEAD = 2
"""Read timeouts that a head may take: the timeout itself begins anew with each byte."""
_READ_BYTES = 2**16
_GZIP_WBITS = 31


class OversizedBodyError(requests.exceptions.RequestException):
    """The body of a response is longer than its limit, or comes for longer than its time."""


class Session(requests.Session):
    """A session that sends no credentials but those that a request brings, on no hop of a redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request  # without one, requests looks into .netrc
        self.headers["Accept-Encoding"] = "gzip, identity"  # what `read_body` decodes within its limit
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(pool_maxsize=_MAX_CONNECTIONS))

    @override
    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; an address that cannot be parsed, also of a redirect, is an error of requests."""
        try:
            return super().request(*args, **kwargs)
        except requests.exceptions.RequestException:
            raise
        except (ValueError, urllib3.exceptions.HTTPError) as error:  # requests lets through what its libraries raise
            raise requests.exceptions.InvalidURL(type(error).__name__) from None

    @override
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Where a redirect leads; its body, which requests would read to its end, is given up."""
        try:
            target = super().get_redirect_target(resp)
        except UnicodeError:
            resp.close()
            raise
        if target:
            resp.close()
        return target

    @override
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop the credentials where a redirect leads to another host, and add none."""
        headers, before, now = prepared_request.headers, response.request.url, prepared_request.url
        if "Authorization" in headers and self.should_strip_auth(before, now):  # type: ignore[no-untyped-call]
            del headers["Authorization"]

    @override
    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Let SSL_CERT_FILE count, too, where no variable of requests is set."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if settings["verify"] is True and (bundle := trusted_by_environment(OVER_REQUESTS)):
            settings["verify"] = bundle[1]
        return settings


def read_body(response: requests.Response, *, max_bytes: int, max_seconds: float, clock: Clock) -> bytes:
    """Read the body of a response that was requested with `stream=True`, and decode it.

    Args:
        response: The response; it is closed.
        max_bytes: Of the decoded body; memory stays near it whatever comes.
        max_seconds: From now until the body must have ended.
        clock: Time.

    Raises:
        OversizedBodyError: It is longer, or takes longer.
        requests.exceptions.RequestException: It broke off, or is encoded in a way that was not asked for.
    """
    with response:
        body = _read(response, max_bytes + 1, max_seconds, clock)
    if len(body) > max_bytes:
        raise OversizedBodyError(f"the body is longer than {max_bytes} bytes")
    return body


def body_start(response: requests.Response, *, max_bytes: int, max_seconds: float, clock: Clock) -> bytes:
    """Read the beginning of such a body, for what an error may say; empty if it cannot be read."""
    try:
        with response:
            return _read(response, max_bytes, max_seconds, clock)
    except requests.exceptions.RequestException:
        return b""


def _read(response: requests.Response, max_bytes: int, max_seconds: float, clock: Clock) -> bytes:
    """The first bytes of a decoded body."""
    end = clock.monotonic() + max_seconds
    body = bytearray()
    for piece in _decoded(response, max_bytes):
        body += piece
        if len(body) >= max_bytes:
            break
        if clock.monotonic() > end:
            raise OversizedBodyError(f"the body was still coming in after {max_seconds:.0f} seconds")
    return bytes(body[:max_bytes])


def _decoded(response: requests.Response, max_bytes: int) -> Iterator[bytes]:
    """Yield a body in pieces as they come, each of at most `max_bytes`; an empty one while nothing is decoded."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        raise requests.exceptions.ContentDecodingError("the body has an encoding that was not asked for")
    inflater = zlib.decompressobj(_GZIP_WBITS) if "gzip" in encoding else None
    was_fed = False
    try:
        # read1, not stream: the limits of a body that drips are checked as its bytes come.
        while piece := response.raw.read1(_READ_BYTES, decode_content=False):
            was_fed = True
            yield inflater.decompress(piece, max_bytes) if inflater else piece
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(type(error).__name__) from None
    except zlib.error:
        raise requests.exceptions.ContentDecodingError("the body is no gzip stream") from None
    if was_fed and inflater and not inflater.eof:
        raise requests.exceptions.ContentDecodingError("the gzip stream is truncated")


class _Reader(io.BufferedReader):
    """A connection of which what is not body is limited: heads, interim ones included, and the lines around chunks."""

    def __init__(self, connection: io.RawIOBase, timeout: float | None) -> None:
        super().__init__(connection)
        self._timeout = timeout
        self._begin_head()

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        self._begin_head()
        return super().read(size)

    @override
    def read1(self, size: int = -1, /) -> bytes:
        self._begin_head()
        return super().read1(size)

    @override
    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line of a head.

        Raises:
            HTTPException: The head is too long, or is still coming in: like a broken connection.
        """
        limit = self._bytes_left if size is None or size < 0 else size
        line = bytearray()
        while len(line) < limit and not line.endswith(b"\n"):
            if not (buffered := self.peek(1)):  # one read of the connection at most
                break
            length = buffered.find(b"\n") + 1 or len(buffered)
            line += super().read(min(length, limit - len(line)))
            if len(line) > self._bytes_left or (self._end is not None and time.monotonic() > self._end):
                raise http.client.HTTPException(
                    "the head of the response, or of a chunk, is too long, or takes too long"
                )
        self._bytes_left -= len(line)
        return bytes(line)

    def _begin_head(self) -> None:
        self._bytes_left = _MAX_HEAD_BYTES
        self._end = None if self._timeout is None else time.monotonic() + _TIMEOUTS_PER_HEAD * self._timeout


class _Response(http.client.HTTPResponse):
    @override
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp: Any = _Reader(self.fp.detach(), sock.gettimeout())


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


class _Adapter(HTTPAdapter):
    """A transport whose responses have limited heads."""

    @override
    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _HTTPSConnection if pool.scheme == "https" else _HTTPConnection
        return pool
