"""Geometry of the page's charts: SVG paths and bars in a box that the browser stretches to the page's width."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_braze_export.report.samples import Sample

WIDTH, HEIGHT = 1000, 100
"""Size of a chart's box, in its own units."""
_STEPS = 100
"""Intervals of the run for which the speed is drawn."""
_ROUND_NUMBERS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


class Chart(NamedTuple):
    """A line over the whole time of a run: its path, the value at the upper edge, and the highest value."""

    line: str
    top: float
    highest: float


class Bar(NamedTuple):
    """A part of a bar; the style sheet gives each kind a colour."""

    kind: str
    x: float
    width: float


def speed(samples: Sequence[Sample]) -> Chart | None:
    """The users a second over time, as steps; None if no time went by or no user came."""
    if len(samples) < 2 or samples[-1].seconds <= 0 or not samples[-1].users:  # noqa: PLR2004
        return None
    step = samples[-1].seconds / _STEPS
    users = [_users_at(index * step, samples) for index in range(_STEPS + 1)]
    speeds = [max(0.0, after - before) / step for before, after in pairwise(users)]
    steps = [(index + side, value) for index, value in enumerate(speeds) for side in (0, 1)]
    return _chart(steps, _STEPS)


def memory(samples: Sequence[Sample]) -> Chart | None:
    """The bytes of memory over time; None if the system does not say them or no time went by."""
    known = [(sample.seconds, float(sample.memory)) for sample in samples if sample.memory]
    return _chart(known, known[-1][0]) if len(known) > 1 and known[-1][0] > 0 else None


def bars(parts: Iterable[tuple[str, float, float]], *, start: float, end: float) -> list[Bar]:
    """Bars for parts of the time from `start` to `end`, given as kind, begin and end; what lies outside is cut off."""
    scale = WIDTH / max(end - start, 1e-6)
    found = []
    for kind, begin, finish in parts:
        left, right = (min(max(moment, start), end) for moment in (begin, finish))
        if right > left:
            found.append(Bar(kind, round((left - start) * scale, 1), max(1.0, round((right - left) * scale, 1))))
    return found


def shares(parts: Iterable[tuple[str, float]]) -> list[Bar]:
    """One bar whose parts have the widths of their values."""
    position, placed = 0.0, []
    for kind, value in parts:
        begin, position = position, position + max(0.0, value)
        placed.append((kind, begin, position))
    return bars(placed, start=0.0, end=position)


def _users_at(second: float, samples: Sequence[Sample]) -> float:
    """The users emitted by a second, taken to have come evenly between two samples."""
    index = bisect_right(samples, second, key=lambda sample: sample.seconds)
    if index == len(samples):
        return samples[-1].users
    before, after = samples[max(0, index - 1)], samples[index]
    if (span := after.seconds - before.seconds) <= 0:
        return after.users
    return before.users + (after.users - before.users) * (second - before.seconds) / span


def _chart(points: Sequence[tuple[float, float]], end: float) -> Chart:
    """The line through these points of time and value."""
    highest = max(value for _, value in points)
    top = _round_up(highest)
    line = "L".join(f"{WIDTH * time / end:.1f},{HEIGHT * (1 - value / top):.1f}" for time, value in points)
    return Chart(f"M{line}", top, highest)


def _round_up(value: float) -> float:
    """A round number that is at least as large."""
    power = 10 ** (len(str(int(value))) - 1)
    return next(number * power for number in _ROUND_NUMBERS if number * power >= value) if value > 1 else 1.0
