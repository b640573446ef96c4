"""Rows → Parquet, each column of the type that the stream's JSON schema says.

Text stays text, dates and times too: they are what RECORD messages hold, every digit of them. Objects, and whatever
the schema leaves open, are JSON text, so that no digit and no member is lost; a list of plain values is a list.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tap_braze_export.errors import TapError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.rows.rendered import Rows

_LONG = 2**63
_Long = Annotated[int, msgspec.Meta(ge=-_LONG, le=_LONG - 1)]
_PLAIN: dict[str, Any] = {"string": str | None, "integer": _Long | None, "number": float | None, "boolean": bool | None}
_LISTS: dict[str, Any] = {
    "string": list[str | None] | None,
    "integer": list[_Long | None] | None,
    "number": list[float | None] | None,
    "boolean": list[bool | None] | None,
}
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_UNFIT: Any = object()


@dataclass(frozen=True)
class Column:
    """A column: its plain type, empty for JSON text, and whether it is a list of such values."""

    name: str
    plain: str = ""
    is_list: bool = False

    @classmethod
    def of(cls, name: str, definition: Mapping[str, Any]) -> Column:
        """The column that a property of a JSON schema makes."""
        kind = _only_type(definition)
        if kind == "array" and (items := _only_type(definition.get("items") or {})) in _PLAIN:
            return cls(name, items, is_list=True)
        return cls(name, kind if kind in _PLAIN else "")

    @property
    def python(self) -> Any:
        """What its values are decoded to."""
        return (_LISTS if self.is_list else _PLAIN).get(self.plain, msgspec.Raw)

    @property
    def arrow(self) -> Any:
        """Its type in Parquet."""
        import pyarrow as pa  # noqa: PLC0415 - an extra

        types = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
        plain = types.get(self.plain, pa.string())
        return pa.list_(plain) if self.is_list else plain

    def fit(self, value: Any) -> Any:
        """A value of another form as one of this column: of stream maps the schema says what was guessed."""
        if value is None:
            return None
        if self.is_list and isinstance(value, list):
            items = [_fit(item, self.plain) for item in value]
            return _UNFIT if _UNFIT in items else items
        return _UNFIT if self.is_list else _fit(value, self.plain)


def encode(stream: str, rows: Rows, schema: Mapping[str, Any], *, compression: str) -> bytes:
    """The content of a Parquet file.

    Raises:
        TapError: If stream maps made a value that does not fit its column.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = [Column.of(name, definition) for name, definition in schema.get("properties", {}).items()]
    try:
        tables = [_table(columns, values) for values in _decoded(rows, columns)]
    except msgspec.ValidationError:
        tables = [_table(*_fitted(stream, rows, columns))]
    file = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), file, compression=compression)
    return file.getvalue()


def _table(columns: Iterable[Column], values: Iterable[list[Any]]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    arrays = [pa.array(found, column.arrow) for column, found in zip(columns, values, strict=True)]
    return pa.table(arrays, names=[column.name for column in columns])


def _decoded(rows: Rows, columns: Iterable[Column]) -> Iterator[list[list[Any]]]:
    """The values of each column, some rows at a time, if they are as the schema says."""
    named = {f"c{number}": column for number, column in enumerate(columns)}
    struct = msgspec.defstruct(
        "Row",
        [(attribute, column.python, None) for attribute, column in named.items()],
        rename={attribute: column.name for attribute, column in named.items()},
        forbid_unknown_fields=True,
        gc=False,
    )
    decoder = msgspec.json.Decoder(struct)
    for part in rows.parts:
        found = decoder.decode_lines(part)
        yield [
            [*map(attrgetter(name), found)] if column.plain else [_raw_text(getattr(row, name)) for row in found]
            for name, column in named.items()
        ]


def _fitted(stream: str, rows: Rows, columns: list[Column]) -> tuple[list[Column], list[list[Any]]]:
    """The values of each column, and of those that the schema does not know: flattening adds some."""
    objects = [*rows.objects()]
    known = {column.name for column in columns}
    extra = dict.fromkeys(name for row in objects for name in row if name not in known)
    columns = [*columns, *map(Column, extra)]
    values = []
    for column in columns:
        found = [column.fit(row.get(column.name)) for row in objects]
        if _UNFIT in found:
            wanted = f"list of {column.plain}" if column.is_list else column.plain
            raise TapError(
                f"stream_maps: {column.name} of {stream} is {wanted} in its schema and something else in a row, which "
                "a Parquet file cannot hold: convert it in the expression, or write jsonl"
            )
        values.append(found)
    return columns, values


def _only_type(definition: Mapping[str, Any]) -> str:
    """The one type that a JSON schema allows besides null; empty if there are several, or none is told."""
    given = definition.get("type", ())
    kinds = {given} if isinstance(given, str) else set(given)
    kinds.discard("null")
    return str(kinds.pop()) if len(kinds) == 1 else ""


def _fit(value: Any, plain: str) -> Any:
    if plain in {"", "string"}:
        return value if isinstance(value, str) and plain else _ENCODER.encode(value).decode()
    if value is None or (plain == "boolean" and isinstance(value, bool)):
        return value
    if plain == "boolean" or isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return _UNFIT
    if plain == "number":
        return float(value)
    whole = int(value)
    return whole if whole == value and -_LONG <= whole < _LONG else _UNFIT


def _raw_text(raw: msgspec.Raw | None) -> bytes | None:
    text = None if raw is None else bytes(raw)
    return None if text == b"null" else text
