"""The fault matrix, the download: a whole run over HTTP gives the same rows, or one line and the next run does."""

from __future__ import annotations

import gzip
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.fakes import Server
from tests.support.faults import (
    GOOD_GZIP,
    GOOD_ZIP,
    TIMEOUT_MINUTES,
    Trial,
    cut,
    download,
    first_download,
    night_row,
    replies,
    row,
    url,
)
from tests.support.night import at_night
from tests.support.tls import TlsServer, set_only

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faults import Exchange

    Spoil = Callable[[Exchange], object]

pytestmark = pytest.mark.slow

DOWNLOAD = "Download"
SAME = "the same rows"
LINE = "one line; the next run gives the same rows"
PAGE = b"<html><body><h1>Slow Down</h1>somebody1@planted.example.com X-Amz-Signature=1</body></html>"
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@pytest.mark.parametrize("part", at_night([0, 0.02, 0.2, 0.5, 0.7, 0.9, 0.999], but=[0.02, 0.7]))
@pytest.mark.fault(DOWNLOAD, "connection reset after any part of the response", SAME)
def test_download_that_breaks_off(tmp_path: Path, part: float) -> None:
    """It goes on where it stopped."""
    with Trial(tmp_path, first_download(cut(part))) as trial:
        trial.delivers()


@pytest.mark.fault(DOWNLOAD, "connection reset in every response, each time a little later", SAME)
def test_download_that_breaks_off_again_and_again(tmp_path: Path) -> None:
    def break_off(exchange: Exchange) -> None:
        if exchange.number < 9:
            exchange.cut = len(exchange.raw) - len(exchange.body) + 60

    with Trial(tmp_path, download(break_off)) as trial:
        trial.delivers()
        ranges = [request.headers["Range"] for request in trial.requests if "Range" in request.headers]
    assert len(ranges) == 8
    assert len(set(ranges)) == 8


@pytest.mark.fault(DOWNLOAD, "a continuation that is longer than announced, or is another range", SAME)
def test_download_that_is_continued_wrongly(tmp_path: Path) -> None:
    """The part that has come is dropped, not the export: it is requested once."""

    def longer(exchange: Exchange) -> None:
        exchange.body += b"junk"

    def another(exchange: Exchange) -> None:
        exchange.body, exchange.headers["Content-Range"] = exchange.body[9:], "bytes 9-99/100"

    def shorter(exchange: Exchange) -> None:
        exchange.body = exchange.body[:-9]

    for number, wrong in enumerate((longer, another, shorter)):

        def spoil(exchange: Exchange, wrong: Spoil = wrong) -> None:
            if exchange.number == 1:
                exchange.cut = len(exchange.raw) - len(exchange.body) + 60
            elif exchange.number == 2:
                assert exchange.status == 206
                exchange.headers = {k: v for k, v in exchange.headers.items() if k.lower() != "content-length"}
                wrong(exchange)

        with Trial(tmp_path / str(number), download(spoil)) as trial:
            trial.delivers()
            assert len([request for request in trial.requests if request.path == "/users/export/segment"]) == 1


@pytest.mark.fault(DOWNLOAD, "Content-Encoding: gzip, whatever was done to the file", SAME)
def test_download_with_a_content_encoding(tmp_path: Path) -> None:
    """A proxy may compress it once more, though the tap asks it not to; a store may only say so."""
    bodies = (GOOD_ZIP, gzip.compress(GOOD_ZIP), GOOD_GZIP, gzip.compress(GOOD_GZIP))
    for number, body in enumerate(bodies):
        with Trial(tmp_path / str(number), download(replies(200, body, Content_Encoding="gzip"))) as trial:
            trial.delivers()


@pytest.mark.fault(DOWNLOAD, "a slow drip", SAME)
def test_download_that_drips(tmp_path: Path) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.piece = 40
        exchange.between = lambda: trial.clock.sleep(30)

    with Trial(tmp_path, download(drip)) as trial:
        trial.delivers()


