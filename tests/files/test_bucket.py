"""Exports in a bucket: on the local disk, and behind the protocol of S3."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import ConfigError, DamagedFileError, ExportError
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.objects import BucketObject
from tests.support.s3 import CONTENT, DATE, EMPTY_ZIP, EXPORT, FOLDER, OTHER, ScriptedS3, names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fakes import FakeClock, Server


def deliver(root: Path, path: str, content: bytes = b"zip") -> None:
    file = root / "segment-export" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


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


def test_new_and_changed_files_are_seen_at_the_next_listing(bucket: Bucket, tmp_path: Path) -> None:
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


# S3


def test_s3_files_are_listed_and_read(store: ScriptedS3, s3: Bucket, tmp_path: Path) -> None:
    store.objects |= {
        f"{FOLDER}/b.zip": CONTENT,
        f"{FOLDER}/a.zip": EMPTY_ZIP,
        f"{FOLDER}/": b"",
        f"{DATE}/{OTHER}/c.zip": b"other",
        f"{DATE}/users-x.zip": b"csv",
    }

    found = s3.objects(EXPORT, "seg")
    s3.fetch(found[1], tmp_path / "object")

    assert [(item.name, item.size, item.version) for item in found] == [
        ("a.zip", 22, '"e"'),
        ("b.zip", 10_000, '"e"'),
    ]
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert names(s3.objects(EXPORT, None)) == ["a.zip", "b.zip"]


def test_object_is_read_in_place(server: Server, store: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    """By ranges, each repeated after a failure; both ends come at once."""
    content = bytes(range(256)) * 40_000
    store.objects[f"{FOLDER}/a.zip"] = content
    (found,) = s3.objects(EXPORT, "seg")
    before = len(server.seen)
    store.refuse = [(500, "Odd"), (0, "")]
    with s3.open(found) as file:
        assert file.read(len(content)) == content
    assert len(server.seen) - before == 1 + 2
    assert len(clock.slept) == 1
    with s3.open(found, end_bytes=1000) as file:
        assert len(server.seen) - before == 3 + 2
        assert file.read(4) == content[:4]
        assert file.seek(-22, 2) == len(content) - 22
        assert file.read() == content[-22:]
        assert len(server.seen) - before == 3 + 2
        file.seek(5_000_000)
        assert file.read(3) == content[5_000_000:5_000_003]


def test_object_that_is_gone_or_shorter(store: ScriptedS3, s3: Bucket) -> None:
    """A shorter object ends early; its reader checks that."""
    key = f"{FOLDER}/a.zip"
    store.objects[key] = CONTENT
    (found,) = s3.objects(EXPORT, "seg")
    store.objects[key] = CONTENT[:100]
    with s3.open(found) as file:
        assert file.read(1000) == CONTENT[:100]
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1)
    del store.objects[key]
    with s3.open(found) as file, pytest.raises(ExportError, match="deleted from the bucket before it was read"):
        file.read()


def test_s3_listing_is_never_cached(store: ScriptedS3, s3: Bucket) -> None:
    assert s3.objects(EXPORT, "seg") == []
    store.objects[f"{FOLDER}/a.zip"] = b"zip"
    assert names(s3.objects(EXPORT, "seg")) == ["a.zip"]


def test_s3_check(store: ScriptedS3, s3: Bucket, options: dict[str, Any], clock: FakeClock) -> None:
    assert s3.check() is None
    store.objects[f"{DATE}/x/a.zip"] = b"zip"
    assert s3.check() is None
    missing = Bucket("s3://nosuch/braze", options, clock=clock)
    assert missing.check() == "bucket_url names a bucket or directory that does not exist"
    with pytest.raises(ConfigError, match="does not exist"):
        missing.objects(EXPORT, "seg")
