"""The fault matrix, Braze's answers: a whole run over HTTP gives the same rows, or one line and the next run does."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from isal import igzip

from tests.support.fakes import Server
from tests.support.faults import Trial, cut, first_start, night_row, replies, row, start, url
from tests.support.night import at_night
from tests.support.tls import TlsServer, set_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faults import Exchange

    Spoil = Callable[[Exchange], object]

pytestmark = pytest.mark.slow

ANSWERS = "Braze's answers"
SAME = "the same rows"
LINE = "one line; the next run gives the same rows"
BOMB = igzip.compress(b" " * 50_000_000)
PAGE = b"<html><body><h1>Sorry</h1>somebody1@planted.example.com</body></html>"


def changed(**members: Any) -> Spoil:
    """The response to a request for an export has other members."""

    def change(exchange: Exchange) -> None:
        exchange.body = json.dumps({**json.loads(exchange.body), **members}).encode()

    return change


def without(member: str) -> Spoil:
    """The response to a request for an export lacks a member."""

    def change(exchange: Exchange) -> None:
        exchange.body = json.dumps({k: v for k, v in json.loads(exchange.body).items() if k != member}).encode()

    return change


@pytest.mark.parametrize("part", at_night([0, 0.02, 0.3, 0.6, 0.99], but=[0.02, 0.6]))
@pytest.mark.fault(ANSWERS, "connection reset after any part of the answer that starts an export", SAME)
def test_answer_that_breaks_off(tmp_path: Path, part: float) -> None:
    """Braze has started the export, and the tap cannot know it."""
    with Trial(tmp_path, first_start(cut(part))) as trial:
        trial.delivers()


@pytest.mark.parametrize(
    "spoil",
    [
        night_row(ANSWERS, "429 with Retry-After", SAME, first_start(replies(429, b"{}", Retry_After="7"))),
        row(ANSWERS, "429 without any header", SAME, first_start(replies(429, b"{}"))),
        night_row(ANSWERS, "429 with an HTML page", SAME, first_start(replies(429, PAGE))),
        row(
            ANSWERS,
            "429 with a limit that is used up",
            SAME,
            first_start(replies(429, b"{}", X_RateLimit_Remaining="0", X_RateLimit_Reset="1800000030")),
        ),
        night_row(
            ANSWERS,
            "429 with a reset in milliseconds",
            SAME,
            first_start(replies(429, b"{}", X_RateLimit_Remaining="0", X_RateLimit_Reset="1800000030000")),
        ),
        night_row(
            ANSWERS,
            "429 with a reset in seconds left",
            SAME,
            first_start(replies(429, b"{}", X_RateLimit_Remaining="0", X_RateLimit_Reset="30")),
        ),
        night_row(ANSWERS, "429 with Retry-After: nan", SAME, first_start(replies(429, b"{}", Retry_After="nan"))),
        night_row(ANSWERS, "429 with Retry-After: inf", SAME, first_start(replies(429, b"{}", Retry_After="inf"))),
        night_row(ANSWERS, "429 with Retry-After: -1", SAME, first_start(replies(429, b"{}", Retry_After="-1"))),
        night_row(
            ANSWERS,
            "429 from a Braze whose clock is an hour behind",
            SAME,
            first_start(
                replies(
                    429,
                    b"{}",
                    Date="Fri, 15 Jan 2027 07:00:00 GMT",
                    X_RateLimit_Remaining="0",
                    X_RateLimit_Reset="1799996430",
                )
            ),
        ),
        night_row(
            ANSWERS,
            "429 from a Braze whose clock is an hour ahead",
            SAME,
            first_start(
                replies(
                    429,
                    b"{}",
                    Date="Fri, 15 Jan 2027 09:00:00 GMT",
                    X_RateLimit_Remaining="0",
                    X_RateLimit_Reset="1800003630",
                )
            ),
        ),
        row(ANSWERS, "200 or 202 in place of 201", SAME, start(lambda exchange: setattr(exchange, "status", 200))),
        night_row(ANSWERS, "members that nobody documents", SAME, start(changed(eta=None, more=[{"a": 1}]))),
        night_row(
            ANSWERS,
            "a byte order mark before the JSON",
            SAME,
            start(lambda e: setattr(e, "body", b"\xef\xbb\xbf" + e.body)),
        ),
    ],
)
def test_answer_that_does_not_matter(tmp_path: Path, spoil: Spoil) -> None:
    """The run waits where it has to."""
    with Trial(tmp_path, spoil) as trial:
        trial.delivers()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        night_row(ANSWERS, "always 500 with an HTML page", LINE, start(replies(500, PAGE)), "500"),
        night_row(ANSWERS, "always 502 with an HTML page", LINE, start(replies(502, PAGE)), "502"),
        row(ANSWERS, "always 503 with an HTML page", LINE, start(replies(503, PAGE)), "503"),
        night_row(ANSWERS, "always 504 with an HTML page", LINE, start(replies(504, PAGE)), "504"),
        night_row(ANSWERS, "400 with a message that repeats personal data", LINE, start(replies(400, PAGE)), "400"),
        row(ANSWERS, "401", LINE, start(replies(401, b'{"message":"Invalid API key: sandbox-key"}')), "api_key"),
        night_row(ANSWERS, "403", LINE, start(replies(403, PAGE)), "users.export.segment"),
        night_row(ANSWERS, "404 with an HTML page", LINE, start(replies(404, PAGE)), "api_url"),
        night_row(
            ANSWERS,
            "a redirect to another address",
            LINE,
            start(replies(302, PAGE, Location="http://127.0.0.1:9/x?token=X-Amz-y")),
            "302",
        ),
        night_row(ANSWERS, "201 with an HTML page", LINE, start(replies(201, PAGE)), "JSON"),
        night_row(ANSWERS, "an error page of 50 MB", LINE, start(replies(400, PAGE * 600_000)), "400"),
        night_row(
            ANSWERS,
            "an answer of 50 MB that is a gzip bomb",
            LINE,
            start(replies(201, BOMB, Content_Encoding="gzip")),
            "",
        ),
        night_row(ANSWERS, "201 without a body", LINE, start(replies(201)), "JSON"),
        row(ANSWERS, "201 with half of the JSON", LINE, start(lambda e: setattr(e, "body", e.body[:40])), "JSON"),
        night_row(ANSWERS, "201 with a list", LINE, start(replies(201, b"[1]")), "JSON"),
        night_row(ANSWERS, "201 with invalid UTF-8", LINE, start(replies(201, b'{"object_prefix":"\xff"}')), ""),
        night_row(
            ANSWERS,
            "201 with 100,000 brackets",
            LINE,
            start(replies(201, b'{"object_prefix":' + b"[" * 100_000)),
            "JSON",
        ),
        night_row(
            ANSWERS,
            "201 with an integer of 5,000 digits",
            LINE,
            start(lambda e: setattr(e, "body", b'{"object_prefix":%s}' % (b"1" * 5000))),
            "",
        ),
        row(ANSWERS, "answer without object_prefix", LINE, start(without("object_prefix")), "object_prefix"),
        row(ANSWERS, "object_prefix that is a path", LINE, start(changed(object_prefix="../../etc")), "object_prefix"),
        night_row(
            ANSWERS, "object_prefix that is no text", LINE, start(changed(object_prefix={"a": 1})), "object_prefix"
        ),
        row(ANSWERS, "url is null, and no bucket is set", LINE, url(None), "bucket_url"),
        night_row(ANSWERS, "url is absent, and no bucket is set", LINE, start(without("url")), "bucket_url"),
        night_row(ANSWERS, "url is empty, and no bucket is set", LINE, url(""), "bucket_url"),
        night_row(ANSWERS, "url is no text", LINE, url({"href": "x"}), "url"),
        row(ANSWERS, "url is a local file", LINE, url("file:///etc/passwd"), "url"),
        night_row(ANSWERS, "url has no scheme", LINE, url("//127.0.0.1/x.zip"), "url"),
        night_row(ANSWERS, "url is no address: http://[::1", LINE, url("http://[::1"), ""),
        night_row(ANSWERS, "url has an impossible host", LINE, url("http://.bad..host./a.zip"), ""),
        night_row(ANSWERS, "url has an impossible port", LINE, url("http://127.0.0.1:99999999/a.zip"), ""),
        night_row(ANSWERS, "url holds a lone surrogate", LINE, url("http://127.0.0.1:9/\ud800.zip"), ""),
        night_row(ANSWERS, "url holds control characters", LINE, url("http://127.0.0.1:9/a\r\nb.zip"), ""),
    ],
)
def test_answer_that_is_refused(tmp_path: Path, spoil: Spoil, told: str) -> None:
    """The run says what is wrong, and what Braze started is finished or replaced by the next run."""
    with Trial(tmp_path, spoil) as trial:
        trial.recovers(told)


@pytest.mark.fault(ANSWERS, "an answer that drips in for ten minutes", SAME)
def test_answer_that_drips(tmp_path: Path) -> None:
    """A minute passes before each tenth of it."""

    def drip(exchange: Exchange) -> None:
        exchange.piece = len(exchange.raw) // 10
        exchange.between = lambda: trial.clock.sleep(60)

    with Trial(tmp_path, first_start(drip)) as trial:
        trial.delivers()


@pytest.mark.fault(ANSWERS, "429 without end", "one line after three hours at most; the next run gives the same rows")
def test_endless_rate_limit(tmp_path: Path) -> None:
    with Trial(tmp_path, start(replies(429, b"{}", Retry_After="900")), longest_run_minutes=200) as trial:
        trial.recovers("rate limit")


@pytest.mark.fault(ANSWERS, "connection refused", LINE)
def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with Trial(tmp_path) as trial:
        trial.recovers("connection refused", api_url=address)


@pytest.mark.fault(ANSWERS, "a certificate that nobody trusts", LINE)
def test_untrusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch)
    with TlsServer() as server, Trial(tmp_path) as trial:
        trial.recovers("certificate", api_url=server.url)
    assert not server.seen


@pytest.mark.fault(ANSWERS, "no TLS where https is asked for", LINE)
def test_no_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch)
    with Server() as server, Trial(tmp_path) as trial:
        server.answers = [(200, {}, b"")]
        trial.recovers("", api_url=server.url.replace("http:", "https:"))
