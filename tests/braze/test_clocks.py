"""A clock that is hours ahead or behind Braze's, and odd headers: no wait is longer than a rate limit's window."""

from __future__ import annotations

import logging
from email.utils import formatdate
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_braze_export.braze.rate_limit import RateLimit, RequestPacer, retry_at
from tap_braze_export.errors import RateLimitError
from tap_braze_export.http.retry import GaveUpError, RetryableError, RetryPolicy
from tests.support.braze_calls import STARTED, details, export_ids, start
from tests.support.fakes import FakeClock, as_json
from tests.support.simulation import ScriptedBraze, SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.braze.client import Braze, IdsResponse
    from tests.support.fakes import Answer, Server

HOUR = 3_600
TIME_OF_DAY, MONOTONIC = 1_800_000_000.0, 7_000.0
OFFSETS = [-48 * HOUR, -3 * HOUR, -HOUR, -600, 0, 600, HOUR, 3 * HOUR, 48 * HOUR]
"""Seconds by which Braze's clock is ahead of ours."""


def limited(**headers: str) -> Answer:
    """A refusal because of the rate limit."""
    return as_json({"message": "Rate limited"}, 429, X_RateLimit_Remaining="0", **headers)


def test_a_429_waits_until_the_window_ends_by_the_clock_of_braze(
    server: Server, braze: Braze, clock: FakeClock
) -> None:
    for offset, left in product(OFFSETS, [1, 30, 600, 3_500]):
        theirs = int(clock.time) + offset
        server.answers = [limited(X_RateLimit_Reset=str(theirs + left), Date=formatdate(theirs, usegmt=True)), STARTED]
        clock.slept.clear()

        start(braze)

        (slept,) = clock.slept
        assert left < slept <= left + 3, (offset, left)


def test_the_ids_export_says_when_its_limit_ends_by_our_clock(server: Server, braze: Braze, clock: FakeClock) -> None:
    for offset in OFFSETS:
        theirs = int(clock.time) + offset
        server.answers = [limited(X_RateLimit_Reset=str(theirs + 45), Date=formatdate(theirs, usegmt=True))]

        with pytest.raises(RateLimitError) as caught:
            export_ids(braze)
        assert caught.value.until == pytest.approx(clock.elapsed + 45, abs=1), offset


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Reset": "45"}, 45),  # seconds that are left
        ({"X-RateLimit-Reset": "1800000045000"}, 45),  # milliseconds
        ({"X-RateLimit-Reset": "1800000045.5"}, 45),
        ({"X-RateLimit-Reset": "1.800000045e9"}, 45),
        ({"X-RateLimit-Reset": "3600"}, 3_600),
        ({"Retry-After": "45"}, 45),
        ({"Retry-After": "45.2"}, 45),
        ({"Retry-After": formatdate(1_800_000_045, usegmt=True)}, 45),
        ({"Retry-After": formatdate(1_800_000_045 - 7_200, usegmt=True), "Date": "Fri, 15 Jan 2027 06:00:00 GMT"}, 45),
        ({"Retry-After": "1800000045"}, 45),
        ({"Retry-After": "1800000045000"}, 45),
        ({"Retry-After": "45", "X-RateLimit-Reset": "1800000900"}, 45),
        ({"Retry-After": "0", "X-RateLimit-Reset": "1800000900"}, 0),
        ({"X-RateLimit-Retry-After": "45", "X-RateLimit-Reset": "1800003000"}, 45),
        ({"X-RateLimit-Retry-After": "45", "Retry-After": "900", "X-RateLimit-Reset": "1800003000"}, 45),
        ({"X-RateLimit-Retry-After": "45.5", "X-RateLimit-Reset": "1800003000"}, 45),
        ({"X-RateLimit-Retry-After": "0", "X-RateLimit-Reset": "1800003000"}, 0),
        ({"X-RateLimit-Retry-After": "soon", "X-RateLimit-Reset": "1800000045"}, 45),
        ({"X-RateLimit-Retry-After": "-5", "Retry-After": "45", "X-RateLimit-Reset": "1800003000"}, 45),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "1800000045"}, 45),
        ({"Retry-After": "nan", "X-RateLimit-Reset": "1800000045"}, 45),
        ({"Retry-After": "-5", "X-RateLimit-Reset": "1800000045"}, 45),
        ({"Date": "yesterday", "X-RateLimit-Reset": "1800000045"}, 45),
        ({"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "X-RateLimit-Reset": "1800000045"}, 45),
    ],
)
def test_forms_of_the_headers_are_understood(
    server: Server, braze: Braze, clock: FakeClock, headers: Mapping[str, str], expected: int
) -> None:
    server.answers = [limited(**headers), STARTED]

    start(braze)

    assert expected < clock.slept[0] <= expected + 3


