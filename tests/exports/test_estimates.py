"""Braze's estimates: a warning where they differ, and nothing that a finished run waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.export import Export
from tap_braze_export.exports.completeness import Estimates
from tap_braze_export.state import Bookmark
from tests.support.fakes import as_json, hang_up

if TYPE_CHECKING:
    from tap_braze_export.braze.client import Braze
    from tests.support.fakes import Answer, FakeClock, Server


def ended(segment_id: str, users: int) -> Bookmark:
    return Bookmark(
        Export("segment", segment_id, f"{segment_id}-1", 1_800_000_000.0), (), "", running=False, users=users
    )


def estimated(size: object) -> Answer:
    return as_json({"data": [{"time": "2027-01-15", "size": size}]}, 200)


FAR = [(0, 300_000), (300_000, 50_000), (0, 10_000_000), (9_000_000, 7_000_000), (60_000_000, 45_000_000)]
"""Users that came, and what Braze estimated."""
NEAR = [
    *[(0, 1), (0, 100), (0, 50_000), (0, 200_000), (70, 100), (200_000, 100), (150_000, 1)],  # 1 % of 20 million users
    *[(1_000_000, 1_200_000), (700_000, 1_000_000), (9_000_000, 8_000_000), (60_000_000, 55_000_000), (5, 0)],
]


def test_only_what_is_far_outside_of_an_estimates_error_is_a_warning(
    server: Server, braze: Braze, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is a part of the workspace, not of the segment; how large the workspace is, Braze does not say."""
    for users, size in FAR + NEAR:
        caplog.clear()
        server.answers = [estimated(size)]
        Estimates(braze, "").review([ended("a", users)])
        warning = f"Export a-1 of segment a: {users:,} users came, Braze estimates {size:,}"
        said = [warning] if (users, size) in FAR else []
        assert [message.partition(";")[0] for message in caplog.messages] == said, (users, size)


def test_a_small_estimate_does_not_speak_against_an_empty_export(server: Server, braze: Braze) -> None:
    for size in (0, 1, 30, 50_000, 250_000, 250_001, 10_000_000):
        server.answers = [estimated(size)]
        reason = Estimates(braze, "s3://b").reason_for_files(ended("a", 0))
        assert bool(reason) == (size > 250_000), (size, reason)


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
    server.answers = [as_json({"message": "no such segment"}, 400), estimated(1_000_000)]

    Estimates(braze, "").review([ended("a", 1), ended("b", 1)])

    assert [message.partition(":")[0] for message in caplog.messages] == ["Export b-1 of segment b"]
