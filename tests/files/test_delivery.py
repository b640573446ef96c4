"""Deliveries: a signed URL on a real server, and buckets on local disk and behind S3's protocol."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest
import requests

from tap_braze_export.errors import ConfigError, DamagedFileError, ExportError
from tap_braze_export.files.disk import private_file
from tap_braze_export.files.download import Bucket, BucketObject, Download
from tests.support.fakes import Answer, FakeClock, Server, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

QUERY = "X-Amz-Signature=topsecret"
CONTENT = b"0123456789" * 1000
ETAG = '"v1"'
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
GIB = 2**30


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def download(server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path) -> Download:
    return made(server, clock, session, tmp_path)


def made(
    server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path, free: int = 100 * GIB
) -> Download:
    return Download(
        f"{server.url}/exports/users.zip?{QUERY}",
        path=tmp_path / "object",
        session=session,
        clock=clock,
        deadline=clock.time + 3_600,
        free=lambda _: free,
    )


def whole(content: bytes = CONTENT, **headers: str) -> Answer:
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
    body = CONTENT[after:] if content is None else content
    return 206, {"ETag": etag, "Content-Range": f"bytes {after}-{total - 1}/{total}"}, body


def given_up(download: Download) -> str:
    with pytest.raises(ExportError) as caught:
        download.look()
    message = str(caught.value)
    assert QUERY not in message
    assert "\n" not in message
    return message


# Signed URL


@pytest.mark.parametrize("status", [403, 404])
def test_not_ready_then_ready(server: Server, download: Download, tmp_path: Path, status: int) -> None:
    server.answers = [(status, {}, DENIED), (status, {}, DENIED), whole()]

    assert [download.look(), download.look(), download.look()] == [False, False, True]
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["object", "object.part.json"]


def test_file_is_for_the_owner_only(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(10), whole()]

    old = os.umask(0)
    try:
        assert not download.look()
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert download.look()
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

    download.look()

    (seen,) = server.seen
    assert (seen.method, seen.path) == ("GET", f"/exports/users.zip?{QUERY}")
    assert seen.headers["Authorization"] is None
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Range"] is None


def test_encoded_body_is_stored_as_it_is(server: Server, download: Download, tmp_path: Path) -> None:
    """A store may serve a .gz object with Content-Encoding: gzip; unpacked, it would be no archive."""
    server.answers = [whole(Content_Encoding="gzip")]

    assert download.look()
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_complete_file_is_not_fetched_again(server: Server, download: Download) -> None:
    server.answers = [whole()]

    assert download.look()
    assert download.look()
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
    clock: FakeClock, session: requests.Session, tmp_path: Path, path: str, name: str
) -> None:
    download = Download(f"https://example.org{path}?{QUERY}", path=tmp_path, session=session, clock=clock, deadline=0)

    assert download.name == name


@pytest.mark.parametrize("url", ["file:///etc/passwd", "users.zip", "s3://bucket/users.zip"])
def test_only_http_is_a_download(clock: FakeClock, session: requests.Session, tmp_path: Path, url: str) -> None:
    with pytest.raises(ExportError, match="no http address"):
        Download(url, path=tmp_path, session=session, clock=clock, deadline=0)


def test_403_after_a_200_means_expired(server: Server, download: Download) -> None:
    server.answers = [broken(10), (403, {}, DENIED)]

    assert not download.look()
    assert given_up(download).startswith("the link to users.zip has expired, or the file was deleted (403)")


def test_403_when_a_damaged_file_is_fetched_again_means_expired(
    server: Server, download: Download, tmp_path: Path
) -> None:
    server.answers = [whole(), (403, {}, DENIED)]

    assert download.look()
    (tmp_path / "object").unlink()
    assert "has expired" in given_up(download)


def test_expired_is_known_after_a_restart(
    server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path
) -> None:
    server.answers = [broken(10), (404, {}, b"")]

    assert not made(server, clock, session, tmp_path).look()
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
def test_failures_mean_not_now_for_twenty_looks(server: Server, download: Download, failure: Answer) -> None:
    server.answers = [failure]

    assert [download.look() for _ in range(19)] == [False] * 19
    assert "users.zip could not be fetched 20 times in a row" in given_up(download)


def test_answer_in_between_forgives_failures(server: Server, download: Download) -> None:
    server.answers = [*[(500, {}, b"")] * 19, (403, {}, DENIED), *[(500, {}, b"")] * 19, whole()]

    assert [download.look() for _ in range(40)] == [False] * 39 + [True]


def test_unreachable_store_is_a_failure(
    clock: FakeClock, session: requests.Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tap_braze_export")
    with Server() as gone:
        download = made(gone, clock, session, tmp_path)
        hang: Answer = hang_up
        gone.answers = [hang]

        assert not download.look()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("tap")] == [
        "users.zip is not fetched yet: ConnectionError"
    ]


# Broken transfers


def test_broken_transfer_is_continued(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(4_000), rest(4_000)]

    assert not download.look()
    assert (tmp_path / "object.part").read_bytes() == CONTENT[:4_000]
    assert json.loads((tmp_path / "object.part.json").read_text()) == {"etag": ETAG, "length": 10_000}
    assert not (tmp_path / "object").exists()

    assert download.look()
    assert (server.seen[1].headers["Range"], server.seen[1].headers["If-Range"]) == ("bytes=4000-", ETAG)
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["object", "object.part.json"]


def test_broken_transfer_is_continued_by_another_run(
    server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path
) -> None:
    server.answers = [broken(4_000), rest(4_000)]

    assert not made(server, clock, session, tmp_path).look()
    assert made(server, clock, session, tmp_path).look()
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_object_that_changed_is_taken_from_the_start(server: Server, download: Download, tmp_path: Path) -> None:
    server.answers = [broken(4_000), (200, {"ETag": '"v2"'}, b"other")]

    assert not download.look()
    assert download.look()
    assert (tmp_path / "object").read_bytes() == b"other"


@pytest.mark.parametrize("etag", [None, 'W/"v1"', ""])
def test_without_a_strong_etag_it_starts_over(
    server: Server, download: Download, tmp_path: Path, etag: str | None
) -> None:
    server.answers = [broken(4_000, etag), whole()]

    assert not download.look()
    assert download.look()
    assert server.seen[1].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [
        (416, {}, b""),
        rest(4_000, etag='"v2"'),
        rest(4_000, total=10_001),
        rest(3_999),
        (206, {"ETag": ETAG}, CONTENT[4_000:]),
    ],
)
def test_continuation_that_does_not_fit_starts_over(
    server: Server, download: Download, tmp_path: Path, wrong: Answer
) -> None:
    server.answers = [broken(4_000), wrong, whole()]

    assert not download.look()
    assert download.look()
    assert server.seen[2].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "sidecar", [b"", b"[]", b"{}", b'{"etag": 1, "length": 10000}', b'{"etag": "x", "length": "y"}']
)
def test_unreadable_sidecar_starts_over(server: Server, download: Download, tmp_path: Path, sidecar: bytes) -> None:
    (tmp_path / "object.part").write_bytes(b"old")
    (tmp_path / "object.part.json").write_bytes(sidecar)
    server.answers = [whole()]

    assert download.look()
    assert server.seen[0].headers["Range"] is None
    assert (tmp_path / "object").read_bytes() == CONTENT


def test_progress_counts_only_if_it_can_be_continued(server: Server, download: Download) -> None:
    """A transfer that always breaks and always starts over must end."""
    server.answers = [broken(4_000, etag=None)]

    assert [download.look() for _ in range(19)] == [False] * 19
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

    assert download.look()
    assert (tmp_path / "object").stat().st_size == 3 * 2**20


def test_endless_body_is_refused_before_the_disk_is_full(
    server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path
) -> None:
    server.answers = [chunked(1_000)]

    message = given_up(made(server, clock, session, tmp_path, free=GIB + 5 * 2**20))

    assert message == "users.zip is longer than the disk has room for: it is refused"
    assert not (tmp_path / "object.part").exists()


def test_body_that_does_not_fit_is_not_begun(
    server: Server, clock: FakeClock, session: requests.Session, tmp_path: Path
) -> None:
    server.answers = [whole()]

    message = given_up(made(server, clock, session, tmp_path, free=9_999))

    assert message.startswith(f"the disk of {tmp_path} is full")


def test_transfer_past_the_deadline_is_given_up(server: Server, session: requests.Session, tmp_path: Path) -> None:
    server.answers = [chunked(1_000)]

    message = given_up(made(server, FakeClock(tick=600), session, tmp_path))

    assert message == "users.zip was still coming in when export_timeout_minutes were over"


def test_full_disk_names_the_directory_and_frees_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "object.part"

    with pytest.raises(ExportError, match=r"^the disk of .* is full: free some space there"):
        fill(path)
    assert not path.exists()


def fill(path: Path) -> None:
    with private_file(path) as file:
        file.write(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_told_to_end_it_stops_and_keeps_the_part(
    server: Server, clock: FakeClock, download: Download, tmp_path: Path
) -> None:
    clock.told_to_end = True
    server.answers = [whole(b"x" * 20 * 2**20), whole()]

    assert not download.look()
    assert (tmp_path / "object.part").stat().st_size > 0
    assert not (tmp_path / "object").exists()


# Bucket

EXPORT = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599"
OTHER = "aaaaaaaa-c4aa-478b-b3f2-a4ee91731ad1-1464728000"
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def deliver(root: Path, path: str, content: bytes = b"zip") -> None:
    file = root / "segment-export" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def names(found: list[BucketObject]) -> list[str]:
    return [item.name for item in found]


@pytest.fixture(params=["", "file://"])
def bucket(tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(f"{request.param}{tmp_path}", {}, clock=clock)


def test_files_of_an_export_are_found_in_any_date_folder(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/b.zip")
    deliver(tmp_path, f"seg/2026-01-01/{EXPORT}/c.zip")
    deliver(tmp_path, f"seg/somewhen/{EXPORT}/a.gz")

    found = bucket.objects(EXPORT, "seg")

    assert names(found) == ["a.gz", "b.zip", "c.zip"]
    assert found[0].size == 3
    assert found[0].path == str(tmp_path / f"segment-export/seg/somewhen/{EXPORT}/a.gz")


def test_what_is_not_of_the_export_is_left_alone(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{OTHER}/a.zip")
    deliver(tmp_path, "seg/2026-01-02/users-x.zip")
    deliver(tmp_path, f"seg2/2026-01-02/{EXPORT}/a.zip")
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/deeper/a.zip")
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}.zip")
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/placeholder", b"")
    (tmp_path / f"segment-export/seg/2026-01-02/{EXPORT}/folder.zip").mkdir()

    assert bucket.objects(EXPORT, "seg") == []


def test_empty_zip_is_a_file(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a.zip", EMPTY_ZIP)

    assert names(bucket.objects(EXPORT, "seg")) == ["a.zip"]


def test_control_group_is_found_below_any_segment(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"unknown/2026-01-02/{EXPORT}/a.zip")
    deliver(tmp_path, f"unknown/2026-01-02/{OTHER}/b.zip")

    assert names(bucket.objects(EXPORT, None)) == ["a.zip"]


def test_new_and_changed_files_are_seen_at_the_next_look(bucket: Bucket, tmp_path: Path) -> None:
    path = f"seg/2026-01-02/{EXPORT}/a.zip"
    assert bucket.objects(EXPORT, "seg") == []
    deliver(tmp_path, path)
    (before,) = bucket.objects(EXPORT, "seg")
    deliver(tmp_path, path, b"longer")
    os.utime(tmp_path / "segment-export" / path, (1, 1))
    (after,) = bucket.objects(EXPORT, "seg")

    assert (before.size, after.size) == (3, 6)
    assert before.version != after.version


def test_control_characters_in_a_name_are_replaced(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a\n\x1b.zip")

    assert names(bucket.objects(EXPORT, "seg")) == ["a\ufffd\ufffd.zip"]


def test_fetched_file_is_private_and_complete(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a.zip", CONTENT)
    (found,) = bucket.objects(EXPORT, "seg")

    bucket.fetch(found, tmp_path / "object")

    assert (tmp_path / "object").read_bytes() == CONTENT
    assert (tmp_path / "object").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "object.part").exists()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
def test_file_of_another_length_is_damaged(bucket: Bucket, tmp_path: Path, content: bytes) -> None:
    path = f"seg/2026-01-02/{EXPORT}/a.zip"
    deliver(tmp_path, path, CONTENT)
    (found,) = bucket.objects(EXPORT, "seg")
    deliver(tmp_path, path, content)

    with pytest.raises(DamagedFileError, match=r"^a\.zip has another length than the 10000 bytes listed$"):
        bucket.fetch(found, tmp_path / "object")
    assert [item.name for item in tmp_path.iterdir()] == ["segment-export"]


def test_file_that_is_gone_is_an_export_error(bucket: Bucket, tmp_path: Path) -> None:
    found = BucketObject("a.zip", str(tmp_path / "none"), 3, "")

    with pytest.raises(ExportError, match="deleted from the bucket before it was read"):
        bucket.fetch(found, tmp_path / "object")


def test_told_to_end_fetching_stops(bucket: Bucket, clock: FakeClock, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a.zip")
    (found,) = bucket.objects(EXPORT, "seg")
    clock.told_to_end = True

    with pytest.raises(ExportError, match="told to end"):
        bucket.fetch(found, tmp_path / "object")


def test_check_of_a_directory(clock: FakeClock, tmp_path: Path) -> None:
    """A bucket without an export yet is fine, one that is not there is not."""
    missing = Bucket(str(tmp_path / "none"), {}, clock=clock)
    error = "bucket_url names a bucket or directory that does not exist"

    assert Bucket(str(tmp_path), {}, clock=clock).check() is None
    assert missing.check() == error
    with pytest.raises(ConfigError, match=error):
        missing.objects(EXPORT, "seg")


def test_unknown_scheme_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match="bucket_url or bucket_options cannot be used: ValueError"):
        Bucket("nosuch://bucket", {}, clock=clock)


class Store:
    """As much of S3 as listing and reading needs; `refuse` is sent instead while it is set."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuse: list[tuple[int, str]] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if self.refuse:
            status, code = self.refuse.pop(0) if len(self.refuse) > 1 else self.refuse[0]
            if status:
                self._send(handler, status, f"<Error><Code>{code}</Code><Message>Sorry: {SECRET}</Message></Error>")
                return
        url = urlsplit(handler.path)
        bucket, _, key = url.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if bucket != "bucket":
            self._send(handler, 404, "<Error><Code>NoSuchBucket</Code><Message>No such bucket</Message></Error>")
        elif "list-type" in query:
            self._send(handler, 200, self._list(query.get("prefix", ""), query.get("delimiter", "")))
        elif key not in self.objects:
            self._send(handler, 404, "<Error><Code>NoSuchKey</Code><Message>No such key</Message></Error>")
        else:
            content, status = self.objects[key], 200
            if span := handler.headers.get("Range"):
                first, last = span.removeprefix("bytes=").split("-")
                content, status = content[int(first) : int(last or len(content)) + 1], 206
            self._send(handler, status, content)

    def _list(self, prefix: str, delimiter: str) -> str:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        folders = set()
        if delimiter:
            deeper = [key for key in keys if delimiter in key[len(prefix) :]]
            folders = {prefix + key[len(prefix) :].split(delimiter)[0] + delimiter for key in deeper}
            keys = [key for key in keys if key not in deeper]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>&quot;e&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, content: str | bytes) -> None:
        body = content.encode() if isinstance(content, str) else content
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"e"')
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