SENSELESS = [
    *("nan", "inf", "-inf", "-1", "-1800000000", "0", "", " ", "x", "1e400", "9" * 400, "99999999999", "1" * 13),
    *("Sun, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 99 Foo 2027 99:99:99 GMT", "1,2"),
    *("253402300799000", "9007199254740993", "0x10", "10 s", "86400", "7200000"),
]


def test_senseless_headers_wait_no_longer_than_an_hour(server: Server, braze: Braze, clock: FakeClock) -> None:
    """An hour is the longest window that Braze has."""
    dates = [{}, {"Date": "Fri, 15 Jan 2027 11:00:00 GMT"}, {"Date": "nonsense"}]
    for header, value, date in product(
        ["X-RateLimit-Reset", "Retry-After", "X-RateLimit-Retry-After"], SENSELESS, dates
    ):
        server.answers = [limited(**{header: value}, **date), STARTED]
        clock.slept.clear()

        details(braze)

        assert len(clock.slept) == 1, (header, value, date)
        assert 1 <= clock.slept[0] <= HOUR + 3, (header, value, date)


NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(0, 10**13).map(str),
    st.integers(1_700_000_000, 1_900_000_000).flatmap(lambda n: st.sampled_from([str(n), f"{n}000", f"{n}.5"])),
    st.floats().map(str),
    st.sampled_from(["9" * 5_000, "1e308", "1e309", "-0", "0x10", "1_000", "\u0663\u0663", "+3", " 3 ", ""]),
)
DATES = st.integers(-(10**10), 3 * 10**11).map(
    lambda seconds: formatdate(seconds, usegmt=True) if abs(seconds) < 10**10 else str(seconds)
)
VALUES = st.one_of(NUMBERS, DATES, st.text(st.characters(max_codepoint=255), max_size=30))
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Retry-After", "X-RateLimit-Retry-After", "Date"),
            *("X-RateLimit-Reset", "X-RateLimit-Limit", "X-RateLimit-Remaining"),
        ]
    ),
    VALUES,
)


def response(headers: Mapping[str, str]) -> requests.Response:
    made = requests.Response()
    made.headers.update(headers)
    return made


@settings(max_examples=200, deadline=None, database=None)
@given(HEADERS, st.floats(1_000_000_000, 2_000_000_000))
def test_whatever_the_headers_say_the_limit_ends_within_an_hour(headers: Mapping[str, str], now: float) -> None:
    """Or it is not known when (0), and the caller's own waits, which grow, count."""
    until = retry_at(response(headers), now, MONOTONIC)

    assert until == 0 or MONOTONIC <= until <= MONOTONIC + HOUR


@settings(max_examples=120, deadline=None, database=None)
@given(st.lists(st.tuples(HEADERS, st.booleans(), st.floats(0, 4_000)), min_size=1, max_size=8))
def test_whatever_the_headers_say_the_next_request_waits_within_bounds(
    responses: list[tuple[Mapping[str, str], bool, float]],
) -> None:
    """Never for ever, never at the speed of the machine after refusals."""
    pacer, now = RequestPacer(), MONOTONIC
    for headers, is_refusal, passed in responses:
        pacer.sent(now)
        if is_refusal:
            pacer.refused(retry_at(response(headers), TIME_OF_DAY + now, now), now)
        else:
            pacer.responded(RateLimit.of(response(headers)), now, time_of_day=TIME_OF_DAY + now)
        wait = pacer.wait(now)
        assert (1 if is_refusal else 0) <= wait <= 3_720
        now += wait + passed


