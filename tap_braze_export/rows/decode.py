"""A line → the user object that it holds, every digit kept and every text storable, within limits.

Users of Braze have a few kilobytes, very large ones a megabyte. A list of two million empty objects has no more bytes
than those, but needs a thousand times the memory.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tap_braze_export.rows.conform import UNFIT, to_string
from tap_braze_export.rows.exact_json import DECODER, MOST_DIGITS, is_too_deep, may_be_deep, read_number
from tap_braze_export.schema.storable_text import storable

MAX_LINE_BYTES = 16 * 2**20
"""Bytes of the longest line that is decoded: its text may need four bytes a character, in several copies."""
MAX_OBJECTS = 30_000
"""Objects of a line: each may become a row."""
MAX_VALUES = 500_000
"""Lists of a line, and its members and items, with which commas in its texts are counted."""
MAX_ESCAPES = 1_000_000
"""Escapes of a line whose text has to be made storable."""
_FEW_BYTES = 3 * MAX_OBJECTS
"""A shorter line has room for no more: each object takes three bytes, each value two."""
_SHORTEST_USER = b'{"braze_id":1}'


class UnreadableLineError(ValueError):
    """The line is no JSON object, has no `braze_id`, is nested too deeply, or would become too much."""


def can_be_user(line: bytes) -> bool:
    """True if a line is long enough to hold a user, and will not need far more memory than its bytes."""
    if len(line) <= _FEW_BYTES:
        return len(line) >= len(_SHORTEST_USER)
    return (
        len(line) <= MAX_LINE_BYTES
        and line.count(b"{") <= MAX_OBJECTS
        and line.count(b"[") <= MAX_VALUES
        and line.count(b",") <= MAX_VALUES
    )


def decode_user(line: bytes) -> tuple[str, dict[str, Any]]:
    """Decode a line into its `braze_id` and object.

    Raises:
        UnreadableLineError: If it holds none.
    """
    if not can_be_user(line):
        raise UnreadableLineError
    try:
        user = _decode_repaired(line) if b"\\u0000" in line else DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        user = _decode_repaired(line)
    if not isinstance(user, dict):
        raise UnreadableLineError
    if may_be_deep(line) and is_too_deep(user):
        raise UnreadableLineError
    braze_id = to_string(user.get("braze_id"))
    if braze_id is UNFIT or braze_id == "":
        raise UnreadableLineError
    return braze_id, user


def _decode_repaired(line: bytes) -> Any:
    """Decode a line whose text has to be made storable, or whose integers only the standard library reads."""
    if line.count(b"\\") > MAX_ESCAPES:
        raise UnreadableLineError
    try:
        return _PATIENT_DECODER.decode(storable(line).decode())
    except (ValueError, RecursionError) as error:
        raise UnreadableLineError from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


_PATIENT_DECODER = json.JSONDecoder(
    parse_float=read_number,
    parse_int=lambda text: int(text) if len(text.lstrip("-")) <= MOST_DIGITS else text,
    parse_constant=_refuse_constant,
)
