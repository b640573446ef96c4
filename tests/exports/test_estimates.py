"""Braze's estimates: a warning where they differ, and nothing that a finished run waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.exports.estimates import Estimates
from tap_braze_export.state import Bookmark
from tests.support.fakes import as_json, hang_up

if TYPE_CHECKING:
    from tap_braze_export.braze.client import Braze
    from tests.support.fakes import Answer, FakeClock, Server


def ended(segment_id: str, users: int) -> Bookmark:
    return Bookmark("segment", segment_id, f"{segment_id}-1", 1_800_000_000.0, (), "", running=False, users=users)


def estimated(size: object) -> Answer:
    return as_json({"data": [{"time": "2027-01-15", "size": size}]}, 200)


def test_a_large_difference_is_a_warning(server: Server, braze: Braze, caplog: pytest.LogCaptureFixture) -> None:
    server.answers = [estimated(100), estimated(100)]

    Estimates(braze, "").review([ended("a", 90), ended("b", 70)])

    assert [message.partition(";")[0] for message in caplog.messages] == [
        "Segment b: 70 users came, Braze estimates 100"
    ]


@pytest.mark.parametrize(
    "answer",
    [
        as_json({}, 429, X_RateLimit_Reset="1800003000"),
        as_json({}, 429),
        as_json({}, 403),
        (503, {}, b""),
        (200, {}, b"<html>"),
        hang_up,
    ],
)
def test_after_a_failure_no_other_estimate_is_requested(
    server: Server, braze: Braze, clock: FakeClock, answer: Answer
) -> None:
    """However many segments there are, the run ends at once."""
    server.answers = [answer]

    Estimates(braze, "").review([ended(f"s{number}", 1) for number in range(100)])

    assert (len(server.seen), clock.slept) == (1, [])


def test_a_segment_that_braze_does_not_know_costs_the_others_nothing(
    server: Server, braze: Braze, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [as_json({"message": "no such segment"}, 400), estimated(100)]

    Estimates(braze, "").review([ended("a", 1), ended("b", 1)])

    assert [message.partition(":")[0] for message in caplog.messages] == ["Segment b"]
