"""When the next ids request may go: evenly, as fast as Braze's rate limit headers allow, never faster."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.braze.responses import RateLimit

_LIMIT, _SECOND, _MINUTE, _HOUR = 250, 1, 60, 3600
_SHARE = 0.97
"""Of the allowed rate: what travels a little slower must not fall into a window that is full already."""
_CLOCKS_DIFFER = 5.0
_LONGEST_PAUSE = 60.0


class RequestPacer:
    """Paces requests by `X-RateLimit-*`, whose windows begin on the clock's full second, minute or hour.

    The headers tell a window's limit and end but not its length; that is inferred from where it ends. Requests go
    evenly rather than in a burst at a window's start, because nobody knows how far Braze's clock is from ours. The
    first one goes alone, since its answer tells the rate; until then 250 a minute are assumed, the lowest default.
    Source: https://www.braze.com/docs/api/api_limits

    Args:
        requests_per_minute: Never more than this, whatever Braze allows.
    """

    def __init__(self, requests_per_minute: int | None = None) -> None:
        self._cap = requests_per_minute
        self._learned = False
        self._sent = 0
        self._due = 0.0
        self._not_before = 0.0
        self._pause = 1.0
        self._limit, self._window = _LIMIT, _MINUTE
        self._reset = 0
        self._last_allowed = 0
        self._settle()

    def wait(self, now: float) -> float:
        """Seconds until the next request may go; infinite while the first answer is awaited."""
        if self._sent and not self._learned:
            return math.inf
        at = max(self._due - self._tolerance, self._not_before)
        if self._sent >= self._last_allowed and now < self._reset:
            at = max(at, self._reset + self._window * (1 - _SHARE))
        return max(0.0, at - now)

    def sent(self, now: float) -> int:
        """Count a request that goes now; its number, from 1."""
        self._sent += 1
        self._due = max(self._due, now) + self._interval
        return self._sent

    def answered(self, number: int, said: RateLimit, now: float) -> None:
        """Learn from the headers of an answer.

        Args:
            number: The request's number.
            said: The headers.
            now: Epoch seconds.
        """
        self._learned, self._pause = True, 1.0
        if not said.limit or said.limit < 0 or not said.reset:
            return
        window = _window(said.reset, now, self._window if said.limit == self._limit else _MINUTE)
        if (said.limit, window) != (self._limit, self._window):
            self._limit, self._window = said.limit, window
            self._settle()
            self._due = min(self._due, now + self._interval)
        if said.remaining is None or said.reset < self._reset:
            return
        # The answer is old by now: what was sent after this request has used up a part of what it says remains.
        last = number + max(0, said.remaining)
        self._last_allowed = last if said.reset > self._reset else min(self._last_allowed, last)
        self._reset = said.reset

    def refused(self, until: float, now: float) -> None:
        """Hold all requests back after a 429.

        Args:
            until: When the window ends, 0 if unknown.
            now: Epoch seconds.
        """
        self._learned = True
        if now < self._not_before:  # one that was in flight together with the first
            return
        # Twice as long each time: Braze's clock may be behind ours, or somebody else uses up the limit.
        self._not_before = min(max(until, now), now + _HOUR) + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _settle(self) -> None:
        """Space requests so that any window of the limit's and the cap's length holds at most what it may."""
        limits = [(self._limit, self._window), *([(self._cap, _MINUTE)] if self._cap else [])]
        rate = min(limit / window for limit, window in limits) * _SHARE
        self._interval = 1 / rate
        # By so much a late request may catch up; the other half of the slack is the network's.
        self._tolerance = min(limit / rate - window for limit, window in limits) / 2


def _window(reset: int, now: float, known: int) -> int:
    """The length of the window that ends then; the known one, where several are possible."""
    if reset % _MINUTE:
        return _SECOND
    left = reset - now - _CLOCKS_DIFFER
    if reset % _HOUR == 0 and (left > _MINUTE or known == _HOUR):
        return _HOUR
    return _MINUTE if left > _SECOND or known == _HOUR else known
