"""Time, behind one seam that tests replace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.signals import Signals

_SLICE = 0.5
"""A signal ends a wait within this many seconds."""


class Clock:
    """The time of day, and waiting that a signal ends.

    Args:
        signals: The signals that the run has received.
    """

    def __init__(self, signals: Signals | None = None) -> None:
        self._signals = signals

    @property
    def stopped(self) -> bool:
        """Whether the run was told to end; waits return at once from then on."""
        return self._signals is not None and bool(self._signals.received)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds, or until the run is told to end."""
        # Not one long wait on an event: setting one in a signal handler can deadlock with the wait that it interrupts.
        end = time.monotonic() + seconds
        while not self.stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))
