"""Samples of a run over its time, of which a long run keeps as many as a short one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FIRST_INTERVAL_SECONDS = 1.0
_MOST_SAMPLES = 500
_MEMORY, _STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


class Sample(NamedTuple):
    """The run at one moment: seconds since its begin, users so far, bytes of memory (None: the system says none)."""

    seconds: float
    users: int
    memory: int | None


def memory_in_use() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    try:
        return int(_MEMORY.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def peak_memory() -> int:
    """Most bytes of memory that this process has held; 0 where the system does not say."""
    # Not getrusage's: on Linux that includes the memory of the process that has started this one.
    try:
        (peak,) = (line.split()[1] for line in _STATUS.read_text("ascii", "replace").splitlines() if "VmHWM" in line)
        return int(peak) * 1024
    except (OSError, ValueError, IndexError):
        return 0


class Samples:
    """Keeps the first sample, and the last one of each second; with 500 of them the intervals double.

    Args:
        memory: Returns the bytes of memory in use.
    """

    def __init__(self, memory: Callable[[], int | None] = memory_in_use) -> None:
        self._memory = memory
        self._interval = _FIRST_INTERVAL_SECONDS
        self._kept = {-1: Sample(0.0, 0, memory())}

    @property
    def taken(self) -> Sequence[Sample]:
        """The samples so far."""
        return [*self._kept.values()]

    def take(self, seconds: float, users: int) -> None:
        """Take a sample."""
        self._kept[int(seconds / self._interval)] = Sample(seconds, users, self._memory())
        if len(self._kept) > _MOST_SAMPLES:
            self._interval *= 2
            first, *others = self._kept.values()
            self._kept = {-1: first, **{int(sample.seconds / self._interval): sample for sample in others}}
