"""The pace of the ids export: as fast as the headers allow, and never faster."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.rate_limit import RequestPacer
from tap_braze_export.braze.responses import RateLimit
from tests.support.fakes import FakeClock
from tests.support.simulation import ScriptedBraze, SimulatedLanes, SimulatedRun

if TYPE_CHECKING:
    from pathlib import Path

FULL_MINUTE = 1_800_000_000
assert FULL_MINUTE % 3600 == 0


def sent_until_wait(pace: RequestPacer, now: float, *, most: int = 1000) -> int:
    """How many requests may go at this moment."""
    count = 0
    while pace.wait(now) <= 0 and count < most:
        pace.sent(now)
        count += 1
    return count


def told(limit: int, remaining: int, reset: int, *, now: float = FULL_MINUTE) -> RequestPacer:
    """A pace whose first request was answered so."""
    pace = RequestPacer()
    pace.sent(now)
    pace.answered(1, RateLimit(limit, remaining, reset), now)
    return pace


@pytest.mark.parametrize(
    ("limit", "seconds", "requests"),
    [(40, 1, 500), (250, 60, 600), (2_500, 60, 5_000), (1_000, 3_600, 1_500)],
)
@pytest.mark.parametrize("start", [0.0, 0.63, 47.1, 3_599.9])
def test_no_window_of_braze_gets_more_than_its_limit(
    tmp_path: Path, limit: int, seconds: int, requests: int, start: float
) -> None:
    """Whatever the window's length, how long answers take and where in a window the resync begins."""
    clock = FakeClock(FULL_MINUTE + start)
    braze = ScriptedBraze(clock, limit=limit, seconds=seconds)
    lanes = SimulatedLanes(clock, jitter=0.2)
    emails = [f"user-{number}@example.org" for number in range(requests)]

    run = SimulatedRun(braze, tmp_path, lanes=lanes, emails=emails)

    assert braze.violations == 0
    assert len(run.users) == requests


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "seconds"), [(40, 1), (250, 60), (2_500, 60)])
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
    emails = [f"user-{number}@example.org" for number in range(1_000)]

    SimulatedRun(braze, tmp_path, emails=emails)

    assert braze.violations == 0


def test_first_request_goes_alone() -> None:
    """Nobody knows the limit before the first answer."""
    pace = RequestPacer()

    assert sent_until_wait(pace, FULL_MINUTE) == 1
    assert pace.wait(FULL_MINUTE + 1_000) == math.inf


def test_assumes_250_a_minute_without_headers() -> None:
    """The lowest limit that Braze gives by default: in a minute of it no more go."""
    pace = RequestPacer()
    pace.sent(FULL_MINUTE)
    pace.answered(1, RateLimit(), FULL_MINUTE)
    now, count = float(FULL_MINUTE), 1
    while (now := now + pace.wait(now)) < FULL_MINUTE + 60:
        pace.sent(now)
        count += 1

    assert 242 <= count <= 250


def test_what_remains_is_never_exceeded() -> None:
    """Somebody else uses the same workspace: 3 requests remain until the minute ends, although 250 are the limit."""
    pace = told(250, 3, FULL_MINUTE + 60)

    now, count = float(FULL_MINUTE), 0
    while (wait := pace.wait(now)) < 30:
        now += wait
        pace.sent(now)
        count += 1

    assert count == 3
    assert now + wait > FULL_MINUTE + 60


def test_answers_out_of_order_never_raise_what_remains() -> None:
    """An answer that says more remains may only be older than one that says less."""
    pace = told(250, 100, FULL_MINUTE + 60)
    for _ in range(5):
        pace.sent(FULL_MINUTE)
    pace.answered(5, RateLimit(250, 1, FULL_MINUTE + 60), FULL_MINUTE)
    pace.answered(2, RateLimit(250, 99, FULL_MINUTE + 60), FULL_MINUTE)

    assert pace.wait(FULL_MINUTE + 20) > 40


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
    pace = told(40, 39, reset)
    now = FULL_MINUTE + 0.5
    sent_until_wait(pace, now)
    now += pace.wait(now)
    pace.sent(now)

    assert seconds_between <= pace.wait(now) <= seconds_between * 1.05


def test_window_of_a_second_that_ends_with_a_minute_is_recognised_by_the_next() -> None:
    """A first answer in the last second of a minute looks like one about the minute."""
    pace = told(40, 39, FULL_MINUTE + 60, now=FULL_MINUTE + 59.5)
    pace.sent(FULL_MINUTE + 60.1)
    pace.answered(2, RateLimit(40, 39, FULL_MINUTE + 61), FULL_MINUTE + 60.4)
    sent_until_wait(pace, FULL_MINUTE + 60.5)

    assert pace.wait(FULL_MINUTE + 60.5) < 0.03


@pytest.mark.parametrize(("cap", "expected"), [(60, 60), (1_000, 1_000), (1_000_000, 2_400)])
def test_setting_caps_the_rate(tmp_path: Path, cap: int, expected: int) -> None:
    """`requests_per_minute` holds in any minute, but cannot raise what Braze allows."""
    clock = FakeClock(FULL_MINUTE + 0.5)
    braze = ScriptedBraze(clock, limit=40, seconds=1)
    emails = [f"user-{number}@example.org" for number in range(3 * expected)]

    SimulatedRun(braze, tmp_path, emails=emails, requests_per_minute=cap)

    in_any_minute = max(
        sum(1 for _ in itertools.takewhile(lambda at, end=at + 60: at < end, braze.times[place:]))  # type: ignore[misc]
        for place, at in enumerate(braze.times)
        if place % 20 == 0
    )
    assert 0.95 * expected <= in_any_minute <= expected
    assert braze.violations == 0


def test_all_wait_after_a_429() -> None:
    """Until the window ends and a second more, however many of those in flight are refused, too."""
    pace = told(250, 249, FULL_MINUTE + 60)
    for _ in range(8):
        pace.refused(FULL_MINUTE + 60, FULL_MINUTE + 10)

    assert pace.wait(FULL_MINUTE + 10) == pytest.approx(51)


def test_waits_longer_each_time_without_success() -> None:
    """A window's end that is past already, or is not told, does not lead to one 429 after the other."""
    pace, now, waits = told(250, 249, FULL_MINUTE + 60), FULL_MINUTE + 70.0, []
    for _ in range(8):
        pace.refused(0, now)
        waits.append(round(pace.wait(now)))
        now += pace.wait(now)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_senseless_reset_holds_nothing_back_for_ever() -> None:
    """An hour is Braze's longest window."""
    pace = told(250, 249, FULL_MINUTE + 60)
    pace.refused(99_999_999_999, FULL_MINUTE)

    assert pace.wait(FULL_MINUTE) <= 3_601
