"""Converts rows to Parquet, each column with the type that the stream's JSON schema gives it.

Times are microseconds in UTC; one with more digits is rescued. Objects and values without one type are JSON text, so
that no digit and no member is lost; the metadata of their columns says `{"content": "json"}`. A list of plain values
is a list.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.errors import TapError
from tap_braze_export.rows.exact_json import ENCODER, Integer64
from tap_braze_export.schema.table import LARGEST_INTEGER, RESCUED, SMALLEST_INTEGER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.rows.rendered import Rows

_PLAIN_TYPES: dict[str, Any] = {
    "string": str,
    "integer": Integer64,
    "number": float,
    "boolean": bool,
    "date-time": str,
    "date": str,
}
_TOO_EXACT = re.compile(r"[^.]*\.\d{7,}Z")
"""A time with more digits than microseconds have."""
_MISFIT: Any = object()
"""Stands for a value that its column cannot hold."""


@dataclass(frozen=True)
class Column:
    """A column of a Parquet file.

    Attributes:
        name: Its name.
        plain: The JSON schema's type of its values, or of its items if it is a list; for times and dates the format;
            empty for JSON text.
        is_list: True if it holds lists.
    """

    name: str
    plain: str = ""
    is_list: bool = False

    @classmethod
    def of(cls, name: str, definition: Mapping[str, Any]) -> Column:
        """The column for a property of a JSON schema."""
        kind = _only_type(definition)
        if kind == "array" and (items := _only_type(definition.get("items") or {})) in _PLAIN_TYPES:
            return cls(name, items, is_list=True)
        if kind == "string" and definition.get("format") in _PLAIN_TYPES:
            kind = definition["format"]
        return cls(name, kind if kind in _PLAIN_TYPES else "")

    @property
    def python(self) -> Any:
        """The Python type that its values are decoded to."""
        if not self.plain:
            return msgspec.Raw
        plain = _PLAIN_TYPES[self.plain] | None
        return list[plain] | None if self.is_list else plain  # type: ignore[valid-type]

    @property
    def arrow(self) -> Any:
        """Its type in Parquet."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        types = {
            "integer": pa.int64(),
            "number": pa.float64(),
            "boolean": pa.bool_(),
            "date-time": pa.timestamp("us", tz="UTC"),
            "date": pa.date32(),
        }
        plain = types.get(self.plain, pa.string())
        return pa.list_(plain) if self.is_list else plain

    @property
    def field(self) -> Any:
        """Its field in the schema of the file."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        return pa.field(self.name, self.arrow, metadata=None if self.plain else {"content": "json"})

    def array(self, values: list[Any]) -> Any:
        """Its values in Parquet's type; `ArrowInvalid` if a text is no time or date of this type."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        if self.plain in {"date-time", "date"}:
            return pa.array(values, pa.string()).cast(self.arrow)
        return pa.array(values, self.arrow)

    def fit(self, value: Any) -> Any:
        """Convert a value to this column's type: for stream maps the SDK only guesses the schema."""
        if value is None:
            return None
        if self.is_list and isinstance(value, list):
            items = [_fit(item, self.plain) for item in value]
            return _MISFIT if _MISFIT in items else items
        return _MISFIT if self.is_list else _fit(value, self.plain)


def encode(stream: str, rows: Rows, schema: Mapping[str, Any], *, compression: str) -> bytes:
    """Make the content of a Parquet file; `TapError` if stream maps made a value that its column cannot hold."""
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = [Column.of(name, definition) for name, definition in schema.get("properties", {}).items()]
    struct = _struct(columns)
    try:
        tables = [_table(columns, values) for values in _decoded(rows, columns, struct)] if struct else []
    except (msgspec.ValidationError, pa.ArrowInvalid):
        tables = []
    tables = tables or [_table(*_fitted(stream, rows, columns))]
    file = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), file, compression=compression)
    return file.getvalue()