@pytest.mark.slow
@settings(max_examples=200, deadline=None, database=None)
@given(HEADERS)
def test_whatever_the_headers_say_a_call_waits_and_ends(headers: Mapping[str, str]) -> None:
    """A second at least between two tries, an hour at most, and three hours in all."""
    clock = FakeClock(tick=1)  # a wait of no length ends, too

    def attempt() -> None:
        raise RetryableError("rate limit", retry_at(response(headers), clock.now(), clock.monotonic()))

    with pytest.raises(GaveUpError) as caught:
        RetryPolicy(8, 600).call(attempt, failed="It failed", clock=clock)
    assert all(1 <= slept <= HOUR + 100 for slept in clock.slept)
    assert caught.value.seconds <= 3 * HOUR + 60


def test_a_limit_that_others_use_up_holds_requests_back_for_no_longer_than_its_window(clock: FakeClock) -> None:
    """By whichever clock the headers tell it."""
    limits = [(250, 60), (2_500, 60), (40, 1), (1_000, HOUR)]
    for offset, has_date, (limit, seconds) in product(OFFSETS, [True, False], limits):
        pacer, now = RequestPacer(), clock.elapsed + 17.0
        theirs = clock.time + 17.0 + offset
        reset = int((theirs // seconds + 1) * seconds)
        date = float(int(theirs)) if has_date else None
        pacer.sent(now)
        pacer.responded(RateLimit(limit, 0, reset, date), now, time_of_day=clock.time + 17.0)

        assert pacer.wait(now) <= seconds * 1.05 + 1, (offset, has_date, limit)


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_resync_ends_though_others_use_the_limit_and_the_clocks_differ(
    clock: FakeClock, tmp_path: Path, offset: int
) -> None:
    """300 requests at 250 a minute, of which others take half: a few minutes."""

    class Shared(ScriptedBraze):
        def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
            self.others_use(1)
            return super().export_ids(body)

    braze = Shared(clock, limit=250, seconds=60, behind=-offset, has_date=True)
    run = SimulatedRun(braze, tmp_path, emails=[f"user-{number}@example.org" for number in range(300)])

    assert run.error == ""
    assert len(run.users) == 300
    assert run.seconds < 600


# Waits in the log


def test_long_wait_for_the_rate_limit_is_logged(
    server: Server, braze: Braze, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tap_braze_export")
    server.answers = [limited(X_RateLimit_Reset=str(int(clock.time) + 900)), STARTED]

    start(braze)

    assert f"rate limit; repeated in {clock.slept[0]:.0f} s" in caplog.text


def test_long_pause_of_a_resync_is_logged_with_its_reason(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each wait, however often it is looked at."""
    caplog.set_level(logging.INFO, "tap_braze_export")
    emails = [f"user-{number}@example.org" for number in range(4)]

    SimulatedRun(ScriptedBraze(clock, limit=250, seconds=60), tmp_path, emails=emails, requests_per_minute=1)

    said = [message for message in caplog.messages if message.startswith("requests_per_minute: the next request goes")]
    assert len(said) in {3, 4}  # the pool may look for a fifth request
    assert all(message.endswith(("60 s", "61 s", "62 s")) for message in said)


def test_a_limit_that_is_used_up_is_logged_with_the_wait(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tap_braze_export")
    braze = ScriptedBraze(clock, limit=250, seconds=60)
    braze.others_use(249)

    SimulatedRun(braze, tmp_path, emails=[f"user-{number}@example.org" for number in range(4)])

    (said,) = [message for message in caplog.messages if "the next request goes in" in message]
    assert said.startswith("Braze's rate limit of 250 requests in 60 s: the next request goes in ")
