"""Heads of responses and lines around chunks are limited: in bytes and in time, whatever an endless server sends."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import requests

from tap_braze_export.clock import Clock
from tap_braze_export.http.session import read_body
from tests.support.memory import less_memory_than

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

    from tap_braze_export.http.session import Session
    from tests.support.fakes import Server

CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\nX-Filler: " + b"x" * 1000 + b"\r\n\r\n"
SECONDS = 0.2


def sends(pieces: Callable[[], Iterator[bytes]]) -> Callable[[BaseHTTPRequestHandler], None]:
    """A response of these bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        for piece in pieces():
            handler.wfile.write(piece)

    return answer


def slowly(start: bytes, line: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """A response that after its start comes byte by byte, each in good time, and never ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.settimeout(SECONDS / 4)
        handler.wfile.write(start)
        for byte in itertools.cycle(line):
            handler.wfile.write(bytes([byte]))
            try:
                handler.connection.recv(1)  # the client sends nothing: this is a pause, and its end if it hangs up
            except TimeoutError:
                continue
            return

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(sends(lambda: itertools.repeat(CONTINUE)), id="interim responses"),
        pytest.param(sends(lambda: itertools.repeat(b"\r\n" * 1000)), id="empty lines"),
        pytest.param(sends(lambda: itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"O" * 1000))), id="status"),
        pytest.param(
            sends(lambda: itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X-Filler: x\r\n"))), id="headers"
        ),
        pytest.param(slowly(b"HTTP/1.1 200 ", b"O"), id="a drip"),
    ],
)
@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.fault(
    "Braze's answers", "interim responses or a head without an end", "a broken connection, tried again within limits"
)
def test_head_without_an_end_is_a_broken_connection(
    server: Server, session: Session, answer: Callable[[BaseHTTPRequestHandler], None], *, proxied: bool
) -> None:
    """Also through a proxy, whose connections are made elsewhere."""
    server.answers = [answer]
    proxies = {"http": server.url} if proxied else {}
    url = "http://braze.example" if proxied else server.url

    with less_memory_than(8 * 2**20), pytest.raises(requests.exceptions.ConnectionError):
        session.get(url, timeout=SECONDS, proxies=proxies)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(slowly(CHUNK, b"0"), id="a chunk's size that drips"),
        pytest.param(slowly(CHUNK + b"2", b";x"), id="a chunk's extension that drips"),
        pytest.param(slowly(CHUNK + b"0\r\n", b"X: 1\r\n"), id="trailers that drip"),
        pytest.param(
            sends(lambda: itertools.chain([CHUNK + b"0\r\n"], itertools.repeat(b"X-Filler: x\r\n" * 1000))),
            id="trailers",
        ),
    ],
)
@pytest.mark.fault(
    "Braze's answers", "chunk sizes or trailers without an end", "a broken connection, tried again within limits"
)
def test_lines_around_chunks_without_an_end_are_a_broken_connection(
    server: Server, session: Session, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    """Nothing of the body comes meanwhile, so no limit of the body ends it."""
    server.answers = [answer]

    response = session.get(server.url, timeout=SECONDS, stream=True)

    with less_memory_than(8 * 2**20), pytest.raises(requests.exceptions.ChunkedEncodingError):
        read_body(response, max_bytes=1000, max_seconds=60, clock=Clock())


def test_chunks_with_extensions_and_trailers_are_read(server: Server, session: Session) -> None:
    server.answers = [sends(lambda: iter([CHUNK + b"3;name=value\r\n[1]\r\n0\r\nX-Checksum: 1\r\n\r\n"]))]

    response = session.get(server.url, timeout=9, stream=True)

    assert read_body(response, max_bytes=1000, max_seconds=60, clock=Clock()) == b"{}[1]"


def test_interim_responses_are_passed_over(server: Server, session: Session) -> None:
    """A few of them are legal."""
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Long: " + b"y" * 60_000 + b"\r\n\r\nbody"
    server.answers = [sends(lambda: iter([CONTINUE * 50 + final[:70], final[70:]]))]

    response = session.get(server.url, timeout=9)

    assert response.content == b"body"
    assert len(response.headers["X-Long"]) == 60_000
    assert server.seen[0].method == "GET"
