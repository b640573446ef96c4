"""Files of the sandbox behind signed URLs and in buckets."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import fsspec
import pytest
import requests

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.sandbox_client import NOW, download, fetch, files_below, members, start

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


# Downloads


def test_download_describes_itself(sandbox: Sandbox) -> None:
    response = download(sandbox)
    assert response.headers["Content-Length"] == str(len(response.content))
    assert response.headers["Last-Modified"] == "Mon, 21 Sep 2026 14:13:20 GMT"
    assert response.headers["Content-Type"] == "application/zip"
    assert re.fullmatch(r'"[0-9a-f-]+"', response.headers["ETag"])


def test_download_refuses_an_authorization_header(sandbox: Sandbox) -> None:
    """As an object store does; it would also leak the key."""
    response = fetch(start(sandbox).json()["url"], Authorization="Bearer sandbox-key")
    assert response.status_code == 400
    assert "<Error>" in response.text


def test_download_needs_its_signature(sandbox: Sandbox) -> None:
    url = start(sandbox).json()["url"]
    assert fetch(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    assert fetch(url.partition("?")[0]).status_code == 403
    assert fetch(url).status_code == 200


def test_download_expires_after_four_hours() -> None:
    clock = FakeClock(NOW)
    with Sandbox(users=3, clock=clock.now) as sandbox:
        url = start(sandbox).json()["url"]
        clock.time += 4 * 3600
        assert fetch(url).status_code == 200
        clock.time += 1
        assert fetch(url).status_code == 403


def test_signature_is_for_get_only(sandbox: Sandbox) -> None:
    assert requests.head(start(sandbox).json()["url"], timeout=60).status_code == 403


def test_expired_archives_leave_the_disk() -> None:
    clock = FakeClock(NOW)
    with Sandbox(users=3, clock=clock.now) as sandbox:
        start(sandbox)
        clock.time += 4 * 3600 + 1
        prefix = start(sandbox).json()["object_prefix"]
        assert [path.name for path in sandbox.workspace.folder.iterdir()] == [prefix]
    assert not sandbox.workspace.folder.exists()


def test_download_continues_from_a_byte(sandbox: Sandbox) -> None:
    url = start(sandbox).json()["url"]
    whole = fetch(url)
    size, etag = len(whole.content), whole.headers["ETag"]
    rest = fetch(url, Range="bytes=100-", **{"If-Range": etag})
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes 100-{size - 1}/{size}")
    assert rest.content == whole.content[100:]
    assert fetch(url, Range="bytes=2-5").content == whole.content[2:6]
    assert fetch(url, Range="bytes=-7").content == whole.content[-7:]
    assert fetch(url, Range="bytes=100-", **{"If-Range": '"other"'}).status_code == 200
    beyond = fetch(url, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")


# Buckets


def test_bucket_gets_a_file_for_every_5000_users(tmp_path: Path) -> None:
    with Sandbox(users=5001, bucket_url=str(tmp_path / "bucket" / "folder"), clock=lambda: NOW) as sandbox:
        response = start(sandbox, fields=["braze_id"]).json()
    assert response["url"] is None
    folder = tmp_path / "bucket" / "folder" / "segment-export" / "all-users" / "2026-09-21" / response["object_prefix"]
    files = files_below(tmp_path)
    assert len(files) == 2
    assert sorted(path.name for path in folder.iterdir()) == [Path(file).name for file in files]
    assert all(re.fullmatch(r"[0-9a-f]{32}\.zip", Path(file).name) for file in files)
    assert sorted(len(members((tmp_path / file).read_bytes())[0]) for file in files) == [1, 5000]


def test_bucket_gets_gzip_when_asked(tmp_path: Path) -> None:
    with Sandbox(users=9, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, output_format="gzip")
    (file,) = files_below(tmp_path)
    assert file.endswith(".gz")
    assert len(gzip.decompress((tmp_path / file).read_bytes()).splitlines()) == 9


def test_bucket_can_be_any_fsspec_url() -> None:
    with Sandbox(users=9, bucket_url="memory://sandbox-bucket/folder", bucket_options={}) as sandbox:
        prefix = start(sandbox).json()["object_prefix"]
    (path,) = fsspec.filesystem("memory").find("/sandbox-bucket")
    assert path.startswith("/sandbox-bucket/folder/segment-export/all-users/")
    assert f"/{prefix}/" in path


def test_bucket_files_can_trickle_in(tmp_path: Path) -> None:
    """With `hold` each file and the end come when the test says so."""
    with Sandbox(users=25, users_per_file=10, hold=True, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        assert files_below(tmp_path) == []
        delivered = [sandbox.deliver_next_file() for _ in range(4)]
        assert [path and len(members(Path(path).read_bytes())[0]) for path in delivered] == [10, 10, 5, None]
        assert start(sandbox).status_code == 429
        sandbox.finish_exports()
        assert start(sandbox).status_code == 201
        assert len(files_below(tmp_path)) == 3


def test_finishing_delivers_the_rest(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, hold=True, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        sandbox.deliver_next_file()
        sandbox.finish_exports()
        assert len(files_below(tmp_path)) == 3
