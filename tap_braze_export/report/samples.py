"""Samples of a run over its time, of which a long run keeps as many as a short one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_braze_export.clock import Clock

_FIRST_INTERVAL_SECONDS = 1.0
_MOST_SAMPLES = 500
_MEMORY, _STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


@dataclass(frozen=True)
class Sample:
    """The run at one moment.

    Attributes:
        seconds: Since the run began.
        users: Users emitted so far.
        memory: Bytes of memory that the process holds; None where the system does not say.
    """

    seconds: float
    users: int
    memory: int | None


def memory_in_use() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    try:
        pages = int(_MEMORY.read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """Most bytes of memory that this process has held; 0 where the system does not say."""
    # Not getrusage's: on Linux that includes the memory of the process that has started this one.
    try:
        (peak,) = (line.split()[1] for line in _STATUS.read_text("ascii", "replace").splitlines() if "VmHWM" in line)
        return int(peak) * 1024
    except (OSError, ValueError, IndexError):
        return 0


class Samples:
    """Takes a sample at most every second; once 500 are there every second one goes and the interval doubles.

    Args:
        clock: Time.
        memory: Returns the bytes of memory in use.

    Attributes:
        taken: The samples, the first at 0 seconds.
    """

    def __init__(self, clock: Clock, memory: Callable[[], int | None] = memory_in_use) -> None:
        self._clock = clock
        self._memory = memory
        self._started = self._last = clock.monotonic()
        self._interval = _FIRST_INTERVAL_SECONDS
        self._skipped: Sample | None = None
        self._samples = [Sample(0.0, 0, memory())]

    @property
    def taken(self) -> Sequence[Sample]:
        """The samples so far."""
        return self._samples

    def take(self, users: int) -> None:
        """Take a sample if the last one is old enough.

        If the next one is far off, this one is kept too, so that its users do not seem to come in the meantime.
        """
        now = self._clock.monotonic()
        if now - self._last < self._interval:
            self._skipped = Sample(max(0.0, now - self._started), users, self._samples[-1].memory)
            return
        if self._skipped and now - self._started - self._skipped.seconds > self._interval:
            self._samples.append(self._skipped)
        self.finish(users)

    def finish(self, users: int) -> None:
        """Take a sample whatever the time of the last one."""
        self._last, self._skipped = self._clock.monotonic(), None
        self._samples.append(Sample(max(0.0, self._last - self._started), users, self._memory()))
        if len(self._samples) > _MOST_SAMPLES:
            del self._samples[1:-1:2]
            self._interval *= 2
