"""Listens for Braze's callback, the one proof that an export in a bucket is complete."""

from __future__ import annotations

import http.server
import logging
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import msgspec
from typing_extensions import override

from tap_braze_export.errors import ConfigError

_MAX_BODY_BYTES = 64 * 1024
_MAX_CHUNK_LINES_BYTES = 8 * _MAX_BODY_BYTES
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CALLER_SECONDS = 10.0
_MAX_CALLERS = 64
_log = logging.getLogger(__name__)


def new_token() -> str:
    """A secret for the callback address of one export, so that nobody else can call it."""
    return secrets.token_urlsafe(24)


class _Body(msgspec.Struct):
    success: bool


class _UnreadableBodyError(ValueError):
    """The body is too large, cut off, or sent in a way that is no HTTP."""


class _Request(http.server.BaseHTTPRequestHandler):
    """One callback, as Braze or a proxy sends it; anything but the right path with a known token gets status 404."""

    server: _Server
    server_version = "tap-braze-export"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Receive Braze's message that an export is complete."""
        status, callbacks = HTTPStatus.NOT_FOUND, self.server.callbacks
        with suppress(ValueError):
            url = urlsplit(self.path)
            token = parse_qs(url.query).get("token", [""])[-1]
            # HTTP/0.9 has no status: its caller would not learn that it was received.
            if callbacks.expects(url.path, token) and self.request_version != "HTTP/0.9":
                status = HTTPStatus.OK if self._receive(token) else HTTPStatus.BAD_REQUEST
        self._respond(status)

    def _receive(self, token: str) -> bool:
        """Receive a body; False if it cannot be read."""
        try:
            success = msgspec.json.decode(self._body(), type=_Body).success
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _UnreadableBodyError):
            return False
        if success:
            self.server.callbacks.receive(token)
        return True

    def _body(self) -> bytes:
        """Read the body; the server limits the seconds that this takes."""
        coding = self.headers.get("Transfer-Encoding", "identity").strip().lower()
        length = self.headers.get("Content-Length", "")
        if coding == "chunked":
            return self._chunks()
        if not (coding == "identity" and length.isdecimal() and int(length) <= _MAX_BODY_BYTES):
            raise _UnreadableBodyError
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes:
        body = bytearray()
        left = _MAX_CHUNK_LINES_BYTES
        while size := _chunk_size(line := self.rfile.readline(left)):
            left -= len(line)
            if len(body) + size > _MAX_BODY_BYTES:
                raise _UnreadableBodyError
            chunk = self.rfile.read(size)
            if len(chunk) < size or self.rfile.readline(2).strip():
                raise _UnreadableBodyError
            body += chunk
        while left > 0 and (line := self.rfile.readline(left)).strip():  # trailers
            left -= len(line)
        return bytes(body)

    @override
    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Respond 404 to other methods and broken requests."""
        self._respond(HTTPStatus.NOT_FOUND)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the request line holds the token."""

    def _respond(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not (line.endswith(b"\n") and _CHUNK_SIZE.fullmatch(digits)):
        raise _UnreadableBodyError
    return int(digits, 16)


class _Server(http.server.ThreadingHTTPServer):
    """Gives each caller a thread and limited seconds; of too many callers the oldest is cut off."""

    daemon_threads = True
    request_queue_size = _MAX_CALLERS
    callbacks: Callbacks
    seconds: float

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._callers: dict[Any, float] = {}  # by connection, the time when it came
        self._lock = threading.Lock()
        super().__init__(address, _Request)

    @override
    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._callers) >= _MAX_CALLERS:
                self._cut_off(next(iter(self._callers)))
            self._callers[request] = time.monotonic()
        return True

    @override
    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._callers.pop(request, None)
        super().shutdown_request(request)

    @override
    def service_actions(self) -> None:
        with self._lock:
            for request, since in list(self._callers.items()):
                if time.monotonic() - since > self.seconds:
                    self._cut_off(request)

    def _cut_off(self, request: Any) -> None:
        """Close a caller's connection, which ends its thread."""
        del self._callers[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a caller that hangs up or was cut off."""


class Callbacks:
    """The callbacks of running exports; listens for them while it is open, if `callback_listen` is set.

    Args:
        url: The setting `callback_url`.
        listen: The setting `callback_listen`, `host:port`.
        seconds: Time that a caller has for its request.
    """

    def __init__(self, url: str | None, listen: str | None, *, seconds: float = _CALLER_SECONDS) -> None:
        self._url = url
        self._listen = listen
        self._seconds = seconds
        self._received: dict[str, bool] = {}
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        """Listen."""
        if self._listen:
            host, colon, port = self._listen.rpartition(":")
            try:
                if not colon:
                    raise ValueError("no host")  # noqa: TRY301
                self._server = _Server((host.strip("[]"), int(port)))
            except (OSError, ValueError, OverflowError):
                raise ConfigError(
                    f"callback_listen {self._listen} cannot be listened on: name a free host:port of this machine"
                ) from None
            self._server.callbacks, self._server.seconds = self, self._seconds
            threading.Thread(target=self._server.serve_forever, args=(0.1,), name="callback", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def endpoint(self, token: str) -> str | None:
        """The address for Braze to call: `callback_url` with the token added; None without `callback_url`."""
        if not self._url:
            return None
        self._received.setdefault(token, False)
        parts = urlsplit(self._url)
        query = "&".join(part for part in (parts.query, urlencode({"token": token})) if part)
        return urlunsplit(parts._replace(query=query))

    def expect(self, token: str) -> None:
        """Accept the callback of an export that an earlier run started."""
        if token:
            self._received.setdefault(token, False)

    def expects(self, path: str, token: str) -> bool:
        """True if path and token are those of a running export; a proxy may have cut the start of the path."""
        expected = urlsplit(self._url or "").path or "/"
        return bool(path) and expected.endswith(path) and token in self._received

    def receive(self, token: str) -> None:
        """Remember a callback."""
        self._received[token] = True
        _log.info("Callback received: an export is complete")

    def received(self, token: str) -> bool:
        """True if Braze has called back."""
        return self._received.get(token, False)
