"""Downloads behind a signed URL, from a real server on loopback."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import ExportError
from tap_braze_export.files.download import Download
from tests.support.fakes import Answer, FakeClock, Server, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tap_braze_export.http.session import Session


CONTENT = b"0123456789" * 1000
QUERY = "X-Amz-Signature=topsecret"
ETAG = '"v1"'
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
GIB = 2**30


@pytest.fixture
def download(server: Server, clock: FakeClock, session: Session, tmp_path: Path) -> Download:
    return made(server, clock, session, tmp_path)


def made(server: Server, clock: FakeClock, session: Session, tmp_path: Path, free: int = 100 * GIB) -> Download:
    """A download to `object`, on a disk with this free space."""
    return Download(
        f"{server.url}/exports/users.zip?{QUERY}",
        path=tmp_path / "object",
        session=session,
        clock=clock,
        deadline=clock.elapsed + 3_600,
        free=lambda _: free,
    )


def whole(content: bytes = CONTENT, **headers: str) -> Answer:
    """A response with a whole file."""
    return 200, {"ETag": ETAG} | {name.replace("_", "-"): value for name, value in headers.items()}, content


def broken(after: int, etag: str | None = ETAG, length: int = len(CONTENT)) -> Callable[[BaseHTTPRequestHandler], None]:
    """The first bytes of the content, then the connection is gone."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(length))
        if etag is not None:
            handler.send_header("ETag", etag)
        handler.end_headers()
        handler.wfile.write(CONTENT[:after])
        handler.wfile.flush()
        hang_up(handler)

    return answer


def rest(after: int, etag: str = ETAG, total: int = len(CONTENT), content: bytes | None = None) -> Answer:
    """A response that continues the content."""
    body = CONTENT[after:] if content is None else content
    return 206, {"ETag": etag, "Content-Range": f"bytes {after}-{total - 1}/{total}"}, body


def ranged(content_range: str, content: bytes = CONTENT[4_000:]) -> Answer:
    """A response that says that it is this range."""
    return 206, {"ETag": ETAG, "Content-Range": content_range}, content


def given_up(download: Download) -> str:
    """The message of the error that an attempt ends in: one line, without the signature."""
    with pytest.raises(ExportError) as caught:
        download.attempt()
    message = str(caught.value)
    assert QUERY not in message
    assert "\n" not in message
    return message


# Signed URL


@pytest.mark.parametrize("status", [403, 404])
def test_not_ready_then_ready(server: Server, download: Download, tmp_path: Path, status: int) -> None:
    server.answers = [(status, {}, DENIED), (status, {}, DENIED), whole()]

    assert [download.attempt(), download.attempt(), download.attempt()] == [False, False, True]
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["object", "object.part.json"]


def test_file_is_for_the_owner_only(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(10), whole()]

    old = os.umask(0)
    try:
        assert not download.attempt()
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert download.attempt()
    finally:
        os.umask(old)
    assert modes == {"object.part": 0o600, "object.part.json": 0o600}
    assert (tmp_path / "object").stat().st_mode & 0o777 == 0o600


def test_request_is_a_plain_get(
    server: Server, download: Download, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, nothing from a .netrc, and the bytes as they are stored."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers = [whole()]

    download.attempt()

    (seen,) = server.seen
    assert (seen.method, seen.path) == ("GET", f"/exports/users.zip?{QUERY}")
    assert seen.headers["Authorization"] is None
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Range"] is None


def test_encoded_body_is_stored_as_it_is(server: Server, download: Download, tmp_path: Path) -> None:
    """A store may serve a .gz object with Content-Encoding: gzip; unpacked, it would be no archive."""
    server.answers = [whole(Content_Encoding="gzip")]

    assert download.attempt()
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_complete_file_is_not_fetched_again(server: Server, download: Download) -> None:
    server.answers = [whole()]

    assert download.attempt()
    assert download.attempt()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/exports/users.zip", "users.zip"),
        ("/users%20of%0Atoday.zip", "users of\ufffdtoday.zip"),
        ("/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/", "download"),
        ("", "download"),
    ],
)
def test_name_is_the_last_part_of_the_path(
    clock: FakeClock, session: Session, tmp_path: Path, path: str, name: str
) -> None:
    download = Download(f"https://example.org{path}?{QUERY}", path=tmp_path, session=session, clock=clock, deadline=0)

    assert download.name == name


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "users.zip",
        "s3://bucket/users.zip",
        "",
        "http://",
        "https:///users.zip",
        "http://[::1",
        "http://[::1]x/",
        "http://host:port/",
        "http://host:99999/",
        "http://\ud800.example/",
        "\x00",
        "http://*/",
    ],
)
def test_only_http_is_a_download(clock: FakeClock, session: Session, tmp_path: Path, url: str) -> None:
    with pytest.raises(ExportError, match="no http address"):
        Download(url, path=tmp_path, session=session, clock=clock, deadline=0)


