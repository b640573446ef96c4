"""Input as nobody should send it: JSON with the values that parsers and programs stumble over."""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "10"))
"""Of each door; HOSTILE_EXAMPLES=10000 tries as many."""
few_examples = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_ODD_TEXTS = (
    *("9" * 5_000, "-" + "9" * 5_000, "1" + "0" * 400, "9223372036854775808", "1e999", "-0.0", "NaN", "-Infinity"),
    *(r'"\ud800"', r'"\u0000"', r'"\udfff.example"', '"http://[::1"', '"http://.bad..host./"', '"~nosuchuser/x"'),
    *('""', '" "', "null", "true", "0", "-1", "[]", "{}", '[{"":[]}]', '"' + "x" * 100_000 + '"', '"a\\nb"'),
    *("[" * 600 + "]" * 600, '{"a":' * 900 + "1" + "}" * 900, "[" * 100_000 + "]" * 100_000, "{", '"', "1 2", ""),
)
"""Texts of JSON values, and of none: numbers beyond any type, halves of characters, depth, addresses that are none."""
_HOLE = "\u2603"


def one_of(values: Sequence[T]) -> st.SearchStrategy[T]:
    """One of these values; Hypothesis shows its number, as it may be long."""
    return st.sampled_from(range(len(values))).map(lambda number: values[number])


odd_values = one_of(_ODD_TEXTS) | (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
).map(json.dumps)
"""JSON texts of odd values."""


def odd_variants(document: Any) -> st.SearchStrategy[str]:
    """JSON texts of a document in which one or two values, at any depth, are odd ones; or of an odd value alone."""
    places = [*_places(document)]

    def filled(chosen: list[tuple[tuple[Any, ...], str]]) -> str:
        text_by_hole = {}
        changed = copy.deepcopy(document)
        for number, (place, text) in enumerate(chosen):
            hole = f"{_HOLE}{number}"
            text_by_hole[json.dumps(hole)] = text
            changed = _with(changed, place, hole)
        text = json.dumps(changed)
        for hole, replacement in text_by_hole.items():
            text = text.replace(hole, replacement)
        return text

    return st.lists(st.tuples(st.sampled_from(places), odd_values), min_size=1, max_size=2).map(filled)


def _places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield here
    named = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in named:
        yield from _places(inner, (*here, name))


def _with(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place; unchanged where the place is gone."""
    if not place:
        return new
    holder = value
    for name in place[:-1]:
        if not isinstance(holder, dict | list):
            return value
        holder = holder[name]
    if isinstance(holder, dict | list):
        holder[place[-1]] = new
    return value
