"""How files arrive: one by one in a bucket, or at once behind a URL; and when an export counts as complete."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections import defaultdict
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import ExportError
from tap_braze_export.export import Export
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.prefetch import CopyToDisk
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.state import Bookmark
from tests.support import ports
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.runs import Run, selecting, settings, sync
from tests.support.steps import Steps, braze, crash, exports, nothing, posts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.files.objects import BucketObject, DeliveredFile
    from tap_braze_export.files.prefetch import Fetched
    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

SECONDS = 30
USERS = selecting(["users", "export_files"])
EXPORT = "0a1b2c3d-1800000000"


def bucket_settings(sandbox: Sandbox, folder: Path, **more: Any) -> dict[str, Any]:
    return settings(sandbox, folder, bucket_url=str(folder / "bucket"), **more)


def files(run: Run) -> list[str]:
    """The delivered files that were read, without the members' names."""
    return [row["file"].partition("!")[0] for row in run.rows("export_files")]


# While Braze writes


def test_trickling_files_are_read_as_they_come(tmp_path: Path) -> None:
    """Each file is read at the look after its arrival; the export ends settle_minutes after the last one."""
    clock = Steps()
    read_by_then: list[int] = []
    with braze(clock, tmp_path, hold=True) as sandbox:
        clock.steps = [lambda: read_by_then.append(sandbox.deliver_next_file() is not None)]
        run = sync(bucket_settings(sandbox, tmp_path, settle_minutes=5), clock=clock, catalog=USERS)
    times = [row["read_at"] for row in run.rows("export_files")]
    assert len(set(times)) == 3
    assert sum(read_by_then) == 3
    assert 300 <= sum(clock.slept[3:]) <= 300 + 60
    assert exports(run.states[-1])[0]["running"] is False


def test_without_settle_time_the_first_look_without_a_new_file_ends_it(tmp_path: Path) -> None:
    """`settle_minutes: 0`: files that come one by one, one at each look, are all of the export."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        clock.steps = [sandbox.deliver_next_file] * 3
        run = sync(bucket_settings(sandbox, tmp_path, settle_minutes=0), clock=clock, catalog=USERS)
    assert run.counts == {"users": 9, "export_files": 3}
    assert len(clock.slept) == 4


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
@pytest.mark.fault("Bucket", "files of other exports, CSV files, other date folders", "the same rows")
def test_other_folders_and_files_are_left_alone(tmp_path: Path, output_format: str) -> None:
    """Foreign exports and CSV exports beside the files do not matter, nor on which date's folders the files stand."""
    clock = FakeClock()
    with braze(clock, tmp_path, faults=["foreign-export", "other-date-folder"]) as sandbox:
        config = bucket_settings(sandbox, tmp_path, output_format=output_format)
        run = sync(config, clock=clock, catalog=USERS)
    dates = {path.parts[-3] for path in (tmp_path / "bucket").rglob("*/*/*/*/*") if path.is_file()}
    assert len(dates) == 3
    assert run.counts == {"users": 9, "export_files": 3}


@pytest.mark.parametrize("looks", [1, 6])
@pytest.mark.fault("Bucket", "a file that grows while it is read", "the same rows")
def test_half_written_file_grows(tmp_path: Path, looks: int) -> None:
    """It is no damaged file however long it takes, as long as it grows before the export ends."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True, faults=["half-written-file"]) as sandbox:
        deliver = sandbox.deliver_next_file
        clock.steps = [deliver, deliver, deliver, *[nothing] * looks, deliver, nothing]
        run = sync(bucket_settings(sandbox, tmp_path), clock=clock, catalog=USERS)
    assert sorted(run.ids()) == sorted(set(run.ids()))
    assert run.counts == {"users": 9, "export_files": 3}
    assert len([line for line in run.warnings if "fetching it once more" in line]) == 1
    assert [line for line in run.lines if line.startswith("  retries 1, ")]


@pytest.mark.fault("Bucket", "a damaged file", "fetched once more, then one line")
def test_damaged_file_in_a_bucket(tmp_path: Path) -> None:
    """It is fetched once more when the export has ended; then the export fails and the file is named."""
    clock = FakeClock()
    with braze(clock, tmp_path, faults=["truncated-file"]) as sandbox:
        config = bucket_settings(sandbox, tmp_path)
        run = sync(config, clock=clock, catalog=USERS, fails=True)
        sandbox.set_faults()
        again = sync(config, clock=clock, catalog=USERS, state=run.states[-1])
        assert posts(sandbox) == [201, 201]
    (file,) = [line.split()[0] for line in run.warnings if "fetching it once more" in line]
    assert f"{file} is damaged" in run.error
    assert run.error.endswith("; run again for a new export")
    assert run.counts == {"users": 6, "export_files": 2}
    assert exports(run.states[-1]) == []
    assert again.counts == {"users": 9, "export_files": 3}


# The end of an export


def test_callback_ends_it_at_once(tmp_path: Path) -> None:
    """Braze's word is proof: no waiting for quiet, and loaders may delete."""
    port = ports.free_port()
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        clock.steps = [sandbox.deliver_next_file, sandbox.finish_exports, nothing]
        config = bucket_settings(sandbox, tmp_path, emit_activate_version_messages=True)
        listening = {"callback_url": f"http://127.0.0.1:{port}/braze?for=us", "callback_listen": f"127.0.0.1:{port}"}
        run = sync({**config, **listening}, clock=clock, catalog=USERS)
        (callback,) = [call for call in sandbox.calls if call.service == "callback"]
    assert callback.path.startswith(f"http://127.0.0.1:{port}/braze?for=us&token=")
    assert len(callback.path.partition("token=")[2]) >= 32
    assert callback.status == 200
    assert callback.path.partition("token=")[2].encode() not in run.stdout
    assert not [line for line in run.lines if "token=" in line]
    assert len(clock.slept) == 2
    assert run.of_type("ACTIVATE_VERSION")


