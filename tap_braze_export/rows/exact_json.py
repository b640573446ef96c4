"""JSON as the tap reads and writes it: every digit is kept, and what would end a load is kept out."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tap_braze_export.schema.table import LARGEST_INTEGER, SMALLEST_INTEGER

MOST_LEVELS = 500
"""Lists and objects inside each other; loaders written in Python give up before 1,000, depending on their own stack."""
MOST_DIGITS = 4300
"""Digits of the longest integer that Python, and with it most loaders, reads by default."""
Integer64 = Annotated[int, Meta(ge=SMALLEST_INTEGER, le=LARGEST_INTEGER)]
"""The type of an integer that fits a column."""

_WIDEST_EXPONENT = 400
_SAFE_LEVELS = MOST_LEVELS - 10  # the user object adds a few levels around a value inside it
SAFE_BYTES = 2 * _SAFE_LEVELS
"""Each level takes two bytes, so a text of no more bytes cannot be too deep."""


def read_number(text: str) -> Decimal | str:
    """Read a number that JSON writes with a fraction or exponent, every digit kept.

    One that no double and no database column holds stays text, because it would end the load or become infinite there.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:  # the exponent is beyond even Decimal's
        return text
    double = float(text)
    fits = math.isfinite(double) and bool(double) == bool(number) and abs(number.adjusted()) <= _WIDEST_EXPONENT
    return number if fits and len(text) <= MOST_DIGITS else text


ENCODER = msgspec.json.Encoder(decimal_format="number")
_SORTING_ENCODER = msgspec.json.Encoder(decimal_format="number", order="deterministic")
DECODER = msgspec.json.Decoder(float_hook=read_number)


def json_text(value: Any) -> str:
    """Return a value as JSON text; members are sorted, so that it is the same whatever order Braze writes them in."""
    return _SORTING_ENCODER.encode(value).decode()


def may_be_deep(content: bytes) -> bool:
    """True if JSON text opens so many lists and objects that it may be too deep inside a user."""
    return len(content) > SAFE_BYTES and content.count(b"{") + content.count(b"[") > _SAFE_LEVELS


def is_too_deep(value: Any, *, most_levels: int = MOST_LEVELS) -> bool:
    """True if a decoded value has more lists and objects inside each other than `most_levels`."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most_levels):
        items = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for item in items for inner in item if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True
