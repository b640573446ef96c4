"""Stand-ins for time and for HTTP servers."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.clock import Clock

if TYPE_CHECKING:
    from email.message import Message


class FakeClock(Clock):
    """A clock that sleeping advances at once; each reading advances it by `tick` seconds.

    Attributes:
        elapsed: Seconds of the monotonic clock; they begin far from the time of day, lest a test mix the two up.
        ahead: Seconds by which somebody has set the time of day ahead since.
    """

    def __init__(self, now: float = 1_800_000_000.0, *, tick: float = 0.0) -> None:
        self.elapsed = 5_000.0
        self.ahead = 0.0
        self.tick = tick
        self.slept: list[float] = []
        self.told_to_end = False
        self._offset = now - self.elapsed
        super().__init__()

    @property
    def true_time(self) -> float:
        """The time of day that nobody sets, of a Braze with a good clock."""
        return self.elapsed + self._offset

    @property
    def time(self) -> float:
        """The time of day. To assign it lets time pass."""
        return self.true_time + self.ahead

    @time.setter
    def time(self, time: float) -> None:
        self.elapsed += time - self.time

    @property
    def stopped(self) -> bool:
        return self.told_to_end

    def now(self) -> float:
        self.elapsed += self.tick
        return self.time

    def monotonic(self) -> float:
        self.elapsed += self.tick
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed += max(0.0, seconds)


class Reader(io.RawIOBase):
    """A loader that takes lines until one holds a text, and then is gone."""

    def __init__(self, until: bytes) -> None:
        super().__init__()
        self.taken = b""
        self._until = until

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._until in bytes(data):
            raise BrokenPipeError
        self.taken += bytes(data)
        return len(data)


@dataclass(frozen=True)
class Seen:
    """A request that a Server received."""

    method: str
    path: str
    headers: Message
    body: bytes


class Server:
    """A real HTTP server that sends the responses of a test in order; it repeats the last one.

    A response is `(status, headers, body)`, or a function of the request's handler.
    """

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.seen.append(Seen(self.command, self.path, self.headers, body))
                answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                try:
                    self.give(answer)
                except OSError:  # the client has closed the connection
                    self.close_connection = True

            def give(self, answer: Answer) -> None:
                if callable(answer):
                    answer(self)
                    return
                status, headers, content = answer
                self.send_response_only(status)  # no Date: a FakeClock lives in another year
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_HEAD = do_POST = do_GET  # noqa: N815  http.server's names

            def log_message(self, *_: object) -> None:
                """Tests read `seen`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


Answer = tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]


def as_json(answer: object, status: int = 201, **headers: str) -> Answer:
    """A JSON response; `X_RateLimit_Reset="1"` becomes the header X-RateLimit-Reset."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(answer).encode()


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a response."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """A response whose body never ends, until the client hangs up; its length is not announced."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 2**16)

    return answer
