"""Braze's rate limit: its headers, and when the next ids request may be sent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

RETRY_AFTER = "X-RateLimit-Retry-After"
"""Seconds that a 429 asks to wait, new in summer 2026: it counts before the end of the window."""
_SECOND, _MINUTE, _HOUR = 1, 60, 3600
_ASSUMED_LIMIT, _ASSUMED_WINDOW_SECONDS = 250, _MINUTE
_USED_SHARE = 0.97
"""Of the allowed rate: a request that travels slower than others must not arrive in a window that is full already."""
_CLOCK_DIFFERENCE_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 60.0
_MAX_WAIT_SECONDS = 3_720.0
"""A whole hour, and how much longer the first request of the next one waits."""
_EARLIEST_TIME = 1_000_000_000
"""Smaller numbers are seconds that are left, greater ones epoch seconds."""
_SHORTEST_MILLISECONDS = 100_000_000_000
"""Greater numbers are epoch milliseconds."""


@dataclass(frozen=True)
class RateLimit:
    """`X-RateLimit-*` of a response.

    Attributes:
        limit: Requests in the window.
        remaining: Requests that are left in it.
        reset: Its end in epoch seconds of Braze's clock, or the seconds until then.
        date: Braze's time in epoch seconds, by the header `Date`.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None
    date: float | None = None

    @classmethod
    def of(cls, response: requests.Response) -> RateLimit:
        """Read the headers; a header that is missing or no number is None."""
        limit, remaining, reset = (_number(response, f"X-RateLimit-{name}") for name in ("Limit", "Remaining", "Reset"))
        return cls(limit, remaining, _end(reset), _date(response, "Date"))

    @property
    def ends_at_a_time(self) -> bool:
        """True if `reset` is a time, not a number of seconds."""
        return self.reset is not None and self.reset >= _EARLIEST_TIME

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the window ends, by Braze's clock; never more than a window may have, None if unknown."""
        if self.reset is None:
            return None
        return _seconds_until(self.reset, self.date, now) if self.ends_at_a_time else float(min(self.reset, _HOUR))


def other_time(response: requests.Response, now: float) -> float | None:
    """Braze's time in epoch seconds, by the header `Date`; None where it is within a minute of ours."""
    date = _date(response, "Date")
    return date if date is not None and abs(now - date) > _MINUTE else None


def retry_at(response: requests.Response, now: float, monotonic: float) -> float:
    """When a rate limit ends, in seconds of the monotonic clock; 0 if the response does not say.

    Args:
        response: A 429.
        now: Our time of day when it came, for a Braze that does not say its own.
        monotonic: Seconds of the monotonic clock then.
    """
    rate_limit = RateLimit.of(response)
    left = rate_limit.seconds_left(now)
    for header in (RETRY_AFTER, "Retry-After"):
        if (after := _number(response, header)) is not None and after >= 0:
            left = RateLimit(reset=_end(after) or 0, date=rate_limit.date).seconds_left(now)
            break
        if (date := _date(response, header)) is not None:
            left = _seconds_until(date, rate_limit.date, now)
            break
    return monotonic + left if left is not None else 0.0


def _seconds_until(end: float, date: float | None, now: float) -> float:
    """Seconds until a time of Braze's clock, which `date` shows; ours may be hours ahead or behind."""
    left = [end - time for time in (date, now) if time is not None]
    fitting = [seconds for seconds in left if -_MINUTE <= seconds <= _HOUR]
    if fitting:
        return max(0.0, fitting[0])
    # The clocks differ by who knows what. Where the window ends tells how long it is at most.
    return 0.0 if left[0] < 0 else float(_MINUTE if end % _HOUR else _HOUR)


def _end(number: int | None) -> int | None:
    """A time in epoch seconds or a number of seconds; None if it is neither."""
    if number is None or number <= 0:
        return None
    return number // 1_000 if number >= _SHORTEST_MILLISECONDS else number


def _number(response: requests.Response, header: str) -> int | None:
    try:
        return int(float(response.headers[header]))
    except (KeyError, ValueError, OverflowError):
        return None


def _date(response: requests.Response, header: str) -> float | None:
    """A header's HTTP date in epoch seconds."""
    try:
        return parsedate_to_datetime(response.headers[header]).timestamp()
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return None