def _table(columns: Iterable[Column], values: Iterable[list[Any]]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    arrays = [column.array(column_values) for column, column_values in zip(columns, values, strict=True)]
    return pa.table(arrays, schema=pa.schema([column.field for column in columns]))


def _struct(columns: Iterable[Column]) -> Any:
    """Make the struct of a row, with attributes c0, c1 and so on; None if a name is one that no struct can have."""
    named = {f"c{number}": column for number, column in enumerate(columns)}
    try:
        return msgspec.defstruct(
            "Row",
            [(attribute, column.python, None) for attribute, column in named.items()],
            rename={attribute: column.name for attribute, column in named.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
    except ValueError:
        return None


def _decoded(rows: Rows, columns: Sequence[Column], struct: Any) -> Iterator[list[list[Any]]]:
    """Yield the values of each column, part by part; `ValidationError` if one is not as the schema says."""
    decoder = msgspec.json.Decoder(struct)
    for part in rows.parts:
        decoded = decoder.decode_lines(part)
        yield [
            [*map(attrgetter(name), decoded)] if column.plain else [_raw_text(getattr(row, name)) for row in decoded]
            for name, column in zip(struct.__struct_fields__, columns, strict=True)
        ]


def _fitted(stream: str, rows: Rows, columns: list[Column]) -> tuple[list[Column], list[list[Any]]]:
    """Convert the values of each column, and of members that the schema lacks."""
    objects = [*rows.objects()]
    known = {column.name for column in columns}
    extra = dict.fromkeys(name for row in objects for name in row if name not in known)
    columns = [*columns, *map(Column, extra)]
    if RESCUED in known:
        _rescue_exact_times(objects, columns)
    values = []
    for column in columns:
        converted = [column.fit(row.get(column.name)) for row in objects]
        if _MISFIT in converted:
            wanted = f"list of {column.plain}" if column.is_list else column.plain
            raise TapError(
                f"stream_maps: {column.name} of {stream} is {wanted} in its schema and something else in a row, which "
                "a Parquet file cannot hold: convert it in the expression, or write jsonl"
            )
        values.append(converted)
    return columns, values


def _rescue_exact_times(objects: list[dict[str, Any]], columns: Iterable[Column]) -> None:
    """Move times with more digits than microseconds have into `_rescued_data`."""
    times = [column.name for column in columns if column.plain == "date-time"]
    for row in objects:
        exact = {name: row[name] for name in times if isinstance(row.get(name), str) and _TOO_EXACT.match(row[name])}
        if exact:
            row |= {**dict.fromkeys(exact), RESCUED: {**(row.get(RESCUED) or {}), **exact}}


def _only_type(definition: Mapping[str, Any]) -> str:
    """The only type that a JSON schema allows besides null; empty if it allows several or names none."""
    given = definition.get("type", ())
    kinds = {given} if isinstance(given, str) else set(given)
    kinds.discard("null")
    return str(kinds.pop()) if len(kinds) == 1 else ""


def _fit(value: Any, plain: str) -> Any:
    """Convert a value to a plain type, or to JSON text."""
    if plain in {"", "string"}:
        return value if isinstance(value, str) and plain else ENCODER.encode(value).decode()
    if value is None or (plain == "boolean" and isinstance(value, bool)):
        return value
    if plain in {"date-time", "date"}:
        return _moment(value, plain)
    if plain == "boolean" or isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return _MISFIT
    if plain == "number":
        return float(value)
    whole = int(value)
    return whole if whole == value and SMALLEST_INTEGER <= whole <= LARGEST_INTEGER else _MISFIT


def _moment(value: Any, plain: str) -> Any:
    """The text of a time in UTC, or of a date."""
    try:
        if plain == "date":
            return date.fromisoformat(value).isoformat()
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return _MISFIT
    return (found.astimezone(UTC) if found.tzinfo else found).replace(tzinfo=None).isoformat() + "Z"


def _raw_text(raw: msgspec.Raw | None) -> bytes | None:
    """The JSON text of a value; None for null."""
    text = None if raw is None else bytes(raw)
    return None if text == b"null" else text
