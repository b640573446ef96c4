"""Several requests at a time: at most as many as allowed, in order, and going on while the run is busy."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit, RequestPacer
from tap_braze_export.clock import Clock
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.resync.request_pool import RequestPool, RequestThreads
from tests.support.fakes import FakeClock
from tests.support.resyncs import emails
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

SECONDS = 10
"""After which a test fails rather than wait for a thread."""


def pool_of(
    requests: Iterable[int],
    send: Callable[[int], IdsResponse],
    *,
    threads: RequestThreads,
    clock: Clock | None = None,
    pacer: RequestPacer | None = None,
) -> RequestPool[int]:
    """A pool with eight requests in flight, 100 of them unconfirmed."""
    return RequestPool(
        iter(requests),
        send,
        lambda request, error: [],  # noqa: ARG005
        pacer=pacer or RequestPacer(),
        clock=clock or Clock(),
        threads=threads,
        max_in_flight=8,
        max_unconfirmed=100,
    )


class KeptThreads(RequestThreads):
    """Threads whose end a test can wait for."""

    pacing: Future[None]

    @override
    def pace(self, send_requests: Callable[[], None]) -> Future[None]:
        self.pacing = super().pace(send_requests)
        return self.pacing


def response(clock: Clock) -> IdsResponse:
    """A response without users, of a workspace with a very high limit."""
    return IdsResponse([], [], RateLimit(1_000_000, 999_999, int(clock.now()) + 1))


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


def test_shared_limit_is_heeded(tmp_path: Path) -> None:
    """Where others use most of a window, what remains is not exceeded."""
    braze = ScriptedBraze(FakeClock())
    braze.others_use(35)

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert len(run.users) == 200
    assert braze.violations == 0


def test_responses_come_in_the_order_of_the_requests() -> None:
    """However long each of them takes; what was sent before a request that failed is given first."""
    clock = FakeClock()

    def send(number: int) -> IdsResponse:
        if number == 50:
            raise BrazeError("failed")
        return response(clock)

    pool = pool_of(range(60), send, threads=SimulatedThreads(clock, jitter=5.0), clock=clock)
    pool.start()
    given: list[int] = []
    while len(given) < 50:
        given += [response.request for parts in pool.poll(7) for response in parts]
        pool.wait()
    for _ in range(20):  # until the responses in flight have come
        pool.wait()

    assert given == list(range(50))
    with pytest.raises(BrazeError, match="failed"):
        pool.poll(7)


def test_requests_go_on_while_the_run_writes_rows() -> None:
    """Nobody polls: one thread paces the others."""
    clock, last_sent = Clock(), threading.Event()

    def send(number: int) -> IdsResponse:
        if number == 19:
            last_sent.set()
        return response(clock)

    pool = pool_of(range(20), send, threads=RequestThreads(8))
    pool.start()

    assert last_sent.wait(SECONDS)
    given: list[int] = []
    while not pool.ended:
        given += [response.request for parts in pool.poll(20) for response in parts]
        pool.wait()
    pool.close()
    assert given == list(range(20))


def test_close_does_not_wait_for_requests_in_flight() -> None:
    """They may hang for minutes; nothing is sent any more, also after they have ended."""
    threads = KeptThreads(8)
    in_flight, ends, sent = threading.Event(), threading.Event(), []

    def send(number: int) -> IdsResponse:
        sent.append(number)
        in_flight.set()
        assert ends.wait(SECONDS)
        return response(Clock())

    pool = pool_of(range(20), send, threads=threads)
    pool.start()
    assert in_flight.wait(SECONDS)

    pool.close()

    assert not ends.is_set()
    ends.set()
    threads.pacing.result(SECONDS)
    assert sent == [0]


def test_error_on_the_pacing_thread_reaches_the_run() -> None:
    """A request without a response would be waited for without end."""

    class PacerThatFailsOnce(RequestPacer):
        failed = False

        @override
        def sent(self, now: float) -> None:
            if not self.failed:
                self.failed = True
                raise ArithmeticError
            super().sent(now)

    threads = KeptThreads(8)
    pool = pool_of(range(1), lambda _: response(Clock()), threads=threads, pacer=PacerThatFailsOnce())
    pool.start()
    assert isinstance(threads.pacing.exception(SECONDS), ArithmeticError)

    with pytest.raises(ArithmeticError):
        pool.poll(1)
    pool.close()
