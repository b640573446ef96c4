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


def test_files_of_one_name_in_several_date_folders_are_told_apart(bucket: Bucket, tmp_path: Path) -> None:
    """Names say which files were read; the first of these keeps its own whether others have come or not."""
    for date in ("2026-01-02", "2026-01-01", "2026-01-03"):
        deliver(tmp_path, f"seg/{date}/{EXPORT}/a.zip")

    assert names(bucket.objects(EXPORT, "seg")) == ["2026-01-02-a.zip", "2026-01-03-a.zip", "a.zip"]


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


UNFINISHED = [
    ".b.zip.Ab12Cd",  # rsync
    ".azDownload-0f1e-b.zip",
    ".b.zip",
    "b.zip.6eF9aC2b",  # aws
    "b.zip.aBcDeFab",
    "b.gz.0123456f",
    "b.zip_.gstmp",  # gsutil, gcloud
    "b.zip_.gstmp_12",
    "b.zip.1a2b3c4d.partial",  # rclone
    "b.zip.partial",
    "b.zip.tmp",
    "b.temp",
    "b.zip.part",
    "b.zip.filepart",  # WinSCP
    "b.zip.crdownload",
    "b.zip._COPYING_",
    "b.zip2873465081",  # s5cmd
    "b.zip~",
]
BRAZES = [
    "0123456789abcdef0123456789abcdef.zip",
    "0123456789abcdef0123456789abcdef.gz",
    "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab-1464728599.zip",
    "users",
    "users.20260102",
    "a.zip.gz",
    "a.gz.zip",
    "a.zip.1",
    "a.zip.20260102",
    "a.zip.backup",
    "part-0001",
    "temp.zip",
    "a.partial.zip",
    "0123456789abcdef0123456789abcdef",
    "odd name (1).zip",
]


