"""Stream maps calculate with numbers, and numbers that no expression touches keep every digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.runs import settings, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXACT = "12345678901234567.123456789012345678"
PERSON = {
    "braze_id": "b1",
    "total_revenue": 12.5,
    "random_bucket": 7,
    "last_coordinates": [1.5, 2.25],
    "custom_attributes": {"score": 0.1, "whole": 3, "none": None},
    "purchases": [{"name": "shoe", "count": 2}],
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(users=10) as sandbox:
        sandbox.add_segment("one", [PERSON])
        yield sandbox


def mapped(sandbox: Sandbox, spool: Path, expression: str, **more: Any) -> Any:
    """The value of an expression for the person."""
    maps = {"users": {"result": expression}}
    (row,) = sync(settings(sandbox, spool, segment_ids=["one"], stream_maps=maps, **more)).rows("users")
    return row["result"]


CALCULATED: list[tuple[str, Any]] = [
    ("total_revenue * 1.1", 12.5 * 1.1),
    ("total_revenue + 1", 13.5),
    ("1.5 - total_revenue", -11.0),
    ("-total_revenue", -12.5),
    ("total_revenue / 0.5 + random_bucket", 32.0),
    ("random_bucket * 1.5", 10.5),
    ("float(total_revenue)", 12.5),
    ("int(total_revenue)", 12),
    ("str(total_revenue)", "12.5"),
    ("total_revenue > 12.4 and total_revenue == 12.5", True),
    ("total_revenue", 12.5),
    ("custom_attributes['score'] * 2.0", 0.2),
    ("record['last_coordinates'][0] * 2.0", 3.0),
    ("_['total_revenue'] ** 2.0", 156.25),
    ("total_revenue * config['rate']", 12.5 * 1.1),
    ("total_revenue + config['rates'][0]['x']", 13.75),
    ("json.dumps(last_coordinates)", "[1.5, 2.25]"),
    ("{'a': total_revenue, 'b': [total_revenue * 2.0]}", {"a": 12.5, "b": [25.0]}),
]


@pytest.mark.slow
def test_expressions_calculate(sandbox: Sandbox, tmp_path: Path) -> None:
    """With columns, members of open objects, other columns, literals and values of stream_map_config."""
    maps = {f"result_{number}": expression for number, (expression, _) in enumerate(CALCULATED)}
    config = {"rate": 1.1, "rates": [{"x": 1.25}]}
    maps["random_bucket"] = "self * 2.0"
    given = settings(sandbox, tmp_path, segment_ids=["one"], stream_maps={"users": maps}, stream_map_config=config)
    (row,) = sync(given).rows("users")
    for number, (expression, result) in enumerate(CALCULATED):
        assert row[f"result_{number}"] == result, expression
    assert row["random_bucket"] == 14.0


def test_values_of_a_config_file_are_numbers_to_calculate_with(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also if they are given as text."""
    found = mapped(sandbox, tmp_path, "total_revenue * config['rate']", stream_map_config='{"rate": 1.1}')
    assert found == 12.5 * 1.1


@pytest.mark.parametrize("flat", [False, True])
def test_untouched_numbers_keep_every_digit(sandbox: Sandbox, tmp_path: Path, flat: bool) -> None:  # noqa: FBT001
    """Beside an expression that calculates with one of them; in a copy, in columns and in open objects."""
    line = json.dumps({**PERSON, "total_revenue": "?", "custom_attributes": {"score": "?"}, "unknown": ["?"]})
    line = line.replace('"?"', EXACT)
    sandbox.add_segment("exact", [line.encode()])
    maps = {"users": {"more": "total_revenue + 1", "copy": "total_revenue", "text": "str(total_revenue)"}}
    more = {"flattening_enabled": True, "flattening_max_depth": 2} if flat else {}
    run = sync(settings(sandbox, tmp_path, segment_ids=["exact"], stream_maps=maps, **more))
    (raw,) = [line for line in run.stdout.splitlines() if line.startswith(b'{"type":"RECORD","stream":"users"')]
    row = json.loads(raw, parse_float=Decimal)["record"]
    assert row["more"] == Decimal(str(float(EXACT) + 1))
    assert row["total_revenue"] == row["copy"] == Decimal(EXACT)
    assert row["text"] == EXACT
    for column, path in [("custom_attributes", "score"), ("_rescued_data", "unknown")]:
        value = json.loads(row[column], parse_float=Decimal) if flat else row[column]
        found = value[path][0] if isinstance(value[path], list) else value[path]
        assert found == Decimal(EXACT)