SECRET = "s3-secret-key"


@pytest.fixture
def store(server: Server) -> Store:
    store = Store()
    server.answers = [store]
    return store


@pytest.fixture
def options(server: Server) -> dict[str, Any]:
    return {
        "key": "s3-access-key",
        "secret": SECRET,
        "endpoint_url": server.url,
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }


@pytest.fixture
def s3(options: dict[str, Any], clock: FakeClock) -> Bucket:
    return Bucket("s3://bucket/braze/users", options, clock=clock)


def test_s3_files_are_listed_and_read(store: Store, s3: Bucket, tmp_path: Path) -> None:
    folder = "braze/users/segment-export/seg/2026-01-02"
    store.objects |= {
        f"{folder}/{EXPORT}/b.zip": CONTENT,
        f"{folder}/{EXPORT}/a.zip": EMPTY_ZIP,
        f"{folder}/{EXPORT}/": b"",
        f"{folder}/{OTHER}/c.zip": b"other",
        f"{folder}/users-x.zip": b"csv",
    }

    found = s3.objects(EXPORT, "seg")
    s3.fetch(found[1], tmp_path / "object")

    assert [(item.name, item.size, item.version) for item in found] == [
        ("a.zip", 22, '"e"'),
        ("b.zip", 10_000, '"e"'),
    ]
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert names(s3.objects(EXPORT, None)) == ["a.zip", "b.zip"]