def test_files_that_a_copy_tool_has_not_finished_are_left_alone(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their temporary names are not read, which is logged once; names of Braze and odd ones are."""
    for name in UNFINISHED + BRAZES:
        deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/{name}")

    for _ in range(3):
        assert names(bucket.objects(EXPORT, "seg")) == sorted(BRAZES)
    assert len([line for line in caplog.messages if "is left alone" in line]) == len(UNFINISHED)


def test_symbolic_links_in_a_directory_are_followed(bucket: Bucket, tmp_path: Path, clock: FakeClock) -> None:
    """To files, folders and the bucket itself; what leads nowhere or in a circle is left alone."""
    deliver(tmp_path / "real", f"seg/2026-01-02/{EXPORT}/a.zip", CONTENT)
    real = tmp_path / "real" / "segment-export" / "seg"
    folder = tmp_path / "segment-export" / "seg" / "2026-01-03" / EXPORT
    folder.mkdir(parents=True)
    (folder / "b.zip").symlink_to(real / "2026-01-02" / EXPORT / "a.zip")
    (folder / "nowhere.zip").symlink_to(tmp_path / "none")
    (folder / "circle.zip").symlink_to(folder / "circle.zip")
    (tmp_path / "segment-export" / "linked").symlink_to(real)
    (tmp_path / "link").symlink_to(tmp_path / "real")

    (found,) = bucket.objects(EXPORT, "seg")
    bucket.fetch(found, tmp_path / "object")

    assert (found.name, found.size) == ("b.zip", len(CONTENT))
    assert (tmp_path / "object").read_bytes() == CONTENT
    assert names(bucket.objects(EXPORT, "linked")) == ["a.zip"]
    assert names(Bucket(str(tmp_path / "link"), {}, clock=clock).objects(EXPORT, None)) == ["a.zip"]


def test_target_of_a_symbolic_link_that_changes_is_seen(bucket: Bucket, tmp_path: Path) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/.real", b"half")
    folder = tmp_path / "segment-export" / "seg" / "2026-01-02" / EXPORT
    (folder / "a.zip").symlink_to(folder / ".real")
    (before,) = bucket.objects(EXPORT, "seg")
    (folder / ".real").write_bytes(b"whole")
    (after,) = bucket.objects(EXPORT, "seg")

    assert (before.size, after.size) == (4, 5)


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_bytes(b"")

    problem = Bucket(str(tmp_path / "file"), {}, clock=clock).check()

    assert problem == f"bucket_url names a bucket or directory that does not exist: {tmp_path / 'file'}"
    assert clock.slept == []


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


def test_file_that_is_shorter_than_listed_is_damaged(bucket: Bucket, tmp_path: Path) -> None:
    path = f"seg/2026-01-02/{EXPORT}/a.zip"
    deliver(tmp_path, path, CONTENT)
    (found,) = bucket.objects(EXPORT, "seg")
    deliver(tmp_path, path, CONTENT[:-1])

    with pytest.raises(DamagedFileError, match=r"^a\.zip has another length than the 10000 bytes listed$"):
        bucket.fetch(found, tmp_path / "object")
    assert [item.name for item in tmp_path.iterdir()] == ["segment-export"]


def test_file_that_is_gone_is_a_damaged_file(bucket: Bucket, tmp_path: Path) -> None:
    """The next listing shows if it was renamed, or is lost."""
    found = BucketObject("a.zip", str(tmp_path / "none"), 3, "")

    with pytest.raises(DamagedFileError, match=r"^a\.zip was deleted from the bucket before it was read$"):
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
    error = f"bucket_url names a bucket or directory that does not exist: {tmp_path / 'none'}"

    assert Bucket(str(tmp_path), {}, clock=clock).check() is None
    assert missing.check() == error
    with pytest.raises(ConfigError, match=error):
        missing.objects(EXPORT, "seg")


def test_directory_that_may_still_be_made(clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Before a start a missing directory is no error if the one that would hold it is there."""
    Bucket(str(tmp_path / "none"), {}, clock=clock).require()
    assert caplog.messages == [f"bucket_url {tmp_path / 'none'}: there is no such directory yet"]
    with pytest.raises(ConfigError, match="does not exist"):
        Bucket(str(tmp_path / "none" / "deeper"), {}, clock=clock).require()


# S3


def test_s3_files_are_listed_and_read(scripted_s3: ScriptedS3, s3: Bucket, tmp_path: Path) -> None:
    scripted_s3.objects |= {
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


def test_object_is_read_in_place(server: Server, scripted_s3: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    """By ranges, each repeated after a failure; both ends come at once."""
    content = bytes(range(256)) * 40_000
    scripted_s3.objects[f"{FOLDER}/a.zip"] = content
    (found,) = s3.objects(EXPORT, "seg")
    before = len(server.seen)
    scripted_s3.refuse = [(500, "Odd"), (0, "")]
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


def test_object_that_is_gone_or_shorter(scripted_s3: ScriptedS3, s3: Bucket) -> None:
    """A shorter object ends early; its reader checks that."""
    key = f"{FOLDER}/a.zip"
    scripted_s3.objects[key] = CONTENT
    (found,) = s3.objects(EXPORT, "seg")
    scripted_s3.objects[key] = CONTENT[:100]
    with s3.open(found) as file:
        assert file.read(1000) == CONTENT[:100]
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1)
    del scripted_s3.objects[key]
    with s3.open(found) as file, pytest.raises(DamagedFileError, match="deleted from the bucket before it was read"):
        file.read()


def test_s3_listing_is_never_cached(scripted_s3: ScriptedS3, s3: Bucket) -> None:
    assert s3.objects(EXPORT, "seg") == []
    scripted_s3.objects[f"{FOLDER}/a.zip"] = b"zip"
    assert names(s3.objects(EXPORT, "seg")) == ["a.zip"]


def test_s3_check(scripted_s3: ScriptedS3, s3: Bucket, s3_options: dict[str, Any], clock: FakeClock) -> None:
    assert s3.check() is None
    scripted_s3.objects[f"{DATE}/x/a.zip"] = b"zip"
    assert s3.check() is None
    missing = Bucket("s3://nosuch/braze", s3_options, clock=clock)
    assert missing.check() == "bucket_url names a bucket or directory that does not exist: s3://nosuch/braze"
    with pytest.raises(ConfigError, match="does not exist"):
        missing.objects(EXPORT, "seg")


def test_bucket_that_is_required_before_a_start(scripted_s3: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    """A refusal or a missing bucket ends the run; one that cannot be reached just now does not, without any wait."""
    s3.require()
    scripted_s3.refuse = [(403, "AccessDenied")]
    with pytest.raises(ConfigError, match="Check the credentials"):
        s3.require()
    scripted_s3.refuse = [(500, "Odd")]
    s3.require()
    assert clock.slept == []
