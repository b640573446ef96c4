"""Rate limits in windows that begin on the clock's full second, minute or hour."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Budget:
    """What the X-RateLimit headers of one answer say."""

    limit: int
    remaining: int
    reset: int
    allowed: bool = True

    @property
    def headers(self) -> dict[str, str]:
        """The three headers."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


class RateLimit:
    """So many calls in each window of so many seconds."""

    def __init__(self, limit: int, seconds: int, clock: Callable[[], float]) -> None:
        """Count against this clock."""
        self.limit = limit
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._window = -1
        self._used = 0

    def take(self, calls: int = 1) -> Budget:
        """Use up one call (or none, to look), if the window still allows it."""
        with self._lock:
            window = int(self._clock() // self._seconds)
            if window != self._window:
                self._window, self._used = window, 0
            allowed = self._used + calls <= self.limit
            if allowed:
                self._used += calls
            reset = (window + 1) * self._seconds
            return Budget(self.limit, self.limit - self._used, reset, allowed)
