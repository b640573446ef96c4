"""Runs one command and tells what it took."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

MIB = 2**20
_RECORDS = re.compile(rb'"metric": ?"record_count", ?"value": ?(\d+)')
"""How the SDK's METRIC lines tell the records of a stream."""


@dataclass(frozen=True)
class Case:
    """A command that turns an export into tables.

    Attributes:
        name: Its row in the table.
        users: Users in the export.
        command: Its words, given a directory of its own.
        empty: The same for an export without users: what it takes to start.
        beside: What has to run beside it; its value is given to the command.
        says: What its log says if it has done what is measured.
    """

    name: str
    users: int
    command: Callable[[Path, str], list[str]]
    empty: Case | None = None
    beside: Callable[[], AbstractContextManager[str]] | None = None
    says: str = ""


@dataclass(frozen=True)
class Result:
    """Time and memory of a command; its start-up is known where the same was measured without users."""

    users: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    records: int = 0
    start: Result | None = None

    @property
    def cpu_a_user(self) -> float:
        """Microseconds of CPU time, without the start."""
        return (self.cpu_seconds - (self.start.cpu_seconds if self.start else 0)) / max(self.users, 1) * 1e6

    @property
    def a_user(self) -> float:
        """Microseconds on the clock, without the start."""
        return (self.seconds - (self.start.seconds if self.start else 0)) / max(self.users, 1) * 1e6


def measure(case: Case) -> Result:
    """Run a command, and before it the same without users."""
    start = measure(case.empty) if case.empty else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        given = stack.enter_context(case.beside()) if case.beside else ""
        command = case.command(folder, given)
        log = stack.enter_context((folder / "log").open("wb"))
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=Path(__file__).parents[1],
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{case.name} failed: {(folder / 'log').read_text()[-2000:]}")
        if case.says and subprocess.run(["grep", "-qF", case.says, folder / "log"], check=False).returncode:
            raise SystemExit(f"{case.name} did not say: {case.says}")
        with (folder / "log").open("rb") as lines:  # line by line: our own memory would count as the command's
            records = sum(int(found[1]) for found in map(_RECORDS.search, lines) if found)
    cpu_seconds, peak_mib = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / MIB
    found = Result(case.users, seconds, cpu_seconds, peak_mib, records, start)
    if case.users:
        sys.stderr.write(
            f"{case.name:60} {found.seconds:7.2f} s {found.cpu_a_user:8.1f} us CPU a user {found.peak_mib:5.0f} MiB\n"
        )
    return found


def middle(results: Iterable[Result], of: Callable[[Result], float]) -> float:
    """The median."""
    return median(map(of, results))