def test_object_is_read_where_it_stands(server: Server, store: Store, s3: Bucket, clock: FakeClock) -> None:
    """By ranges, each tried again; whoever asks for its ends waits once for both."""
    content = bytes(range(256)) * 40_000
    store.objects[f"braze/users/segment-export/seg/2026-01-02/{EXPORT}/a.zip"] = content
    (found,) = s3.objects(EXPORT, "seg")
    before = len(server.seen)
    store.refuse = [(500, "Odd"), (0, "")]
    with s3.opened(found) as file:
        assert file.read(len(content)) == content
    assert len(server.seen) - before == 1 + 2
    assert len(clock.slept) == 1
    with s3.opened(found, ends=1000) as file:
        assert len(server.seen) - before == 3 + 2
        assert file.read(4) == content[:4]
        assert file.seek(-22, 2) == len(content) - 22
        assert file.read() == content[-22:]
        assert len(server.seen) - before == 3 + 2
        file.seek(5_000_000)
        assert file.read(3) == content[5_000_000:5_000_003]


def test_object_that_is_gone_or_shorter(store: Store, s3: Bucket) -> None:
    """Shorter, it ends early; whoever reads it knows its end."""
    key = f"braze/users/segment-export/seg/2026-01-02/{EXPORT}/a.zip"
    store.objects[key] = CONTENT
    (found,) = s3.objects(EXPORT, "seg")
    store.objects[key] = CONTENT[:100]
    with s3.opened(found) as file:
        assert file.read(1000) == CONTENT[:100]
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1)
    del store.objects[key]
    with s3.opened(found) as file, pytest.raises(ExportError, match="deleted from the bucket before it was read"):
        file.read()


