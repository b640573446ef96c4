"""Whole runs with processes: the rows are those of one process, and processes end with the run, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.batches import config
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.runs import selecting, settings, sync
from tests.support.worker_runs import ended, files, in_any_order, last_state, leftovers, running
from tests.support.workers import children, have_ended, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.preloaded import Copy

# A workspace with twelve files.
pytestmark = [pytest.mark.slow, pytest.mark.sandbox(users=120, users_per_file=10, odd_users=False)]


@pytest.mark.parametrize("workers", at_night([2, 3], but=[2]))
@pytest.mark.parametrize(
    "maps", [{}, {"stream_maps": {"users": {"mail": "email"}, "apps": None}}], ids=["plain", "maps"]
)
def test_output_is_that_of_one_process(sandbox: Sandbox, tmp_path: Path, workers: int, maps: dict[str, Any]) -> None:
    """File by file, byte for byte; the files come in any order."""
    one = sync(settings(sandbox, tmp_path / "one", workers=1, **maps))
    several = sync(settings(sandbox, tmp_path, workers=workers, **maps))
    assert files(several) == files(one)
    assert several.of_type("SCHEMA") == one.of_type("SCHEMA")
    assert last_state(several) == last_state(one)
    assert several.metrics == one.metrics
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("delivery", ["hosted", "bucket"])
def test_odd_users(tmp_path: Path, delivery: str) -> None:
    """They take the careful path there, too; from a bucket, whose objects are fetched some in advance."""
    bucket: dict[str, Any] = {"bucket_url": str(tmp_path / "bucket")} if delivery == "bucket" else {}
    (tmp_path / "bucket").mkdir()
    with Sandbox(users=60, users_per_file=10, faults=["unrequested-fields", "bad-line"], **bucket) as sandbox:
        one, several = (
            sync(
                settings(
                    sandbox, tmp_path / f"{workers}", workers=workers, max_rejected_lines=2, settle_minutes=0, **bucket
                )
            )
            for workers in (1, 3)
        )
    for stream in one.schemas:
        assert in_any_order(several.rows(stream)) == in_any_order(one.rows(stream)), stream
    assert sorted(row["rejected"] for row in several.rows("export_files")) == [0, 0, 0, 0, 0, 2]
    assert [line for line in several.warnings if "no user objects" in line]
    assert not leftovers(tmp_path / "3")


def test_batch_files_hold_the_rows_of_one_process(sandbox: Sandbox, tmp_path: Path) -> None:
    """In files of the run and of the processes, a part for each delivered file; the run writes mapped streams."""
    maps = {"stream_maps": {"users": {"mail": "email"}}}
    one, several = (
        sync(settings(sandbox, tmp_path, workers=workers, batch_config=config(tmp_path / "out", batch_size=25), **maps))
        for workers in (1, 2)
    )
    for stream in one.schemas:
        assert in_any_order(batches.jsonl(several).get(stream, [])) == in_any_order(batches.jsonl(one).get(stream, []))
    assert several.metrics == one.metrics
    assert len(batches.manifests(several)["devices"]) == 12
    assert batches.manifests(several)["users"]
    assert len(several.states) == len(one.states)


def test_dry_run_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whichever files come first."""
    one, several = (sync(settings(sandbox, tmp_path, workers=workers), limit=15) for workers in (1, 2))
    assert several.counts == one.counts
    assert {*several.ids()} <= {json.loads(line)["braze_id"] for line in sandbox.lines("all-users", ["braze_id"])}


def test_few_files_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default processes are started only where there is something for them to do."""
    started: list[int] = []
    popen = subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    for number in (2, 3):
        with Sandbox(users=500 * number, users_per_file=500) as sandbox:
            sync(settings(sandbox, tmp_path, workers=0))
        assert len(started) == (0 if number == 2 else 1)  # of two workers, the run itself is one


@pytest.mark.slow
def test_huge_file_is_read_block_by_block(tmp_path: Path) -> None:
    """A file of several blocks is read by the run itself: its rows would take too much room on their way."""
    people = [{"braze_id": f"b{number}", "custom_attributes": {"text": "x" * 100_000}} for number in range(800)]
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("large", people)
        run = sync(settings(sandbox, tmp_path, segment_ids=["large"], workers=2), catalog=selecting(["users"]))
    assert len(run.ids()) == 800


# Failures


@pytest.mark.parametrize("fault", ["damaged-once", "wrong-crc"])
@pytest.mark.fault("Workers", "a damaged file", "fetched once more, then one line")
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


def is_reading(pid: int) -> bool:
    """True if a process of a run has its own program, for whose beginning the run waits."""
    try:
        return b"tap_braze_export.workers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def two_processes(run: Copy) -> list[int]:
    """The processes of a run with three workers, of which the run is one.

    The first is stopped until there is a second: a fast one would make it needless.
    """
    first, *_ = wait_for(lambda: [pid for pid in children(run.pid) if is_reading(pid)])
    os.kill(first, signal.SIGSTOP)
    found: list[int] = wait_for(lambda: len(found := children(run.pid)) == 2 and found)
    os.kill(first, signal.SIGCONT)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.fault("Workers", "SIGTERM or SIGINT", "its code; no process is left")
def test_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    """To the whole group, as from a terminal: whole lines, the signal's code, no traceback, nobody left behind."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox, workers=3)
        pids = two_processes(process)
        assert process.stdout
        before = [process.stdout.readline()]
        while not before[-1].startswith(b'{"type":"RECORD"'):
            before.append(process.stdout.readline())
            assert before[-1]
        since = time.monotonic()
        os.killpg(process.pid, number)
        done = ended(process, tmp_path)
    assert time.monotonic() - since < 5
    assert done.code == 128 + number, done.stderr
    done.stdout = b"".join(before) + done.stdout
    assert done.messages
    assert "Traceback" not in done.stderr
    assert all(" | " in line for line in done.stderr.splitlines())
    assert have_ended(pids)


@pytest.mark.slow
@pytest.mark.fault("Workers", "kill -9 of the run", "no process is left")
def test_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """Its processes see that the pipe is closed."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox, workers=3)
        pids = two_processes(process)
        process.kill()
        ended(process, tmp_path)
        wait_for(lambda: have_ended(pids))


@pytest.mark.slow
@pytest.mark.parametrize("has_begun", [True, False], ids=["reading", "starting"])
@pytest.mark.fault("Workers", "kill -9 of a process that reads", "one line; the next run goes on")
def test_killed_process_is_told_of(tmp_path: Path, has_begun: bool) -> None:  # noqa: FBT001
    """One line says what happened and what to do; the next run continues."""
    with Sandbox(users=3000, users_per_file=100, odd_users=False) as sandbox:
        process = running(tmp_path, sandbox, workers=3)
        first, *_ = pids = two_processes(process) if has_begun else wait_for(lambda: children(process.pid))
        os.kill(first, signal.SIGKILL)
        done = ended(process, tmp_path)
        assert "a process that reads files was killed by signal 9" in done.error
        assert "fewer workers" in done.error
        wait_for(lambda: have_ended(pids))
        rest = sync(settings(sandbox, tmp_path, workers=1), state=done.states[-1], clock=FakeClock(time.time()))
    assert {*done.ids(), *rest.ids()} == {*ids_of_workspace(3000)}
    assert not leftovers(tmp_path)


def ids_of_workspace(users: int) -> Iterator[str]:
    """The ids of all users of a workspace of this size."""
    with Sandbox(users=users, odd_users=False) as sandbox:
        for line in sandbox.lines("all-users", ["braze_id"]):
            yield json.loads(line)["braze_id"]
