"""Whether decoded values may stay as they are: what the fast path asks of many at once, so that C does the looking."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tap_braze_export.rows.conform import MOST_LEVELS
from tap_braze_export.schema.table import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_braze_export.schema.table import Field

LONG = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""The type of an integer that fits a column."""
_MEMBER_TYPES: dict[Type, Any] = {
    Type.STRING: str | None,
    Type.INTEGER: LONG | None,
    Type.BOOLEAN: bool | None,
    Type.ARRAY: list[Raw] | None,
    Type.OBJECT: dict[str, Raw] | None,
}
"""Types of custom attributes that can be checked without looking at each value."""
_DATE_TIMES = msgspec.json.Decoder(list[Annotated[datetime, Meta(tz=True)]])
_DATES = msgspec.json.Decoder(list[date])
_FIGURES = bytes.maketrans(b"012345678E", b"999999999e")
"""Every digit as 9, every e as e."""
_EXPONENT = re.compile(rb"e999")
_OBJECT = {ord("{")}
_LONGEST = 300
_FEW_LEVELS = MOST_LEVELS - 10
_SHALLOW_BYTES = 2 * _FEW_LEVELS
"""What is opened is closed, too."""
_LONG_FIGURE = b"9" * 200
_LONG = re.compile(rb"\d{309}|\d{200}[\d.]*[eE]")  # an exponent of two figures may be too much for so many
_WIDE = re.compile(rb"(?:^|[\[:,])\s*-?[\d.]+[eE][+-]?\d{3}")


def _is_date_time(text: str) -> bool:
    """Whether it has the form that most dates have, and no form that the careful path would change."""
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
            and len(_DATE_TIMES.decode(f'["{joined}"]')) == len(texts)
        )
    except msgspec.MsgspecError:
        return False


def without_utc(values: Sequence[str]) -> list[str] | None:
    """Dates and times, some of them like `2020-07-10 15:00:00.000 UTC`, as RFC 3339; None if something else is odd."""
    joined = '","'.join(values)
    if " UTC" not in joined:
        return None
    written = joined.replace(" UTC", "Z").replace(" ", "T").split('","')
    return written if len(written) == len(values) and _are_date_times([*written]) else None


def _are_dates(values: list[str | None]) -> bool:
    texts = [*filter(None, values)]
    joined = '","'.join(texts)
    try:
        return "" not in values and len(_DATES.decode(f'["{joined}"]' if texts else "[]")) == len(texts)
    except msgspec.MsgspecError:
        return False


def _are_integers(values: list[int | str | None]) -> bool:
    numbers: list[Any] = values
    try:
        sum(numbers)  # the quickest look at all of them
    except TypeError:
        return {*map(type, values)} <= {int, NoneType}
    return True


def _are_numbers(values: list[Raw | None]) -> bool:
    numbers = [*filter(None, values)]
    joined = b",".join(numbers)
    plain = not joined.translate(None, b"0123456789.-,")
    return plain and (len(joined) < _LONGEST or max(map(len, joined.split(b","))) < _LONGEST)


@dataclass(frozen=True)
class Check:
    """Whether values may stay as they are: many at once, null among them; or by its form, one that is not null."""

    all: Callable[[list[Any]], bool]
    form: Callable[[Any], Any]

    @classmethod
    def by_form(cls, pattern: bytes) -> Check:
        """For types whose form says all."""
        form = re.compile(pattern).fullmatch
        return cls(lambda values: all(form(value) for value in values if value is not None), form)


CHECKS: Mapping[Type, Check] = {
    Type.INTEGER: Check(_are_integers, lambda value: type(value) is int),
    Type.DATE_TIME: Check(_are_date_times, _is_date_time),
    Type.TIMESTAMP: Check(
        lambda values: {*map(type, values)} <= {str, NoneType} and _are_date_times(values),
        lambda value: isinstance(value, str) and _is_date_time(value),
    ),
    Type.DATE: Check(_are_dates, len),
    Type.NUMBER: Check(_are_numbers, re.compile(rb"-?(0|[1-9]\d{0,99})(\.\d{1,99})?").fullmatch),
    Type.COORDINATES: Check.by_form(rb"\[-?\d{1,3}\.\d{1,300}, ?-?\d{1,3}\.\d{1,300}\]"),
}
"""By type."""


def attributes_decoder(column: Field) -> msgspec.json.Decoder[Any] | None:
    """Checks the typed members of many custom attributes at once; None where a type needs a look at each value."""
    if not column.members or not all(member.type in _MEMBER_TYPES for member in column.members):
        return None
    members = [(f"member_{index}", _MEMBER_TYPES[member.type], None) for index, member in enumerate(column.members)]
    names = {f"member_{index}": member.name for index, member in enumerate(column.members)}
    try:
        return msgspec.json.Decoder(list[msgspec.defstruct("Attributes", members, rename=names) | None])  # type: ignore[misc]
    except ValueError:
        return None  # a name that no struct can have


def are_attributes(contents: list[bytes], column: Field, decoder: msgspec.json.Decoder[Any] | None) -> bool:
    """Whether all are objects, and their typed members of their types."""
    if not column.members:
        return {content[0] for content in contents} <= _OBJECT
    if decoder is None:
        return False
    try:
        decoder.decode(b"[%b]" % b",".join(contents))
    except msgspec.MsgspecError:
        return False
    return True


def odd_among(contents: Sequence[bytes]) -> Iterator[int]:
    """Which raw JSON values cannot stay as they are, since they hold a number that no double holds."""
    if _may_be_odd(b"\n".join(contents)):
        for index, content in enumerate(contents):
            if _WIDE.search(content) or _LONG.search(content):
                yield index


def _may_be_odd(joined: bytes) -> bool:
    """A look that costs little: texts, such as a UUID with 9e999 in it, are told from numbers by what comes before."""
    figures = joined.translate(_FIGURES, b"+-")
    for found in _EXPONENT.finditer(figures):
        at = found.start()
        before = figures[max(0, at - _LONGEST) : at]
        if before.endswith((b"9", b".")) and before.rstrip(b"9.")[-1:] in b"[:,\n \t\r":
            return True
    return _LONG_FIGURE in figures


def are_readable(contents: Sequence[Raw]) -> bool:
    """Whether raw JSON can surely be read by all, wherever in a line it stands: see `is_readable`."""
    joined = b"\n".join(contents)
    deep = any(may_be_deep(bytes(content)) for content in contents if len(content) > _SHALLOW_BYTES)
    return _is_utf_8(joined) and b"\r" not in joined and not deep


def is_readable(line: bytes) -> bool:
    """Whether it is UTF-8, neither too deep nor with a carriage return: loaders would take that for a line's end."""
    if not _is_utf_8(line) or b"\r" in line:
        return False
    try:
        return not (may_be_deep(line) and is_too_deep(msgspec.json.decode(line)))
    except (msgspec.MsgspecError, RecursionError):  # it may also be that only another decoder reads a number
        return False


def _is_utf_8(content: bytes) -> bool:
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def may_be_deep(content: bytes) -> bool:
    """Whether so much is opened in it, all of it counted, that it may be too deep inside a user."""
    return len(content) > _SHALLOW_BYTES and content.count(b"{") + content.count(b"[") > _FEW_LEVELS


def is_too_deep(value: Any) -> bool:
    """Whether a decoded value has too many lists and objects inside each other."""
    level = [value]
    for _ in range(MOST_LEVELS):
        items = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for item in items for inner in item if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True
