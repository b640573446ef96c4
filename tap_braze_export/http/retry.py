"""The one retry policy, for calls to Braze and to storages: repeats a call whose failure may pass, within limits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.clock import Clock

T = TypeVar("T")

_MAX_WAIT_SECONDS = 60
_MAX_RATE_LIMIT_WAIT_SECONDS = 3_700  # hourly windows are the longest that Braze has
_MAX_RATE_LIMIT_TOTAL_SECONDS = 3 * 3_600
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class RetryableError(Exception):
    """A try failed, and the next one may succeed.

    Attributes:
        problem: What went wrong, without secrets and personal data.
        until: When a rate limit ends: seconds of the monotonic clock, 0 if unknown; None for every other problem.
        advice: For a user, if no try succeeds.
    """

    problem: str
    until: float | None = None
    advice: str = "run again later"


@dataclass(eq=False)
class GaveUpError(Exception):
    """Every try failed, and there is no further one.

    Attributes:
        last: The error of the last try.
        tries: Their number.
        seconds: From the first try to the end of the last.
        stopped: True if there is no further try only because the run was told to end.
    """

    last: RetryableError
    tries: int
    seconds: float
    stopped: bool


@dataclass(frozen=True)
class RetryPolicy:
    """Waits a random time between tries (full jitter), whose upper bound doubles up to a minute.

    A rate limit is waited for until it ends, however many tries it refuses.

    Attributes:
        max_tries: Tries that may fail for other reasons than a rate limit.
        max_seconds: Seconds after the first try when none begins any more.
        max_rate_limit_seconds: The same, after a try that a rate limit refused.
    """

    max_tries: int
    max_seconds: float
    max_rate_limit_seconds: float = _MAX_RATE_LIMIT_TOTAL_SECONDS

    def call(self, attempt: Callable[[], T], *, failed: str, clock: Clock) -> T:
        """Call until it succeeds.

        Args:
            attempt: One try; raises RetryableError if it may be repeated.
            failed: The beginning of a repetition's log line.
            clock: Time, and the waits.

        Raises:
            GaveUpError: No try succeeded.
        """
        waits = backoff.expo(max_value=_MAX_WAIT_SECONDS)
        next(waits)  # backoff's generators yield one 0 before the first wait
        started = clock.monotonic()
        tries = failures = 0
        while True:
            try:
                return attempt()
            except RetryableError as error:
                last = error.with_traceback(None)
            now = clock.monotonic()
            wait = backoff.full_jitter(next(waits))
            tries += 1
            if last.until is None:
                failures += 1
                ended = failures >= self.max_tries or now + wait - started > self.max_seconds
            else:
                # Jitter after the window's end, lest all clients come back in the same instant.
                wait = min(max(last.until - now, 0) + 1 + wait, _MAX_RATE_LIMIT_WAIT_SECONDS)
                ended = now + wait - started > self.max_rate_limit_seconds
            if not ended and not clock.stopped:
                _log.info("%s: %s; repeated in %.0f s", failed, last.problem, wait)
                clock.sleep(wait)
            if ended or clock.stopped:
                raise GaveUpError(last, tries, seconds=now - started, stopped=not ended)
            clock.count_retry()
