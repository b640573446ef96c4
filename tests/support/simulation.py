"""A resync without network and waiting: a scripted Braze on simulated time, one thread."""

from __future__ import annotations

import heapq
import random
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec
from typing_extensions import override

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.files.spool import Spool
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.resync.request_pool import RequestThreads
from tap_braze_export.sandbox.limits import RateLimit as Window
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from threading import Condition

    from tap_braze_export.deliveries import Delivery
    from tests.support.fakes import FakeClock

P = ParamSpec("P")
T = TypeVar("T")


class SimulatedThreads(RequestThreads):
    """Makes each call on its way and delivers its result later; waiting moves the clock there.

    Args:
        clock: Time.
        latency: Seconds from a request to its response.
        jitter: Seconds that a response may take longer.
        travel: Seconds, at most, until a request reaches Braze, which counts it then.
        stuck: Number of a request, from 1, whose response takes a minute.
        seed: Of the random jitter.

    Attributes:
        most_in_flight: The highest number of requests without a response.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        latency: float = 0.3,
        jitter: float = 0.0,
        travel: float = 0.0,
        stuck: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(0)
        self.clock = clock
        self.most_in_flight = 0
        self._latency = latency
        self._jitter = jitter
        self._travel = travel
        self._stuck = stuck
        self._random = random.Random(seed)
        self._submitted = self._in_flight = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._submitted += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        number, arrives = self._submitted, self.clock.elapsed + self._random.uniform(0, self._travel)
        latency = 60.0 if number == self._stuck else self._latency
        ends = max(arrives, self.clock.elapsed + latency + self._random.uniform(0, self._jitter))

        def arrive() -> None:
            complete: Callable[[], None]
            try:
                complete = partial(future.set_result, fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - tests check it
                complete = partial(future.set_exception, error)
            self._at(ends, number, lambda: self._end(complete))

        if self._travel:
            self._at(arrives, number, arrive)
        else:
            arrive()
        return future

    def _at(self, time: float, number: int, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, number, event))

    def _end(self, complete: Callable[[], None]) -> None:
        self._in_flight -= 1
        complete()

    @override
    def pace(self, send_requests: Callable[[], None]) -> Future[None]:
        """Start nothing: on one thread, requests are sent when the run polls or waits."""
        return Future()

    @override
    def wait(self, changed: Condition, seconds: float) -> None:
        until = self.clock.elapsed + seconds
        if self._events and self._events[0][0] <= until:
            at, _, event = heapq.heappop(self._events)
            self.clock.elapsed = max(self.clock.elapsed, at)
            event()
        else:
            self.clock.elapsed = until


class ScriptedBraze:
    """Responds to the ids export and keeps to a rate limit; external ids `user-…` exist, and whatever `people` names.

    Args:
        clock: Time.
        limit: Requests allowed in a window.
        seconds: Length of a window.
        behind: Seconds by which Braze's clock is behind.
        has_date: True if its responses have the header `Date`.
        others: Requests of others that count at the beginning of each window.

    Attributes:
        people: More users, by identifier.
        refused: Identifiers whose request gets 400.
        refused_fields: Fields whose request gets 400.
        bodies: Of the requests that were within the limit.
        times: True epoch seconds of every request.
        errors: Errors to raise, by the request's number, from 0.
        violations: Requests beyond the limit.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        limit: int = 40,
        seconds: int = 1,
        behind: float = 0.0,
        has_date: bool = False,
        others: int = 0,
    ) -> None:
        self.clock = clock
        self.people: dict[str, list[dict[str, Any]]] = {}
        self.refused: set[str] = set()
        self.refused_fields: set[str] = set()
        self.bodies: list[Mapping[str, Any]] = []
        self.times: list[float] = []
        self.errors: dict[int, Exception] = {}
        self.violations = 0
        self._behind = behind
        self._has_date = has_date
        self._window = Window(limit, seconds, self._braze_time)
        self._others = others
        self._newest_reset = 0

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        self.times.append(self.clock.true_time)
        if (reset := self._window.take(0).reset) != self._newest_reset:
            self._newest_reset = reset
            self.others_use(self._others)
        budget = self._window.take()
        date = float(int(self._braze_time())) if self._has_date else None
        limit = RateLimit(budget.limit, budget.remaining, budget.reset, date)
        if not budget.allowed:
            self.violations += 1
            left = limit.seconds_left(self.clock.time) or 0.0
            raise RateLimitError("rate limit", self.clock.elapsed + left)  # as the client does
        self.bodies.append(body)
        if error := self.errors.pop(len(self.bodies) - 1, None):
            raise error
        wanted = [
            *body.get("external_ids", ()),
            *(body[name] for name in ("email_address", "braze_id", "phone") if name in body),
        ]
        if not self.refused.isdisjoint(wanted) or not self.refused_fields.isdisjoint(body["fields_to_export"]):
            raise BrazeError("refused with 400", 400)
        found = [user for identifier in wanted for user in self._named(identifier)]
        missed = [identifier for identifier in wanted if not self._named(identifier)]
        return IdsResponse([msgspec.json.encode(user) for user in reversed(found)], missed, limit)

    def others_use(self, requests: int) -> None:
        """Let somebody else's requests count in this window."""
        self._window.take(requests)

    def _braze_time(self) -> float:
        return self.clock.true_time - self._behind

    def _named(self, identifier: str) -> list[dict[str, Any]]:
        if identifier in self.people:
            return self.people[identifier]
        if identifier.startswith("user-"):
            return [{"braze_id": f"b-{identifier[5:]}", "external_id": identifier}]
        return []