def test_quiet_is_no_proof(tmp_path: Path) -> None:
    """After settle_minutes without a callback an export counts as complete, but not as proven so."""
    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        run = sync(bucket_settings(sandbox, tmp_path, emit_activate_version_messages=True), clock=clock, catalog=USERS)
    assert run.counts["users"] == 9
    assert not run.of_type("ACTIVATE_VERSION")
    assert [line for line in run.warnings if "only assumed" in line]


@pytest.mark.fault("Bucket", "no file and no callback", "one line when export_timeout_minutes are over")
def test_empty_segment_without_callback(tmp_path: Path) -> None:
    """No file and no word from Braze is nothing that can be told from an export that is late: the deadline ends it."""
    clock = FakeClock()
    with braze(clock, tmp_path, faults=["no-file"]) as sandbox:
        run = sync(bucket_settings(sandbox, tmp_path, export_timeout_minutes=90), clock=clock, fails=True)
    assert 90 * 60 <= sum(clock.slept) <= 92 * 60
    for hint in ("90 min after it was requested no file has come", "callback_url", "bucket_url", "e-mail"):
        assert hint in run.error


def test_empty_zip(tmp_path: Path) -> None:
    """Files without members are files: quiet after them ends the export."""
    clock = FakeClock()
    with braze(clock, tmp_path, faults=["empty-zip"]) as sandbox:
        run = sync(bucket_settings(sandbox, tmp_path), clock=clock, catalog=USERS)
    assert not run.counts
    assert exports(run.states[-1])[0]["running"] is False


