"""Callbacks as proxies hand them on: chunked, with Expect, to absolute targets, in HTTP/1.0; within limits."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from tap_braze_export.braze.callback import Callbacks
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TOKEN = "t" * 32
TARGET = f"/hooks/braze?token={TOKEN}"
BODY = b'{"success": true}'
CHUNKED = "Transfer-Encoding: chunked\r\n"
WHOLE = b"11\r\n" + BODY + b"\r\n0\r\n\r\n"


@contextmanager
def listening(seconds: float = 10.0) -> Iterator[tuple[Callbacks, int]]:
    """A listener that expects one callback, and its port."""
    port = free_port()
    with Callbacks("https://tap.example.com/hooks/braze", f"127.0.0.1:{port}", seconds=seconds) as callbacks:
        callbacks.expect(TOKEN)
        yield callbacks, port


@pytest.fixture
def callbacks() -> Iterator[tuple[Callbacks, int]]:
    with listening() as started:
        yield started


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def read_status(client: socket.socket) -> int:
    """The status of the next response, read with its head."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := client.recv(1)):
        head += byte
    return int(head.split()[1])


def status_of(port: int, head: str, body: bytes = b"") -> int:
    """The status of a request that is written as it is; the connection stays open while it is waited for."""
    with connected(port) as client:
        client.sendall(head.encode() + b"\r\n" + body)
        return read_status(client)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "target",
    [
        *(TARGET, f"http://tap.example.com{TARGET}", f"https://tap.example.com:8443{TARGET}", f"HTTP://TAP{TARGET}"),
        *(f"http://user@[::1]:80{TARGET}", f"/{TARGET}", f"/braze?token={TOKEN}", f"{TARGET}&via=proxy"),
    ],
)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (f"Content-Length: {len(BODY)}\r\n", BODY),
        (f"Transfer-Encoding: identity\r\nContent-Length: {len(BODY)}\r\n", BODY),
        (CHUNKED, WHOLE),
    ],
)
def test_callback_of_a_proxy_is_received(
    callbacks: tuple[Callbacks, int], *, version: str, target: str, headers: str, body: bytes
) -> None:
    listener, port = callbacks

    assert status_of(port, f"POST {target} HTTP/{version}\r\nHost: tap\r\n{headers}", body) == 200
    assert listener.received(TOKEN)


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        b"5\r\n" + BODY[:5] + b"\r\nC\r\n" + BODY[5:] + b"\r\n0\r\n\r\n",
        b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
        b"0011;name=value\r\n" + BODY + b"\r\n000\r\nX-Trailer: 1\r\nY: 2\r\n\r\n",
        b"11\n" + BODY + b"\n0\n\n",
        b"fff1\r\n" + BODY + b" " * 65_504 + b"\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("headers", [CHUNKED, "transfer-encoding: Chunked \r\nContent-Length: 3\r\n"])
def test_chunks_are_put_together(callbacks: tuple[Callbacks, int], headers: str, body: bytes) -> None:
    """However the body is cut; a length beside them does not count."""
    listener, port = callbacks

    assert status_of(port, f"POST {TARGET} HTTP/1.1\r\nHost: tap\r\n{headers}", body) == 200
    assert listener.received(TOKEN)


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
@pytest.mark.parametrize(("headers", "body"), [(f"Content-Length: {len(BODY)}\r\n", BODY), (CHUNKED, WHOLE)])
def test_who_asks_first_is_told_to_go_on(
    callbacks: tuple[Callbacks, int], expect: str, headers: str, body: bytes
) -> None:
    listener, port = callbacks
    with connected(port) as client:
        client.sendall(f"POST {TARGET} HTTP/1.1\r\nHost: tap\r\nExpect: {expect}\r\n{headers}\r\n".encode())
        assert read_status(client) == 100
        client.sendall(body)
        assert read_status(client) == 200
    assert listener.received(TOKEN)


def test_body_generated_by_a_client_library_is_received(callbacks: tuple[Callbacks, int]) -> None:
    """It sends chunks, as it does not know the length."""
    listener, port = callbacks
    url = f"http://127.0.0.1:{port}{TARGET}"

    assert requests.post(url, data=iter([BODY[:4], BODY[4:]]), timeout=5).status_code == 200
    assert listener.received(TOKEN)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (CHUNKED, b"xyz\r\n"),
        (CHUNKED, b"-1\r\n"),
        (CHUNKED, b"+11\r\n" + BODY),
        (CHUNKED, b"0x11\r\n" + BODY),
        (CHUNKED, b"\r\n\r\n"),
        (CHUNKED, b"0\r\n\r\n"),
        (CHUNKED, b"11\r\n" + BODY + b"trailing\r\n0\r\n\r\n"),
        (CHUNKED, b"10001\r\n"),
        (CHUNKED, b"ffffffffffffffffffff\r\n"),
        (CHUNKED, b"8000\r\n" + b" " * 32_768 + b"\r\n8001\r\n"),
        (CHUNKED, b"1;" + b"x" * 524_290),
        (CHUNKED, (b"1;" + b"x" * 5_000 + b"\r\n \r\n") * 200),
        ("Transfer-Encoding: gzip, chunked\r\n", WHOLE),
        ("Transfer-Encoding: gzip\r\nContent-Length: 17\r\n", BODY),
        ("", BODY),
        ("Content-Length: 65537\r\n", b"{" * 65_537),
    ],
)
def test_bodies_that_are_too_large_or_no_http_are_refused(
    callbacks: tuple[Callbacks, int], headers: str, body: bytes
) -> None:
    """Without waiting for the rest, and the listener goes on."""
    listener, port = callbacks
    with connected(port) as client:
        client.sendall(f"POST {TARGET} HTTP/1.1\r\nHost: tap\r\n{headers}\r\n".encode())
        try:
            client.sendall(body)
            assert read_status(client) == 400
        except (ConnectionError, IndexError):
            pass  # refused while the rest was being sent
    assert not listener.received(TOKEN)
    assert status_of(port, f"POST {TARGET} HTTP/1.1\r\n{CHUNKED}", WHOLE) == 200


@pytest.mark.parametrize(
    "body", [b"", b"11\r\n", b"11\r\n" + BODY[:5], b"11\r\n" + BODY + b"\r\n", b"1", BODY[:-1]], ids=range(6)
)
@pytest.mark.parametrize("headers", [CHUNKED, "Content-Length: 17\r\n", ""], ids=["chunked", "length", "neither"])
def test_body_that_does_not_end_is_cut_off(headers: str, body: bytes) -> None:
    """After the seconds that a caller has."""
    with listening(seconds=0.3) as (listener, port), connected(port) as client:
        client.sendall(f"POST {TARGET} HTTP/1.1\r\nHost: tap\r\n{headers}\r\n".encode() + body[:16])
        assert client.recv(1) in (b"", b"H")
        assert not listener.received(TOKEN)


@pytest.mark.parametrize("target", ["http://[bad/hooks", "*", "http://", "//", "http://tap?token=" + TOKEN])
def test_targets_that_are_no_address_are_not_found(callbacks: tuple[Callbacks, int], target: str) -> None:
    _, port = callbacks

    assert status_of(port, f"POST {target} HTTP/1.1\r\nContent-Length: 17\r\n", BODY) == 404