class SimulatedRun:
    """A resync run to its end, or to an error, as `Run` does it.

    Args:
        braze: The workspace.
        spool: Directory of the tap's own files.
        state: The incoming value of `bookmarks.export_files`.
        threads: Where requests are made.
        groups: After how many groups the run breaks off; None for a whole run.
        rows_signature: Hash of what shapes rows.
        **config: More settings.

    Attributes:
        users: The users emitted.
        invalid: The rows of `invalid_user_ids`.
        files: Name, `exported_at` and number of users of each group.
        states: The STATE after each group, and the last one.
        sent_before_state: For each group, the requests sent when its STATE was written that no earlier STATE covers.
        error: Type and text of the error that ended the run.
        began: True epoch seconds of its start.
        seconds: Its length.
    """

    def __init__(
        self,
        braze: ScriptedBraze,
        spool: Path,
        *,
        state: Mapping[str, Any] | None = None,
        threads: SimulatedThreads | None = None,
        groups: int | None = None,
        rows_signature: str = "shape",
        **config: Any,
    ) -> None:
        clock = braze.clock
        place = Spool(str(spool), clock=clock)
        if not (place.root / "exports").exists():
            place.open()  # not again: in simulated time all that stands there is years old
        self.users: list[Any] = []
        self.invalid: list[Any] = []
        self.files: list[tuple[str, str, int]] = []
        self.states: list[dict[str, Any]] = []
        self.sent_before_state: list[int] = []
        self.error = ""
        self.began = clock.true_time
        self.resync = Resync(
            RequestedFields.of(()),
            client=braze,  # type: ignore[arg-type]
            clock=clock,
            spool=place,
            settings=Settings.of(
                {"api_url": "https://braze.example.com", "api_key": "key", "concurrent_requests": 16, **config}
            ),
            state=state or {},
            rows_signature=rows_signature,
            lists_misses=True,
            threads=threads or SimulatedThreads(clock),
        )
        try:
            with self.resync:
                self._emit(braze, groups)
            if groups is None:
                self.states.append(self.resync.state())
                self.resync.review()
        except Exception as error:  # noqa: BLE001 - tests check it
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = clock.true_time - self.began

    def _emit(self, braze: ScriptedBraze, groups: int | None) -> None:
        while len(self.files) != groups and (ready := self._next()):
            (group,) = ready
            users = [msgspec.json.decode(line) for block in group.blocks() for line in block.lines]
            self.users += users
            self.invalid += group.invalid_user_ids
            self.files.append((group.name, group.export.exported_at, len(users)))
            group.done(len(users), 0)
            first = int(group.name.removeprefix("requests ").partition("-")[0])
            self.sent_before_state.append(len(braze.bodies) - first)
            self.states.append(self.resync.state())

    def _next(self) -> Sequence[Delivery]:
        while not (ready := self.resync.poll()) and not self.resync.ended:
            self.resync.wait()
        return ready

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE."""
        return self.states[-1] if self.states else {}
