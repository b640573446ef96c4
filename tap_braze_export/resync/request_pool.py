"""Several ids requests at a time, at Braze's pace; their responses come in the order of the requests."""

from __future__ import annotations

import heapq
import logging
import math
import threading
from collections import Counter, defaultdict
from concurrent.futures import Future
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.clock import LONG_WAIT_SECONDS, WAIT_SLICE_SECONDS
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.http.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_braze_export.braze.client import IdsResponse
    from tap_braze_export.braze.rate_limit import RequestPacer
    from tap_braze_export.clock import Clock

_RATE_LIMITED_SECONDS = 3 * 3600
"""Time without anything but 429 responses after which a request fails."""
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses by which Braze finds fault with a request itself."""
_Place = tuple[int, ...]
_log = logging.getLogger(__name__)
RequestT = TypeVar("RequestT")


class Response(NamedTuple, Generic[RequestT]):
    """Braze's response to a request, or the error if it refuses it, and its time in epoch seconds."""

    request: RequestT
    content: IdsResponse | BrazeError
    at: float


class RequestThreads(DaemonThreads):
    """The threads of a pool, and how it waits; tests put simulated time in its place.

    Args:
        max_requests: Requests in flight.
    """

    def __init__(self, max_requests: int) -> None:
        super().__init__(max_requests + 1)  # one thread paces the others

    def pace(self, send_requests: Callable[[], None]) -> Future[None]:
        """Send requests on a thread of their own, so that they go on while the run writes rows."""
        return self.submit(send_requests)

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Wait for a notification, at most this long."""
        changed.wait(seconds)


class RequestPool(Generic[RequestT]):
    """Sends requests, and gives their responses in order.

    Args:
        requests: In the order in which the responses are given.
        send: Makes the call for a request.
        split: The requests to send instead of one that Braze refuses; none if the refusal stands.
        pacer: Says when the next request may go.
        clock: Time.
        threads: Where calls are made.
        max_in_flight: Requests without a response.
        max_unconfirmed: Requests that may be sent before the first of them is confirmed.
    """

    def __init__(
        self,
        requests: Iterator[RequestT],
        send: Callable[[RequestT], IdsResponse],
        split: Callable[[RequestT, BrazeError], Sequence[RequestT]],
        *,
        pacer: RequestPacer,
        clock: Clock,
        threads: RequestThreads,
        max_in_flight: int,
        max_unconfirmed: int,
    ) -> None:
        self._requests = requests
        self._send = send
        self._split = split
        self._pacer = pacer
        self._clock = clock
        self._threads = threads
        self._max_in_flight = max_in_flight
        self._max_unconfirmed = max_unconfirmed
        self._changed = threading.Condition()  # also the lock of everything below
        self._pacing: Future[None] = Future()
        self._confirmed = self._begun = self._given = 0
        self._exhausted = self._closed = False
        self._limited_since: float | None = None
        self._announced_until = 0.0
        # A place is the position of a request, from 0, and the positions in what it was split into.
        self._in_flight: dict[Future[tuple[IdsResponse, float]], tuple[_Place, RequestT]] = {}
        self._to_repeat: list[tuple[_Place, RequestT]] = []  # a heap: all later responses wait for the first
        self._parts: dict[int, dict[_Place, Response[RequestT]]] = defaultdict(dict)
        self._open_parts: Counter[int] = Counter()
        self._responses: dict[int, list[Response[RequestT]] | Exception] = {}

    def start(self) -> None:
        """Begin to send."""
        self._pacing = self._threads.pace(self._keep_sending)

    def close(self) -> None:
        """Send nothing more; nobody waits for requests that are in flight."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._threads.shutdown()

    @property
    def ended(self) -> bool:
        """True once every request has its response and all of them were given."""
        return self._exhausted and not (self._in_flight or self._to_repeat or self._responses)

    def poll(self, limit: int) -> list[list[Response[RequestT]]]:
        """Send what may go now; the responses to the next requests, at most this many, without waiting.

        A request that was split has several, in the order of its parts.

        Raises:
            TapError: In the place of a request that failed for good; nothing follows it.
        """
        with self._changed:
            if self._pacing.done():
                self._pacing.result()
            self._advance()
            responses: list[list[Response[RequestT]]] = []
            while len(responses) < limit and (response := self._responses.get(self._given)):
                if isinstance(response, Exception):
                    if not responses:
                        raise response
                    break
                responses.append(response)
                del self._responses[self._given]
                self._given += 1
            return responses

    def wait(self) -> None:
        """Wait until the next `poll` may give something, or has something to send."""
        with self._changed:
            self._advance()
            if not (self.ended or self._given in self._responses):
                self._wait()

    def confirm(self, requests: int) -> None:
        """Let as many requests be sent as are safe now, which need not be sent again."""
        with self._changed:
            self._confirmed += requests
            self._changed.notify_all()

    def _keep_sending(self) -> None:
        with self._changed:
            while not self._closed:
                self._advance()
                self._wait()

    def _wait(self) -> None:
        self._threads.wait(self._changed, min(self._seconds_to_next(), WAIT_SLICE_SECONDS))

    def _advance(self) -> None:
        """Collect what is done and send what may go."""
        for future in [future for future in self._in_flight if future.done()]:
            self._collect(future)
        while (wait := self._seconds_to_next()) <= 0 and (upcoming := self._next()):
            self._start(*upcoming)
        if LONG_WAIT_SECONDS < wait < math.inf:
            self._announce(wait, self._pacer.reason)

    def _seconds_to_next(self) -> float:
        """Seconds until a request may go; infinite if a response or a confirmation must come first."""
        may_begin = not self._exhausted and self._begun < self._confirmed + self._max_unconfirmed
        if len(self._in_flight) >= self._max_in_flight or not (self._to_repeat or may_begin):
            return math.inf
        return self._pacer.wait(self._clock.monotonic())

    def _announce(self, wait: float, reason: str) -> None:
        """Log a wait once."""
        until = self._clock.monotonic() + wait
        if until > self._announced_until + 1:
            self._announced_until = until
            _log.info("%s: the next request goes in %.0f s", reason, wait)

    def _next(self) -> tuple[_Place, RequestT] | None:
        if self._to_repeat:
            return heapq.heappop(self._to_repeat)
        try:
            request = next(self._requests)
        except StopIteration:
            self._exhausted = True
            return None
        except Exception as error:  # noqa: BLE001 - raised in its place, after the responses to earlier requests
            self._responses[self._begun] = error
            self._exhausted = True
            return None
        self._open_parts[self._begun] = 1
        self._begun += 1
        return (self._begun - 1,), request

    def _start(self, place: _Place, request: RequestT) -> None:
        self._pacer.sent(self._clock.monotonic())
        future = self._threads.submit(lambda: (self._send(request), self._clock.now()))
        self._in_flight[future] = place, request
        future.add_done_callback(self._notify)

    def _notify(self, _future: Future[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    def _collect(self, future: Future[tuple[IdsResponse, float]]) -> None:
        place, request = self._in_flight.pop(future)
        now, time_of_day = self._clock.monotonic(), self._clock.now()
        error = future.exception()
        if isinstance(error, RateLimitError):
            self._pacer.refused(error.until, now)
            if self._limited_since is None:
                self._limited_since = now
                self._announce(self._pacer.wait(now), "Braze's rate limit is used up")
            if now - self._limited_since <= _RATE_LIMITED_SECONDS:
                heapq.heappush(self._to_repeat, (place, request))
                return
        else:
            self._limited_since = None
            limit = RateLimit() if error else future.result()[0].limit
            self._pacer.responded(limit, now, time_of_day=time_of_day)
        if isinstance(error, BrazeError) and error.status in _REFUSALS:
            if parts := self._split(request, error):
                self._open_parts[place[0]] += len(parts) - 1
                for number, part in enumerate(parts):
                    heapq.heappush(self._to_repeat, ((*place, number), part))
            else:
                self._add(place, Response(request, error, time_of_day))
        elif isinstance(error, Exception):
            self._responses[place[0]] = error
            self._exhausted = True
        else:
            self._add(place, Response(request, *future.result()))

    def _add(self, place: _Place, response: Response[RequestT]) -> None:
        position = place[0]
        self._parts[position][place] = response
        self._open_parts[position] -= 1
        if not self._open_parts[position]:
            del self._open_parts[position]
            parts = self._parts.pop(position)
            self._responses[position] = [parts[place] for place in sorted(parts)]
