"""Several calls at a time: at most as many as allowed, in order, and going on while the run is busy."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.clock import Clock, Signals
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.files.spool import Spool
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.resync.calls import IdsCalls
from tap_braze_export.resync.identifiers import Identifier
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock
from tests.support.resyncs import emails
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECONDS = 10
"""After which a test fails rather than wait for a thread."""
QUICK = RateLimit(1_000_000, 999_999, 4_000_000_000)


class HeldBraze:
    """A workspace that holds each response back until a test releases it.

    Attributes:
        sent: The addresses that were asked for.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.released = threading.Semaphore(0)

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        self.sent.append(body["email_address"])
        self.arrived.release()
        assert self.released.acquire(timeout=SECONDS)
        return IdsResponse([], [], QUICK)


def resync(braze: HeldBraze, folder: Path, count: int, clock: Clock | None = None) -> Resync:
    """A resync of so many addresses on real threads."""
    clock = clock or Clock()
    spool = Spool(str(folder), clock=clock)
    spool.open()
    return Resync(
        RequestedFields.of(()),
        client=braze,  # type: ignore[arg-type]
        clock=clock,
        spool=spool,
        settings=Settings(api_url="https://b.example", api_key="k", emails=tuple(emails(count))),
        state={},
        rows_signature="x",
        lists_misses=True,
    )


def test_requests_in_flight_are_bounded(tmp_path: Path) -> None:
    """By the setting `concurrent_requests`."""
    clock = FakeClock()
    threads = SimulatedThreads(clock, latency=5.0)
    braze = ScriptedBraze(clock, limit=1_000, seconds=1)

    SimulatedRun(braze, tmp_path, emails=emails(200), threads=threads, concurrent_requests=5)

    assert threads.most_in_flight == 5


def test_after_a_429_all_requests_wait_and_nothing_is_lost(tmp_path: Path) -> None:
    """Somebody else has used up the limit: nothing is sent until it is free, then the request goes once more."""
    clock = FakeClock()
    braze = ScriptedBraze(clock)
    braze.errors = {20: RateLimitError("rate limit", clock.time + 30)}

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert [user["braze_id"] for user in run.users] == [f"b-{email[5:]}" for email in emails(200)]
    sent = [at - run.began for at in braze.times]
    assert len(sent) == 201
    assert not [at for at in sent if 1.5 < at < 30]


def test_nothing_but_429_ends_the_run_after_three_hours(tmp_path: Path) -> None:
    """Somebody else uses the whole limit: the run goes on later, where it stopped."""
    clock = FakeClock()
    braze = ScriptedBraze(clock, limit=1_000, seconds=3_600, others=1_000)

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert run.error == "RateLimitError: rate limit"
    assert 3 * 3_600 <= run.seconds < 5 * 3_600


def test_shared_limit_is_heeded(tmp_path: Path) -> None:
    """Where others use most of a window, what remains is not exceeded."""
    braze = ScriptedBraze(FakeClock())
    braze.others_use(35)

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert len(run.users) == 200
    assert braze.violations == 0


def test_responses_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    """However long each of them takes; what was sent before a request that failed is given first."""
    clock = FakeClock()
    braze = ScriptedBraze(clock)
    braze.errors = {75: BrazeError("failed")}

    run = SimulatedRun(braze, tmp_path, emails=emails(90), threads=SimulatedThreads(clock, jitter=5.0))

    assert [user["external_id"] for user in run.users] == emails(90)[: len(run.users)]
    assert 50 <= len(run.users) <= 75
    assert run.error == "BrazeError: failed"


def test_calls_go_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """All later responses wait for the first."""
    braze = ScriptedBraze(FakeClock(), limit=250, seconds=60)

    SimulatedRun(braze, tmp_path, emails=emails(200))

    assert [body["email_address"] for body in braze.bodies] == emails(200)


def test_requests_go_on_while_the_run_writes_rows(tmp_path: Path) -> None:
    """Nobody polls; at most 100 requests go beyond the last STATE."""
    braze = HeldBraze()
    with resync(braze, tmp_path, 120) as deliveries:
        assert deliveries.poll() == []
        braze.released.release(200)
        while not (ready := deliveries.poll()):
            deliveries.wait()
        for _ in range(100):
            assert braze.arrived.acquire(timeout=SECONDS)

        assert (ready[0].name, len(braze.sent)) == ("requests 0-49", 100)


def test_close_does_not_wait_for_requests_in_flight(tmp_path: Path) -> None:
    """They may hang for minutes; nothing is sent any more, also after they have ended."""
    braze = HeldBraze()
    deliveries = resync(braze, tmp_path, 20)
    with deliveries:
        assert deliveries.poll() == []
        assert braze.arrived.acquire(timeout=SECONDS)

    braze.released.release(20)
    assert not braze.arrived.acquire(timeout=0.2)
    assert braze.sent == emails(1)


def test_a_run_that_is_told_to_end_sends_nothing_more(tmp_path: Path) -> None:
    """Also a call that waits for its turn ends at once, and its failure is not the run's."""
    signals = Signals()
    braze = HeldBraze()
    with resync(braze, tmp_path, 20, Clock(signals)) as deliveries:
        deliveries.poll()
        assert braze.arrived.acquire(timeout=SECONDS)
        signals.received = 15
        braze.released.release(20)

        assert (deliveries.poll(), deliveries.ended) == ([], True)
        assert braze.sent == emails(1)


def test_a_call_that_waits_for_its_turn_ends_with_the_run() -> None:
    """The first one has used the limit of the minute up."""
    used_up = IdsResponse([], [], RateLimit(250, 0, 3_600))

    class UsedUp:
        def export_ids(self, _: object) -> IdsResponse:
            return used_up

    calls = IdsCalls(UsedUp(), RequestedFields.of(()), clock=Clock(), requests_per_minute=None)  # type: ignore[arg-type]
    request = [Identifier("email", "a@example.org", "", "emails", 1)]
    threads = DaemonThreads(1)
    began = time.monotonic()
    assert threads.submit(calls.answer, request).result(SECONDS).misses == request
    waiting = threads.submit(calls.answer, request)
    calls.close()

    with pytest.raises(BrazeError, match="told to end"):
        waiting.result(SECONDS)
    assert time.monotonic() - began < 5
    threads.shutdown()


def test_one_fake_clock_for_the_run_and_all_its_threads_does_not_hang(tmp_path: Path) -> None:
    """To sleep by it is no wait: the run waits for the response itself."""
    braze = HeldBraze()
    braze.released.release(200)
    with resync(braze, tmp_path, 60, FakeClock()) as deliveries:
        while not (ready := deliveries.poll()):
            deliveries.wait()

        assert ready[0].name.startswith("requests 0-")
