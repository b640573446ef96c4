"""Every fault of the sandbox does what its description says."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import requests

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.sandbox.faults import FAULTS
from tests.support.sandbox_client import (
    EVERYTHING,
    NOW,
    CallbackReceiver,
    download,
    fetch,
    files_below,
    get,
    ids,
    members,
    post,
    raw_lines,
    start,
)

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


FUTURE = "2100-01-01T00:00:00Z"
"""Nobody was updated since then."""
NO_SEGMENT = "there is no such segment"
NOT_PERMITTED = {"message": "The user_last_updated_at parameter is not permitted"}


def kinds_of_url(sandbox: Sandbox) -> Any:
    return start(sandbox).json().get("url", "absent")


def test_every_fault_has_a_test() -> None:
    tested = set(re.findall(r'"([a-z0-9-]+)"', Path(__file__).read_text("utf-8")))
    assert FAULTS.keys() - tested == set()


def test_faults_are_switched_off_again(sandbox: Sandbox) -> None:
    sandbox.set_faults("status-200")
    assert start(sandbox).status_code == 200
    sandbox.set_faults()
    assert start(sandbox).status_code == 201


@pytest.mark.parametrize(("fault", "url"), [("url-null", None), ("url-absent", "absent"), ("url-empty", "")])
def test_fault_url(fault: str, url: str | None) -> None:
    with Sandbox(users=3, faults=[fault]) as sandbox:
        assert kinds_of_url(sandbox) == url


@pytest.mark.parametrize("fault", ["url-absent", "url-empty"])
def test_fault_url_of_a_bucket_export(fault: str, tmp_path: Path) -> None:
    with Sandbox(users=3, faults=[fault], bucket_url=str(tmp_path)) as sandbox:
        assert kinds_of_url(sandbox) == {"url-absent": "absent", "url-empty": ""}[fault]
        assert len(files_below(tmp_path)) == 1


def test_fault_queued(sandbox: Sandbox) -> None:
    sandbox.set_faults("queued-202")
    response = start(sandbox)
    assert (response.status_code, response.json()) == (202, {"message": "queued"})
    assert sandbox.workspace.exports == []


def test_fault_lost_response() -> None:
    """The export runs, though its caller gets no response; only once."""
    with Sandbox(users=3, hold=True, faults=["lost-response"]) as sandbox:
        with pytest.raises(requests.ConnectionError):
            start(sandbox)
        assert [(call.path, call.status) for call in sandbox.calls] == [("/users/export/segment", 0)]
        assert start(sandbox).status_code == 429
        assert start(sandbox, "vip-users").status_code == 201


def test_fault_server_error(sandbox: Sandbox) -> None:
    sandbox.set_faults("server-error")
    first, second = get(sandbox, "/segments/list"), get(sandbox, "/segments/list")
    assert (first.status_code, first.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert second.status_code == 200
    url = start(sandbox).json()["url"]
    assert [fetch(url).status_code for _ in range(2)] == [503, 200]


def test_fault_rate_limited(sandbox: Sandbox) -> None:
    sandbox.set_faults("rate-limited")
    response = start(sandbox)
    assert (response.status_code, response.headers["X-RateLimit-Remaining"]) == (429, "0")
    assert response.headers["X-RateLimit-Reset"] == "1790000001"
    assert start(sandbox).status_code == 201


def test_fault_retry_after(sandbox: Sandbox) -> None:
    """Once; the reset is far later than the time that the other header has."""
    sandbox.set_faults("retry-after")
    response = start(sandbox)
    assert response.status_code == 429
    assert {name: value for name, value in response.headers.items() if name.startswith("X-RateLimit-")} == {
        "X-RateLimit-Limit": "250000",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1790003000",
        "X-RateLimit-Retry-After": "1",
    }
    again = start(sandbox)
    assert (again.status_code, "X-RateLimit-Retry-After" in again.headers) == (201, False)


def test_fault_errors_as_objects(sandbox: Sandbox) -> None:
    sandbox.set_faults("errors-as-objects")
    refused = [start(sandbox, "nowhere"), post(sandbox, "/users/export/segment", {}, key="wrong")]
    assert [(each.status_code, each.json()) for each in refused] == [
        (400, {"errors": [{"id": "invalid-parameter", "message": f"The segment_id is invalid: {NO_SEGMENT}"}]}),
        (401, {"errors": [{"id": "unauthorized", "message": "Invalid API key"}]}),
    ]


@pytest.mark.parametrize(("fault", "sizes"), [("estimates-high", [1010, 112, 10]), ("estimates-low", [990, 92, 0])])
def test_fault_estimates(fault: str, sizes: list[int]) -> None:
    """By ten users, as the workspace has a thousand: a small segment is far off."""
    with Sandbox(users=1000, odd_users=False, faults=[fault]) as sandbox:
        sandbox.add_segment("some", [{"braze_id": f"{number}"} for number in range(102)])
        found = [
            get(sandbox, "/segments/data_series", segment_id=segment, length=1).json()["data"][0]["size"]
            for segment in ("all-users", "some", "empty-segment")
        ]
    assert found == sizes


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("ids-users-null", 201, {"message": "success", "users": None}),
        ("ids-no-users", 201, {"message": "The request could not be completed", "users": []}),
        ("ids-queued", 202, {"message": "queued"}),
    ],
)
def test_fault_ids(sandbox: Sandbox, fault: str, status: int, body: Any) -> None:
    """Whoever is asked for; other responses are as ever."""
    sandbox.set_faults(fault)
    for wanted in ({"external_ids": ["user-0000000", "nobody"]}, {"braze_id": "none"}):
        response = ids(sandbox, **wanted)
        assert (response.status_code, response.json()) == (status, body)
    assert len(members(download(sandbox).content)[0]) == 30
    sandbox.set_faults()
    assert ids(sandbox, external_ids=["nobody"]).json()["invalid_user_ids"] == ["nobody"]


def test_fault_not_ready_404() -> None:
    with Sandbox(users=3, hold=True, faults=["not-ready-404"]) as sandbox:
        response = download(sandbox)
        assert (response.status_code, "<Code>NoSuchKey</Code>" in response.text) == (404, True)


def test_fault_never_ready(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.set_faults("never-ready")
    url = start(sandbox).json()["url"]
    sandbox.finish_exports()
    assert [fetch(url).status_code for _ in range(3)] == [403] * 3
    assert start(sandbox).status_code == 429
    with Sandbox(users=3, faults=["never-ready"], bucket_url=str(tmp_path)) as bucket:
        start(bucket)
        assert files_below(tmp_path) == []


def test_fault_never_complete(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, faults=["never-complete"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        sandbox.finish_exports()
        assert len(files_below(tmp_path)) == 3
        assert start(sandbox).status_code == 429


def test_fault_expires(sandbox: Sandbox) -> None:
    sandbox.set_faults("expires")
    url = start(sandbox).json()["url"]
    first, second = fetch(url), fetch(url)
    assert (first.status_code, second.status_code) == (200, 403)
    assert "<Code>ExpiredToken</Code>" in second.text


def test_fault_no_range(sandbox: Sandbox) -> None:
    sandbox.set_faults("no-range")
    response = fetch(start(sandbox).json()["url"], Range="bytes=5-")
    assert (response.status_code, "Accept-Ranges" in response.headers) == (200, False)
    assert len(members(response.content)[0]) == 30


def test_fault_changed_etag(sandbox: Sandbox) -> None:
    sandbox.set_faults("changed-etag")
    url = start(sandbox).json()["url"]
    etag = fetch(url).headers["ETag"]
    again = fetch(url, Range="bytes=5-", **{"If-Range": etag})
    assert again.headers["ETag"] != etag
    assert again.status_code == 200


def test_fault_slow_download() -> None:
    waited: list[float] = []
    with Sandbox(users=400, faults=["slow-download"], wait=waited.append) as sandbox:
        content = fetch(start(sandbox, fields=EVERYTHING).json()["url"]).content
    assert len(members(content)[0]) == 400
    assert waited == [0.25] * ((len(content) - 1) // 65536)
    assert waited


def test_fault_connection_reset(sandbox: Sandbox) -> None:
    """Half of it arrives, and the rest can be asked for."""
    sandbox.set_faults("connection-reset")
    url = start(sandbox).json()["url"]
    got = b""
    with (  # noqa: PT012 - the response breaks off while it is read
        pytest.raises(requests.exceptions.ChunkedEncodingError),
        requests.get(url, stream=True, timeout=60) as response,
    ):
        size = int(response.headers["Content-Length"])
        for piece in response.iter_content(100):
            got += piece
    assert len(got) <= size // 2
    rest = fetch(url, Range=f"bytes={len(got)}-")
    assert rest.status_code == 206
    assert len(members(got + rest.content)[0]) == 30


def test_fault_damaged_once(sandbox: Sandbox) -> None:
    sandbox.set_faults("damaged-once")
    url = start(sandbox).json()["url"]
    with pytest.raises(zipfile.BadZipFile):
        members(fetch(url).content)
    assert len(members(fetch(url).content)[0]) == 30


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc", "not-an-archive"])
def test_fault_damaged_zip(sandbox: Sandbox, fault: str) -> None:
    """Every time; an archive with a wrong checksum fails only where its member is read."""
    sandbox.set_faults(fault)
    url = start(sandbox).json()["url"]
    for _ in range(2):
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32" if fault == "wrong-crc" else "not a zip"):
            members(fetch(url).content)


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc", "not-an-archive"])
def test_fault_damaged_gzip(sandbox: Sandbox, fault: str) -> None:
    sandbox.set_faults(fault)
    content = fetch(start(sandbox, output_format="gzip").json()["url"]).content
    with pytest.raises((EOFError, OSError), match=r"(?i)end-of-stream|CRC check|not a gzipped"):
        gzip.decompress(content)


def test_damage_strikes_the_first_bucket_file_only(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, hold=True, faults=["wrong-crc"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        first, second = (Path(sandbox.deliver_next_file() or "") for _ in range(2))
        with pytest.raises(zipfile.BadZipFile):
            members(first.read_bytes())
        assert len(members(second.read_bytes())[0]) == 10


def test_fault_empty_zip(sandbox: Sandbox) -> None:
    sandbox.set_faults("empty-zip")
    content = download(sandbox).content
    assert content.startswith(b"PK\x05\x06")
    assert members(content) == []


def test_fault_no_file(tmp_path: Path) -> None:
    with Sandbox(users=9, faults=["no-file"], bucket_url=str(tmp_path)) as sandbox:
        assert [start(sandbox).status_code for _ in range(2)] == [201, 201]
        assert files_below(tmp_path) == []


def test_fault_filter_ignored(sandbox: Sandbox) -> None:
    sandbox.set_faults("filter-ignored")
    for since in (FUTURE, "nonsense", 7):
        assert len(raw_lines(sandbox, user_last_updated_at=since)) == 30


def test_fault_filter_refused(sandbox: Sandbox) -> None:
    sandbox.set_faults("filter-refused")
    for since in (FUTURE, "nonsense", None):
        refused = start(sandbox, user_last_updated_at=since)
        assert (refused.status_code, refused.json()) == (400, NOT_PERMITTED)
    assert len(raw_lines(sandbox)) == 30


def test_fault_empty_archive(sandbox: Sandbox, tmp_path: Path) -> None:
    """Only of exports without users, whether a time or the segment leaves them without."""
    sandbox.set_faults("empty-archive")
    for response in (start(sandbox, "empty-segment"), start(sandbox, user_last_updated_at=FUTURE)):
        assert members(fetch(response.json()["url"]).content) == []
    assert len(raw_lines(sandbox)) == 30
    with Sandbox(users=3, faults=["empty-archive"], bucket_url=str(tmp_path)) as bucket:
        start(bucket, user_last_updated_at=FUTURE)
        start(bucket)
        assert sorted(map(len, (members((tmp_path / file).read_bytes()) for file in files_below(tmp_path)))) == [0, 1]


def test_fault_empty_bucket(tmp_path: Path, listener: CallbackReceiver) -> None:
    """Such an export completes: its callback comes."""
    with Sandbox(users=3, faults=["empty-bucket"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, user_last_updated_at=FUTURE, callback_endpoint=listener.url)
        assert listener.arrived.wait(10)
        assert files_below(tmp_path) == []
        start(sandbox)
        assert len(files_below(tmp_path)) == 1


@pytest.mark.parametrize("delivery", ["download", "bucket"])
def test_fault_empty_never_ready(delivery: str, tmp_path: Path, listener: CallbackReceiver) -> None:
    """It does not run on, so that the next export of the segment can start; only the callback of that one comes."""
    bucket_url = str(tmp_path) if delivery == "bucket" else None
    with Sandbox(users=3, faults=["empty-never-ready"], bucket_url=bucket_url) as sandbox:
        url = start(sandbox, user_last_updated_at=FUTURE, callback_endpoint=f"{listener.url}?of=empty").json()["url"]
        if url:
            assert [fetch(url).status_code for _ in range(2)] == [403, 403]
        sandbox.finish_exports()
        assert files_below(tmp_path) == []
        assert start(sandbox, callback_endpoint=listener.url).status_code == 201
        assert listener.arrived.wait(10)
    assert [request.path for request in listener.seen] == ["/ready"]


def test_fault_macosx_entries(sandbox: Sandbox) -> None:
    sandbox.set_faults("macosx-entries")
    with zipfile.ZipFile(io.BytesIO(download(sandbox).content)) as archive:
        names = archive.namelist()
        assert len(archive.read(names[2]).splitlines()) == 30
    assert names[0] == "export/"
    assert names[1].startswith("__MACOSX/")
    assert names[2].endswith(".jsonlines")


def test_fault_bad_line(sandbox: Sandbox) -> None:
    sandbox.set_faults("bad-line")
    lines = raw_lines(sandbox)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(lines[0])
    assert isinstance(json.loads(lines[1]), list)
    assert len(lines) == 32


def test_bad_lines_stand_in_the_first_member_only() -> None:
    with Sandbox(users=20, users_per_file=10, faults=["bad-line", "no-braze-id", "duplicate-user"]) as sandbox:
        content = download(sandbox).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert [len(archive.read(name).splitlines()) for name in archive.namelist()] == [14, 10]


def test_fault_no_braze_id(sandbox: Sandbox) -> None:
    sandbox.set_faults("no-braze-id")
    lines = raw_lines(sandbox)
    assert "braze_id" not in json.loads(lines[0])
    assert len(lines) == 31


def test_fault_duplicate_user(sandbox: Sandbox) -> None:
    sandbox.set_faults("duplicate-user")
    lines = raw_lines(sandbox)
    assert lines[0] == lines[1] != lines[2]
    assert len(lines) == 31


def test_fault_unrequested_fields(sandbox: Sandbox) -> None:
    sandbox.set_faults("unrequested-fields")
    users = [json.loads(line) for line in raw_lines(sandbox, fields=EVERYTHING)]
    assert all({"appboy_id", "brand_new_member"} <= user.keys() for user in users)


def test_fault_huge_line(sandbox: Sandbox) -> None:
    sandbox.set_faults("huge-line")
    lines = raw_lines(sandbox, segment="vip-users")
    assert len(lines[0]) > 64 * 1024 * 1024
    assert len(lines) == 4


def date_folders(folder: Path) -> list[str]:
    return sorted({Path(file).parts[2] for file in files_below(folder)})


def test_fault_other_date_folder(tmp_path: Path) -> None:
    faults = ["other-date-folder"]
    with Sandbox(users=25, users_per_file=10, faults=faults, bucket_url=str(tmp_path), clock=lambda: NOW) as sandbox:
        start(sandbox)
    assert date_folders(tmp_path) == ["2026-09-22", "2026-09-23"]


def test_fault_foreign_export(tmp_path: Path) -> None:
    """Two things that are none of the export's: another export's file and a CSV export."""
    with Sandbox(users=9, faults=["foreign-export"], bucket_url=str(tmp_path), clock=lambda: NOW) as sandbox:
        prefix = start(sandbox).json()["object_prefix"]
    files = files_below(tmp_path)
    assert date_folders(tmp_path) == ["2026-09-21"]
    assert [len(Path(file).parts) for file in files if prefix not in file and "users-" not in file] == [5]
    assert [Path(file).name for file in files if len(Path(file).parts) == 4] == ["users-a1b2c3.zip"]
    assert len([file for file in files if prefix in file]) == 1


def test_fault_leftover_file(tmp_path: Path) -> None:
    """The first half of the first file, in the same folder."""
    with Sandbox(users=25, users_per_file=10, faults=["leftover-file"], bucket_url=str(tmp_path)) as sandbox:
        prefix = start(sandbox).json()["object_prefix"]
    contents = [(tmp_path / file).read_bytes() for file in files_below(tmp_path) if prefix in file]
    whole = [content for content in contents if zipfile.is_zipfile(io.BytesIO(content))]
    (leftover,) = [content for content in contents if content not in whole]
    assert sorted(len(members(content)[0]) for content in whole) == [5, 10, 10]
    (twin,) = [content for content in whole if content.startswith(leftover)]
    assert len(leftover) == len(twin) // 2


def test_fault_half_written_file(tmp_path: Path) -> None:
    """The export runs on until the file has grown to its full length under the same name."""
    with Sandbox(users=9, faults=["half-written-file"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        (file,) = files_below(tmp_path)
        with pytest.raises(zipfile.BadZipFile):
            members((tmp_path / file).read_bytes())
        assert start(sandbox).status_code == 429
        assert sandbox.deliver_next_file() == str(tmp_path / file)
        assert len(members((tmp_path / file).read_bytes())[0]) == 9
        sandbox.finish_exports()
        assert files_below(tmp_path) == [file]


def test_fault_late_file(tmp_path: Path, listener: CallbackReceiver) -> None:
    """The callback has come and the segment is free, and yet one more file arrives."""
    with Sandbox(users=25, users_per_file=10, faults=["late-file"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, callback_endpoint=listener.url)
        assert listener.arrived.wait(10)
        assert len(files_below(tmp_path)) == 2
        assert not sandbox.workspace.running()
        assert sandbox.deliver_next_file()
        assert len(files_below(tmp_path)) == 3
        assert sandbox.deliver_next_file() is None


def test_fault_slow_trickle(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, faults=["slow-trickle"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        counts = [len(files_below(tmp_path))]
        while sandbox.deliver_next_file():
            counts.append(len(files_below(tmp_path)))
        assert counts == [1, 2, 3]
        assert start(sandbox).status_code == 429
        sandbox.finish_exports()
        assert start(sandbox).status_code == 201
