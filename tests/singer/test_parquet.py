"""Rows in Parquet: each column has the type of its JSON schema, and what it cannot hold is rescued or refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tap_braze_export.errors import TapError
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.singer.parquet import encode

HUGE = 12345678901234567890123


def as_rows(*rows: dict[str, Any]) -> Rows:
    return Rows.of(rows)


def encoded(schema: dict[str, Any], *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows written to a Parquet file and read back."""
    content = encode("s", as_rows(*rows), {"properties": schema}, compression="zstd")
    found: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
    return found


def test_parquet_of_what_the_schema_leaves_open() -> None:
    """Values of several types or no type, objects, and members that no schema names become JSON text."""
    schema = {"open": {}, "either": {"type": ["string", "integer"]}, "many": {"type": "array", "items": {}}}
    rows = encoded(schema, {"open": {"a": HUGE}, "either": "x", "many": [1, {}]}, {"either": 3, "new one": False})
    assert rows == [
        {"open": f'{{"a":{HUGE}}}', "either": '"x"', "many": "[1,{}]", "new one": None},
        {"open": None, "either": "3", "many": None, "new one": "false"},
    ]


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", "two\nlines", "ünïcode 🎂"])
def test_parquet_of_any_name(name: str) -> None:
    """Also where no struct can have the name, which is read another way then."""
    schema = {name: {"type": ["string", "null"]}, "open": {}}
    assert encoded(schema, {name: "x", "open": HUGE}, {}) == [
        {name: "x", "open": str(HUGE)},
        {name: None, "open": None},
    ]


def test_parquet_of_values_that_a_guessed_schema_does_not_fit() -> None:
    """The SDK guesses text for an expression whose type it does not know; values are converted to the schema."""
    schema = {
        "text": {"type": "string"},
        "whole": {"type": ["integer", "null"]},
        "number": {"type": ["number", "null"]},
        "list": {"type": "array", "items": {"type": "integer"}},
    }
    rows = encoded(schema, {"text": 5, "whole": 4.0, "number": 1, "list": [1, 2.0, None]}, {"text": None})
    assert rows[0] == {"text": "5", "whole": 4, "number": 1.0, "list": [1, 2, None]}
    assert rows[1] == dict.fromkeys(schema)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("integer", 2**63), ("integer", 1.5), ("integer", "1"), ("number", "1"), ("boolean", 1), ("integer", True)],
)
def test_parquet_refuses_what_it_cannot_hold(kind: str, value: Any) -> None:
    """The error names stream and column, not the value."""
    with pytest.raises(TapError, match=f"stream_maps: a of s is {kind} in its schema") as raised:
        encoded({"a": {"type": [kind, "null"]}}, {"a": value})
    assert str(value) not in str(raised.value).replace("a of s", "").replace(kind, "") or value == 1


def test_parquet_of_times() -> None:
    """Microseconds in UTC, and dates; a time that is more exact is rescued where there is a column for it."""
    times = {"at": {"type": ["string", "null"], "format": "date-time"}, "on": {"type": "string", "format": "date"}}
    nine = "2024-05-06T07:08:09.123456789Z"
    rows = [
        {"at": "2024-05-06T07:08:09.120Z", "on": "1969-12-31"},
        {"at": "0001-01-01T00:00:00Z"},
        {"at": "9999-12-31T23:59:59.999999Z"},
    ]
    found = encoded(times, *rows)
    assert found == [
        {"at": datetime(2024, 5, 6, 7, 8, 9, 120_000, tzinfo=UTC), "on": date(1969, 12, 31)},
        {"at": datetime(1, 1, 1, tzinfo=UTC), "on": None},
        {"at": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "on": None},
    ]
    whole = datetime(2024, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC)
    assert encoded(times, {"at": nine}) == [{"at": whole, "on": None}]
    rescuing = times | {"_rescued_data": {"type": ["object", "null"]}}
    first, second = encoded(rescuing, {"at": nine, "_rescued_data": {"a": 1}}, {"at": nine[:-4] + "Z"})
    assert (first["at"], second["at"]) == (None, whole)
    assert (json.loads(first["_rescued_data"]), second["_rescued_data"]) == ({"a": 1, "at": nine}, None)


def test_parquet_says_which_columns_are_json() -> None:
    schema = {"properties": {"open": {}, "at": {"type": "string"}}}
    content = encode("s", as_rows({"open": 1}), schema, compression="zstd")
    fields = pq.read_schema(pa.BufferReader(content))
    assert (fields.field("open").metadata, fields.field("at").metadata) == ({b"content": b"json"}, None)
