"""A server that runs a WSGI application on a port of this machine."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

HOST = "127.0.0.1"


class _Quiet(WSGIRequestHandler):
    """Logs nothing, as URLs hold signatures and the sandbox records every request."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as werkzeug has it
        """Log nothing."""


class Listener:
    """A running server."""

    def __init__(self, app: Flask, port: int, clock: Callable[[], float]) -> None:
        """Start to listen; port 0 is any free one, and the clock dates the responses."""

        class Dated(_Quiet):
            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(clock() if timestamp is None else timestamp)

        # Werkzeug exits the process if the port is in use; create_server raises OSError.
        with socket.create_server((HOST, port)) as opened:
            self._server = make_server(HOST, port, app, threaded=True, request_handler=Dated, fd=opened.fileno())
        self.url = f"http://{HOST}:{self._server.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
