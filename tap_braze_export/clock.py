"""Time, poll intervals, and being told to stop.

SIGTERM and SIGINT only set a flag; the run ends itself at the next line boundary. The SDK's own handler writes a STATE
message wherever the run stands, also into the middle of a RECORD line.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

WAIT_SLICE_SECONDS = 0.5
"""Longest wait between two checks for a signal."""
LONG_WAIT_SECONDS = 30.0
"""Every longer wait is logged, with its reason."""
GRACE_SECONDS = 4.0
"""Seconds after a signal at which a blocking call (a slow response, a full pipe) is broken off."""

_LAST_SECONDS = 0.8
_LONGEST_INTERVAL = 60.0
_INTERVAL_GROWTH = 1.5
_counting = threading.Lock()


class Interruption(BaseException):
    """The run was told to end. No `Exception`, so that no code reports or retries it as a failure."""


class Signals:
    """The signals that a run has received.

    Attributes:
        received: The number of the signal, 0 while there was none.
        writing: True while a line is being written, so that the run may stop at its end only.
    """

    def __init__(self) -> None:
        self.received = 0
        self.writing = False
        self._last_chance = False

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and the alarm that follows them."""
        signal.signal(signal.SIGTERM, self._receive)
        signal.signal(signal.SIGINT, self._receive)
        signal.signal(signal.SIGALRM, self._break_off)

    def check(self) -> None:
        """Raise `Interruption` if the run was told to end."""
        if self.received:
            raise Interruption

    def finish(self) -> None:
        """Limit the last writes of output and log to a second: their reader may hang."""
        self.writing = self._last_chance = True
        signal.setitimer(signal.ITIMER_REAL, _LAST_SECONDS)

    def disarm(self) -> None:
        """Switch the alarm off: while the interpreter ends, it would kill the process with another exit code."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if not self.received:
            self.received = signum
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS, 0.5)

    def _break_off(self, _signum: int, _frame: FrameType | None) -> None:
        if not self.writing:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interruption
        if self._last_chance:
            os._exit(128 + self.received)  # the reader did not read for the whole time of grace
        self._last_chance = True


class Clock:
    """Two clocks, and waits that a signal ends; tests replace it. It also counts retries: who retries waits by it.

    Durations go by the monotonic clock. The time of day is for what is written down or crosses runs: somebody may set
    it at any moment.
    """

    def __init__(self, signals: Signals | None = None) -> None:
        self.retries = 0
        self._signals = signals
        self._began, self._monotonic_began = self.now(), self.monotonic()

    def count_retry(self) -> None:
        """Count something that is done once more after a failure, on any thread."""
        with _counting:
            self.retries += 1

    @property
    def stopped(self) -> bool:
        """True once the run was told to end; from then on waits return at once."""
        return self._signals is not None and bool(self._signals.received)

    def now(self) -> float:
        """The time of day: seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of the monotonic clock, which nobody sets; they mean nothing to another process."""
        return time.monotonic()

    def unset_now(self) -> float:
        """The time of day, less what it was set ahead by since this process began: nothing is old because of that."""
        return min(self.now(), self._began + (self.monotonic() - self._monotonic_began))

    def age(self, moment: float) -> float:
        """Seconds since a time of day that perhaps another run has written, 0 if it lies in the future."""
        return max(0.0, self.unset_now() - moment)

    def monotonic_at(self, moment: float) -> float:
        """The monotonic clock's seconds at a time of day; those of now if it lies in the future."""
        return self.monotonic() - self.age(moment)

    def sleep(self, seconds: float) -> None:
        """Wait for this long, or until the run is told to end."""
        # Not one long wait on an event: setting one in a signal handler can deadlock with the wait that it interrupts.
        end = self.monotonic() + seconds
        while not self.stopped and (left := end - self.monotonic()) > 0:
            # Nobody sets this event. time.sleep fails under libfaketime, by which people try what a set clock does.
            threading.Event().wait(min(left, WAIT_SLICE_SECONDS))


class PollTimer:
    """Says when to poll `next`, in seconds of the monotonic clock: at intervals that grow to a minute."""

    def __init__(self, clock: Clock, first_interval: float) -> None:
        self._clock = clock
        self._first = self._interval = float(first_interval)
        self.next = clock.monotonic()

    @property
    def due(self) -> bool:
        """True if it is time to poll."""
        return self.next <= self._clock.monotonic()

    def polled(self, *, found: bool) -> None:
        """Set the time of the next poll; the intervals start anew if this one found something."""
        self._interval = self._first if found else self._interval
        self.next = self._clock.monotonic() + self._interval
        self._interval = min(self._interval * _INTERVAL_GROWTH, max(_LONGEST_INTERVAL, self._first))


def timestamp(seconds: float) -> str:
    """Epoch seconds in the one form of `exported_at`: YYYY-MM-DDTHH:MM:SS.ffffffZ."""
    # Not strftime, which leaves zeros of early years out.
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
