"""Values → columns: a value is conformed to the column's type if nothing is lost, else it is unfit and gets rescued.

Each `to_…` function receives a decoded JSON value other than null (numbers with a fraction or exponent as `Decimal`, so
that no digit is lost) and returns what the column holds, or `UNFIT`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_braze_export.rows.exact_json import json_text, read_number
from tap_braze_export.schema.table import LARGEST_INTEGER, SMALLEST_INTEGER, Type, own_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field

UNFIT: Final[Any] = object()
"""Returned for a value that does not fit the type."""
NESTED = (Type.COORDINATES, Type.ARRAY, Type.OBJECT, Type.ANY)
"""The types whose values are JSON text where a catalog wants text."""

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?) ?(?:(UTC|[Zz])|([+-]\d\d):?(\d\d))", re.ASCII
)
_FIRST_EPOCH_IN_MILLISECONDS = 10**11
_EPOCH_LIMIT = 10**17
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


def to_string(value: Any) -> Any:
    """Return text as it is; a number or boolean as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return str(value)
    return UNFIT


def to_integer(value: Any) -> Any:
    """Return a whole number within 64 bits, also where it is written as text or as 12.0."""
    if isinstance(value, bool):
        return UNFIT
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            return UNFIT
        value = int(value)
    if not isinstance(value, (int, Decimal)) or not SMALLEST_INTEGER <= value <= LARGEST_INTEGER or value != int(value):
        return UNFIT
    return int(value)


def to_number(value: Any) -> Any:
    """Return a number that a double can hold, also where it is written as text."""
    if isinstance(value, bool):
        return UNFIT
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            return UNFIT
        value = read_number(value)
    if not isinstance(value, (int, Decimal)):
        return UNFIT
    try:
        return value if math.isfinite(value) else UNFIT
    except OverflowError:
        return UNFIT


def to_boolean(value: Any) -> Any:
    """Return true or false, also where it is written as text."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), UNFIT)
    return value if isinstance(value, bool) else UNFIT


def to_date_time(value: Any) -> Any:
    """Return a date and time with a zone as RFC 3339, every digit kept; Braze also writes a blank for T, and ` UTC`.

    Another offset than UTC's becomes Z, at the same instant: some loaders drop it. The instant must exist. "" is null.
    """
    if not isinstance(value, str):
        return UNFIT
    if value == "":
        return None
    found = _DATE_TIME.fullmatch(value)
    if not found:
        return UNFIT
    day, time, utc, hours, minutes = found.groups()
    zone = "Z" if utc else f"{hours}:{minutes}"
    seconds, point, fraction = time.partition(".")
    try:
        instant = msgspec.convert(f"{day}T{seconds}{zone}", datetime)
        in_utc = instant.astimezone(UTC).replace(tzinfo=None)
    except (msgspec.ValidationError, OverflowError):
        return UNFIT
    if not instant.utcoffset():
        return f"{day}T{time}{zone}"
    return f"{in_utc.isoformat()}{point}{fraction}Z"


def to_timestamp(value: Any) -> Any:
    """Return a date and time, given as such or as an epoch: seconds, milliseconds from 10^11 on."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return to_date_time(value)
    number = to_number(value)
    if number is UNFIT or abs(number) >= _EPOCH_LIMIT:
        return UNFIT
    microseconds = number * (1000 if abs(number) >= _FIRST_EPOCH_IN_MILLISECONDS else 1_000_000)
    if microseconds != int(microseconds):
        return UNFIT
    try:
        instant = _EPOCH_START + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return UNFIT
    whole = instant.microsecond % 1000 == 0
    return instant.isoformat(timespec="milliseconds" if whole else "microseconds").replace("+00:00", "Z")


def to_date(value: Any) -> Any:
    """Return a calendar day as YYYY-MM-DD; "" is null."""
    if value == "":
        return None
    if not isinstance(value, str) or len(value) != len("YYYY-MM-DD"):
        return UNFIT
    try:
        return value if date.fromisoformat(value).isoformat() == value else UNFIT
    except ValueError:
        return UNFIT


def to_coordinates(value: Any) -> Any:
    """Return numbers that all have a decimal point, as some loaders type an array by its first element; [] is null."""
    if not isinstance(value, list):
        return UNFIT
    numbers = [to_number(number) for number in value]
    if UNFIT in numbers:
        return UNFIT
    return [_with_point(number) for number in numbers] or None


def _with_point(number: int | Decimal) -> msgspec.Raw:
    text = format(Decimal(number), "f")
    return msgspec.Raw((text if "." in text else f"{text}.0").encode())