def test_403_after_a_200_means_expired(server: Server, download: Download) -> None:
    server.answers = [broken(10), (403, {}, DENIED)]

    assert not download.attempt()
    assert given_up(download).startswith("the link to users.zip has expired, or the file was deleted (403)")


def test_403_when_a_damaged_file_is_fetched_again_means_expired(
    server: Server, download: Download, tmp_path: Path
) -> None:
    server.answers = [whole(), (403, {}, DENIED)]

    assert download.attempt()
    (tmp_path / "object").unlink()
    assert "has expired" in given_up(download)


def test_expired_is_known_after_a_restart(server: Server, clock: FakeClock, session: Session, tmp_path: Path) -> None:
    server.answers = [broken(10), (404, {}, b"")]

    assert not made(server, clock, session, tmp_path).attempt()
    assert "has expired" in given_up(made(server, clock, session, tmp_path))


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(
    "said",
    [
        b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
        b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    ],
)
def test_store_that_says_expired_is_believed(server: Server, download: Download, status: int, said: bytes) -> None:
    """A link adopted from an earlier run would else be waited for until the deadline."""
    server.answers = [(status, {}, said)]

    assert "expired" in given_up(download)


@pytest.mark.parametrize("status", [400, 401, 410])
def test_other_refusals_end_it(server: Server, download: Download, status: int) -> None:
    server.answers = [(status, {}, b"<secret/>")]

    assert given_up(download) == f"the store refused users.zip ({status}): run again for a new export"


@pytest.mark.parametrize("failure", [(500, {}, b""), (503, {}, b""), (429, {}, b""), (204, {}, b""), hang_up])
def test_failures_are_repeated_for_twenty_attempts(server: Server, download: Download, failure: Answer) -> None:
    server.answers = [failure]

    assert [download.attempt() for _ in range(19)] == [False] * 19
    assert "users.zip could not be fetched 20 times in a row" in given_up(download)


def test_refusal_in_between_forgives_failures(server: Server, download: Download) -> None:
    server.answers = [*[(500, {}, b"")] * 19, (403, {}, DENIED), *[(500, {}, b"")] * 19, whole()]

    assert [download.attempt() for _ in range(40)] == [False] * 39 + [True]


def test_unreachable_store_is_a_failure(
    clock: FakeClock, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tap_braze_export")
    with Server() as gone:
        download = made(gone, clock, session, tmp_path)
        hang: Answer = hang_up
        gone.answers = [hang]

        assert not download.attempt()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("tap")] == [
        "users.zip is not fetched yet: ConnectionError"
    ]


# Broken transfers


def test_broken_transfer_is_continued(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(4_000), rest(4_000)]

    assert not download.attempt()
    assert (tmp_path / "object.part").read_bytes() == CONTENT[:4_000]
    assert json.loads((tmp_path / "object.part.json").read_text()) == {"etag": ETAG, "length": 10_000}
    assert not (tmp_path / "object").exists()

    assert download.attempt()
    assert (server.seen[1].headers["Range"], server.seen[1].headers["If-Range"]) == ("bytes=4000-", ETAG)
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["object", "object.part.json"]


def test_broken_transfer_is_continued_by_another_run(
    server: Server, clock: FakeClock, session: Session, tmp_path: Path
) -> None:
    server.answers = [broken(4_000), rest(4_000)]

    assert not made(server, clock, session, tmp_path).attempt()
    assert made(server, clock, session, tmp_path).attempt()
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_object_that_changed_is_taken_from_the_start(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(4_000), (200, {"ETag": '"v2"'}, b"other")]

    assert not download.attempt()
    assert download.attempt()
    assert (tmp_path / "object").read_bytes() == b"other"


