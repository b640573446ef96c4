"""A sandbox whose responses a test may spoil on their way to the tap, and whole runs against it that are judged."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import socket
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock, Server
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from _pytest.mark import ParameterSet

TIMEOUT_MINUTES = 60
NAME, DOMAIN = "Plantedname", "planted.example.com"
USERS: list[dict[str, Any]] = [
    {
        "braze_id": f"b{number}",
        "first_name": f"{NAME}{number}",
        "email": f"somebody{number}@{DOMAIN}",
        "apps": [{"name": "Shop", "platform": "iOS", "sessions": number}],
    }
    for number in range(6)
]
"""The users of the segment, three in a file."""
LINES = [json.dumps(user).encode() for user in USERS]
_STREAMS = ("users", "apps", "export_files")
_CATALOG = {"streams": [entry for entry in selecting(_STREAMS)["streams"] if entry["tap_stream_id"] in _STREAMS]}
_SECRETS = (NAME, DOMAIN, "sandbox-key", "X-Amz-")
_RESET = struct.pack("ii", 1, 0)
_HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "date", "server"}


def row(door: str, fault: str, outcome: str, *values: object) -> ParameterSet:
    """Values of a test's parameters that are a row of the fault matrix."""
    return pytest.param(*values, id=fault, marks=pytest.mark.fault(door, fault, outcome))


def night_row(door: str, fault: str, outcome: str, *values: object) -> ParameterSet:
    """A row that runs at night only: another row of the test stands for its outcome by day."""
    return pytest.param(*values, id=fault, marks=[pytest.mark.fault(door, fault, outcome), pytest.mark.night])


@dataclass
class Exchange:
    """A request and the sandbox's response, which may be changed.

    Attributes:
        method: Of the request.
        path: Of the request, without query.
        number: Of the request among those of its method and path, from 1.
        status: Of the response.
        headers: Of the response; Content-Length is added to them unless it stands there.
        body: Of the response.
        cut: The connection is reset after so many bytes of the response; None to send all.
        piece: The response comes in pieces of so many bytes; 0 for one piece.
        between: Called before each piece.
    """

    method: str
    path: str
    number: int
    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    piece: int = 0
    between: Callable[[], object] = lambda: None

    @property
    def is_start(self) -> bool:
        """True if the request starts an export."""
        return self.path == "/users/export/segment"

    @property
    def is_download(self) -> bool:
        """True if the request is one for the export's file."""
        return self.path.endswith((".zip", ".gz"))

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Replace the response; `Retry_After="1"` is the header Retry-After."""
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def raw(self) -> bytes:
        """The whole response as it is sent."""
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} X\r\n{head}Connection: close\r\n\r\n".encode("latin-1") + self.body


class Front(Server):
    """A server that passes requests on to one of the sandbox's, and spoils the responses."""

    def __init__(self, spoil: Callable[[Exchange], object]) -> None:
        super().__init__()
        self.target = ""
        self.spoil = spoil
        self._numbers: Counter[tuple[str, str]] = Counter()
        self.answers = [self._pass_on]

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        target = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=30)
        target.request(handler.command, handler.path, self.seen[-1].body, dict(handler.headers))
        response = target.getresponse()
        path = urlsplit(handler.path).path
        self._numbers[handler.command, path] += 1
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_HEADERS}
        number = self._numbers[handler.command, path]
        exchange = Exchange(handler.command, path, number, response.status, headers, response.read())
        target.close()
        self.spoil(exchange)
        raw = exchange.raw[: exchange.cut]
        size = exchange.piece or len(exchange.raw)
        for start in range(0, len(raw), size):
            exchange.between()
            handler.wfile.write(raw[start : start + size])
        handler.close_connection = True
        if exchange.cut is not None:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            handler.connection.close()


