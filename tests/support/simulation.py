"""A resync without network and waiting: a scripted Braze on simulated time, one thread."""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.errors import RateLimitError
from tap_braze_export.files.spool import Spool
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.sandbox.limits import RateLimit as Window
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.fakes import FakeClock

T = TypeVar("T")


class SimulatedLanes:
    """Calls reach Braze at once and are answered later; waiting moves the clock there."""

    def __init__(
        self, clock: FakeClock, *, latency: float = 0.3, jitter: float = 0.0, stuck: int = 0, seed: int = 1
    ) -> None:
        """`stuck` is the number of a request whose answer takes a minute."""
        self.clock = clock
        self._stuck = stuck
        self.most_in_flight = 0
        self._latency = latency
        self._jitter = jitter
        self._random = random.Random(seed)
        self._under_way: list[tuple[float, int, Any]] = []

    def start(self, number: int, call: Callable[[], Any]) -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - as Threads does
            result = error
        latency = 60.0 if number == self._stuck else self._latency
        at = self.clock.time + latency + self._random.uniform(0, self._jitter)
        heapq.heappush(self._under_way, (at, number, result))
        self.most_in_flight = max(self.most_in_flight, len(self._under_way))

    def wait(self, seconds: float) -> tuple[int, Any] | None:
        until = self.clock.time + seconds
        if self._under_way and self._under_way[0][0] <= until:
            at, number, result = heapq.heappop(self._under_way)
            self.clock.time = max(self.clock.time, at)
            return number, result
        self.clock.time = until
        return None

    def wake(self) -> None:
        """Nobody sleeps."""

    def aside(self, items: Iterator[T]) -> Iterator[T]:
        return items

    def close(self) -> None:
        """Nothing is open."""


class ScriptedBraze:
    """Answers the ids export: external ids `user-…` exist, and whatever `people` names; keeps to a rate limit."""

    def __init__(self, clock: FakeClock, *, limit: int = 40, seconds: int = 1, behind: float = 0.0) -> None:
        self.clock = clock
        self.people: dict[str, list[dict[str, Any]]] = {}
        self.bodies: list[Mapping[str, Any]] = []
        self.errors: dict[int, Exception] = {}
        """What goes wrong, by the number of the request, from 0."""
        self.violations = 0
        self.times: list[float] = []
        self._window = Window(limit, seconds, lambda: clock.time - behind)

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        self.times.append(self.clock.time)
        budget = self._window.take()
        if not budget.allowed:
            self.violations += 1
            raise RateLimitError("rate limit", budget.reset)
        self.bodies.append(body)
        if error := self.errors.pop(len(self.bodies) - 1, None):
            raise error
        asked = [*body.get("external_ids", ()), *(body[name] for name in ("email_address", "braze_id") if name in body)]
        found = [user for identifier in asked for user in self._named(identifier)]
        missed = [identifier for identifier in asked if not self._named(identifier)]
        limit = RateLimit(budget.limit, budget.remaining, budget.reset)
        return IdsResponse([msgspec.json.encode(user) for user in reversed(found)], missed, limit)

    def others_use(self, requests: int) -> None:
        """Let somebody else's requests count in this window."""
        self._window.take(requests)

    def _named(self, identifier: str) -> list[dict[str, Any]]:
        if identifier in self.people:
            return self.people[identifier]
        if identifier.startswith("user-"):
            return [{"braze_id": f"b-{identifier[5:]}", "external_id": identifier}]
        return []


class SimulatedRun:
    """A resync run to its end, or to an error, as the stream `export_files` would run it."""

    def __init__(
        self,
        braze: ScriptedBraze,
        spool: Path,
        *,
        state: Mapping[str, Any] | None = None,
        lanes: SimulatedLanes | None = None,
        groups: int | None = None,
        rows_signature: str = "shape",
        **config: Any,
    ) -> None:
        """Run `groups` groups, all of them by default."""
        clock = braze.clock
        place = Spool(str(spool), clock=clock)
        if not (place.root / "exports").exists():
            place.open()  # not again: in simulated time all that stands there is years old
        self.users: list[Any] = []
        self.invalid: list[Any] = []
        self.files: list[tuple[str, str, int]] = []
        self.states: list[dict[str, Any]] = []
        self.error = ""
        self.began = clock.time
        self.resync = Resync(
            RequestedFields.of(()),
            client=braze,  # type: ignore[arg-type]
            clock=clock,
            lanes=lanes or SimulatedLanes(clock),
            spool=place,
            settings=Settings.of({"api_url": "https://braze", "api_key": "key", "concurrent_requests": 16, **config}),
            state=state or {},
            rows_signature=rows_signature,
        )
        try:
            for group in itertools.islice(self.resync.deliveries(), groups):
                users = [msgspec.json.decode(line) for block in group.blocks() for line in block.lines]
                self.users += users
                self.invalid += group.invalid_user_ids
                self.files.append((group.name, group.exported_at, len(users)))
                group.emitted(len(users))
                self.states.append(self.resync.state())
            if groups is None:
                self.states.append(self.resync.state())
                self.resync.finish()
        except Exception as error:  # noqa: BLE001 - tests look at it
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = clock.time - self.began

    @property
    def state(self) -> dict[str, Any]:
        """The last STATE."""
        return self.states[-1] if self.states else {}