@pytest.mark.fault(DOWNLOAD, "a drip that lasts longer than export_timeout_minutes", LINE)
def test_download_that_drips_for_hours(tmp_path: Path) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.piece = 8
        exchange.between = lambda: trial.clock.sleep(61 if trial.clock.time < too_late else 0)

    with Trial(tmp_path, download(drip)) as trial:
        too_late = trial.clock.time + TIMEOUT_MINUTES * 60
        trial.recovers("export_timeout_minutes")


def seven_bytes_earlier(exchange: Exchange) -> None:
    """The rest of the file begins before the place that was asked for, and says so."""
    start, rest = exchange.headers["Content-Range"].removeprefix("bytes ").split("-")
    exchange.body = b"another" + exchange.body
    exchange.headers["Content-Range"] = f"bytes {int(start) - 7}-{rest}"


@pytest.mark.parametrize(
    "spoil",
    [
        night_row(DOWNLOAD, "500 with an HTML page at first", SAME, first_download(replies(500, PAGE))),
        night_row(DOWNLOAD, "502 with an HTML page at first", SAME, first_download(replies(502, PAGE))),
        row(DOWNLOAD, "503 with an HTML page at first", SAME, first_download(replies(503, PAGE))),
        night_row(DOWNLOAD, "504 with an HTML page at first", SAME, first_download(replies(504, PAGE))),
        night_row(DOWNLOAD, "429 at first", SAME, first_download(replies(429, PAGE))),
        row(DOWNLOAD, "403 and 404 until it is ready", SAME, first_download(replies(404, PAGE))),
        night_row(
            DOWNLOAD,
            "a response without an ETag that ends too early",
            SAME,
            first_download(lambda e: e.reply(200, e.body, Content_Length=str(len(e.body) + 100))),
        ),
        row(
            DOWNLOAD,
            "another ETag when the rest is asked for",
            SAME,
            download(lambda e: (e.headers.update(ETag=f'"{e.number}"'), cut(0.8)(e) if e.number == 1 else None)),
        ),
        row(
            DOWNLOAD,
            "200 with the whole file when the rest is asked for",
            SAME,
            download(lambda e: cut(0.8)(e) if e.number == 1 else e.reply(200, GOOD_ZIP)),
        ),
        night_row(
            DOWNLOAD,
            "416 when the rest is asked for",
            SAME,
            download(lambda e: cut(0.8)(e) if e.number == 1 else e.reply(416, PAGE) if e.number == 2 else None),
        ),
        night_row(
            DOWNLOAD,
            "206 with other bytes than were asked for",
            SAME,
            download(lambda e: cut(0.8)(e) if e.number == 1 else seven_bytes_earlier(e) if e.number == 2 else None),
        ),
        night_row(
            DOWNLOAD,
            "a Content-Length that is larger than the file, once",
            SAME,
            first_download(lambda e: e.headers.update({"Content-Length": str(len(e.body) + 5)})),
        ),
        night_row(
            DOWNLOAD,
            "a Content-Length that is smaller than the file, once",
            SAME,
            first_download(lambda e: e.headers.update({"Content-Length": str(len(e.body) - 5)})),
        ),
        night_row(
            DOWNLOAD,
            "a Content-Length of 5,000 digits",
            SAME,
            first_download(lambda e: e.headers.update({"Content-Length": "1" * 5000})),
        ),
        row(DOWNLOAD, "an HTML page in place of the file, once", SAME, first_download(replies(200, PAGE))),
        night_row(DOWNLOAD, "an empty file, once", SAME, first_download(replies(200, b""))),
    ],
)
def test_download_that_succeeds_at_last(tmp_path: Path, spoil: Spoil) -> None:
    """Nothing is lost or repeated."""
    with Trial(tmp_path, spoil) as trial:
        trial.delivers()


def at_the_same_byte(exchange: Exchange) -> None:
    """The store always sends the file from its beginning, and never to its end."""
    if exchange.is_download:
        exchange.reply(200, GOOD_ZIP, ETag='"same"')
        cut(0.8)(exchange)


