"""The pace of the ids export: as fast as the headers allow, and never faster."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.rate_limit import RateLimit, RequestPacer
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.resyncs import emails
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

if TYPE_CHECKING:
    from pathlib import Path

FULL_MINUTE = 1_800_000_000
assert FULL_MINUTE % 3600 == 0


def sent_until_wait(pacer: RequestPacer, now: float, *, most: int = 1000) -> int:
    """How many requests may go at this moment."""
    count = 0
    while pacer.wait(now) <= 0 and count < most:
        pacer.sent(now)
        count += 1
    return count


def paced(limit: int, remaining: int, reset: int, *, now: float = FULL_MINUTE) -> RequestPacer:
    """A pacer after a first response with these headers."""
    pacer = RequestPacer()
    pacer.sent(now)
    pacer.responded(RateLimit(limit, remaining, reset), now, time_of_day=now)
    return pacer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "seconds", "requests"),
    [(40, 1, 500), (250, 60, 600), (2_500, 60, 5_000), (1_000, 3_600, 1_500)],
)
@pytest.mark.parametrize("start", at_night([0.0, 0.63, 47.1, 3_599.9], but=[0.63]))
def test_no_window_of_braze_gets_more_than_its_limit(
    tmp_path: Path, limit: int, seconds: int, requests: int, start: float
) -> None:
    """Whatever the window's length, how long responses take and where in a window the resync begins."""
    clock = FakeClock(FULL_MINUTE + start)
    braze = ScriptedBraze(clock, limit=limit, seconds=seconds)
    threads = SimulatedThreads(clock, jitter=0.2)

    run = SimulatedRun(braze, tmp_path, threads=threads, emails=emails(requests))

    assert braze.violations == 0
    assert len(run.users) == requests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "seconds", "others"),
    at_night(
        [(5, 1, 0), (10, 1, 0), (40, 1, 35), (10, 60, 0), (250, 60, 240), (1_000, 60, 980), (250, 3_600, 200)],
        but=[(40, 1, 35), (250, 60, 240), (250, 3_600, 200)],
    ),
)
def test_requests_in_flight_when_a_window_ends_count_in_the_next(
    tmp_path: Path, limit: int, seconds: int, others: int
) -> None:
    """Slow requests, which overtake each other, and others who use up most of each window as soon as it begins."""
    for start, (latency, travel, jitter) in itertools.product(
        [0.63, 3_599.9], [(0.05, 0.05, 0.0), (0.3, 0.3, 0.3), (0.9, 0.9, 0.0), (1.0, 2.0, 1.0), (5.0, 5.0, 5.0)]
    ):
        clock = FakeClock(FULL_MINUTE + start)
        braze = ScriptedBraze(clock, limit=limit, seconds=seconds, others=others)
        threads = SimulatedThreads(clock, latency=latency, travel=travel, jitter=jitter)

        run = SimulatedRun(braze, tmp_path, threads=threads, emails=emails(60))

        assert (braze.violations, len(run.users)) == (0, 60), (start, latency, travel, jitter)


def test_a_429_that_says_how_long_to_wait_ends_the_window_that_was_known() -> None:
    """50 minutes of it are left, but Braze asks for 30 seconds."""
    now = FULL_MINUTE + 600
    pacer = paced(250, 0, FULL_MINUTE + 3_600, now=now)
    pacer.sent(now)
    pacer.refused(now + 30, now)

    assert pacer.wait(now) == pytest.approx(31)
    assert pacer.wait(now + 31) <= 0


def test_what_remains_holds_until_the_next_window_has_surely_begun() -> None:
    """A request that arrives at the very end of a window would be refused: also the wait's last moment is waited."""
    pacer = paced(250, 0, FULL_MINUTE + 60)

    assert pacer.wait(FULL_MINUTE + 60.5) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "seconds"), at_night([(40, 1), (250, 60), (2_500, 60)], but=[(250, 60)]))
def test_uses_95_percent_of_what_is_allowed(tmp_path: Path, limit: int, seconds: int) -> None:
    """100,000 external ids in 2,000 requests that take 300 ms each."""
    clock = FakeClock(FULL_MINUTE + 0.37)
    braze = ScriptedBraze(clock, limit=limit, seconds=seconds)
    external_ids = [f"user-{number}" for number in range(100_000)]

    run = SimulatedRun(braze, tmp_path, external_ids=external_ids)

    allowed = limit / seconds
    assert 0.95 * allowed <= 2_000 / run.seconds <= 1.01 * allowed
    assert braze.violations == 0
    assert [user["external_id"] for user in run.users] == external_ids


@pytest.mark.parametrize("behind", [-20.0, 20.0])
def test_braze_clock_may_differ_from_ours(tmp_path: Path, behind: float) -> None:
    """Requests go evenly, so that it does not matter when exactly a window of Braze begins."""
    clock = FakeClock(FULL_MINUTE + 31.0)
    braze = ScriptedBraze(clock, limit=250, seconds=60, behind=behind)

    SimulatedRun(braze, tmp_path, emails=emails(1_000))

    assert braze.violations == 0