@pytest.mark.fault(
    "Bucket", "new files without end", "one line when export_timeout_minutes are over; the rows that came"
)
def test_files_that_never_end(tmp_path: Path) -> None:
    """While files come there is no quiet: the deadline ends it, and what was read stays."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True, users=900) as sandbox:
        clock.steps = [sandbox.deliver_next_file]
        config = bucket_settings(sandbox, tmp_path, export_timeout_minutes=5, poll_interval_seconds=60)
        run = sync(config, clock=clock, catalog=USERS, fails=True)
    assert "files are still coming" in run.error
    assert 5 <= run.counts["export_files"] <= 7


def test_control_group_in_a_bucket(tmp_path: Path) -> None:
    """Its segment is not known: its files are found below any segment."""
    clock = FakeClock()
    with braze(clock, tmp_path, users=100, users_per_file=2) as sandbox:
        config = bucket_settings(sandbox, tmp_path, segment_ids=[], global_control_group=True)
        run = sync(config, clock=clock, catalog=selecting(["segment_members", "export_files"]))
    assert run.counts == {"segment_members": 5, "export_files": 3}


# Late files


@pytest.mark.fault("Bucket", "a file that comes after the end of the export", "the next run reads it first")
def test_late_file(tmp_path: Path) -> None:
    """It is read before anything else by the next run, with the time of its own export, and the log says so."""
    clock = FakeClock()
    with braze(clock, tmp_path, faults=["late-file"]) as sandbox:
        config = bucket_settings(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=USERS)
        late = sandbox.deliver_next_file()
        sandbox.set_faults()
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
    assert late is not None
    assert len(files(first)) == 2
    assert files(second)[0] == late.rpartition("/")[2]
    assert len(files(second)) == 1 + 3
    assert second.rows("users")[0]["exported_at"] == first.rows("users")[0]["exported_at"]
    assert [line for line in second.warnings if "1 files came after the last run had ended" in line]
    assert sorted([*first.ids(), *second.ids()[:3]]) == sorted(second.ids()[3:])


def test_late_file_that_is_half_written(tmp_path: Path) -> None:
    """It is waited for before anything is asked of Braze."""
    clock = Steps()
    with braze(clock, tmp_path, faults=["late-file", "half-written-file"]) as sandbox:
        config = bucket_settings(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=USERS)
        sandbox.deliver_next_file()
        asked: list[int] = []

        def grow() -> None:
            asked.append(len(posts(sandbox)))
            sandbox.deliver_next_file()
            sandbox.set_faults()

        clock.steps = [grow, nothing]
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
    assert asked == [1]
    assert second.counts == {"users": 3 + 9, "export_files": 1 + 3}


def test_nothing_late_is_nothing_to_say(tmp_path: Path) -> None:
    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        config = bucket_settings(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=USERS)
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
    assert second.counts == first.counts
    assert not second.warnings


# Slow readers: the files of an export, looked at one by one


def put(folder: Path, number: int) -> None:
    """A file of one user in the bucket."""
    path = folder / "segment-export" / "seg" / "2027-01-15" / EXPORT / f"{number:032}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.txt", f'{{"braze_id":"{number}"}}\n')


class Observed(CopyToDisk):
    """Tells when it has begun with an object."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        super().__init__(bucket, folder)
        self.begun: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    @override
    def fetch(self, wanted: BucketObject) -> Fetched:
        self.begun[wanted.name].set()
        return super().fetch(wanted)


def in_bucket(folder: Path, clock: FakeClock, *, observed: Observed | None = None, deadline: float = 0) -> BucketExport:
    """An export of a segment in the bucket of this folder, with a deadline in an hour."""
    bookmark = Bookmark(Export("segment", "seg", EXPORT, clock.time), (), "", in_bucket=True)
    (folder / "spool").mkdir()
    bucket = Bucket(str(folder), {}, clock=clock)
    return BucketExport(
        bookmark,
        bucket,
        observed or CopyToDisk(bucket, folder / "spool"),
        timer=PollTimer(clock, 10),
        threads=DaemonThreads(8),
        clock=clock,
        settle_seconds=600,
        deadline=deadline or clock.elapsed + 3600,
        max_objects=2,
    )


def polled(export: BucketExport) -> Sequence[DeliveredFile]:
    """The files that can be read once the transfers under way are done."""
    while not (files := export.poll()) and export.transfers:
        wait(export.transfers, SECONDS)
    return files


def read_all(export: BucketExport) -> Iterator[DeliveredFile]:
    """Every file that one listing has shown, each of them done."""
    while files := polled(export):
        yield files[0]
        export.done(files[0], 1)


def test_next_object_is_fetched_while_one_is_read(tmp_path: Path) -> None:
    """One object ahead, no more; the run itself waits for none but the first."""
    clock = FakeClock()
    observed = Observed(Bucket(str(tmp_path), {}, clock=clock), tmp_path / "spool")
    export = in_bucket(tmp_path, clock, observed=observed)
    for number in (1, 2, 3):
        put(tmp_path, number)
    one, two, three = (observed.begun[f"{number:032}.zip"] for number in (1, 2, 3))
    files = read_all(export)
    next(files)
    assert one.is_set()
    assert two.wait(SECONDS)
    assert not three.is_set()
    next(files)
    assert three.wait(SECONDS)
    assert [file.name for file in files] == [f"{3:032}.zip!0-users.txt"]


