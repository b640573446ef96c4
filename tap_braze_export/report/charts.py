"""Geometry of the page's charts: SVG paths and bars in a box that the browser stretches to the page's width."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_braze_export.report.samples import Sample

WIDTH, HEIGHT = 1000, 100
"""Size of a chart's box, in its own units."""
_STEPS = 100
"""Intervals of the run for which the speed is drawn."""
_ROUND_NUMBERS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Chart:
    """One line over the time of a run, and the area below it.

    Attributes:
        line: Path of the line.
        area: Path of the area.
        top: The value at the upper edge.
        highest: The highest value.
    """

    line: str
    area: str
    top: float
    highest: float


@dataclass(frozen=True)
class Bar:
    """A part of a bar.

    Attributes:
        kind: The part of the run that it stands for; the style sheet gives it a colour.
        x: Where it begins.
        width: Its width.
    """

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
    top = _round_up(max(speeds))
    points: list[tuple[float, float]] = []
    for index, value in enumerate(speeds):
        y = HEIGHT * (1 - value / top)
        points += [(WIDTH * index / _STEPS, y), (WIDTH * (index + 1) / _STEPS, y)]
    return _chart(points, top, max(speeds))


def memory(samples: Sequence[Sample]) -> Chart | None:
    """The bytes of memory over time; None if the system does not say them or no time went by."""
    known = [(sample.seconds, sample.memory) for sample in samples if sample.memory]
    if len(known) < 2 or known[-1][0] <= 0:  # noqa: PLR2004
        return None
    seconds, highest = known[-1][0], max(value for _, value in known)
    top = _round_up(highest)
    points = [(WIDTH * second / seconds, HEIGHT * (1 - value / top)) for second, value in known]
    return _chart(points, top, highest)


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
    given = [(kind, max(0.0, value)) for kind, value in parts]
    position, placed = 0.0, []
    for kind, value in given:
        placed.append((kind, position, position + value))
        position += value
    return bars(placed, start=0.0, end=position) if position else []


def _users_at(second: float, samples: Sequence[Sample]) -> float:
    """The users emitted by a second, taken to have come evenly between two samples."""
    index = bisect_right(samples, second, key=lambda sample: sample.seconds)
    if index == len(samples):
        return samples[-1].users
    before, after = samples[max(0, index - 1)], samples[index]
    if (span := after.seconds - before.seconds) <= 0:
        return after.users
    return before.users + (after.users - before.users) * (second - before.seconds) / span


def _round_up(value: float) -> float:
    """A round number that is at least as large."""
    power = 10 ** (len(str(int(value))) - 1)
    return next(number * power for number in _ROUND_NUMBERS if number * power >= value) if value > 1 else 1.0


def _chart(points: Sequence[tuple[float, float]], top: float, highest: float) -> Chart:
    line = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{line}L{points[-1][0]:.1f},{HEIGHT}L{points[0][0]:.1f},{HEIGHT}Z"
    return Chart(line, area, top, highest)
