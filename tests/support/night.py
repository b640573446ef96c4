"""The tests of the night: those marked `night` run only with NIGHT=1, and a property test tries more examples then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark import ParameterSet

T = TypeVar("T")
NIGHT = os.environ.get("NIGHT", "") not in {"", "0"}
"""True in `make night`."""
TIMES_AT_NIGHT = 10


def by_day(number: int) -> int:
    """The number of examples of a property test by day; ten times as many at night."""
    return number * TIMES_AT_NIGHT if NIGHT else number


def at_night(values: Iterable[T], *, but: Iterable[T]) -> list[T | ParameterSet]:
    """Values of a test's parameter; by day, some of them stand for all."""
    always = [*but]
    return [value if value in always else _only_at_night(value) for value in values]


def _only_at_night(value: object) -> ParameterSet:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.night)