def broken_then(*reply: object) -> Spoil:
    """The first download breaks off, all others get this response."""
    return download(lambda e: cut(0.8)(e) if e.number == 1 else e.reply(*reply))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        night_row(DOWNLOAD, "always 500 with an HTML page", LINE, download(replies(500, PAGE)), "500"),
        row(
            DOWNLOAD,
            "403 for longer than export_timeout_minutes",
            LINE,
            download(replies(403, PAGE)),
            "still not there",
        ),
        night_row(
            DOWNLOAD,
            "connection reset in every response, at the same byte, until export_timeout_minutes are over",
            LINE,
            at_the_same_byte,
            "still fails, the last time because of: broken after",
        ),
        row(DOWNLOAD, "403 because the link has expired", LINE, download(replies(403, EXPIRED)), "expired"),
        night_row(DOWNLOAD, "403 in the middle", LINE, broken_then(403, PAGE), "expired"),
        row(DOWNLOAD, "404 in the middle", LINE, broken_then(404, PAGE), "expired"),
        night_row(DOWNLOAD, "400 with an XML error", LINE, download(replies(400, PAGE)), "400"),
        night_row(
            DOWNLOAD, "an HTML page in place of the file", LINE, download(replies(200, PAGE)), "neither zip nor gzip"
        ),
        row(DOWNLOAD, "an empty file", LINE, download(replies(200, b"")), "neither zip nor gzip"),
        night_row(
            DOWNLOAD,
            "a Content-Length that the disk has no room for",
            LINE,
            download(replies(200, GOOD_ZIP, Content_Length="1" * 17)),
            "full",
        ),
        row(
            DOWNLOAD,
            "a redirect in a circle",
            LINE,
            download(lambda e: e.reply(302, PAGE, Location=e.path)),
            "TooManyRedirects",
        ),
        night_row(
            DOWNLOAD, "a redirect to http://[::1", LINE, download(replies(302, PAGE, Location="http://[::1")), ""
        ),
        night_row(
            DOWNLOAD,
            "a redirect to an impossible host",
            LINE,
            download(replies(302, b"", Location="http://.bad..host./")),
            "",
        ),
        night_row(
            DOWNLOAD,
            "a redirect to an address that is not UTF-8",
            LINE,
            download(replies(302, b"", Location="/\xff\xfe")),
            "",
        ),
        night_row(
            DOWNLOAD, "a redirect to a local file", LINE, download(replies(302, b"", Location="file:///etc/passwd")), ""
        ),
        night_row(DOWNLOAD, "a redirect without an address", LINE, download(replies(302, b"")), "302"),
    ],
)
def test_download_that_fails(tmp_path: Path, spoil: Spoil, told: str) -> None:
    """The run says what is wrong."""
    with Trial(tmp_path, spoil) as trial:
        trial.recovers(told)


@pytest.mark.fault(DOWNLOAD, "connection refused", LINE)
def test_nobody_listens(tmp_path: Path) -> None:
    """The link is good again in the next run."""
    with Trial(tmp_path) as trial:
        store = trial.sandbox.workspace.download_url
        with socket.create_server(("127.0.0.1", 0)) as unused:
            trial.sandbox.workspace.download_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        trial.fails("could not be fetched")
        trial.sandbox.workspace.download_url = store
        trial.clock.time += 2 * 3600
        trial.delivers()


@pytest.mark.fault(DOWNLOAD, "a certificate that nobody trusts", LINE)
def test_untrusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_only(monkeypatch)
    with TlsServer() as server, Trial(tmp_path, url(f"{server.url}/a.zip?X-Amz-Signature=1")) as trial:
        trial.fails("certificate")
        trial.heal()
        trial.clock.time += 2 * 3600
        trial.delivers()
    assert not server.seen


@pytest.mark.fault(DOWNLOAD, "a redirect to another host", "the same rows, and no credentials for that host")
def test_redirect(tmp_path: Path) -> None:
    with Server() as other:
        other.answers = [(200, {}, GOOD_ZIP)]
        with Trial(tmp_path, download(replies(302, PAGE, Location=f"{other.url}/a.zip"))) as trial:
            trial.delivers()
    assert "Authorization" not in other.seen[0].headers
