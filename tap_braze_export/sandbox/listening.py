"""A WSGI application on a free port of this machine, served by threads."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from flask import Flask

HOST = "127.0.0.1"


class _Quiet(WSGIRequestHandler):
    """Logs nothing: addresses hold signatures, and the sandbox keeps its own list of calls."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as werkzeug has it
        """Keep silent."""


class Listener:
    """One running server."""

    def __init__(self, app: Flask, port: int = 0) -> None:
        """Listen at once; port 0 takes any free one."""
        # Werkzeug would leave the process when the port is taken; a socket of our own raises OSError.
        with socket.create_server((HOST, port)) as opened:
            self._server = make_server(HOST, port, app, threaded=True, request_handler=_Quiet, fd=opened.fileno())
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
