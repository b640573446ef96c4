"""Rate limits in windows that begin at a full second, minute or hour."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Budget:
    """The values of the X-RateLimit headers of one response."""

    limit: int
    remaining: int
    reset: int
    allowed: bool = True
    retry_after: int | None = None  # seconds

    @property
    def headers(self) -> dict[str, str]:
        """The three or four headers by name."""
        retry_after = {} if self.retry_after is None else {"X-RateLimit-Retry-After": str(self.retry_after)}
        return {
            **retry_after,
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


class RateLimit:
    """A limit of requests in each window of `seconds` seconds."""

    def __init__(self, limit: int, seconds: int, clock: Callable[[], float]) -> None:
        """Take the time from this clock."""
        self.limit = limit
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._window = -1
        self._used = 0

    def take(self, requests: int = 1) -> Budget:
        """Count requests if the window still allows them; 0 counts none and tells the state."""
        with self._lock:
            window = int(self._clock() // self._seconds)
            if window != self._window:
                self._window, self._used = window, 0
            allowed = self._used + requests <= self.limit
            if allowed:
                self._used += requests
            reset = (window + 1) * self._seconds
            return Budget(self.limit, self.limit - self._used, reset, allowed)