class RequestPacer:
    """Paces requests by `X-RateLimit-*`, whose windows begin on the clock's full second, minute or hour.

    The headers tell a window's limit and end but not its length; that is inferred from where it ends. Requests are
    spread evenly rather than sent in a burst at a window's start, because nobody knows how far Braze's clock is from
    ours. Without headers 250 a minute are assumed, the lowest default. Braze counts a request when it arrives, which
    may be in the window after the one in which it was sent: each request without a response counts against what
    remains in the present window, whichever that is.
    Source: https://www.braze.com/docs/api/api_limits

    Args:
        requests_per_minute: Never more than this, whatever Braze allows.

    Attributes:
        interval: Seconds between two requests.
    """

    def __init__(self, requests_per_minute: int | None = None) -> None:
        self._cap = requests_per_minute
        self._in_flight = 0
        self._due = 0.0
        self._not_before = 0.0
        self._pause = 1.0
        self._limit, self._window = _ASSUMED_LIMIT, _ASSUMED_WINDOW_SECONDS
        self._reset = 0  # by Braze's clock
        self._ends_at = 0.0  # by the monotonic clock
        self._remaining = math.inf  # by the newest response, which says the least
        self._opening = math.inf  # what a window had when its first request was counted
        self._set_interval()

    def wait(self, now: float) -> float:
        """Seconds until the next request may be sent, or until that may be known."""
        at = max(self._due - self._tolerance, self._not_before)
        next_window = self._ends_at + self._window * (1 - _USED_SHARE)
        if self._in_flight >= self._remaining and now < next_window:
            at = max(at, next_window)
        elif self._in_flight >= self._opening and now >= self._ends_at:
            at = max(at, now + self.interval)  # others may use up as much of the new window as they did of the last one
        return min(max(0.0, at - now), _MAX_WAIT_SECONDS)

    @property
    def reason(self) -> str:
        """Why requests wait."""
        if self._cap and self._cap / _MINUTE < self._limit / self._window:
            return "requests_per_minute"
        return f"Braze's rate limit of {self._limit} requests in {self._window} s"

    def sent(self, now: float) -> None:
        """Count a request that is sent now."""
        self._in_flight += 1
        self._due = max(self._due, now) + self.interval

    def responded(self, rate_limit: RateLimit, now: float, *, time_of_day: float) -> None:
        """Learn from the headers of a response, empty if none came; our time of day is for a Braze that tells none."""
        self._pause = 1.0
        self._in_flight -= 1
        limit, remaining, left = rate_limit.limit, rate_limit.remaining, rate_limit.seconds_left(time_of_day)
        if not limit or limit < 0 or left is None:
            self._remaining -= 1
            return
        window = _window(rate_limit, left, self._window if limit == self._limit else _MINUTE)
        if (limit, window) != (self._limit, self._window):
            self._limit, self._window = limit, window
            self._set_interval()
            self._due = min(self._due, now + self.interval)
        ends_at = now + min(left, window)
        reset = rate_limit.reset if rate_limit.reset and rate_limit.ends_at_a_time else int(ends_at)
        if remaining is None or (reset < self._reset and now < self._ends_at):
            return
        if reset != self._reset:
            self._reset, self._ends_at, self._remaining = reset, ends_at, max(0, remaining)
            self._opening = max(0, remaining) + 1
        else:
            self._remaining = min(self._remaining, max(0, remaining))
            self._ends_at = min(self._ends_at, ends_at)

    def refused(self, until: float, now: float) -> None:
        """Hold all requests back after a 429, until the window ends, 0 if unknown."""
        self._in_flight -= 1
        if until:
            self._ends_at, self._remaining = min(self._ends_at, until), math.inf
        if now < self._not_before:  # this one was sent before the first 429 came
            return
        # Twice as long each time: Braze's clock may be behind ours, or somebody else uses up the limit.
        self._not_before = min(max(until, now), now + _HOUR) + self._pause
        self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)

    def _set_interval(self) -> None:
        """Space requests so that any window of the limit's and the cap's length holds no more than it may."""
        limits = [(self._limit, self._window), *([(self._cap, _MINUTE)] if self._cap else [])]
        rate = min(limit / window for limit, window in limits) * _USED_SHARE
        self.interval = 1 / rate
        # A late request may catch up this many seconds; the other half of the slack is the network's.
        self._tolerance = min(limit / rate - window for limit, window in limits) / 2


def _window(rate_limit: RateLimit, left: float, known: int) -> int:
    """Seconds of the window of which so many are left; the known length, where several are possible."""
    reset = rate_limit.reset or 0
    left -= _CLOCK_DIFFERENCE_SECONDS
    if not rate_limit.ends_at_a_time:
        return _HOUR if left > _MINUTE else max(_MINUTE, known)
    if reset % _MINUTE:
        return _SECOND
    if reset % _HOUR == 0 and (left > _MINUTE or known == _HOUR):
        return _HOUR
    return _MINUTE if left > _SECOND or known == _HOUR else known
