"""Braze's folder behind a slash too many, as its folder setting may lead to, or near bucket_url: in object stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_braze_export.files.bucket import Bucket
from tests.support.s3 import CONTENT, EXPORT, OTHER, ScriptedS3, names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.clouds import Store
    from tests.support.fakes import FakeClock, Server

pytestmark = pytest.mark.slow

REST = f"segment-export/seg/2026-01-02/{EXPORT}"
ODD = {
    "s3://bucket": ["/", "//", "///"],
    "s3://bucket/exports": ["exports//", "exports///", "/exports/", "/exports//", "/exports///"],
    "s3://bucket//exports//": ["exports//", "/exports/", "/exports//"],
    "s3://bucket/a/b": ["a//b/", "/a//b/", "a/b//", "/a/b///"],
}
"""What bucket_url names, and what stands before `segment-export` in the keys that Braze writes."""


def test_slashes_too_many_are_read(
    scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock, caplog: Any, tmp_path: Path
) -> None:
    for url, prefixes in ODD.items():
        for prefix in prefixes:
            caplog.clear()
            scripted_s3.objects = {
                f"{prefix}{REST}/a.zip": CONTENT,
                f"{prefix}{REST.replace(EXPORT, OTHER)}/b.zip": b"x",
            }
            bucket = Bucket(url, s3_options, clock=clock)
            assert bucket.objects(EXPORT, "seg") == [], prefix
            assert bucket.find_misplaced(), prefix
            assert not bucket.find_misplaced(), prefix
            (found,) = bucket.objects(EXPORT, "seg")
            assert (found.name, found.size, found.version) == ("a.zip", len(CONTENT), '"e"')
            bucket.fetch(found, tmp_path / "object")
            assert (tmp_path / "object").read_bytes() == CONTENT
            assert names(bucket.objects(EXPORT, None)) == ["a.zip"]
            assert [message.partition(", since")[0] for message in caplog.messages] == [
                f"Braze's files are below s3://bucket/{prefix}segment-export/"
            ]


def test_the_search_has_few_requests(
    server: Server, scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock
) -> None:
    """However many folders there are."""
    scripted_s3.objects = {f"a/{number:05}/x": b"" for number in range(2_000)} | {
        f"{n:05}/x": b"" for n in range(2_000)
    }
    bucket = Bucket("s3://bucket/a/b", s3_options, clock=clock)

    assert not bucket.find_misplaced()
    assert bucket.elsewhere(EXPORT, "seg") == ("", False)
    assert len(server.seen) < 50


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("s3://bucket/a/b", "a/"), ("s3://bucket/a/b", ""), ("s3://bucket", "a/"), ("s3://bucket/a/b", "a/c/")],
)
def test_another_prefix_is_named(
    scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock, url: str, prefix: str
) -> None:
    """It is not read: it may be another workspace's, unless files of the export are there."""
    scripted_s3.objects = {f"{prefix}{REST}/a.zip": CONTENT, "other/x": b"", "a/x": b""}
    bucket = Bucket(url, s3_options, clock=clock)
    where = f"s3://bucket/{prefix}segment-export/"

    assert not bucket.find_misplaced()
    assert bucket.objects(EXPORT, "seg") == []
    assert bucket.elsewhere(EXPORT, "seg") == (where, True)
    assert bucket.elsewhere(OTHER, "seg") == (where, False)
    assert bucket.without_folder() == f"it holds no segment-export/ yet, but {where} is there"


@pytest.mark.parametrize("folder", ["", "exports", "exports/deeper"])
def test_another_directory_is_named(tmp_path: Path, clock: FakeClock, folder: str) -> None:
    """The system merges slashes; only a directory above or below is another one."""
    (tmp_path / "exports" / "deeper").mkdir(parents=True)
    (tmp_path / folder / REST).mkdir(parents=True)
    (tmp_path / folder / REST / "a.zip").write_bytes(b"zip")
    bucket = Bucket(f"{tmp_path}//exports//", {}, clock=clock)
    where = f"{tmp_path / folder / 'segment-export'}/"

    assert not bucket.find_misplaced()
    if folder == "exports":
        assert names(bucket.objects(EXPORT, "seg")) == ["a.zip"]
        assert bucket.without_folder() == ""
    else:
        assert bucket.elsewhere(EXPORT, "seg") == (where, True)
        assert bucket.without_folder() == f"it holds no segment-export/ yet, but {where} is there"


def test_a_bucket_of_which_only_the_prefix_may_be_listed(
    scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock
) -> None:
    """A refusal nearby is no error."""
    bucket = Bucket("s3://bucket/a/b", s3_options, clock=clock)
    scripted_s3.refuse = [(403, "AccessDenied")]

    assert not bucket.find_misplaced()
    assert bucket.elsewhere(EXPORT, "seg") == ("", False)


@pytest.mark.external
@pytest.mark.parametrize("store", ["gcs", "azure"], indirect=True)
def test_slashes_too_many_in_other_clouds(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    name = tmp_path.name
    for number, odd in enumerate(["{}//", "{}///", "/{}/", "/{}//"]):
        prefix = odd.format(f"{name}{number}")
        for file in range(3):
            put(store, f"{prefix}{REST}/{file}.zip", CONTENT)
        bucket = Bucket(store.at(f"{name}{number}"), store.reader, clock=clock)
        assert bucket.objects(EXPORT, "seg") == [], prefix
        assert bucket.without_folder().startswith("it holds no segment-export/ yet"), prefix
        found = bucket.objects(EXPORT, "seg")
        assert names(found) == ["0.zip", "1.zip", "2.zip"], prefix
        assert all(each.version for each in found)
        bucket.fetch(found[1], tmp_path / "object")
        assert (tmp_path / "object").read_bytes() == CONTENT
        with bucket.open(found[2], end_bytes=10) as file_in_place:
            assert file_in_place.read() == CONTENT


def put(store: Store, key: str, content: bytes) -> None:
    """Write an object whose key has empty components."""
    if store.url.startswith("gs:"):
        address = f"{store.writer['endpoint_url']}/upload/storage/v1/b/exports/o"
        requests.post(address, params={"uploadType": "media", "name": key}, data=content, timeout=30).raise_for_status()
        return
    from azure.storage.blob import BlobClient

    with BlobClient.from_connection_string(store.writer["connection_string"], "exports", key) as blob:
        blob.upload_blob(content, overwrite=True)