def test_first_request_goes_alone(tmp_path: Path) -> None:
    """Nobody knows the limit before the first response."""
    clock = FakeClock()
    braze = ScriptedBraze(clock, limit=2_500, seconds=60)

    SimulatedRun(braze, tmp_path, emails=emails(17), threads=SimulatedThreads(clock, latency=7.0))

    first, *others = [at - braze.times[0] for at in braze.times]
    assert (first, len(others)) == (0, 16)
    assert 7 <= min(others) <= max(others) < 9


def test_assumes_250_a_minute_without_headers() -> None:
    """The lowest limit that Braze gives by default: in a minute of it no more go."""
    pacer = RequestPacer()
    pacer.sent(FULL_MINUTE)
    pacer.responded(RateLimit(), FULL_MINUTE, time_of_day=FULL_MINUTE)
    now, count = float(FULL_MINUTE), 1
    while (now := now + pacer.wait(now)) < FULL_MINUTE + 60:
        pacer.sent(now)
        count += 1

    assert 242 <= count <= 250


def test_what_remains_is_never_exceeded() -> None:
    """Somebody else uses the same workspace: 3 requests remain until the minute ends, although 250 are the limit."""
    pacer = paced(250, 3, FULL_MINUTE + 60)

    now, count = float(FULL_MINUTE), 0
    while (wait := pacer.wait(now)) < 30:
        now += wait
        pacer.sent(now)
        count += 1

    assert count == 3
    assert now + wait > FULL_MINUTE + 60


def test_responses_out_of_order_never_raise_what_remains() -> None:
    """A response that says more remains may only be older than one that says less."""
    pacer = paced(250, 100, FULL_MINUTE + 60)
    for _ in range(5):
        pacer.sent(FULL_MINUTE)
    pacer.responded(RateLimit(250, 1, FULL_MINUTE + 60), FULL_MINUTE, time_of_day=FULL_MINUTE)
    pacer.responded(RateLimit(250, 99, FULL_MINUTE + 60), FULL_MINUTE, time_of_day=FULL_MINUTE)

    assert pacer.wait(FULL_MINUTE + 20) > 40


@pytest.mark.parametrize(
    ("reset", "seconds_between"),
    [
        (FULL_MINUTE + 7, 1 / 40),
        (FULL_MINUTE + 60, 60 / 40),
        (FULL_MINUTE + 3_600, 3_600 / 40),
    ],
)
def test_window_is_inferred_from_its_end(reset: int, seconds_between: float) -> None:
    """Windows end on the clock's full second, minute or hour, and 40 requests are spread over one."""
    pacer = paced(40, 39, reset)
    now = FULL_MINUTE + 0.5
    sent_until_wait(pacer, now)
    now += pacer.wait(now)
    pacer.sent(now)

    assert seconds_between <= pacer.wait(now) <= seconds_between * 1.05


def test_window_of_a_second_that_ends_with_a_minute_is_recognised_by_the_next() -> None:
    """A first response in the last second of a minute looks like one about the minute."""
    pacer = paced(40, 39, FULL_MINUTE + 60, now=FULL_MINUTE + 59.5)
    pacer.sent(FULL_MINUTE + 60.1)
    pacer.responded(RateLimit(40, 39, FULL_MINUTE + 61), FULL_MINUTE + 60.4, time_of_day=FULL_MINUTE + 60.4)
    sent_until_wait(pacer, FULL_MINUTE + 60.5)

    assert pacer.wait(FULL_MINUTE + 60.5) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("cap", "expected"), [(60, 60), (1_000, 1_000), (1_000_000, 2_400)])
def test_setting_caps_the_rate(tmp_path: Path, cap: int, expected: int) -> None:
    """`requests_per_minute` holds in any minute, but cannot raise what Braze allows."""
    clock = FakeClock(FULL_MINUTE + 0.5)
    braze = ScriptedBraze(clock, limit=40, seconds=1)

    SimulatedRun(braze, tmp_path, emails=emails(3 * expected), requests_per_minute=cap)

    in_any_minute = max(
        sum(1 for _ in itertools.takewhile(lambda at, end=at + 60: at < end, braze.times[place:]))  # type: ignore[misc]
        for place, at in enumerate(braze.times)
        if place % 20 == 0
    )
    assert 0.95 * expected <= in_any_minute <= expected
    assert braze.violations == 0


def test_all_wait_after_a_429() -> None:
    """Until the window ends and a second more, however many of those that were sent are refused, too."""
    pacer = paced(250, 249, FULL_MINUTE + 60)
    for _ in range(8):
        pacer.refused(FULL_MINUTE + 60, FULL_MINUTE + 10)

    assert pacer.wait(FULL_MINUTE + 10) == pytest.approx(51)


def test_waits_longer_each_time_without_success() -> None:
    """A window's end that is past already, or is not known, does not lead to one 429 after the other."""
    pacer, now, waits = paced(250, 249, FULL_MINUTE + 60), FULL_MINUTE + 70.0, []
    for _ in range(8):
        pacer.refused(0, now)
        waits.append(round(pacer.wait(now)))
        now += pacer.wait(now)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_senseless_reset_holds_nothing_back_for_ever() -> None:
    """An hour is Braze's longest window."""
    pacer = paced(250, 249, FULL_MINUTE + 60)
    pacer.refused(99_999_999_999, FULL_MINUTE)

    assert pacer.wait(FULL_MINUTE) <= 3_601
