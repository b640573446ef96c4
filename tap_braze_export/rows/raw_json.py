"""Checks of raw JSON values that stay the bytes they are, many at a time: what in them would have to change?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.rows.exact_json import SAFE_BYTES, is_too_deep, may_be_deep

if TYPE_CHECKING:
    from collections.abc import Sequence

_SAFE_NUMBER_CHARS = 300
"""A double holds every number of fewer characters that has no exponent."""
_UNSTORABLE_NUMBER = re.compile(
    rb"\d{309}|\d{200}[\d.]*[eE]"  # an exponent of two digits may be too much after so many digits
    rb"|(?:^|[\[:,])\s*-?[\d.]+[eE][+-]?\d{3}"
)
_DIGITS_AS_NINES = bytes.maketrans(b"012345678E", b"999999999e")
_THREE_DIGIT_EXPONENT = re.compile(rb"e999")
_MANY_DIGITS = b"9" * 200
_LIST_DECODER = msgspec.json.Decoder(list[Any])
_END_OF_NAME = b'":'
_NESTED = frozenset({dict, list})


def are_plain_numbers(numbers: Sequence[bytes]) -> bool:
    """True if they have no exponent, and a double holds each of them."""
    joined = b",".join(numbers)
    plain = not joined.translate(None, b"0123456789.-,")
    return plain and (len(joined) < _SAFE_NUMBER_CHARS or max(map(len, numbers)) < _SAFE_NUMBER_CHARS)


def unfit(contents: Sequence[bytes]) -> list[int]:
    """List the indexes of values that cannot stay as they are, as only decoding changes what is in them.

    They hold a number that no double holds, or an object, at any depth, in which a member stands twice: the last one
    wins. Members are counted in the text of all values, where a text may look like one more, and in what the decoder
    makes of it, which has each name once.
    """
    joined = b",".join(contents)
    spelled = joined.translate(_DIGITS_AS_NINES, b"+- \t\r")
    try:
        members = _count_members(_LIST_DECODER.decode(b"[%b]" % joined))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        members = -1
    may_repeat, may_be_unstorable = members != spelled.count(_END_OF_NAME), _may_have_unstorable_number(spelled)
    return [
        index
        for index, content in enumerate(contents if may_repeat or may_be_unstorable else ())
        if (may_be_unstorable and _UNSTORABLE_NUMBER.search(content)) or (may_repeat and _has_repeated_member(content))
    ]


def _may_have_unstorable_number(spelled: bytes) -> bool:
    """Cheap check of many values; the characters before tell a number from a text, such as a UUID with 9e999 in it."""
    for exponent in _THREE_DIGIT_EXPONENT.finditer(spelled):
        end = exponent.start()
        before = spelled[max(0, end - _SAFE_NUMBER_CHARS) : end]
        if before.endswith((b"9", b".")) and before.rstrip(b"9.")[-1:] in b"[:,":
            return True
    return _MANY_DIGITS in spelled


def _count_members(value: Any) -> int:
    """Count the members of all objects in a decoded value."""
    members, inside = (len(value), value.values()) if type(value) is dict else (0, value)
    for item in inside:
        if type(item) in _NESTED:
            members += _count_members(item)
    return members


class _RepeatedError(Exception):
    """A member stands twice in an object."""


def _has_repeated_member(content: bytes) -> bool:
    try:
        json.loads(content, object_pairs_hook=_once)
    except (_RepeatedError, ValueError, RecursionError):
        return True
    return False


def _once(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise _RepeatedError


def are_readable(contents: Sequence[bytes]) -> bool:
    """True if every loader can surely read these values, wherever in a line they stand: see `is_readable`."""
    joined = b"\n".join(contents)
    if not _is_utf_8(joined) or b"\r" in joined:
        return False
    return not any(may_be_deep(bytes(content)) for content in contents if len(content) > SAFE_BYTES)


def is_readable(line: bytes) -> bool:
    """True if it is UTF-8, not too deep, and has no carriage return, which loaders mistake for a line's end."""
    if not _is_utf_8(line) or b"\r" in line:
        return False
    try:
        return not (may_be_deep(line) and is_too_deep(msgspec.json.decode(line)))
    except (msgspec.MsgspecError, RecursionError):  # or only the careful path's decoder reads one of its numbers
        return False


def _is_utf_8(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False
