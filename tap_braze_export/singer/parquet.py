"""Converts rows to Parquet, each column with the type that the stream's JSON schema gives it.

Text, dates and times are text, exactly as in RECORD messages. Objects and values without one type are JSON text,
so that no digit and no member is lost. A list of plain values is a list.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.errors import TapError
from tap_braze_export.rows.exact_json import ENCODER, Integer64
from tap_braze_export.schema.table import LARGEST_INTEGER, SMALLEST_INTEGER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.rows.rendered import Rows

_PLAIN_TYPES: dict[str, Any] = {"string": str, "integer": Integer64, "number": float, "boolean": bool}
_MISFIT: Any = object()
"""Stands for a value that its column cannot hold."""


@dataclass(frozen=True)
class Column:
    """A column of a Parquet file.

    Attributes:
        name: Its name.
        plain: The JSON schema's type of its values, or of its items if it is a list; empty for JSON text.
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

        types = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
        plain = types.get(self.plain, pa.string())
        return pa.list_(plain) if self.is_list else plain

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
    except msgspec.ValidationError:
        tables = []
    tables = tables or [_table(*_fitted(stream, rows, columns))]
    file = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), file, compression=compression)
    return file.getvalue()


def _table(columns: Iterable[Column], values: Iterable[list[Any]]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    arrays = [pa.array(column_values, column.arrow) for column, column_values in zip(columns, values, strict=True)]
    return pa.table(arrays, names=[column.name for column in columns])


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
    if plain == "boolean" or isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return _MISFIT
    if plain == "number":
        return float(value)
    whole = int(value)
    return whole if whole == value and SMALLEST_INTEGER <= whole <= LARGEST_INTEGER else _MISFIT


def _raw_text(raw: msgspec.Raw | None) -> bytes | None:
    """The JSON text of a value; None for null."""
    text = None if raw is None else bytes(raw)
    return None if text == b"null" else text
