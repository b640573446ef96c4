"""SIGTERM and SIGINT only set a flag; the run ends itself at the next line boundary.

The SDK's own handler writes a STATE message wherever the run stands, also into the middle of a RECORD line.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

GRACE_SECONDS = 4.0
"""After this long without a line boundary a blocking call (a slow answer, a full pipe) is broken off."""

_LAST_SECONDS = 0.8


class Interruption(BaseException):
    """The run was told to end. No `Exception`, so that nobody takes it for a failure to report or retry."""


class Signals:
    """The signals that a run has received.

    Attributes:
        received: The number of the signal, 0 while there was none.
        writing: Whether a line is being written, so that only its end may be a place to stop.
    """

    def __init__(self) -> None:
        self.received = 0
        self.writing = False
        self._last_chance = False

    def install(self) -> None:
        """Take SIGTERM, SIGINT and the alarm that follows them."""
        signal.signal(signal.SIGTERM, self._receive)
        signal.signal(signal.SIGINT, self._receive)
        signal.signal(signal.SIGALRM, self._break_off)

    def check(self) -> None:
        """End the run if it was told to.

        Raises:
            Interruption: If a signal was received.
        """
        if self.received:
            raise Interruption

    def finish(self) -> None:
        """Give the end of the output, and the log's last lines, a second: whoever should read them may be stuck."""
        self.writing = self._last_chance = True
        signal.setitimer(signal.ITIMER_REAL, _LAST_SECONDS)

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        if not self.received:
            self.received = signum
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS, 0.5)

    def _break_off(self, _signum: int, _frame: FrameType | None) -> None:
        if not self.writing:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interruption
        if self._last_chance:
            os._exit(128 + self.received)  # the reader has been gone or stuck for all the time of grace
        self._last_chance = True
