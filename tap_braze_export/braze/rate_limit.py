"""Braze's rate limit: its headers, and when the next ids request may be sent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

_SECOND, _MINUTE, _HOUR = 1, 60, 3600
_ASSUMED_LIMIT, _ASSUMED_WINDOW_SECONDS = 250, _MINUTE
_USED_SHARE = 0.97
"""Of the allowed rate: a request that travels slower than others must not arrive in a window that is full already."""
_CLOCK_DIFFERENCE_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class RateLimit:
    """`X-RateLimit-*` of a response.

    Attributes:
        limit: Requests in the window.
        remaining: Requests that are left in it.
        reset: Its end in epoch seconds.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None

    @classmethod
    def of(cls, response: requests.Response) -> RateLimit:
        """Read the headers; a header that is missing or no number is None."""
        return cls(*(_number(response, f"X-RateLimit-{name}") for name in ("Limit", "Remaining", "Reset")))


def retry_at(response: requests.Response, now: float) -> float:
    """When a rate limit ends, in epoch seconds; 0 if the response does not say."""
    seconds = _number(response, "Retry-After")
    return now + seconds if seconds is not None else RateLimit.of(response).reset or 0.0


def _number(response: requests.Response, header: str) -> int | None:
    try:
        return int(float(response.headers[header]))
    except (KeyError, ValueError, OverflowError):
        return None


class RequestPacer:
    """Paces requests by `X-RateLimit-*`, whose windows begin on the clock's full second, minute or hour.

    The headers tell a window's limit and end but not its length; that is inferred from where it ends. Requests are
    spread evenly rather than sent in a burst at a window's start, because nobody knows how far Braze's clock is from
    ours. The first one is sent alone, since its response tells the rate; without headers 250 a minute are assumed,
    the lowest default.
    Source: https://www.braze.com/docs/api/api_limits

    Args:
        requests_per_minute: Never more than this, whatever Braze allows.
    """

    def __init__(self, requests_per_minute: int | None = None) -> None:
        self._cap = requests_per_minute
        self._first_has_ended = False
        self._sent = 0
        self._due = 0.0
        self._not_before = 0.0
        self._pause = 1.0
        self._limit, self._window = _ASSUMED_LIMIT, _ASSUMED_WINDOW_SECONDS
        self._reset = 0
        self._last_allowed = 0
        self._set_interval()

    def wait(self, now: float) -> float:
        """Seconds until the next request may be sent; infinite until the first response has come."""
        if self._sent and not self._first_has_ended:
            return math.inf
        at = max(self._due - self._tolerance, self._not_before)
        if self._sent >= self._last_allowed and now < self._reset:
            at = max(at, self._reset + self._window * (1 - _USED_SHARE))
        return max(0.0, at - now)

    def sent(self, now: float) -> int:
        """Count a request that is sent now; returns its number, from 1."""
        self._sent += 1
        self._due = max(self._due, now) + self._interval
        return self._sent

    def responded(self, number: int, rate_limit: RateLimit, now: float) -> None:
        """Learn from the headers of a response.

        Args:
            number: The request's number.
            rate_limit: The headers; empty if there was no response.
            now: Epoch seconds.
        """
        self._first_has_ended, self._pause = True, 1.0
        limit, remaining, reset = rate_limit.limit, rate_limit.remaining, rate_limit.reset
        if not limit or limit < 0 or not reset:
            return
        window = _window(reset, now, self._window if limit == self._limit else _MINUTE)
        if (limit, window) != (self._limit, self._window):
            self._limit, self._window = limit, window
            self._set_interval()
            self._due = min(self._due, now + self._interval)
        if remaining is None or reset < self._reset:
            return
        # The response is old by now: later requests have used up a part of what it says remains.
        last = number + max(0, remaining)
        self._last_allowed = last if reset > self._reset else min(self._last_allowed, last)
        self._reset = reset

    def refused(self, until: float, now: float) -> None:
        """Hold all requests back after a 429.

        Args:
            until: When the window ends, 0 if unknown.
            now: Epoch seconds.
        """
        self._first_has_ended = True
        if now < self._not_before:  # this one was sent before the first 429 came
            return
        # Twice as long each time: Braze's clock may be behind ours, or somebody else uses up the limit.
        self._not_before = min(max(until, now), now + _HOUR) + self._pause
        self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)

    def _set_interval(self) -> None:
        """Space requests so that any window of the limit's and the cap's length holds no more than it may."""
        limits = [(self._limit, self._window), *([(self._cap, _MINUTE)] if self._cap else [])]
        rate = min(limit / window for limit, window in limits) * _USED_SHARE
        self._interval = 1 / rate
        # A late request may catch up this many seconds; the other half of the slack is the network's.
        self._tolerance = min(limit / rate - window for limit, window in limits) / 2


def _window(reset: int, now: float, known: int) -> int:
    """Seconds of the window that ends at `reset`; the known length, where several are possible."""
    if reset % _MINUTE:
        return _SECOND
    left = reset - now - _CLOCK_DIFFERENCE_SECONDS
    if reset % _HOUR == 0 and (left > _MINUTE or known == _HOUR):
        return _HOUR
    return _MINUTE if left > _SECOND or known == _HOUR else known