def test_s3_listing_is_never_cached(store: Store, s3: Bucket) -> None:
    assert s3.objects(EXPORT, "seg") == []
    store.objects[f"braze/users/segment-export/seg/2026-01-02/{EXPORT}/a.zip"] = b"zip"
    assert names(s3.objects(EXPORT, "seg")) == ["a.zip"]


def test_s3_check(store: Store, s3: Bucket, options: dict[str, Any], clock: FakeClock) -> None:
    assert s3.check() is None
    store.objects["braze/users/segment-export/seg/2026-01-02/x/a.zip"] = b"zip"
    assert s3.check() is None
    missing = Bucket("s3://nosuch/braze", options, clock=clock)
    assert missing.check() == "bucket_url names a bucket or directory that does not exist"
    with pytest.raises(ConfigError, match="does not exist"):
        missing.objects(EXPORT, "seg")


def test_s3_denied_says_what_to_check_without_secrets(store: Store, s3: Bucket, clock: FakeClock) -> None:
    store.refuse = [(403, "AccessDenied")]

    error = s3.check()

    assert error == (
        "the bucket cannot be listed: PermissionError. Check the credentials (bucket_options or the environment)"
        " and that they may list and get objects"
    )
    assert clock.slept == []
    with pytest.raises(ConfigError) as caught:
        s3.objects(EXPORT, "seg")
    assert str(caught.value) == error


def test_s3_failures_are_tried_again_on_the_clock(store: Store, s3: Bucket, clock: FakeClock) -> None:
    store.objects[f"braze/users/segment-export/seg/2026-01-02/{EXPORT}/a.zip"] = b"zip"
    store.refuse = [(500, "Odd"), (500, "Odd"), (0, "")]

    assert names(s3.objects(EXPORT, "seg")) == ["a.zip"]
    assert len(clock.slept) == 2


def test_s3_failures_end(store: Store, s3: Bucket, clock: FakeClock) -> None:
    store.refuse = [(500, "Odd")]

    with pytest.raises(ExportError, match=r"^the bucket could not be listed 5 times: OSError$"):
        s3.objects(EXPORT, "seg")
    assert len(clock.slept) == 4