def test_what_cannot_be_fetched_ahead_stops_no_other_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file is told at once, and the files before and after it are read."""
    export = in_bucket(tmp_path, FakeClock())
    for number in (1, 2, 3):
        put(tmp_path, number)
    (damaged,) = tmp_path.rglob(f"*{2:032}.zip")
    damaged.write_bytes(b"PK\x03\x04")
    warnings = []
    for file in read_all(export):
        wait(export.transfers, SECONDS)
        export.poll()
        warnings.append((file.name[31], len(caplog.messages)))
    assert warnings == [("1", 1), ("3", 1)]


def read_slowly(export: BucketExport, clock: FakeClock, folder: Path, *, files: int) -> int:
    """Spend an hour on each file, while Braze writes the next of `files`; return how many were read."""
    put(folder, 1)
    count = 0
    for _ in read_all(export):
        clock.time += 3600
        count += 1
        if count < files:
            put(folder, count + 1)
    return count


def test_time_spent_reading_is_no_quiet(tmp_path: Path) -> None:
    """Files that come while others are read for hours are found before an export counts as complete."""
    clock = FakeClock()
    export = in_bucket(tmp_path, clock, deadline=clock.elapsed + 100_000)
    assert read_slowly(export, clock, tmp_path, files=3) == 3
    assert export.complete


def test_slow_reader_past_the_deadline(tmp_path: Path) -> None:
    """An export whose files came in time is read to its end; one whose files still come after it is not."""
    clock = FakeClock()
    export = in_bucket(tmp_path, clock, deadline=clock.elapsed + 1800)
    assert read_slowly(export, clock, tmp_path, files=2) == 2
    assert export.complete


def test_files_that_come_after_the_deadline(tmp_path: Path) -> None:
    """They are not read: the export ends with the files that came in time."""
    clock = FakeClock()
    export = in_bucket(tmp_path, clock, deadline=clock.elapsed + 1800)
    with pytest.raises(ExportError, match="files are still coming"):
        read_slowly(export, clock, tmp_path, files=9)
    assert export.bookmark.files == 2


# Behind a URL


def test_damaged_download_is_fetched_once_more(tmp_path: Path) -> None:
    clock = FakeClock()
    with braze(clock, faults=["damaged-once"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), clock=clock, catalog=USERS)
        assert posts(sandbox) == [201]
    assert run.counts["users"] == 9


@pytest.mark.parametrize(
    ("fault", "said"),
    [("truncated-file", "is damaged"), ("wrong-crc", "is damaged"), ("not-an-archive", "neither zip nor gzip")],
)
def test_download_that_stays_damaged(tmp_path: Path, fault: str, said: str) -> None:
    """After one more fetch the export is dropped and the file named; the next run starts anew."""
    clock = FakeClock()
    with braze(clock, faults=[fault]) as sandbox:
        config = settings(sandbox, tmp_path)
        run = sync(config, clock=clock, catalog=USERS, fails=True)
        fetched = [call.status for call in sandbox.calls if call.service == "download"]
        left = list((tmp_path / "spool" / "exports").iterdir())
        sandbox.set_faults()
        again = sync(config, clock=clock, catalog=USERS, state=run.states[-1])
        assert posts(sandbox) == [201, 201]
    assert fetched == [200, 200]
    assert said in run.error
    assert run.error.endswith("; run again for a new export")
    assert ".zip" in run.error
    assert again.counts["users"] == 9
    assert left == []


@pytest.mark.fault("Download", "a crash in the middle", "the next run asks for the rest only")
def test_broken_download_goes_on_after_a_crash(tmp_path: Path) -> None:
    """The next run asks for the rest only, with Range, of the same file."""
    clock = Steps(crash, now=time.time())  # the age of what was left is told by the disk's time
    with braze(clock, faults=["connection-reset"], users=2000) as sandbox:
        config = settings(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=USERS, fails=True)
        clock.steps = []
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
        downloads = [call for call in sandbox.calls if call.service == "download"]
        assert posts(sandbox) == [201]
    assert [call.status for call in downloads] == [200, 206]
    assert "If-Range" in downloads[1].headers
    assert second.counts["users"] == 2000


# Thousands of files


@pytest.mark.parametrize("files", at_night([1000, 4000], but=[1000]))
def test_many_small_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], files: int) -> None:
    """STATE stays below 64 KB, and all STATE messages of the run below 1 % of its output."""
    clock = Steps()
    moments: list[float] = []
    with braze(clock, tmp_path, users=files, users_per_file=1, hold=True) as sandbox:

        def deliver() -> None:
            sandbox.finish_exports()
            moments.append(time.monotonic())

        clock.steps = [deliver, nothing]
        run = sync(bucket_settings(sandbox, tmp_path), clock=clock)
    took = time.monotonic() - moments[0]
    sizes = [len(line) for line in run.stdout.splitlines() if line.startswith(b'{"type":"STATE"')]
    with capsys.disabled():
        print(  # noqa: T201 - what this costs is worth a line in every run
            f"\n{files:,} files read in {took:.1f} s, last STATE {sizes[-1]:,} bytes,"
            f" {len(sizes)} STATE messages {sum(sizes):,} of {len(run.stdout):,} bytes"
        )
    assert run.counts["export_files"] == files
    assert exports(run.states[-1])[0]["files"] == files
    assert max(sizes) < 64_000
    assert sum(sizes) < len(run.stdout) / 100
    assert json.dumps(run.states[-1]).count("http") == 0
