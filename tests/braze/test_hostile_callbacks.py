"""Whatever callers send to the callback listener: only Braze's word with the token counts, and the listener goes on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_braze_export.braze.callback import Callbacks
from tests.support.hostile import few_examples, odd_variants, one_of
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

URL, TOKEN = "http://tap.example.com/hooks", "t" * 32
GOOD_HEAD = f"POST /hooks?token={TOKEN} HTTP/1.1\r\nHost: x\r\n"
HEADERS = st.lists(
    one_of(
        [
            *("Content-Length: 16", "Content-Length: -1", f"Content-Length: {'9' * 5_000}", "Content-Length: 1e3"),
            *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Expect: 100-continue", "Expect: \xff"),
            *("Connection: keep-alive", f"X: {'y' * 70_000}", "no header", ": x", "\x00: \x00", "Host: [::1"),
        ]
    ),
    max_size=4,
)
HEADS = one_of(
    [
        *(GOOD_HEAD, f"POST //[::1?token={TOKEN} HTTP/1.1\r\n", f"POST http://[::1/hooks?token={TOKEN} HTTP/9.9\r\n"),
        *("POST /hooks?token=%00%ff HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "\r\n\r\n", "POST\r\n", "P" * 70_000),
        *(
            "PRI * HTTP/2.0\r\n\r\nSM",
            f"POST /hooks?{'&' * 2_000}token={TOKEN} HTTP/1.1\r\n",
            "POST / HTTP/1.\u00b2\r\n",
        ),
    ]
)
BODIES = st.one_of(
    odd_variants({"success": False, "url": "https://store.example.org/a.zip"}).map(str.encode),
    st.binary(max_size=50),
    st.sampled_from([b"10\r\n", b"0\r\n\r\n", b"fffffffff\r\n", b"5;x=y\r\nhello\r\n"]),
)


@pytest.fixture(scope="module")
def listen() -> Iterator[tuple[Callbacks, int]]:
    """A listener that expects one callback and gives callers little time, and its port."""
    port = free_port()
    with Callbacks(URL, f"127.0.0.1:{port}", seconds=0.3) as callbacks:
        callbacks.expect(TOKEN)
        yield callbacks, port


def call(port: int, sent: bytes) -> bytes:
    """All that the listener answers to these bytes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1_000):
                received += piece
        except TimeoutError:
            raise
        except OSError:  # the listener has closed the connection
            pass
    return received


@few_examples
@given(head=HEADS, headers=HEADERS, body=BODIES)
def test_whatever_a_caller_sends_the_listener_goes_on(
    listen: tuple[Callbacks, int], head: str, headers: list[str], body: bytes
) -> None:
    callbacks, port = listen
    sent = (head + "".join(f"{header}\r\n" for header in headers) + "\r\n").encode("latin-1") + body

    answer = call(port, sent)

    assert len(answer) < 1_000
    assert not callbacks.received(TOKEN) or b'"success": true' in body or b'"success":true' in body
    assert call(port, b"POST / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_a_version_without_status_is_refused(listen: tuple[Callbacks, int]) -> None:
    """Nobody could be told that the callback was received; found by `make fuzz`."""
    callbacks, port = listen
    body = b'{"success": true}'
    head = GOOD_HEAD.replace("HTTP/1.1", "HTTP/0.9").encode()

    assert call(port, head + b"Content-Length: 17\r\n\r\n" + body) == b""
    assert not callbacks.received(TOKEN)
