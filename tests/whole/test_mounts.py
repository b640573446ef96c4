"""Mounts that refuse calls of local disks: a run does without some, and names the others before it asks for more."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.loaders import ROOT
from tests.support.preloaded import Preloaded
from tests.support.runs import Ended, environment, settings, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.external]

SPOOL, PRINTS, BATCHES = "spool_dir", "fingerprints_url", "batch_config.storage.root"
REFUSED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS, errno.EPERM, errno.EACCES)
FAILED = (errno.EIO, errno.ESTALE)
FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EROFS, errno.EIO)

NEEDED = [
    (SPOOL, "write", (*REFUSED, *FAILED)),
    (SPOOL, "append", (*REFUSED, *FAILED)),
    (SPOOL, "rename", (*REFUSED, *FAILED)),
    (SPOOL, "unlink", (*REFUSED, *FAILED)),
    (SPOOL, "flock", NO_LOCKS),
    (SPOOL, "fsync", FAILED),
    (PRINTS, "write", (*REFUSED, *FAILED)),
    (PRINTS, "rename", (*REFUSED, *FAILED)),
    (PRINTS, "unlink", (*REFUSED, *FAILED)),
    (PRINTS, "mmap", (errno.ENODEV, *REFUSED, *FAILED)),
    (PRINTS, "fsync", FAILED),
    (BATCHES, "write", (*REFUSED, *FAILED)),
]
"""A run cannot do without these."""
DISPENSABLE = [
    (SPOOL, "fsync", REFUSED),
    (SPOOL, "chmod", (*REFUSED, *FAILED)),  # the file was made for its owner alone
    (PRINTS, "fsync", REFUSED),
    (PRINTS, "flock", NO_LOCKS),  # a run counts as live for a week, as in a bucket
    (PRINTS, "chmod", REFUSED),
    (BATCHES, "flock", NO_LOCKS),
    (BATCHES, "fsync", (*REFUSED, *FAILED)),
    (BATCHES, "rename", REFUSED),
    (BATCHES, "chmod", REFUSED),
    ("free space", "statvfs", (*REFUSED, *FAILED)),
]
"""A run does without these."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc: scripts/prerequisites.sh gcc")
    made: Path = tmp_path_factory.mktemp("library") / "refusing_disk.so"
    source = ROOT / "tests" / "support" / "refusing_disk.c"
    subprocess.run(["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def tap(library: Path) -> Iterator[Preloaded]:
    """The command, with that library."""
    made = Preloaded(
        sys.executable, "tap-braze-export", "tap_braze_export.fingerprints.lifecycle", "numpy.ma", library=library
    )
    yield made
    made.close()


def tried(library: Path, folder: Path, calls: list[tuple[str, str, int]]) -> list[tuple[str, str, int, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.refused_calls", folder],
        input=json.dumps(calls),
        env=environment(LD_PRELOAD=str(library)),
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def each(table: Sequence[tuple[str, str, Sequence[int]]]) -> list[tuple[str, str, int]]:
    return [(setting, call, number) for setting, call, numbers in table for number in numbers]


def test_a_call_that_a_run_needs_is_named_with_directory_and_remedy(library: Path, tmp_path: Path) -> None:
    """One line for each call, whatever the number of the error; nothing is left of the trial."""
    found = tried(library, tmp_path, each(NEEDED))
    assert len(found) == len(each(NEEDED))
    for setting, call, number, message in found:
        case = f"{setting}, {call}, {errno.errorcode[number]}: {message}"
        assert str(tmp_path) in message, case
        assert os.strerror(number) in message or call == "flock", case
        assert re.search(rf"\b{call}\b|cannot be written", message), case
        assert re.search(r": (mount|make|look after) .+, or set |name a directory of the tap's own user", message), case
        assert setting in message, case
        assert "\n" not in message, case


def test_a_call_that_a_run_can_do_without_is_no_failure(library: Path, tmp_path: Path) -> None:
    found = tried(library, tmp_path, each(DISPENSABLE))
    assert len(found) == len(each(DISPENSABLE))
    assert [result for result in found if result[3]] == []


def test_a_full_disk_is_told_as_such(library: Path, tmp_path: Path) -> None:
    table = [(SPOOL, "write", FULL), (SPOOL, "fsync", FULL), (BATCHES, "write", FULL), (PRINTS, "write", FULL)]
    for *case, message in tried(library, tmp_path, each(table)):
        assert message.startswith(f"the disk of {tmp_path}"), (case, message)
        assert " is full: free some space there" in message, (case, message)


def ran(tap: Preloaded, sandbox: Sandbox, folder: Path, call: str, number: int, *arguments: str, **more: Any) -> Ended:
    config = settings(sandbox, folder, **more)
    where = {"REFUSED_CALL": call, "REFUSED_ERRNO": str(number), "REFUSED_BELOW": str(folder)}
    done = tap.run(["--config", written(folder, config), *arguments], env=environment(**where), timeout=60)
    return Ended(done.stdout, done.returncode, done.stderr.decode())


@pytest.mark.parametrize("refused", [("flock", errno.ENOLCK), ("flock", errno.ENOSYS), ("rename", errno.EPERM)])
@pytest.mark.sandbox(users=5, delay=0)
def test_run_and_check_say_the_same(tap: Preloaded, sandbox: Sandbox, tmp_path: Path, refused: tuple[str, int]) -> None:
    """Before anything is asked of Braze; a lock by existence, which outlives its process, is not made instead."""
    run = ran(tap, sandbox, tmp_path, *refused)
    check = ran(tap, sandbox, tmp_path, *refused, "--test")
    call, number = refused
    assert f"spool_dir {tmp_path / 'spool'}: the file system fails at {call} ({os.strerror(number)})" in run.error
    assert check.error == f"Spool directory: {run.error}"
    assert not [request for request in sandbox.calls if request.method != "GET"]
    assert not [*tmp_path.rglob("*.lock")]


@pytest.mark.parametrize("refused", [("fsync", errno.EINVAL), ("statvfs", errno.EOPNOTSUPP), ("chmod", errno.EPERM)])
@pytest.mark.sandbox(users=5, delay=0)
def test_run_without_a_call(tap: Preloaded, sandbox: Sandbox, tmp_path: Path, refused: tuple[str, int]) -> None:
    """The rows are there, after one warning of fsync for each of the two directories."""
    ended = ran(tap, sandbox, tmp_path, *refused, fingerprints_url=str(tmp_path / "prints"))
    assert ended.code == 0, ended.stderr
    assert ended.counts["users"] == 5
    assert ended.stderr.count("| WARNING") == (2 if refused[0] == "fsync" else 0), ended.stderr


@pytest.mark.sandbox(users=5, delay=0, odd_users=False)
def test_fingerprints_without_locks(tap: Preloaded, sandbox: Sandbox, tmp_path: Path) -> None:
    """The second run skips what the first has emitted."""
    more = {"fingerprints_url": str(tmp_path / "prints"), "spool_dir": str(tmp_path.parent / "own-spool")}
    first = ran(tap, sandbox, tmp_path, "flock", errno.ENOLCK, **more)
    state = written(tmp_path, first.states[-1], "state.json")
    second = ran(tap, sandbox, tmp_path, "flock", errno.ENOLCK, "--state", state, **more)
    assert (first.code, second.code) == (0, 0), second.stderr
    assert (first.counts["users"], second.counts["users"]) == (5, 0)


@pytest.mark.sandbox(users=5, delay=0)
def test_the_free_space_of_each_directory_is_told(tap: Preloaded, sandbox: Sandbox, tmp_path: Path) -> None:
    """Where the file system says it."""
    batches = {"encoding": {"format": "jsonl", "compression": "gzip"}, "storage": {"root": str(tmp_path / "batches")}}
    told = ran(tap, sandbox, tmp_path, "", 0, "--test", batch_config=batches)
    untold = ran(tap, sandbox, tmp_path, "statvfs", errno.ENOSYS, "--test")
    assert re.search(r"Spool directory: works \([\d,.]+ MB free\)", told.stderr)
    assert re.search(r"Batch files: works \([\d,.]+ MB free\)", told.stderr)
    assert "Spool directory: works (its file system does not tell the free space)" in untold.stderr
