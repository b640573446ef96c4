"""Processes read files, start quickly, and end with the run that has started them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import DamagedFileError, TapError, unforeseen
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.workers.file_reader import FileReader, FileRows
from tap_braze_export.workers.processes import Processes, environment, process_count
from tests.support import batches
from tests.support.deliveries import gzip_file
from tests.support.fakes import FakeClock
from tests.support.rows import selected
from tests.support.workers import children, have_ended, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextmanager
def running(
    reader: FileReader, count: int, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[Processes, Callable[[], set[int]]]]:
    """Processes, and what returns the ids of those that were started; all of them have ended afterwards."""
    before = {*children(os.getpid())}

    def started() -> set[int]:
        return {*children(os.getpid())} - before

    processes = Processes(reader, count, variables or environment(for_cloud=False))
    pids = set[int]()
    try:
        yield processes, started
    finally:
        pids = started()
        processes.close()
    assert have_ended([*pids])


@pytest.mark.parametrize("cores", [1, 2, 100])
def test_count_of_processes(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    """By default a worker for each core, up to where the process that writes is the slowest; never more than cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert process_count(0) == min(cores, 8) - 1
    assert process_count(1) == 0
    assert process_count(3) == min(cores, 2)
    assert process_count(60) == min(cores, 59)
    assert process_count(1_000_000) == cores


@pytest.mark.parametrize("for_cloud", [False, True])
def test_processes_get_no_setting_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, for_cloud: bool
) -> None:
    """Neither the key nor another plugin's secrets; a cloud's credentials only where the cloud is written."""
    for name in ("TAP_BRAZE_EXPORT_API_KEY", "TARGET_POSTGRES_PASSWORD", "MELTANO_EXTRACT_API_KEY"):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "cl0ud")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    reader, variables = FileReader(selected(only=["users"])), environment(for_cloud=for_cloud)
    with running(reader, 1, variables) as (processes, started):
        assert processes.submit(gzip_file(tmp_path, "a.gz", "one")).result()
        (pid,) = started()
        given = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"s3cret" not in given
    assert (b"cl0ud" in given) == for_cloud
    assert b"LC_ALL=C.UTF-8" in given


def test_processes_start_quickly() -> None:
    """They import neither the SDK nor fsspec, which would take longer than thousands of users."""
    code = (
        "import pickle, sys, tap_braze_export.workers.worker;"
        "pickle.load(sys.stdin.buffer); print({'fsspec', 'requests', 'singer_sdk'} & {*sys.modules})"
    )
    reader = pickle.dumps(FileReader(selected()))  # all that each of them gets before its first file
    assert subprocess.check_output([sys.executable, "-P", "-c", code], input=reader) == b"set()\n"


def test_rows_come_back_in_private_files(tmp_path: Path) -> None:
    """Counts come through the pipe, rows do not."""
    files = [gzip_file(tmp_path, f"{number}.gz", *map(str, range(number + 1))) for number in range(6)]
    (tmp_path / "rows").mkdir()
    with running(FileReader(selected(only=["users"]), rows_folder=tmp_path / "rows"), 2) as (processes, _):
        results = [future.result() for future in map(processes.submit, files)]
    for number, blocks in enumerate(results):
        assert blocks
        (block,) = blocks
        assert block.users == number + 1
        assert isinstance(block.rows, FileRows)
        assert block.rows.path.parent == tmp_path / "rows"


def test_batch_files_are_written_where_the_file_is_read(tmp_path: Path) -> None:
    """They are named after the delivered file; rows of other streams come back."""
    files = BatchFiles.of(batches.config(tmp_path / "out"), FakeClock()).elsewhere()
    reader = FileReader(selected(only=["users", "apps"]), None, files, frozenset(["users"]))
    file = gzip_file(tmp_path, "a.gz", "one", "two")
    with running(reader, 1) as (processes, _):
        blocks = processes.submit(file).result()
    assert blocks
    (batch_file,) = (block.batch_files["users"] for block in blocks)
    assert batch_file.count == 2
    assert f"{file.work_name}-1.json.gz" in batch_file.url
    assert not [block.rows for block in blocks if "users" in block.rows]


def test_process_is_started_for_a_file(tmp_path: Path) -> None:
    """So there are never more processes than files."""
    with running(FileReader(selected(only=["users"])), 3) as (processes, started):
        assert not started()
        for _ in range(2):
            processes.submit(gzip_file(tmp_path, "a.gz", "one")).result()
            assert len(started()) == 1


def test_file_that_no_process_has_begun_can_be_taken_back(tmp_path: Path) -> None:
    """A process that is free begins the next one instead."""
    reader = FileReader(selected(only=["users"]))
    first, second, third = (gzip_file(tmp_path, name, name) for name in ("a", "b", "c"))
    with running(reader, 1) as (processes, _):
        begun = processes.submit(first)
        wait_for(begun.running)
        later = [processes.submit(file) for file in (second, third)]
        assert later[0].cancel()
        assert not begun.cancel()
        assert begun.result()
        assert later[1].result()
        assert later[0].cancelled()


# Failures


def test_unforeseen_error_in_a_process_is_told_by_its_place(tmp_path: Path) -> None:
    """As one in the run itself, without its text; the process reads on."""
    file = gzip_file(tmp_path, "a.gz", "one")
    no_file: Any = "no file"
    with running(FileReader(selected(only=["users"])), 1) as (processes, _):
        with pytest.raises(TapError, match=r"^Unforeseen AttributeError at file_reader.py:\d+") as raised:
            processes.submit(no_file).result()
        assert str(raised.value).endswith("please report this line")
        (tmp_path / "copy-of-a.gz").rename(tmp_path / "elsewhere")
        with pytest.raises(DamagedFileError):
            processes.submit(file).result()
        (tmp_path / "elsewhere").rename(tmp_path / "copy-of-a.gz")
        assert processes.submit(file).result()
    assert unforeseen(ValueError("secret")) == "Unforeseen ValueError at : please report this line"


def test_death_of_a_process_is_an_error(tmp_path: Path) -> None:
    """It says what happened and what to do."""
    file = gzip_file(tmp_path, "a.gz", "one")
    with running(FileReader(selected(only=["users"])), 1) as (processes, started):
        processes.submit(file).result()
        (pid,) = started()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(TapError, match=r"a process that reads files was killed by signal 9, .* fewer workers"):
            processes.submit(file).result()


def test_closing_ends_processes_that_are_reading(tmp_path: Path) -> None:
    """Nobody waits for their files, and none is begun any more."""
    file = gzip_file(tmp_path, "a.gz", *(f"b{number}" for number in range(500)), text="x" * 50_000)
    with running(FileReader(selected(only=["users"])), 2) as (processes, _):
        futures = [processes.submit(file) for _ in range(5)]
        wait_for(lambda: futures[0].running() and futures[1].running())
    wait_for(lambda: futures[0].done() and futures[1].done())
    with pytest.raises(TapError):
        futures[0].result()
    assert all(future.cancelled() or future.exception() for future in futures[2:])
