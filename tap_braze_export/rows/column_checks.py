"""Bulk checks of the fast path: is every value of a column already in its final form?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tap_braze_export.rows.exact_json import SAFE_BYTES, Integer64, is_too_deep, may_be_deep
from tap_braze_export.schema.table import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_braze_export.schema.table import Field

_MEMBER_TYPES: dict[Type, Any] = {
    Type.STRING: str | None,
    Type.INTEGER: Integer64 | None,
    Type.BOOLEAN: bool | None,
    Type.ARRAY: list[Raw] | None,
    Type.OBJECT: dict[str, Raw] | None,
}
"""The types of custom attributes that the decoder checks in bulk."""
_DATE_TIMES_DECODER = msgspec.json.Decoder(list[Annotated[datetime, Meta(tz=True)]])
_DATES_DECODER = msgspec.json.Decoder(list[date])
_FIRST_BYTE_OF_OBJECT = {ord("{")}
_SAFE_NUMBER_CHARS = 300
"""A double holds every number of fewer characters that has no exponent."""
_UNSTORABLE_NUMBER = re.compile(
    rb"\d{309}|\d{200}[\d.]*[eE]"  # an exponent of two digits may be too much after so many digits
    rb"|(?:^|[\[:,])\s*-?[\d.]+[eE][+-]?\d{3}"
)
_DIGITS_AS_NINES = bytes.maketrans(b"012345678E", b"999999999e")
"""Makes every digit 9 and every E an e."""
_THREE_DIGIT_EXPONENT = re.compile(rb"e999")
_MANY_DIGITS = b"9" * 200


def _is_usual_date_time(text: str) -> bool:
    """True if it has the form that most dates have, and no form that the careful path would change."""
    return text[10:11] == "T" and text.endswith(("Z", "+00:00")) and text.isupper()


def _are_date_times(values: list[str | None]) -> bool:
    texts: list[Any] = values
    try:
        joined = '","'.join(texts)
    except TypeError:
        texts = [text for text in values if text is not None]
        joined = '","'.join(texts)
    try:
        return not texts or (
            "t" not in joined
            and "z" not in joined
            and " " not in joined
            and (joined.count("Z") == len(texts) or joined.count("Z") + joined.count("+00:00") == len(texts))
            and len(_DATE_TIMES_DECODER.decode(f'["{joined}"]')) == len(texts)
        )
    except msgspec.MsgspecError:
        return False


def rewrite_utc(values: Sequence[str]) -> list[str] | None:
    """Rewrite dates and times as RFC 3339, some of them like `2020-07-10 15:00:00.000 UTC`; None if others are odd."""
    joined = '","'.join(values)
    if " UTC" not in joined:
        return None
    rewritten = joined.replace(" UTC", "Z").replace(" ", "T").split('","')
    return rewritten if len(rewritten) == len(values) and _are_date_times([*rewritten]) else None


def _are_dates(values: list[str | None]) -> bool:
    texts = [*filter(None, values)]
    joined = '","'.join(texts)
    try:
        return "" not in values and len(_DATES_DECODER.decode(f'["{joined}"]' if texts else "[]")) == len(texts)
    except msgspec.MsgspecError:
        return False


def _are_integers(values: list[int | str | None]) -> bool:
    numbers: list[Any] = values
    try:
        sum(numbers)  # the fastest way to touch all of them
    except TypeError:
        return {*map(type, values)} <= {int, NoneType}
    return True


def _are_numbers(values: list[Raw | None]) -> bool:
    numbers = [*filter(None, values)]
    joined = b",".join(numbers)
    plain = not joined.translate(None, b"0123456789.-,")
    return plain and (len(joined) < _SAFE_NUMBER_CHARS or max(map(len, joined.split(b","))) < _SAFE_NUMBER_CHARS)


@dataclass(frozen=True)
class Check:
    """The checks of one type.

    Attributes:
        are_final: True if all values, null among them, are in their final form.
        is_usual: True if one value that is not null has the usual form; `are_final` decides on values of that form.
    """

    are_final: Callable[[list[Any]], bool]
    is_usual: Callable[[Any], Any]

    @classmethod
    def by_pattern(cls, pattern: bytes) -> Check:
        """Make the check of a type whose values are final if they match a pattern."""
        matches = re.compile(pattern).fullmatch
        return cls(lambda values: all(matches(value) for value in values if value is not None), matches)


CHECKS: Mapping[Type, Check] = {
    Type.INTEGER: Check(_are_integers, lambda value: type(value) is int),
    Type.DATE_TIME: Check(_are_date_times, _is_usual_date_time),
    Type.TIMESTAMP: Check(
        lambda values: {*map(type, values)} <= {str, NoneType} and _are_date_times(values),
        lambda value: isinstance(value, str) and _is_usual_date_time(value),
    ),
    Type.DATE: Check(_are_dates, len),
    Type.NUMBER: Check(_are_numbers, re.compile(rb"-?(0|[1-9]\d{0,99})(\.\d{1,99})?").fullmatch),
    Type.COORDINATES: Check.by_pattern(rb"\[-?\d{1,3}\.\d{1,300}, ?-?\d{1,3}\.\d{1,300}\]"),
}
"""The checks by type; the decoder itself checks the other types."""


def attributes_decoder(column: Field) -> msgspec.json.Decoder[Any] | None:
    """Make a decoder that checks the typed members of many custom attributes; None if it cannot check all of them."""
    checked = _checked(column)
    if not checked or any(member.is_edited or member.type not in _MEMBER_TYPES for member in checked):
        return None
    members = [(f"member_{index}", _MEMBER_TYPES[member.type], None) for index, member in enumerate(checked)]
    names = {f"member_{index}": member.name for index, member in enumerate(checked)}
    try:
        return msgspec.json.Decoder(list[msgspec.defstruct("Attributes", members, rename=names) | None])  # type: ignore[misc]
    except ValueError:
        return None  # a name that no struct can have


def _checked(column: Field) -> list[Field]:
    """List the members that not every JSON value fits; the decoder skips all others."""
    return [member for member in column.members if member.type is not Type.ANY or member.is_edited]


def are_attributes(contents: list[bytes], column: Field, decoder: msgspec.json.Decoder[Any] | None) -> bool:
    """True if all are objects, and their typed members of their types."""
    if not _checked(column):
        return {content[0] for content in contents} <= _FIRST_BYTE_OF_OBJECT
    if decoder is None:
        return False
    try:
        decoder.decode(b"[%b]" % b",".join(contents))
    except msgspec.MsgspecError:
        return False
    return True


def unstorable_numbers(contents: Sequence[bytes]) -> Iterator[int]:
    """Yield the index of each raw JSON value that cannot stay as it is: it holds a number that no double holds."""
    if _may_have_unstorable_number(b"\n".join(contents)):
        for index, content in enumerate(contents):
            if _UNSTORABLE_NUMBER.search(content):
                yield index


def _may_have_unstorable_number(joined: bytes) -> bool:
    """Cheap check of many values; the characters before tell a number from a text, such as a UUID with 9e999 in it."""
    nines = joined.translate(_DIGITS_AS_NINES, b"+-")
    for exponent in _THREE_DIGIT_EXPONENT.finditer(nines):
        end = exponent.start()
        before = nines[max(0, end - _SAFE_NUMBER_CHARS) : end]
        if before.endswith((b"9", b".")) and before.rstrip(b"9.")[-1:] in b"[:,\n \t\r":
            return True
    return _MANY_DIGITS in nines


def are_readable(contents: Sequence[Raw]) -> bool:
    """True if every loader can surely read these raw JSON values, wherever in a line they stand: see `is_readable`."""
    joined = b"\n".join(contents)
    deep = any(may_be_deep(bytes(content)) for content in contents if len(content) > SAFE_BYTES)
    return _is_utf_8(joined) and b"\r" not in joined and not deep


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
