"""Calls of the ids export, on threads: each waits for its turn, and goes in parts where Braze refuses it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tap_braze_export.braze.rate_limit import RateLimit, RequestPacer
from tap_braze_export.clock import LONG_WAIT_SECONDS
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.resync.requests import match_response, request_body

if TYPE_CHECKING:
    from tap_braze_export.braze.client import Braze, IdsResponse
    from tap_braze_export.clock import Clock
    from tap_braze_export.resync.identifiers import Identifier
    from tap_braze_export.resync.requests import FoundUser, Request
    from tap_braze_export.schema.selection import RequestedFields

_RATE_LIMITED_SECONDS = 3 * 3600
"""Time after which a request fails to which nothing came but 429."""
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Statuses by which Braze finds fault with a request itself."""
_MAX_SLEEP_SECONDS = 2.0
"""After which a call looks again if its turn has come: a response may have told of more than was known."""
_log = logging.getLogger(__name__)


@dataclass
class Answer:
    """Braze's answer to a request, in the order of its identifiers.

    Attributes:
        users: The users that were found.
        misses: The identifiers that matched nobody.
        refused: The identifiers that Braze refuses.
        refusal: Its error.
        at: Epoch seconds of the first response.
    """

    at: float
    users: list[FoundUser] = field(default_factory=list, repr=False)
    misses: list[Identifier] = field(default_factory=list, repr=False)
    refused: list[Identifier] = field(default_factory=list, repr=False)
    refusal: str = ""

    def __add__(self, other: Answer) -> Answer:
        """The answer to both."""
        return Answer(
            min(self.at, other.at),
            self.users + other.users,
            self.misses + other.misses,
            self.refused + other.refused,
            other.refusal or self.refusal,
        )


class IdsCalls:
    """Calls the ids export at Braze's pace; threads share it."""

    def __init__(
        self, client: Braze, fields: RequestedFields, *, clock: Clock, requests_per_minute: int | None
    ) -> None:
        self._client = client
        self._fields = fields
        self._clock = clock
        self._pacer = RequestPacer(requests_per_minute)
        self._lock = threading.Lock()  # of the pacer and of what follows
        self._waiting: list[object] = []
        """A token for each call that waits for its turn, the next one first."""
        self._announced_until = 0.0
        self._is_closed = self._accepts_fields = False

    def close(self) -> None:
        """Let no further call begin."""
        self._is_closed = True

    def answer(self, request: Request) -> Answer:
        """Call Braze for a request, and for ever smaller parts of it until what is refused stands alone.

        Raises:
            BrazeError: The call failed, or Braze finds fault with the fields.
        """
        try:
            response = self._call(request_body(request, self._fields))
        except BrazeError as error:
            if error.status not in _REFUSALS:
                raise
            refusal = str(error)
        else:
            self._accepts_fields = True
            return Answer(self._clock.now(), *match_response(request, response))
        if middle := len(request) // 2:
            return self.answer(request[:middle]) + self.answer(request[middle:])
        if not self._accepts_fields:
            self._check_fields(request, refusal)
        return Answer(self._clock.now(), refused=request, refusal=refusal)

    def _check_fields(self, request: Request, refusal: str) -> None:
        """Ask for nothing but `braze_id`: while Braze has accepted nothing, the fault may be the fields'."""
        try:
            self._call(request_body(request, None))
        except BrazeError as error:
            if error.status not in _REFUSALS:
                raise
            return
        raise BrazeError(
            f"{refusal}, but not if only braze_id is asked for: check extra_export_fields, and deselect what Braze does"
            " not know"
        )

    def _call(self, body: dict[str, Any]) -> IdsResponse:
        limited_since = None
        while True:
            self._take_turn()
            try:
                response = self._client.export_ids(body)
            except RateLimitError as error:
                now = self._clock.monotonic()
                limited_since = limited_since or now
                with self._lock:
                    self._pacer.refused(error.until, now)
                    self._announce(self._pacer.wait(now), "Braze's rate limit is used up")
                if now - limited_since > _RATE_LIMITED_SECONDS:
                    raise
            except Exception:
                self._responded(RateLimit())
                raise
            else:
                self._responded(response.limit)
                return response

    def _responded(self, limit: RateLimit) -> None:
        with self._lock:
            self._pacer.responded(limit, self._clock.monotonic(), time_of_day=self._clock.now())

    def _take_turn(self) -> None:
        """Wait until a request may be sent; the calls that wait go in the order in which they came.

        Raises:
            BrazeError: The run ends.
        """
        token = object()
        with self._lock:
            self._waiting.append(token)
        while not (self._is_closed or self._clock.stopped):
            with self._lock:
                now = self._clock.monotonic()
                wait = self._pacer.wait(now)
                if not (before := self._waiting.index(token)):
                    if wait <= 0:
                        del self._waiting[0]
                        self._pacer.sent(now)
                        return
                    self._announce(wait, self._pacer.reason)
            self._clock.sleep(min(wait + before * self._pacer.interval, _MAX_SLEEP_SECONDS))
        raise BrazeError("the run was told to end")

    def _announce(self, wait: float, reason: str) -> None:
        """Log a long wait, once."""
        until = self._clock.monotonic() + wait
        if wait > LONG_WAIT_SECONDS and until > self._announced_until + 1:
            self._announced_until = until
            _log.info("%s: the next request goes in %.0f s", reason, wait)
