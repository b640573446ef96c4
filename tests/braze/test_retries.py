"""Calls that are repeated after a rate limit or a failure, and those that are not."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import (
    BrazeError,
    LostResponseError,
    RateLimitError,
)
from tests.support.braze_calls import (
    ALL,
    ASKED_ONCE,
    KEY,
    REPEATABLE,
    SEGMENT,
    STARTED,
    STARTS,
    details,
    export_ids,
    refused,
    size,
    start,
)
from tests.support.fakes import FakeClock, Server, as_json, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fakes import Answer


# Rate limits


@pytest.mark.parametrize("call", [call for call in ALL if call not in {export_ids, size}])
def test_rate_limit_waits_until_its_reset(
    server: Server, braze: Braze, clock: FakeClock, call: Callable[[Braze], object]
) -> None:
    reset = int(clock.time) + 120
    limited = as_json({"message": "Rate limited"}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(reset))
    server.answers = [limited, STARTED]

    call(braze)

    (slept,) = clock.slept
    assert 120 < slept <= 122


def test_ids_export_leaves_the_rate_limit_to_its_caller(server: Server, braze: Braze, clock: FakeClock) -> None:
    """Who sends many requests at a time slows all of them down."""
    reset = int(clock.time) + 120
    server.answers = [as_json({}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(reset))]

    with pytest.raises(RateLimitError, match=r"rate limit$") as caught:
        export_ids(braze)

    assert caught.value.until == clock.monotonic() + 120
    assert clock.slept == []


def test_retry_after_is_honoured(server: Server, braze: Braze, clock: FakeClock) -> None:
    server.answers = [as_json({}, 429, Retry_After="30", X_RateLimit_Remaining="0"), STARTED]

    start(braze)

    assert 30 < clock.slept[0] <= 32


@pytest.mark.parametrize("header", ["X-RateLimit-Reset", "Retry-After"])
@pytest.mark.parametrize("reset", ["99999999999", "nan", "-5"])
def test_senseless_reset_does_not_wait_for_ever(
    server: Server, braze: Braze, clock: FakeClock, header: str, reset: str
) -> None:
    server.answers = [as_json({}, 429, **{"X-RateLimit-Remaining": "0", header: reset}), STARTED]

    start(braze)

    assert 1 <= clock.slept[0] <= 3_700


def test_endless_rate_limit_ends_in_an_error(server: Server, braze: Braze, clock: FakeClock) -> None:
    began = clock.time
    server.answers = [as_json({}, 429, X_RateLimit_Remaining="0")]

    assert "rate limit" in refused(details, braze, BrazeError)
    assert 3 * 3_600 - 62 < clock.time - began <= 3 * 3_600


@pytest.mark.parametrize("reset", [1, 30, 3_000])
def test_checks_wait_for_no_rate_limit_longer_than_for_anything_else(
    server: Server, clock: FakeClock, reset: int
) -> None:
    """A person waits for the checklist of --test."""
    began = clock.time
    server.answers = [as_json({}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(int(began) + reset))]

    assert "rate limit" in refused(details, Braze(server.url, KEY, clock=clock, patience=10), BrazeError)
    assert clock.time - began <= 10


@pytest.mark.parametrize(
    "answer",
    [
        (503, {}, b""),
        hang_up,
        as_json({}, 429, Retry_After="3000"),
        as_json({}, 429, X_RateLimit_Reset="1800003000"),
        as_json({}, 401),
    ],
)
def test_estimate_is_asked_for_once(server: Server, braze: Braze, clock: FakeClock, answer: Answer) -> None:
    """A run that has all its rows does not wait for it."""
    server.answers = [answer]

    with pytest.raises(BrazeError):
        size(braze)
    assert (len(server.seen), clock.slept) == (1, [])


@pytest.mark.parametrize("found", [True, -1, 1.5, "7", 10**13, 10**400, None, [], {}])
def test_estimate_that_is_no_size_is_none(server: Server, braze: Braze, found: object) -> None:
    server.answers = [as_json({"data": [{"time": "2027-01-15", "size": found}]}, 200)]

    assert size(braze) is None


# Failures


@pytest.mark.parametrize("failure", [(503, {}, b"<html>"), hang_up])
@pytest.mark.parametrize("call", REPEATABLE)
def test_idempotent_calls_are_repeated(
    server: Server, braze: Braze, clock: FakeClock, call: Callable[[Braze], object], failure: Answer
) -> None:
    server.answers = [failure, failure, STARTED]

    call(braze)

    assert len(server.seen) == 3
    assert len(clock.slept) == 2


def test_repeating_ends(server: Server, braze: Braze, clock: FakeClock) -> None:
    """Tries and total time are bounded, waits are jittered."""
    server.answers = [(502, {}, b"")]

    assert "Braze responded 502" in refused(details, braze, BrazeError)
    assert len(server.seen) == 8
    assert len(set(clock.slept)) == 7
    assert sum(clock.slept) < 600


def test_slow_failures_end_by_time(server: Server) -> None:
    with requests.Session() as session:
        braze = Braze(server.url, KEY, clock=FakeClock(tick=200), session=session)
        server.answers = [(502, {}, b"")]

        assert "Braze responded 502" in refused(details, braze, BrazeError)
    assert len(server.seen) < 8


def test_repeats_are_logged_without_the_url(server: Server, braze: Braze, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tap_braze_export")
    server.answers = [hang_up, STARTED]

    details(braze)

    (record,) = [record for record in caplog.records if record.name.startswith("tap_braze_export")]
    assert record.getMessage().startswith(
        f"GET /segments/details (segment {SEGMENT}): no response came (ConnectionError); repeated in "
    )


@pytest.mark.parametrize("failure", [(500, {}, b""), (504, {}, b"<html>"), hang_up])
@pytest.mark.parametrize("call", STARTS)
def test_start_whose_response_is_lost_is_not_repeated(
    server: Server, braze: Braze, call: Callable[[Braze], object], failure: Answer
) -> None:
    server.answers = [failure, STARTED]

    assert "it may be running" in refused(call, braze, LostResponseError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("call", [call for call in ALL if call is not size])
def test_refused_connection_is_repeated(clock: FakeClock, call: Callable[[Braze], object]) -> None:
    """Nothing was sent, so a start is repeated, too."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        braze = Braze(f"http://127.0.0.1:{unused.getsockname()[1]}", KEY, clock=clock)

        assert "no connection to the host of api_url" in refused(call, braze, BrazeError)
    assert len(clock.slept) == 7


