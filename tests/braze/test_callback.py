"""The callback listener, spoken to over real sockets."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from tap_braze_export.braze.callback import Callbacks, new_token
from tap_braze_export.errors import ConfigError
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "https://tap.example.com/hooks/braze"
TOKEN = "t" * 32


@contextmanager
def listening(seconds: float = 10.0, url: str = URL) -> Iterator[tuple[Callbacks, str]]:
    """A listener that expects one callback, and its address."""
    listen = f"127.0.0.1:{free_port()}"
    with Callbacks(url, listen, seconds=seconds) as callbacks:
        callbacks.expect(TOKEN)
        yield callbacks, f"http://{listen}"


@pytest.fixture
def callbacks() -> Iterator[tuple[Callbacks, str]]:
    with listening() as started:
        yield started


def connected(address: str) -> socket.socket:
    """A connection that has sent nothing yet."""
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


# The address that Braze is given


def test_token_is_added() -> None:
    """To the query that is there."""
    assert Callbacks(URL, None).endpoint(TOKEN) == f"{URL}?token={TOKEN}"
    assert Callbacks(f"{URL}?team=data#top", None).endpoint(TOKEN) == f"{URL}?team=data&token={TOKEN}#top"


def test_token_cannot_be_guessed() -> None:
    """Each is new, of 192 random bits, in characters that need no escape in an address."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {32}
    assert all(token.replace("-", "").replace("_", "").isalnum() for token in tokens)


def test_without_callback_url_nothing_is_sent_or_received() -> None:
    callbacks = Callbacks(None, None)
    assert callbacks.endpoint(TOKEN) is None
    assert not callbacks.received(TOKEN)


# Responses


def test_callback(callbacks: tuple[Callbacks, str]) -> None:
    """The right path and token with success true: the export is complete."""
    listener, address = callbacks
    assert not listener.received(TOKEN)
    response = requests.post(f"{address}/hooks/braze?token={TOKEN}", json={"success": True, "url": "x"}, timeout=5)
    assert response.status_code == 200
    assert listener.received(TOKEN)
    assert not listener.received("")


@pytest.mark.parametrize("path", ["/braze", "/hooks/braze"])
def test_proxy_may_cut_the_start_of_the_path(callbacks: tuple[Callbacks, str], path: str) -> None:
    listener, address = callbacks
    assert requests.post(f"{address}{path}?token={TOKEN}", json={"success": True}, timeout=5).status_code == 200
    assert listener.received(TOKEN)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/hooks/braze"),
        ("POST", "/hooks/braze?token="),
        ("POST", f"/hooks/braze?token={TOKEN[:-1]}u"),
        ("POST", f"/hooks/braze?token={TOKEN}x"),
        ("POST", f"/hooks/braze?token={TOKEN}&token=other"),
        ("POST", f"/hooks/braze/more?token={TOKEN}"),
        ("POST", f"/other?token={TOKEN}"),
        ("POST", f"/?token={TOKEN}"),
        ("GET", f"/hooks/braze?token={TOKEN}"),
        ("PUT", f"/hooks/braze?token={TOKEN}"),
        ("HEAD", f"/hooks/braze?token={TOKEN}"),
        ("DELETE", f"/hooks/braze?token={TOKEN}"),
        ("NONSENSE", f"/hooks/braze?token={TOKEN}"),
    ],
)
def test_anything_else_is_not_found(callbacks: tuple[Callbacks, str], method: str, path: str) -> None:
    """Wrong token, path or method: 404 without a body, and nothing is received."""
    listener, address = callbacks
    response = requests.request(method, address + path, json={"success": True}, timeout=5)
    assert (response.status_code, response.content) == (404, b"")
    assert "Python" not in response.headers["Server"]
    assert not listener.received(TOKEN)


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"\x00\xff", b"[]", b"{}", b'{"success":"yes"}', b'{"success":null}', b"[" * 50_000]
)
def test_junk(callbacks: tuple[Callbacks, str], body: bytes) -> None:
    """A body that does not say success is refused, and the listener goes on."""
    listener, address = callbacks
    url = f"{address}/hooks/braze?token={TOKEN}"
    assert requests.post(url, data=body, timeout=5).status_code == 400
    assert not listener.received(TOKEN)
    assert requests.post(url, json={"success": True}, timeout=5).status_code == 200


