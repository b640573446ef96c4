"""The charts of a page: samples that stay few, and lines drawn of them."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from tap_braze_export.report import charts
from tap_braze_export.report.charts import Bar
from tap_braze_export.report.samples import Sample, Samples, memory_in_use, peak_memory


def test_of_each_second_the_last_sample_stays() -> None:
    samples = Samples(memory=lambda: 7)
    for number in range(1, 9):
        samples.take(number / 2, number)
    assert samples.taken == [(0.0, 0, 7), (0.5, 1, 7), (1.5, 3, 7), (2.5, 5, 7), (3.5, 7, 7), (4.0, 8, 7)]


def test_users_before_a_long_wait_do_not_seem_to_come_in_it() -> None:
    """Half a second after the start 100 users are there, then nothing comes for a minute."""
    samples = Samples(memory=lambda: 7)
    samples.take(0.5, 100)
    samples.take(60.5, 100)
    assert samples.taken == [(0.0, 0, 7), (0.5, 100, 7), (60.5, 100, 7)]


def test_a_day_has_as_few_samples_as_an_hour() -> None:
    """The first and the last one stay, the others keep even distances, and none goes back in time."""
    samples = Samples(memory=lambda: None)
    for second in range(86_400):
        samples.take(second, second)
        assert len(samples.taken) <= 500
    samples.take(86_400, 86_400)
    seconds = [sample.seconds for sample in samples.taken]
    assert seconds[0] == 0
    assert seconds[-1] == 86_400
    assert seconds == sorted(seconds)
    assert len(seconds) > 240
    assert max(after - before for before, after in pairwise(seconds)) <= 512


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc, which is Linux's")  # noqa: PTH110
def test_the_system_says_the_memory() -> None:
    now = memory_in_use()
    assert now is not None
    assert 10_000_000 < now <= peak_memory() < 10**11


def test_speed_over_time() -> None:
    """50 seconds without users, then 1,000 in 50 seconds: 20 a second, at the upper edge of the second half."""
    chart = charts.speed([Sample(0, 0, None), Sample(50, 0, None), Sample(100, 1000, None)])
    assert chart is not None
    assert (chart.highest, chart.top) == (20, 20)
    points = [tuple(map(float, point.split(","))) for point in chart.line[1:].split("L")]
    assert {y for x, y in points if x < 500} == {100.0}
    assert {y for x, y in points if x > 500} == {0.0}
    assert (points[0][0], points[-1][0]) == (0, 1000)


def test_memory_over_time() -> None:
    """The upper edge is a round number."""
    chart = charts.memory([Sample(0, 0, 90_000_000), Sample(10, 5, 130_000_000), Sample(40, 9, 75_000_000)])
    assert chart is not None
    assert (chart.highest, chart.top) == (130_000_000, 150_000_000)
    assert chart.line == "M0.0,40.0L250.0,13.3L1000.0,50.0"


@pytest.mark.parametrize(
    "samples",
    [[], [Sample(0, 0, 1)], [Sample(0, 0, None), Sample(0, 5, None)], [Sample(0, 0, None), Sample(9, 0, None)]],
    ids=["none", "one", "no time", "no user"],
)
def test_nothing_to_draw(samples: list[Sample]) -> None:
    assert charts.speed(samples) is None
    assert charts.memory(samples) is None


def test_samples_of_one_moment() -> None:
    """Such as of a file that was read at once."""
    samples = [Sample(0, 0, 0), Sample(0, 0, 5), Sample(1, 0, 5), Sample(1, 7, 5), Sample(2, 9, 5), Sample(2, 9, 5)]
    assert charts.speed(samples) is not None
    assert charts.memory(samples) is not None


def test_bars_are_cut_at_the_ends_of_the_scale() -> None:
    """A part that is narrower than a unit is still seen."""
    parts = [("a", -50.0, 25.0), ("b", 25.0, 25.01), ("c", 50.0, 500.0), ("d", -9.0, -1.0), ("e", 60.0, 60.0)]
    assert charts.bars(parts, start=0, end=100) == [Bar("a", 0, 250), Bar("b", 250, 1), Bar("c", 500, 500)]


def test_shares_of_a_whole() -> None:
    assert charts.shares([("a", 1), ("b", 0), ("c", 3), ("d", -1)]) == [Bar("a", 0, 250), Bar("c", 250, 750)]
    assert charts.shares([("a", 0)]) == []
