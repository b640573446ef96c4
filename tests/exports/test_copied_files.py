"""A directory into which another program copies Braze's files: temporary names, renames, repacked archives."""

from __future__ import annotations

import gzip
import io
import zipfile
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import ExportError
from tap_braze_export.export import Export
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.objects import DeliveredFile
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.state import Bookmark
from tests.support.fakes import FakeClock, Server, as_json
from tests.support.runs import selecting, settings, sync
from tests.support.s3 import EXPORT
from tests.support.steps import Steps, braze, nothing, posts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.files.objects import BucketObject
    from tap_braze_export.files.prefetch import Fetched
    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

USERS = selecting(["users", "export_files"])


def export_folder(bucket: Path) -> Path:
    (found,) = bucket.glob("segment-export/*/*/*")
    return found


def in_bucket(sandbox: Sandbox, folder: Path, **more: Any) -> dict[str, Any]:
    return settings(sandbox, folder, bucket_url=str(folder / "bucket"), **more)


def zipped(*contents: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for number, content in enumerate(contents):
            opened.writestr(f"users{number}.gz", content)
    return written.getvalue()


# Equal names


@pytest.mark.parametrize("between", [[], [nothing, nothing]])
@pytest.mark.fault("Bucket", "two files of one name in the folders of two dates", "the rows of both")
def test_files_of_one_name_in_two_dates(tmp_path: Path, between: list[Any]) -> None:
    """Both are there at once, or the first one is read before the second one comes."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:

        def put(date: str, braze_id: str) -> None:
            first = next((tmp_path / "bucket").glob("segment-export/*/*/*"))
            folder = first.parents[1] / date / first.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "part.gz").write_bytes(gzip.compress(f'{{"braze_id":"{braze_id}"}}\n'.encode()))

        def second() -> None:
            put("2999-01-02", "second")

        clock.steps = [sandbox.deliver_next_file, lambda: put("2999-01-01", "first"), *between, second, nothing]
        run = sync(in_bucket(sandbox, tmp_path), clock=clock, catalog=USERS)

    assert {"first", "second"} <= {*run.ids()}
    assert len(run.ids()) == 3 + 2


# Temporary names


@pytest.mark.parametrize("temporary", [".b.zip.Ab12Cd", "b.zip.6eF9aC2b", "b.zip_.gstmp", "b.zip.1a2b3c4d.partial"])
@pytest.mark.fault("Bucket", "a file under the temporary name of a copy tool", "the same rows")
def test_half_written_file_is_read_under_its_final_name(tmp_path: Path, temporary: str) -> None:
    """However often it is seen before."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        more = zipped(b'{"braze_id":"copied"}\n')

        def begin() -> None:
            sandbox.deliver_next_file()
            (export_folder(tmp_path / "bucket") / temporary).write_bytes(more[: len(more) // 2])

        def end() -> None:
            (export_folder(tmp_path / "bucket") / temporary).write_bytes(more)
            (export_folder(tmp_path / "bucket") / temporary).rename(export_folder(tmp_path / "bucket") / "b.zip")

        clock.steps = [begin, nothing, nothing, end, nothing]
        run = sync(in_bucket(sandbox, tmp_path), clock=clock, catalog=USERS)
    assert "copied" in run.ids()
    assert run.counts == {"users": 4, "export_files": 2}
    assert [line for line in run.warnings if "fetching it once more" in line] == []
    assert len([line for line in run.warnings if line.startswith(f"{temporary} is left alone")]) == 1


@pytest.mark.parametrize("deleted", [True, False])
def test_half_written_file_that_gets_no_final_name(tmp_path: Path, *, deleted: bool) -> None:
    """It is deleted, or forgotten: the export ends without it."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:

        def begin() -> None:
            sandbox.deliver_next_file()
            (export_folder(tmp_path / "bucket") / ".b.zip.Ab12Cd").write_bytes(b"PK\x03\x04")

        def end() -> None:
            if deleted:
                (export_folder(tmp_path / "bucket") / ".b.zip.Ab12Cd").unlink()

        clock.steps = [begin, nothing, end, nothing]
        run = sync(in_bucket(sandbox, tmp_path), clock=clock, catalog=USERS)
    assert run.counts == {"users": 3, "export_files": 1}
    assert sum(clock.slept) < 900


class TooLate(CopyToDisk):
    """Something happens to an object between the listing that shows it and its first transfer."""

    def __init__(self, bucket: Bucket, folder: Path, event: Callable[[Path], object]) -> None:
        super().__init__(bucket, folder)
        self._event: Callable[[Path], object] | None = event

    @override
    def fetch(self, wanted: BucketObject) -> Fetched:
        if self._event:
            self._event(Path(wanted.path))
            self._event = None
        return super().fetch(wanted)


def reading(folder: Path, event: Callable[[Path], object]) -> list[str]:
    """Read an export of one file, to which this happens before it is fetched, as a run does; the files read."""
    path = folder / "segment-export" / "s" / "2027-01-15" / EXPORT / "a.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(zipped(b'{"braze_id":"1"}\n'))
    (folder / "spool").mkdir()
    clock = FakeClock()
    bucket = Bucket(str(folder), {}, clock=clock)
    export = BucketExport(
        Bookmark(Export("segment", "s", EXPORT, clock.time), (), "", in_bucket=True),
        bucket,
        TooLate(bucket, folder / "spool", event),
        timer=PollTimer(clock, 10),
        threads=DaemonThreads(1),
        clock=clock,
        settle_seconds=600,
        deadline=clock.elapsed + 3600,
    )
    read = []
    while not export.complete:
        if files := export.poll():
            read.append(files[0].name)
            export.done(files[0], 1)
        elif export.transfers:
            wait(export.transfers)
        else:
            clock.sleep(10)
    return read


@pytest.mark.fault("Bucket", "a file that is renamed before it is read", "the same rows")
def test_file_that_is_renamed_before_it_is_fetched(tmp_path: Path) -> None:
    """It is read under its new name."""
    assert reading(tmp_path, lambda path: path.rename(path.with_name("b.zip"))) == ["b.zip!0-users0.gz"]


@pytest.mark.fault("Bucket", "a file that is deleted before it is read", "one line")
def test_file_that_is_deleted_before_it_is_fetched(tmp_path: Path) -> None:
    """The next listings show that it is gone, and the export ends with one line."""
    with pytest.raises(ExportError, match=r"^a\.zip was deleted from the bucket before it was read: run again"):
        reading(tmp_path, lambda path: path.unlink())


# The bucket's address


@pytest.mark.parametrize("url", ["{}/none/deeper", "foo://bucket", "{}/bucket/file"])
def test_bucket_that_cannot_be_is_refused_before_anything_is_started(tmp_path: Path, url: str) -> None:
    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        (tmp_path / "bucket" / "file").write_bytes(b"")
        config = {**in_bucket(sandbox, tmp_path), "bucket_url": url.format(tmp_path)}
        run = sync(config, clock=clock, catalog=USERS, fails=True)
        assert posts(sandbox) == []
    assert "bucket_url" in run.error
    assert run.stdout == b""


@pytest.mark.parametrize("tail", ["segment-export", "segment-export/"])
def test_bucket_url_may_end_in_brazes_folder(tmp_path: Path, tail: str) -> None:
    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        config = {**in_bucket(sandbox, tmp_path), "bucket_url": f"{tmp_path}/bucket/{tail}"}
        run = sync(config, clock=clock, catalog=USERS)
    assert run.counts == {"users": 9, "export_files": 3}


# Archives inside archives


def repacked(pack: Callable[[bytes], bytes], users: int) -> bytes:
    return pack(b"".join(b'{"braze_id":"%d"}\n' % number for number in range(users)))


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "zip of gz": lambda lines: zipped(gzip.compress(lines), gzip.compress(b'{"braze_id":"one"}\n')),
    "zip of zip": lambda lines: zipped(zipped(lines, b'{"braze_id":"one"}\n')),
    "gzip of zip": lambda lines: gzip.compress(zipped(lines, b'{"braze_id":"one"}\n')),
    "gzip twice": lambda lines: gzip.compress(gzip.compress(lines + b'{"braze_id":"one"}\n')),
}


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("workers", [1, 3])
def test_users_of_a_hosted_archive_inside_an_archive(tmp_path: Path, pack: str, workers: int) -> None:
    """They are emitted, whoever reads the file; no line is unreadable."""
    with Server() as server:
        server.answers = [
            as_json({"object_prefix": EXPORT, "url": f"{server.url}/export.zip"}),
            (200, {}, repacked(PACKS[pack], 200)),
        ]
        config = {"api_url": server.url, "api_key": "key", "segment_ids": ["s"], "workers": workers}
        run = sync({**config, "spool_dir": str(tmp_path / "spool")}, catalog=USERS)
    assert run.counts["users"] == 201
    assert all(row["rejected"] == 0 for row in run.rows("export_files"))
    assert not list((tmp_path / "spool" / "rejected").iterdir())


@pytest.mark.parametrize("pack", PACKS)
def test_users_of_an_archive_inside_an_archive_in_a_bucket(tmp_path: Path, pack: str) -> None:
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:

        def deliver() -> None:
            sandbox.deliver_next_file()
            (export_folder(tmp_path / "bucket") / "b.zip").write_bytes(repacked(PACKS[pack], 200))

        clock.steps = [deliver, nothing]
        run = sync(in_bucket(sandbox, tmp_path), clock=clock, catalog=USERS)
    assert run.counts["users"] == 3 + 201


@pytest.mark.parametrize("pack", PACKS)
def test_archive_inside_an_archive_that_is_read_where_it_is(tmp_path: Path, pack: str) -> None:
    """As workers on other machines do."""
    path = tmp_path / "segment-export" / "s" / "2026-01-02" / EXPORT / "b.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(repacked(PACKS[pack], 200))
    bucket = Bucket(str(tmp_path), {}, clock=FakeClock())
    (found,) = bucket.objects(EXPORT, "s")

    stored, members = ReadInPlace(bucket).fetch(found)
    files = [DeliveredFile(stored, member, Export("segment", "s", EXPORT, 0)) for member in members]

    assert sum(len(block.lines) for file in files for block in file.blocks(bucket)) == 201


def test_archive_that_is_nested_deeper_fails_its_export(tmp_path: Path) -> None:
    with Server() as server:
        server.answers = [
            as_json({"object_prefix": EXPORT, "url": f"{server.url}/export.zip"}),
            (200, {}, zipped(gzip.compress(gzip.compress(b"{}\n")))),
        ]
        config = {"api_url": server.url, "api_key": "key", "segment_ids": ["s"], "max_rejected_lines": 99}
        run = sync({**config, "spool_dir": str(tmp_path / "spool")}, catalog=USERS, fails=True)
    assert "export.zip!0-users0.gz is compressed with gzip, which is not read there" in run.error
    assert not run.counts
