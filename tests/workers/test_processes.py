"""Files read by processes: the output is that of one process, and they end with the run, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import DamagedFileError, TapError, unforeseen
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.workers import processes
from tap_braze_export.workers.file_reader import FileReader, Job
from tests.support import batches
from tests.support.batches import comparable, config
from tests.support.fakes import FakeClock
from tests.support.runs import COMMAND, Ended, Output, Run, environment, selecting, settings, sync, written

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 30
# A workspace with twelve files.
pytestmark = pytest.mark.sandbox(users=120, users_per_file=10, odd_users=False)


def without_ids(run: Output) -> bytes:
    """The output but for what each export has of its own, ids and names of files."""
    output = re.sub(rb'"(export_id|file|emitted)":"[^"]*"', b"", run.stdout)
    return re.sub(rb'"bytes":\d+', b"", output)  # archives hold times


def told(run: Run) -> list[dict[str, Any]]:
    """What the STATE messages say of the files, without the ids."""
    own = {"export_id", "emitted"}
    states = [export for state in run.states for export in state["bookmarks"]["export_files"]["exports"]]
    return [{name: value for name, value in export.items() if name not in own} for export in states]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(
    "maps", [{}, {"stream_maps": {"users": {"mail": "email"}, "apps": None}}], ids=["plain", "maps"]
)
def test_output_is_that_of_one_process(sandbox: Sandbox, tmp_path: Path, workers: int, maps: dict[str, Any]) -> None:
    """Byte for byte."""
    one = sync(settings(sandbox, tmp_path, workers=1, **maps))
    several = sync(settings(sandbox, tmp_path, workers=workers, **maps))
    assert without_ids(several) == without_ids(one)
    assert told(several) == told(one)
    assert several.metrics == one.metrics
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("delivery", ["hosted", "bucket"])
def test_odd_users(tmp_path: Path, delivery: str) -> None:
    """They take the careful path there, too; from a bucket, whose objects are fetched some in advance."""
    bucket: dict[str, Any] = {"bucket_url": str(tmp_path / "bucket")} if delivery == "bucket" else {}
    (tmp_path / "bucket").mkdir()
    with Sandbox(users=60, users_per_file=10, faults=["unrequested-fields", "bad-line"], **bucket) as sandbox:
        one, several = (
            sync(settings(sandbox, tmp_path, workers=workers, max_rejected_lines=2, settle_minutes=0, **bucket))
            for workers in (1, 3)
        )
    for stream in one.schemas:
        assert in_any_order(several, stream) == in_any_order(one, stream), stream
    assert sorted(row["rejected"] for row in several.rows("export_files")) == [0, 0, 0, 0, 0, 2]
    assert [line for line in several.warnings if "no user objects" in line]
    assert not leftovers(tmp_path)


def in_any_order(run: Run, stream: str) -> list[str]:
    own = {"export_id", "file", "bytes"}
    rows = ({name: value for name, value in row.items() if name not in own} for row in run.rows(stream))
    return sorted(json.dumps(row) for row in rows)


def leftovers(folder: Path) -> list[Path]:
    """What a run leaves of rows on their way."""
    return [*(folder / "spool" / "exports").glob("rows-*")]


def test_batch_files_are_written_by_the_processes(sandbox: Sandbox, tmp_path: Path) -> None:
    """With the rows of one process, a part for each delivered file; mapped streams are written by the run."""
    maps = {"stream_maps": {"users": {"mail": "email"}}}
    one, several = (
        sync(settings(sandbox, tmp_path, workers=workers, batch_config=config(tmp_path / "out", batch_size=25), **maps))
        for workers in (1, 2)
    )
    assert comparable(batches.jsonl(several)) == comparable(batches.jsonl(one))
    assert several.metrics == one.metrics
    assert len(batches.manifests(several)["devices"]) == 12
    assert batches.manifests(several)["users"]
    assert len(several.states) == len(one.states)


def test_dry_run_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    one, several = (sync(settings(sandbox, tmp_path, workers=workers), limit=15) for workers in (1, 2))
    assert without_ids(several) == without_ids(one)


def test_few_files_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default processes are started only where there is something for them to do."""
    started: list[int] = []
    popen = subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    for files in (2, 3):
        with Sandbox(users=10 * files, users_per_file=10) as sandbox:
            sync(settings(sandbox, tmp_path, workers=0))
        assert len(started) == (0 if files == 2 else 1)  # of two workers, the run itself is one