def test_told_to_end_it_does_not_repeat(server: Server, braze: Braze, clock: FakeClock) -> None:
    clock.told_to_end = True
    server.answers = [(502, {}, b"")]

    assert "the run was told to end" in refused(details, braze, BrazeError)
    assert len(server.seen) == 1


class FailingSession(requests.Session):
    """Fails before any request is made, and remembers the time that it was given."""

    def __init__(self, failure: requests.RequestException) -> None:
        super().__init__()
        self.failure = failure
        self.timeouts: list[object] = []

    def request(self, *_: object, **options: Any) -> requests.Response:
        self.timeouts.append(options["timeout"])
        raise self.failure


@pytest.mark.parametrize("call", ALL)
def test_every_call_has_time_limits(clock: FakeClock, call: Callable[[Braze], object]) -> None:
    """Connect 10 s; read 60 s, 10 for an estimate, and 5 minutes for the ids export, which assembles whole profiles."""
    with FailingSession(requests.ConnectTimeout(f"{KEY}?segment_id=")) as session:
        refused(call, Braze("https://rest.example.org", KEY, clock=clock, session=session), BrazeError)

    limit = 300 if call is export_ids else 10 if call is size else 60
    assert session.timeouts == [(10, limit)] * (1 if call is size else 8)


@pytest.mark.parametrize("call", ALL)
def test_read_timeout_is_repeated_unless_it_may_have_started_an_export(
    clock: FakeClock, call: Callable[[Braze], object]
) -> None:
    with FailingSession(requests.ReadTimeout(f"{KEY}?segment_id=")) as session:
        braze = Braze("https://rest.example.org", KEY, clock=clock, session=session)
        assert "ReadTimeout" in refused(call, braze, LostResponseError if call in STARTS else BrazeError)

    assert len(session.timeouts) == (1 if call in ASKED_ONCE else 8)


def test_untrusted_certificate_is_told_at_once(clock: FakeClock) -> None:
    with FailingSession(requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]")) as session:
        braze = Braze("https://rest.example.org", KEY, clock=clock, session=session)
        assert "REQUESTS_CA_BUNDLE" in refused(start, braze, BrazeError)

    assert len(session.timeouts) == 1