CONFORM: Mapping[Type, Callable[[Any], Any]] = {
    Type.STRING: to_string,
    Type.INTEGER: to_integer,
    Type.NUMBER: to_number,
    Type.BOOLEAN: to_boolean,
    Type.DATE_TIME: to_date_time,
    Type.TIMESTAMP: to_timestamp,
    Type.DATE: to_date,
    Type.COORDINATES: to_coordinates,
    Type.ARRAY: lambda value: value if isinstance(value, list) else UNFIT,
    Type.OBJECT: lambda value: value if isinstance(value, dict) else UNFIT,
    Type.ANY: lambda value: value,
}
"""The conforming function of each type."""


def conform_to(column: Field) -> Callable[[Any], Any]:
    """Return the function that conforms values to a column, or to a member of an open object, as the catalog has it."""
    to_type = CONFORM[column.type]
    if column.loaded is Type.NUMBER:
        return _to_exact_number
    if column.loaded is Type.STRING:
        if column.type in NESTED:
            return lambda value: _as_json_text(to_type(value))
        return partial(_to_text, to_type) if own_format(column.type) else to_string
    if column.items:
        return partial(_to_items, conform_to(column.items), nullable=column.items.nullable)
    if column.type is Type.ANY and column.kinds:
        return partial(_to_any_of, frozenset(column.kinds))
    return to_type


def _as_json_text(value: Any) -> Any:
    return value if value is UNFIT or value is None else json_text(value)


def _to_text(to_type: Callable[[Any], Any], value: Any) -> Any:
    """Return a date in the form that it has in a column of dates; any other value as text."""
    fitting = to_type(value)
    return to_string(value) if fitting is UNFIT else fitting


def _to_exact_number(value: Any) -> Any:
    """Return a number; a whole one only if a double holds it exactly, as loaders make one of it."""
    number = to_number(value)
    if number is UNFIT or number != int(number) or int(float(number)) == int(number):
        return number
    return UNFIT


def _to_items(to_item: Callable[[Any], Any], value: Any, *, nullable: bool) -> Any:
    """Return a list if each of its items fits."""
    if not isinstance(value, list):
        return UNFIT
    items = [(None if nullable else UNFIT) if item is None else to_item(item) for item in value]
    return UNFIT if any(item is UNFIT for item in items) else items


def _to_any_of(kinds: AbstractSet[str], value: Any) -> Any:
    """Return a value that has one of several JSON types, else as text where they allow it."""
    if isinstance(value, (list, dict)):
        return value if ("array" if isinstance(value, list) else "object") in kinds else UNFIT
    if isinstance(value, str):
        return value if "string" in kinds else UNFIT
    if isinstance(value, bool):
        fitting = value if "boolean" in kinds else UNFIT
    else:
        fitting = value if "number" in kinds else to_integer(value) if "integer" in kinds else UNFIT
    return to_string(value) if fitting is UNFIT and "string" in kinds else fitting


def as_loaded(columns: Iterable[Field], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return these columns of a row that the tap makes itself, as the catalog has them; nothing is rescued there."""
    return {column.name: _loaded(column, row[column.name]) for column in columns if column.name in row}


def _loaded(column: Field, value: Any) -> Any:
    fitting = value if value is None or not column.loaded else conform_to(column)(value)
    return value if fitting is UNFIT else fitting


def conformer(column: Field, selection: Selection | None) -> Callable[[Any, dict[str, Any]], Any]:
    """Return the function that conforms a member of Braze's object to its column.

    It is called with a value other than null and the row's rescued data, to which it adds what does not fit.
    """
    name = column.name
    to_type = conform_to(column)

    def conform(value: Any, rescued: dict[str, Any]) -> Any:
        fitting = to_type(value)
        if fitting is UNFIT:
            rescued[name] = value
            return None
        return fitting

    dropped = selection.dropped.get(name, frozenset()) if selection else frozenset()
    if not column.members and not dropped:
        return conform
    members = {member.name: conform_to(member) for member in column.members}
    # Deselecting one custom attribute makes the selected ones a closed list.
    closed = name == "custom_attributes" and bool(dropped)

    def conform_members(value: Any, rescued: dict[str, Any]) -> Any:
        if not isinstance(value, dict):
            return conform(value, rescued)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            to_member = members.get(key)
            if to_member is None:
                if key not in dropped and not closed:
                    kept[key] = item
            elif item is None:
                kept[key] = None
            else:
                fitting = to_member(item)
                if fitting is UNFIT:
                    rescued[f"{name}.{key}"] = item
                kept[key] = None if fitting is UNFIT else fitting
        return json_text(kept) if column.loaded else kept

    return conform_members