@pytest.mark.parametrize("cores", [1, 2, 100])
def test_sensible_count(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """One for each core, up to where the process that writes is the slowest."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert processes.sensible_count() == min(cores, 8)


@pytest.mark.slow
def test_huge_file_is_read_block_by_block(tmp_path: Path) -> None:
    """A file of several blocks is read by the run itself: its rows would take too much room on their way."""
    people = [{"braze_id": f"b{number}", "custom_attributes": {"text": "x" * 100_000}} for number in range(800)]
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("large", people)
        run = sync(settings(sandbox, tmp_path, segment_ids=["large"], workers=2), catalog=selecting(["users"]))
    assert len(run.ids()) == 800


def test_processes_start_quickly() -> None:
    """They import neither the SDK nor fsspec, which would take longer than thousands of users."""
    code = "import sys, tap_braze_export.reading; print({'fsspec', 'requests', 'singer_sdk'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-P", "-c", code]) == b"set()\n"


# Failures


@pytest.mark.parametrize("fault", ["damaged-once", "wrong-crc"])
def test_damaged_file(tmp_path: Path, fault: str) -> None:
    """Fetched once more, then given up, in the words of one process; what came before it stays."""
    with Sandbox(users=60, users_per_file=10, odd_users=False, faults=[fault]) as sandbox:
        fails = fault == "wrong-crc"
        one, several = (sync(settings(sandbox, tmp_path, workers=workers), fails=fails) for workers in (1, 2))
    assert several.counts == one.counts
    assert [line.partition(".txt")[2] for line in several.warnings] == [
        line.partition(".txt")[2] for line in one.warnings
    ]
    assert several.error.partition(".txt")[2] == one.error.partition(".txt")[2]


def running(folder: Path, sandbox: Sandbox, **more: Any) -> subprocess.Popen[bytes]:
    path = written(folder, settings(sandbox, folder, workers=3, **more))
    with (folder / "stderr.txt").open("wb") as log:
        return subprocess.Popen(
            [COMMAND, "--config", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(),
            start_new_session=True,
        )


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes that it has started."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
    return [int(number) for number in listed.split()]


def wait_for(what: Any) -> Any:
    """What a function gives as soon as it is true."""
    end = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < end
        os.sched_yield()
    return found


def ended(process: subprocess.Popen[bytes], folder: Path) -> Ended:
    assert process.stdout
    stdout = process.stdout.read()
    process.stdout.close()
    return Ended(stdout, process.wait(SECONDS), (folder / "stderr.txt").read_text("utf-8"))


def gone(pids: list[int]) -> bool:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """To the whole group, as from a terminal: whole lines, the signal's code, no traceback, nobody left behind."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox)
        pids = wait_for(lambda: len(found := children(process)) == 3 and found)
        assert process.stdout
        assert process.stdout.readline()
        since = time.monotonic()
        os.killpg(process.pid, number)
        done = ended(process, tmp_path)
    assert time.monotonic() - since < 5
    assert done.code == 128 + number, done.stderr
    assert done.messages
    assert "Traceback" not in done.stderr
    assert all(" | " in line for line in done.stderr.splitlines())
    assert gone(pids)


@pytest.mark.slow
def test_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """Its processes see that nobody asks any more."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox)
        pids = wait_for(lambda: len(found := children(process)) == 3 and found)
        process.kill()
        ended(process, tmp_path)
        wait_for(lambda: gone(pids))


@pytest.mark.slow
def test_killed_process_is_told_of(tmp_path: Path) -> None:
    """One line says what happened and what to do; the next run continues."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox)
        first, *_ = pids = wait_for(lambda: len(found := children(process)) == 3 and found)
        os.kill(first, signal.SIGKILL)
        done = ended(process, tmp_path)
        assert "a process that reads files was killed by signal 9" in done.error
        assert "fewer workers" in done.error
        wait_for(lambda: gone(pids))
        rest = sync(settings(sandbox, tmp_path, workers=1), state=done.states[-1], clock=FakeClock(time.time()))
    assert {*done.ids(), *rest.ids()} == {*sync_ids(3000)}
    assert not leftovers(tmp_path)


def sync_ids(users: int) -> Iterator[str]:
    with Sandbox(users=users, odd_users=False) as sandbox:
        for line in sandbox.lines("all-users", ["braze_id"]):
            yield json.loads(line)["braze_id"]


def test_unforeseen_error_in_a_process_is_told_by_its_place(tmp_path: Path) -> None:
    """As one in the run itself, without its text."""
    executor = processes.Processes(FileReader({}, tmp_path), 1, clock=FakeClock())
    try:
        job: Any = "no job"
        with pytest.raises(TapError, match=r"^Unforeseen AttributeError at file_reader.py:\d+") as raised:
            executor.result(executor.submit(job))
        assert str(raised.value).endswith("please report this line")
        missing: Any = Job(tmp_path / "missing", None, "e", "", "segment", "s")  # type: ignore[arg-type]
        with pytest.raises((DamagedFileError, TapError)):
            executor.result(executor.submit(missing))
    finally:
        executor.close()
    assert unforeseen(ValueError("secret")) == "Unforeseen ValueError at : please report this line"
