"""Requests in flight: several at a time, at Braze's pace, their answers given in the order of the requests."""

from __future__ import annotations

import logging
import math
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.errors import BrazeError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_braze_export.braze.client import IdsResponse
    from tap_braze_export.braze.rate_limit import RequestPacer
    from tap_braze_export.clock import Clock
    from tap_braze_export.resync.lanes import Lanes

_LOOK_SECONDS = 0.5
_GIVE_UP_SECONDS = 3 * 3600
_log = logging.getLogger(__name__)
Request = TypeVar("Request")


class Answer(NamedTuple, Generic[Request]):
    """What Braze answered to a request, and when in epoch seconds; a 400 concerns this very request."""

    request: Request
    content: IdsResponse | BrazeError
    at: float


class RequestPool(Generic[Request]):
    """Sends requests, at most so many unconfirmed ones, and gives their answers.

    Args:
        requests: In the order in which the answers are given.
        send: Makes the call for a request.
        pace: Tells when the next one may go.
        clock: Time.
        lanes: Where calls are made.
        most: Requests in flight.
        ahead: Requests that may be sent without being confirmed.
    """

    def __init__(
        self,
        requests: Iterator[Request],
        send: Callable[[Request], IdsResponse],
        *,
        pace: RequestPacer,
        clock: Clock,
        lanes: Lanes,
        most: int,
        ahead: int,
    ) -> None:
        self._requests = requests
        self._send = send
        self._pace = pace
        self._clock = clock
        self._lanes = lanes
        self._most = most
        self._ahead = ahead
        self._confirmed = self._begun = self._given = 0
        self._exhausted = self._closed = False
        self._limited_since: float | None = None
        # Places are those of the requests, from 0; the pace numbers what it sent, which may be a request once more.
        self._flying: dict[int, tuple[int, Request]] = {}
        self._again: deque[tuple[int, Request]] = deque()
        self._landed: dict[int, Answer[Request] | Exception] = {}

    def confirm(self, answers: int) -> None:
        """So many of the answers are safe: more may be asked for."""
        self._confirmed += answers
        self._lanes.wake()

    def close(self) -> None:
        """Send nothing any more."""
        self._closed = True
        self._lanes.wake()
        self._lanes.close()

    def answers(self) -> Iterator[Answer[Request]]:
        """The answers.

        Raises:
            TapError: At the place of the first request that failed for good.
        """
        while not self._closed:
            while (landed := self._landed.pop(self._given, None)) is not None:
                self._given += 1
                if isinstance(landed, Exception):
                    raise landed
                yield landed
            while self._delay() <= 0 and (upcoming := self._next()):
                self._start(*upcoming)
            if self._given in self._landed:
                continue
            if self._exhausted and not self._flying and not self._again:
                return
            if result := self._lanes.wait(min(self._delay(), _LOOK_SECONDS)):
                self._land(*result)

    def _delay(self) -> float:
        """Seconds until a request may go; infinite if an answer or a confirmation must come first."""
        fresh = not self._exhausted and self._begun < self._confirmed + self._ahead
        if len(self._flying) >= self._most or not (self._again or fresh):
            return math.inf
        return self._pace.wait(self._clock.now())

    def _next(self) -> tuple[int, Request] | None:
        if self._again:
            return self._again.popleft()
        try:
            request = next(self._requests)
        except StopIteration:
            self._exhausted = True
            return None
        except Exception as error:  # noqa: BLE001 - raised in its turn, after the answers that are under way
            self._landed[self._begun] = error
            self._exhausted = True
            return None
        self._begun += 1
        return self._begun - 1, request

    def _start(self, place: int, request: Request) -> None:
        number = self._pace.sent(self._clock.now())
        self._flying[number] = place, request
        self._lanes.start(number, lambda: (self._send(request), self._clock.now()))

    def _land(self, number: int, result: Any) -> None:
        place, request = self._flying.pop(number)
        now = self._clock.now()
        if isinstance(result, RateLimitError):
            self._pace.refused(result.until, now)
            if self._limited_since is None:
                self._limited_since = now
                _log.info("Braze's rate limit is used up: the next request goes in %.0f s", self._pace.wait(now))
            if now - self._limited_since <= _GIVE_UP_SECONDS:
                self._again.append((place, request))
                return
        else:
            self._limited_since = None
            self._pace.responded(number, RateLimit() if isinstance(result, Exception) else result[0].limit, now)
        if isinstance(result, BrazeError) and result.status == HTTPStatus.BAD_REQUEST:
            self._landed[place] = Answer(request, result, now)
        elif isinstance(result, Exception):
            self._landed[place] = result
            self._exhausted = True
        else:
            content, at = result
            self._landed[place] = Answer(request, content, at)
