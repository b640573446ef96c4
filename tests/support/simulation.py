"""A resync without network and waiting: a scripted Braze on simulated time, one thread at a time."""

from __future__ import annotations

import heapq
import random
import threading
from collections import deque
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec
from typing_extensions import override

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.clock import Clock
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.files.spool import Spool
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.sandbox.limits import RateLimit as Window
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tap_braze_export.deliveries import Delivery
    from tests.support.fakes import FakeClock

P = ParamSpec("P")
T = TypeVar("T")


class _EndedError(BaseException):
    """Ends a thread whose simulation has ended."""


class SimulatedThreads(Executor):
    """Threads of which one runs at a time: waiting moves the clock to whatever happens next, and costs no time.

    Args:
        clock: Time.
        latency: Seconds from a request to its response.
        jitter: Seconds that a response may take longer.
        travel: Seconds, at most, until a request reaches Braze, which counts it then.
        stuck: Number of a request, from 1, whose response takes a minute.
        seed: Of the random jitter.

    Attributes:
        clock: The same time; to sleep by it lets other threads run.
        max_threads: Calls at a time.
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
        self.clock = _SimulatedClock(clock, self)
        self.max_threads = 1
        self.most_in_flight = 0
        self._time = clock
        self._latency = latency
        self._jitter = jitter
        self._travel = travel
        self._stuck = stuck
        self._random = random.Random(seed)
        self._sent = self._in_flight = self._running = self._scheduled = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._events: list[tuple[float, int, threading.Semaphore]] = []
        """When which thread goes on."""
        self._run_goes_on = threading.Semaphore(0)
        self._own = threading.local()
        self._ended = False

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = _SimulatedFuture(self)

        def call() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - tests check it
                future.set_exception(error)

        self._queue.append(call)
        self._start()
        return future

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End every thread where it stands."""
        self._ended = True
        self._queue.clear()
        self.advance(float("inf"))

    def sleep(self, seconds: float) -> None:
        """Let others run for so long; the run itself or one of the threads."""
        turn = getattr(self._own, "turn", None)
        if turn is None:
            self.advance(self._time.elapsed + seconds)
            self._time.elapsed += 0 if self._ended else max(0.0, seconds)
            return
        if not self._ended:
            self._schedule(seconds, turn)
            self._run_goes_on.release()
            turn.acquire()
        if self._ended:
            raise _EndedError

    def advance(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let the threads run that go on until then, at most until something is done."""
        while not done() and self._events and self._events[0][0] <= until:
            at, _, turn = heapq.heappop(self._events)
            self._time.elapsed = self._time.elapsed if self._ended else max(self._time.elapsed, at)
            turn.release()
            self._run_goes_on.acquire()

    def wait_for(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until something is done, at most this long."""
        until = self._time.elapsed + seconds
        self.advance(until, done)
        if not done():
            self._time.elapsed = max(self._time.elapsed, until)

    def travel(self, respond: Callable[[], IdsResponse]) -> IdsResponse:
        """Send a request to Braze and its response back."""
        self._sent += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        latency = 60.0 if self._sent == self._stuck else self._latency
        arrives = self._random.uniform(0, self._travel)
        ends = self._time.elapsed + max(arrives, latency + self._random.uniform(0, self._jitter))
        if arrives:
            self.sleep(arrives)
        try:
            return respond()
        finally:
            self.sleep(max(0.0, ends - self._time.elapsed))
            self._in_flight -= 1

    def _start(self) -> None:
        while self._queue and self._running < self.max_threads:
            self._running += 1
            turn = threading.Semaphore(0)
            threading.Thread(target=self._work, args=(self._queue.popleft(), turn), daemon=True).start()
            self._schedule(0, turn)

    def _work(self, call: Callable[[], None], turn: threading.Semaphore) -> None:
        self._own.turn = turn
        turn.acquire()
        if not self._ended:
            with suppress(_EndedError):
                call()
        self._running -= 1
        self._start()
        self._run_goes_on.release()

    def _schedule(self, seconds: float, turn: threading.Semaphore) -> None:
        self._scheduled += 1
        heapq.heappush(self._events, (self._time.elapsed + max(0.0, seconds), self._scheduled, turn))


class _SimulatedFuture(Future[T]):
    """Waiting for it lets the threads run."""

    def __init__(self, threads: SimulatedThreads) -> None:
        super().__init__()
        self._threads = threads

    @override
    def exception(self, timeout: float | None = None) -> BaseException | None:
        if timeout is not None:
            self._threads.wait_for(self.done, timeout)
        return super().exception(0)


class _SimulatedClock(Clock):
    def __init__(self, time: FakeClock, threads: SimulatedThreads) -> None:
        self._time = time
        self._threads = threads
        super().__init__()

    @property
    @override
    def stopped(self) -> bool:
        return self._time.stopped

    @override
    def now(self) -> float:
        return self._time.now()

    @override
    def monotonic(self) -> float:
        return self._time.monotonic()

    @override
    def sleep(self, seconds: float) -> None:
        self._threads.sleep(seconds)


class _DistantBraze:
    """A workspace at the other end of a network."""

    def __init__(self, braze: ScriptedBraze, threads: SimulatedThreads) -> None:
        self._braze = braze
        self._threads = threads

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        return self._threads.travel(lambda: self._braze.export_ids(body))


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
        threads = threads or SimulatedThreads(clock)
        given = {"api_url": "https://braze.example.com", "api_key": "key", "concurrent_requests": 16, **config}
        settings = Settings.of(given)
        threads.max_threads = settings.concurrent_requests
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
            client=_DistantBraze(braze, threads),  # type: ignore[arg-type]
            clock=threads.clock,
            spool=place,
            settings=settings,
            state=state or {},
            rows_signature=rows_signature,
            lists_misses=True,
            threads=threads,
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