def test_success_false(callbacks: tuple[Callbacks, str]) -> None:
    """It is accepted, but is no completion."""
    listener, address = callbacks
    url = f"{address}/hooks/braze?token={TOKEN}"
    assert requests.post(url, json={"success": False}, timeout=5).status_code == 200
    assert not listener.received(TOKEN)


@pytest.mark.parametrize("length", ["65537", "999999999999999999999", "-1", "1e3", "²", ""])
def test_oversized_body_is_not_read(callbacks: tuple[Callbacks, str], length: str) -> None:
    """The announced length decides, before anything is read."""
    listener, address = callbacks
    head = f"POST /hooks/braze?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with connected(address) as client:
        client.sendall(head.encode())
        assert client.recv(100).split()[1] == b"400"
    assert not listener.received(TOKEN)


def test_no_http_at_all(callbacks: tuple[Callbacks, str]) -> None:
    _, address = callbacks
    with connected(address) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert client.recv(100).split()[1:2] in ([b"404"], [])


# Slow callers


def test_slow_caller_does_not_hold_up_others(callbacks: tuple[Callbacks, str]) -> None:
    """Several that say nothing, and the callback is received all the same."""
    listener, address = callbacks
    slow = [connected(address) for _ in range(10)]
    try:
        for client in slow[:5]:
            client.sendall(b"POST /hooks/braze?tok")
        url = f"{address}/hooks/braze?token={TOKEN}"
        assert requests.post(url, json={"success": True}, timeout=5).status_code == 200
    finally:
        for client in slow:
            client.close()
    assert listener.received(TOKEN)


@pytest.mark.parametrize("dripping", [False, True])
def test_slow_caller_is_cut_off(*, dripping: bool) -> None:
    """After its seconds, also if a byte comes now and then."""
    with listening(seconds=0.3) as (_, address), connected(address) as client:
        client.sendall(f"POST /hooks/braze?token={TOKEN} HTTP/1.1\r\nContent-Length: 60000\r\n\r\n".encode())
        client.settimeout(0.05 if dripping else 5)
        ended = False
        for _ in range(100):
            try:
                ended = client.recv(1) in (b"", b"H")
            except TimeoutError:
                client.sendall(b" ")
            except ConnectionError:
                ended = True
            if ended:
                break
        assert ended


def test_not_too_many_at_a_time() -> None:
    """The descriptors of the run are its own: when one comes while 64 are connected, the oldest is cut off."""
    with listening() as (_, address):
        callers = [connected(address) for _ in range(66)]
        try:
            assert [client.recv(1) for client in callers[:2]] == [b"", b""]
            callers[2].sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert callers[2].recv(12) == b"HTTP/1.1 404"
        finally:
            for client in callers:
                client.close()


@pytest.mark.parametrize("idle", [64, 300])
def test_idle_callers_do_not_keep_the_callback_out(callbacks: tuple[Callbacks, str], idle: int) -> None:
    """However many hold connections, and however many come while Braze sends its body."""
    listener, address = callbacks
    callers = [connected(address) for _ in range(idle)]
    try:
        with connected(address) as braze:
            head = f"POST /hooks/braze?token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\nExpect: 100-continue"
            braze.sendall(f"{head}\r\n\r\n".encode())
            assert braze.recv(100).startswith(b"HTTP/1.1 100 ")
            callers += [connected(address) for _ in range(60)]
            braze.sendall(b'{"success":true}')
            assert braze.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        for client in callers:
            client.close()
    assert listener.received(TOKEN)


# The port


@pytest.mark.parametrize("listen", ["127.0.0.1:http", "127.0.0.1:99999", "no.such.host.invalid:1", "8080"])
def test_port_that_cannot_be_listened_on(listen: str) -> None:
    """A configuration error that names the setting."""
    with pytest.raises(ConfigError, match=r"^callback_listen .* cannot be listened on"), Callbacks(URL, listen):
        pass


def test_port_in_use(callbacks: tuple[Callbacks, str]) -> None:
    _, address = callbacks
    with (
        pytest.raises(ConfigError, match="cannot be listened on"),
        Callbacks(URL, address.removeprefix("http://")),
    ):
        pass


def test_port_is_free_afterwards() -> None:
    with listening() as (_, address):
        pass
    with pytest.raises(ConnectionRefusedError):
        connected(address)
