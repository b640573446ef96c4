"""Time, behind one seam that tests replace."""

from __future__ import annotations

import threading
import time


class Clock:
    """The time of day, and waiting that a signal can end.

    Args:
        stop: Ends every wait, now and later, once it is set. A signal handler sets it from a thread of its
            own: `Event.set` inside a handler can deadlock with the wait that it interrupts.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether the run was told to end; waits return at once from then on."""
        return self.stop.is_set()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds, or until the run is told to end."""
        self.stop.wait(max(0.0, seconds))
