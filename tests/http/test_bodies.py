"""Bodies of responses: read within limits, whatever the server sends; addresses of redirects that are none."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import requests

from tap_braze_export.http.session import OversizedBodyError, body_start, read_body
from tests.support.fakes import FakeClock, Server, endless
from tests.support.memory import less_memory_than

if TYPE_CHECKING:
    from tap_braze_export.http.session import Session

MIB = 2**20


def body(server: Server, session: Session, max_bytes: int = 1_000) -> bytes:
    """The body of the server's next response, within this limit."""
    response = session.get(server.url, stream=True, timeout=9)
    return read_body(response, max_bytes=max_bytes, max_seconds=60, clock=FakeClock())


def packed(content: bytes) -> tuple[int, dict[str, str], bytes]:
    """A response that is compressed on its way."""
    return 200, {"Content-Encoding": "gzip"}, gzip.compress(content)


@pytest.mark.parametrize("length", [0, 1, 999, 1_000])
def test_body_up_to_the_limit_is_read(server: Server, session: Session, length: int) -> None:
    server.answers = [(200, {}, b"x" * length), packed(b"x" * length)]

    assert [body(server, session), body(server, session)] == [b"x" * length] * 2


@pytest.mark.parametrize("length", [1_001, 100_000])
def test_longer_body_is_refused(server: Server, session: Session, length: int) -> None:
    server.answers = [(200, {}, b"x" * length), packed(b"x" * length)]

    for _ in range(2):
        with pytest.raises(OversizedBodyError, match=r"^the body is longer than 1000 bytes$"):
            body(server, session)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_endless_body_costs_no_memory(server: Server, session: Session, status: int) -> None:
    server.answers = [endless(status)]

    with less_memory_than(8 * MIB), pytest.raises(OversizedBodyError):
        body(server, session, max_bytes=MIB)


@pytest.mark.slow
def test_gzip_bomb_costs_no_memory(server: Server, session: Session) -> None:
    server.answers = [packed(bytes(200 * MIB))]

    with less_memory_than(16 * MIB), pytest.raises(OversizedBodyError):
        body(server, session, max_bytes=MIB)


def test_body_that_drips_ends_in_time(server: Server, session: Session) -> None:
    server.answers = [endless(200)]
    response = session.get(server.url, stream=True, timeout=9)

    with pytest.raises(OversizedBodyError, match=r"^the body was still coming in after 60 seconds$"):
        read_body(response, max_bytes=100 * MIB, max_seconds=60, clock=FakeClock(tick=20))


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Encoding": "br"}, b"x"),
        (200, {"Content-Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(b"x"))),
        (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(b"x")[:-1]),
        (200, {"Content-Length": "9", "Connection": "close"}, b"x"),
        (200, {"Transfer-Encoding": "chunked", "Connection": "close"}, b"no length\r\nx"),
    ],
)
def test_unreadable_body_is_an_error_of_requests(
    server: Server, session: Session, answer: tuple[int, dict[str, str], bytes]
) -> None:
    server.answers = [answer]

    with pytest.raises(requests.exceptions.RequestException):
        body(server, session)
    response = session.get(server.url, stream=True, timeout=9)
    assert body_start(response, max_bytes=9, max_seconds=60, clock=FakeClock()) in {b"", b"x"}


def test_beginning_of_a_body_is_read(server: Server, session: Session) -> None:
    server.answers = [packed(b"0123456789"), endless(500)]

    for expected in (b"0123", b"xxxx"):
        response = session.get(server.url, stream=True, timeout=9)
        assert body_start(response, max_bytes=4, max_seconds=60, clock=FakeClock()) == expected


def test_body_of_a_redirect_is_not_read(server: Server, session: Session) -> None:
    """The library would read it to its end, for the connection's sake."""
    server.answers = [endless(302, Location="/there"), (200, {}, b"there")]

    assert body(server, session) == b"there"


def test_body_of_a_redirect_that_is_not_followed_is_not_read(server: Server, session: Session) -> None:
    """Also then requests would read it."""
    server.answers = [endless(302, Location="/there")]

    with session.get(server.url, stream=True, timeout=9, allow_redirects=False) as response:
        assert response.status_code == 302


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://.bad..host./",
        "http://\xff\xfe/",
        "/\xff",
        "http://host:port/",
        "http://host:99999999/",
        "http://",
        "https:///",
        "file:///etc/passwd",
        "http://exa mple/",
        f"http://{'a' * 70}.example/",
        "http://\x01/",
        "http://[v1.x]/",
        "http://1.2.3.4.5:0/",
    ],
)
@pytest.mark.parametrize("allow_redirects", [True, False])
def test_redirect_to_no_address_is_an_error_of_requests(
    server: Server, session: Session, address: str, *, allow_redirects: bool
) -> None:
    server.answers = [(302, {"Location": address}, b"")]

    try:
        session.get(server.url, stream=True, timeout=2, allow_redirects=allow_redirects).close()
    except requests.exceptions.RequestException:
        return
    assert not allow_redirects


@pytest.mark.parametrize("url", ["http://[::1", "http://\ud800.example/", "http://.a..b/", "\ud800", "http://\x00/"])
def test_own_address_that_is_none_is_an_error_of_requests(session: Session, url: str) -> None:
    with pytest.raises(requests.exceptions.RequestException):
        session.get(url, timeout=2)