class Trial:
    """Runs of the whole tap, over HTTP, against a sandbox whose responses are spoilt; a context manager.

    Args:
        folder: Receives the spool.
        spoil: Changes a response.
        lines: The lines of the export's files, in place of those of USERS.
        sandbox: Options of the sandbox.
        longest_run_minutes: No run may take longer.
        invented: braze_ids of users that are not in USERS.
        config: More settings.

    Attributes:
        runs: The runs so far.
    """

    def __init__(
        self,
        folder: Path,
        spoil: Callable[[Exchange], object] = lambda _: None,
        *,
        lines: list[list[bytes]] | None = None,
        sandbox: dict[str, Any] | None = None,
        longest_run_minutes: int = TIMEOUT_MINUTES + 2,
        invented: Iterable[str] = (),
        **config: Any,
    ) -> None:
        self._invented = set(invented)
        self._longest_run_seconds = longest_run_minutes * 60
        self.clock = FakeClock()
        self.runs: list[Run] = []
        self._folder = folder
        self._config = {"segment_ids": ["segment"], "export_timeout_minutes": TIMEOUT_MINUTES, **config}
        self._rest, self._store = Front(spoil), Front(spoil)
        self.sandbox = Sandbox(users=0, clock=lambda: self.clock.true_time, **(sandbox or {}))
        self.sandbox.add_segment("segment", files=lines or [LINES[:3], LINES[3:]])

    def __enter__(self) -> Self:
        self._rest.target, self._store.target = self.sandbox.api_url, self.sandbox.workspace.download_url
        self.sandbox.workspace.download_url = self._store.url
        for server in (self.sandbox, self._rest, self._store):
            server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._rest, self._store, self.sandbox):
            server.__exit__(None, None, None)

    @property
    def requests(self) -> list[Any]:
        """The requests that the fronts have received."""
        return [*self._rest.seen, *self._store.seen]

    def heal(self) -> None:
        """Spoil no more."""
        self._rest.spoil = self._store.spoil = lambda _: None
        self.sandbox.set_faults()

    def run(self, *, fails: bool = False, state: dict[str, Any] | None = None, **config: Any) -> Run:
        """Run the tap with the STATE of the last run, or another one, and judge what it says."""
        config = {**settings(self.sandbox, self._folder), "api_url": self._rest.url, **self._config, **config}
        began = self.clock.elapsed
        states = [state for run in self.runs for state in run.states]
        state = state or (states[-1] if states else None)
        run = sync(config, catalog=_CATALOG, state=state, clock=self.clock, fails=fails)
        self.runs.append(run)
        assert "Unforeseen" not in run.error
        assert "\n" not in run.error
        assert self.clock.elapsed - began <= self._longest_run_seconds
        said = "\n".join([run.error, *run.lines, json.dumps(run.states)])
        assert not [secret for secret in _SECRETS if secret in said]
        for row in run.rows("users"):
            assert row["braze_id"] in self._invented or _as_given(row) in _ALL, "a row that nobody sent"
        return run

    def delivers(self, users: Iterable[int] = range(len(USERS))) -> Run:
        """Run, and check that these users of USERS come, each once, with all that belongs to them."""
        run = self.run()
        assert sorted(map(_as_given, run.rows("users"))) == [_ALL[number] for number in users]
        assert sorted(row["braze_id"] for row in run.rows("apps")) == sorted(
            USERS[number]["braze_id"] for number in users
        )
        return run

    def fails(self, *words: str, **config: Any) -> Run:
        """Run, and check that it fails with one line that has these words."""
        run = self.run(fails=True, **config)
        assert all(word in run.error for word in words), run.error
        return run

    def recovers(self, *words: str, **config: Any) -> Run:
        """Run, and check that it fails, and that the run after it, unspoilt, completes what the loader has."""
        failed = self.fails(*words, **config)
        self.heal()
        run = self.run()
        loaded = {_as_given(row) for each in (failed, run) for row in each.rows("users")}
        assert sorted(loaded) == _ALL
        assert len(run.ids()) == len(set(run.ids()))
        return failed


def _as_given(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("braze_id", "first_name", "email"))


_ALL = [_as_given(user) for user in USERS]


def on(condition: Callable[[Exchange], bool], change: Callable[[Exchange], object]) -> Callable[[Exchange], None]:
    """Change the responses of some requests."""

    def spoil(exchange: Exchange) -> None:
        if condition(exchange):
            change(exchange)

    return spoil


def start(change: Callable[[Exchange], object]) -> Callable[[Exchange], None]:
    """Change the responses to requests for an export."""
    return on(lambda exchange: exchange.is_start, change)


def first_start(change: Callable[[Exchange], object]) -> Callable[[Exchange], None]:
    """Change the response to the first request for an export."""
    return on(lambda exchange: exchange.is_start and exchange.number == 1, change)


def download(change: Callable[[Exchange], object]) -> Callable[[Exchange], None]:
    """Change the responses of the store."""
    return on(lambda exchange: exchange.is_download, change)


def first_download(change: Callable[[Exchange], object]) -> Callable[[Exchange], None]:
    """Change the first response of the store."""
    return on(lambda exchange: exchange.is_download and exchange.number == 1, change)


def replies(status: int, body: bytes = b"", **headers: str) -> Callable[[Exchange], None]:
    """A response in place of the sandbox's; `Retry_After="1"` is the header Retry-After."""
    return lambda exchange: exchange.reply(status, body, **headers)


def delivers(content: bytes) -> Callable[[Exchange], None]:
    """The store delivers this file."""
    return download(lambda exchange: exchange.reply(200, content, ETag='"same"'))


def url(value: object) -> Callable[[Exchange], None]:
    """The response to a request for an export has this url."""

    def change(exchange: Exchange) -> None:
        exchange.body = json.dumps({**json.loads(exchange.body), "url": value}).encode()

    return start(change)


def cut(after: float) -> Callable[[Exchange], None]:
    """Reset the connection after this part of the response."""

    def change(exchange: Exchange) -> None:
        exchange.cut = int(after * len(exchange.raw))

    return change


def zipped(*contents: bytes, names: Iterable[str] = (), method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of members with these contents."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, content in zip(names or map(str, range(len(contents))), contents, strict=True):
            archive.writestr(name, content)
    return written.getvalue()


GOOD_ZIP = zipped(b"\n".join(LINES[:3]), b"\n".join(LINES[3:]))
GOOD_GZIP = gzip.compress(b"\n".join(LINES), mtime=0)
