"""Values → columns: what can be conformed to a type without loss is, anything else is unfit and gets rescued.

Each function takes a decoded JSON value other than null (numbers with a fraction or exponent as `Decimal`, so that no
digit is lost) and returns what the column holds, or `UNFIT`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_braze_export.schema.table import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNFIT: Final[Any] = object()
"""What a conforming function returns for a value that does not fit the type."""

MOST_LEVELS = 500
"""Lists and objects inside each other; loaders written in Python give up before 1,000, depending on their own stack."""
MOST_DIGITS = 4300
"""Digits of the longest integer that Python, and with it most loaders, reads without being asked."""

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_WIDEST_EXPONENT = 400
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?) ?(?:(UTC|[Zz])|([+-]\d\d):?(\d\d))", re.ASCII
)
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_MILLISECONDS_FROM = 10**11
_BEYOND_TIME = 10**17
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_number(text: str) -> Decimal | str:
    """The number that JSON writes with a fraction or exponent, every digit kept.

    One that no double and no database column holds stays text, because it would end the load or become infinite there.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:  # the exponent is beyond even Decimal's
        return text
    double = float(text)
    fits = math.isfinite(double) and bool(double) == bool(number) and abs(number.adjusted()) <= _WIDEST_EXPONENT
    return number if fits and len(text) <= MOST_DIGITS else text


def to_string(value: Any) -> Any:
    """Text as it is; a number or boolean as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return str(value)
    return UNFIT


def to_integer(value: Any) -> Any:
    """A whole number within 64 bits, also where it is written as text or as 12.0."""
    if isinstance(value, bool):
        return UNFIT
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            return UNFIT
        value = int(value)
    if not isinstance(value, (int, Decimal)) or not _SMALLEST <= value <= _LARGEST or value != int(value):
        return UNFIT
    return int(value)


def to_number(value: Any) -> Any:
    """A number that a double can hold, also where it is written as text."""
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
    """True or false, also where it is written as text."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), UNFIT)
    return value if isinstance(value, bool) else UNFIT


def to_date_time(value: Any) -> Any:
    """A date and time with a zone as RFC 3339, its digits untouched; Braze also writes a blank for T, and ` UTC`.

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
    """A date and time, or an epoch: seconds, milliseconds from 10^11 on."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return to_date_time(value)
    number = to_number(value)
    if number is UNFIT or abs(number) >= _BEYOND_TIME:
        return UNFIT
    microseconds = number * (1000 if abs(number) >= _MILLISECONDS_FROM else 1_000_000)
    if microseconds != int(microseconds):
        return UNFIT
    try:
        instant = _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return UNFIT
    whole = instant.microsecond % 1000 == 0
    return instant.isoformat(timespec="milliseconds" if whole else "microseconds").replace("+00:00", "Z")


def to_date(value: Any) -> Any:
    """A calendar day as YYYY-MM-DD; "" as null."""
    if value == "":
        return None
    if not isinstance(value, str) or len(value) != len("YYYY-MM-DD"):
        return UNFIT
    try:
        return value if date.fromisoformat(value).isoformat() == value else UNFIT
    except ValueError:
        return UNFIT


def to_coordinates(value: Any) -> Any:
    """Numbers that all have a decimal point, because some loaders type an array by its first element; [] as null."""
    if not isinstance(value, list):
        return UNFIT
    numbers = [to_number(number) for number in value]
    if UNFIT in numbers:
        return UNFIT
    return [_with_point(number) for number in numbers] or None


def _with_point(number: int | Decimal) -> msgspec.Raw:
    text = format(Decimal(number), "f")
    return msgspec.Raw((text if "." in text else f"{text}.0").encode())


def to_array(value: Any) -> Any:
    """A list, as it is."""
    return value if isinstance(value, list) else UNFIT


def to_object(value: Any) -> Any:
    """An object, as it is."""
    return value if isinstance(value, dict) else UNFIT


CONFORM: Mapping[Type, Callable[[Any], Any]] = {
    Type.STRING: to_string,
    Type.INTEGER: to_integer,
    Type.NUMBER: to_number,
    Type.BOOLEAN: to_boolean,
    Type.DATE_TIME: to_date_time,
    Type.TIMESTAMP: to_timestamp,
    Type.DATE: to_date,
    Type.COORDINATES: to_coordinates,
    Type.ARRAY: to_array,
    Type.OBJECT: to_object,
}
"""The conforming function of each type."""
