"""Stand-ins for what is behind the doors: a Braze that gives scripted answers, one that refuses, a socket, a file."""

from __future__ import annotations

import io
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests.adapters
import urllib3
from typing_extensions import override

from tap_braze_export.braze.callback import _Request
from tap_braze_export.errors import BrazeError
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from tap_braze_export.braze.callback import Callbacks

BETWEEN_ANSWERS = b"\n\x1e\n"
"""Stands between two answers of `ScriptedAnswers`."""
_WAITS = 6
_REQUESTS = 30
_STATUS = re.compile("[0-9]{3}")


class _Answer:
    """An answer that is written as text: a number and a status, headers, an empty line, and the body."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\n\n")
        first, *lines = head.decode("latin-1").split("\n")
        number, _, status = first.partition(" ")
        self.number = sum(number.encode("latin-1"))
        self.status = int(status) if _STATUS.fullmatch(status) else 200
        pairs = (line.partition(":") for line in lines)
        self.headers = {name: value.strip() for name, _, value in pairs if name.isascii() and name.isprintable()}


class ScriptedAnswers(requests.adapters.HTTPAdapter):
    """Gives requests these answers in order, then the last one again and again, and 404 after thirty requests.

    Attributes:
        number: The number in the first line, which the target uses.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._requests = 0
        self._answers = [_Answer(part) for part in data.split(BETWEEN_ANSWERS)]
        self.number = self._answers[0].number

    def mount(self, session: requests.Session) -> None:
        """Let a session send everything here."""
        for scheme in ("https://", "http://"):
            session.mount(scheme, self)

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        answer = self._answers[min(self._requests, len(self._answers) - 1)]
        self._requests += 1
        goes_on = self._requests <= _REQUESTS
        response = urllib3.HTTPResponse(
            body=io.BytesIO(answer.body),
            headers=answer.headers if goes_on else {},
            status=answer.status if goes_on else HTTPStatus.NOT_FOUND,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, response)


class StoppedAfterWaits(FakeClock):
    """A clock of a run that is told to end after some waits, so that a target is fast."""

    @override
    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.told_to_end = len(self.slept) >= _WAITS


class _Refusing:
    """A client of Braze without Braze."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise BrazeError("refused", 400)

        return refuse


def unanswered() -> Any:
    """A client of Braze whose every call is refused."""
    return _Refusing()


class Caller:
    """A connection of one that calls the callback listener: what it sends, and a buffer for the response."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sent = io.BytesIO()

    def makefile(self, *_: object) -> io.BufferedReader:
        """Return what the caller sends."""
        return io.BufferedReader(io.BytesIO(self._data))

    def sendall(self, data: bytes) -> None:
        """Keep the response."""
        self._sent.write(data)

    def respond(self, callbacks: Callbacks) -> bytes:
        """Let the listener respond."""
        _Request(self, ("127.0.0.1", 1), _Listener(callbacks))  # type: ignore[arg-type]
        return self._sent.getvalue()


class _Listener:
    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks

    def prefer(self, caller: object) -> None:
        """Do nothing: there is one caller only."""


def named(data: bytes, name: str) -> Any:
    """An opened text file with this content, as click opens it."""
    file = io.TextIOWrapper(_Named(data), encoding="utf-8", errors="surrogateescape")
    file.buffer.name = name
    return file


class _Named(io.BytesIO):
    name = ""