@pytest.mark.parametrize("etag", [None, 'W/"v1"', ""])
def test_without_a_strong_etag_it_starts_over(
    server: Server, download: Download, tmp_path: Path, etag: str | None
) -> None:
    server.answers = [broken(4_000, etag), whole()]

    assert not download.attempt()
    assert download.attempt()
    assert server.seen[1].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [
        (416, {}, b""),
        rest(4_000, etag='"v2"'),
        rest(4_000, total=10_001),
        rest(3_999),
        rest(4_001),
        rest(0),
        ranged("bytes 4000-3999/10000"),
        ranged("bytes 4000-10000/10000"),
        ranged("bytes 4000-9999/*"),
        ranged("bytes */10000"),
        (206, {"ETag": ETAG}, CONTENT[4_000:]),
        (206, {"Content-Range": "bytes 4000-9999/10000"}, CONTENT[4_000:]),
        (206, {"ETag": ETAG, "Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n"),
    ],
)
def test_continuation_that_does_not_fit_starts_over(
    server: Server, download: Download, tmp_path: Path, wrong: Answer
) -> None:
    server.answers = [broken(4_000), wrong, whole()]

    assert not download.attempt()
    assert download.attempt()
    assert server.seen[2].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "longer",
    [
        rest(4_000, content=CONTENT[4_000:] + b"x"),
        rest(4_000, content=CONTENT),
        ranged("bytes 4000-5999/10000"),
        ranged("bytes 4000-4000/10000", b"45"),
    ],
)
def test_continuation_that_is_longer_than_it_says_starts_over(
    server: Server, download: Download, tmp_path: Path, longer: Answer
) -> None:
    """The export is worth more than what has come of it: that goes, and the whole file is fetched."""
    server.answers = [broken(4_000), longer, whole()]

    assert [download.attempt() for _ in range(3)] == [False, False, True]
    assert download.problem == "the store sent more than the rest from byte 4000 on"
    assert server.seen[2].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_continuation_may_be_a_part_of_the_rest(server: Server, download: Download, tmp_path: Path) -> None:
    """Some proxies limit the length of a range, and connections break again."""
    server.answers = [
        broken(4_000),
        ranged("bytes 4000-5999/10000", CONTENT[4_000:6_000]),
        ranged("bytes 6000-9999/10000", CONTENT[6_000:7_000]),
        rest(7_000),
    ]

    assert [download.attempt() for _ in range(4)] == [False, False, False, True]
    assert [seen.headers["Range"] for seen in server.seen[1:]] == ["bytes=4000-", "bytes=6000-", "bytes=7000-"]
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_store_that_continues_wrongly_is_not_asked_for_ranges_again(server: Server, download: Download) -> None:
    """Else a transfer that always breaks would go on and start over for ever."""
    server.answers = [broken(4_000), rest(4_000, content=CONTENT), broken(4_000)]

    assert [download.attempt() for _ in range(19)] == [False] * 19
    assert "broken after 4000 bytes" in given_up(download)
    assert [bool(seen.headers["Range"]) for seen in server.seen] == [False, True, *[False] * 18]


@pytest.mark.parametrize(
    "sidecar", [b"", b"[]", b"{}", b'{"etag": 1, "length": 10000}', b'{"etag": "x", "length": "y"}']
)
def test_unreadable_sidecar_starts_over(server: Server, download: Download, tmp_path: Path, sidecar: bytes) -> None:
    (tmp_path / "object.part").write_bytes(b"old")
    (tmp_path / "object.part.json").write_bytes(sidecar)
    server.answers = [whole()]

    assert download.attempt()
    assert server.seen[0].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_progress_counts_only_if_it_can_be_continued(server: Server, download: Download) -> None:
    """A transfer that always breaks and always starts over must end."""
    server.answers = [broken(4_000, etag=None)]

    assert [download.attempt() for _ in range(19)] == [False] * 19
    assert "broken after 4000 bytes" in given_up(download)


# Limits


def chunked(chunks: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """A body of an unknown number of mebibytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(chunks):
            handler.wfile.write(b"100000\r\n" + b"x" * 2**20 + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def test_body_of_unknown_length_is_taken(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [chunked(3)]

    assert download.attempt()
    assert (tmp_path / "object").stat().st_size == 3 * 2**20


def test_body_that_does_not_fit_is_not_begun(
    server: Server, clock: FakeClock, session: Session, tmp_path: Path
) -> None:
    server.answers = [whole()]

    message = given_up(made(server, clock, session, tmp_path, free=9_999))

    assert message.startswith(f"the disk of {tmp_path} is full (10,000 bytes are wanted): free some space there")


def test_transfer_past_the_deadline_is_given_up(server: Server, session: Session, tmp_path: Path) -> None:
    server.answers = [chunked(1_000)]

    message = given_up(made(server, FakeClock(tick=600), session, tmp_path))

    assert message == "users.zip was still coming in when export_timeout_minutes were over"


def test_told_to_end_it_stops_and_keeps_the_part(
    server: Server, clock: FakeClock, download: Download, tmp_path: Path
) -> None:
    clock.told_to_end = True
    server.answers = [whole(b"x" * 20 * 2**20), whole()]

    assert not download.attempt()
    assert (tmp_path / "object.part").stat().st_size > 0
    assert not (tmp_path / "object").exists()
