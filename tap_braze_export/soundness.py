"""Whether decoded values may stay as they are: what the fast path asks of many at once, so that C does the looking."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tap_braze_export.conform import MOST_LEVELS
from tap_braze_export.table import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_braze_export.table import Field

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
_FIGURES = bytes(57 if 48 <= byte <= 57 else 101 if byte in b"eE" else 32 for byte in range(256))  # noqa: PLR2004
"""Every digit as 9, every e as e, all else as blanks: what may be a number that no double holds is found by that."""
_DEEP = MOST_LEVELS - 10
"""So many opened lists and objects may be nested too deeply, where the user around them is counted too."""
_LONG_FIGURE = b"9" * 309
_ODD_NUMBER = re.compile(rb"(?:\A|[\[:,])\s*-?[\d.]+[eE][+-]?\d{3}|\d{309}")


def _is_date_time(text: str) -> bool:
    """Whether it has the form that most dates have, and no form that the careful path would change."""
    return text[10:11] == "T" and text.endswith(("Z", "+00:00")) and text.isupper()


def _are_date_times(values: list[str]) -> bool:
    joined = '","'.join(values)
    try:
        return (
            joined.isupper()
            and " " not in joined
            and joined.count("Z") + joined.count("+00:00") == len(values)
            and len(_DATE_TIMES.decode(f'["{joined}"]')) == len(values)
        )
    except msgspec.MsgspecError:
        return False


def _are_dates(values: list[str]) -> bool:
    joined = '","'.join(values)
    try:
        return len(_DATES.decode(f'["{joined}"]')) == len(values)
    except msgspec.MsgspecError:
        return False


@dataclass(frozen=True)
class Check:
    """Whether values may stay as they are: many at once; or by its form, one that spoils the others."""

    all: Callable[[list[Any]], bool]
    form: Callable[[Any], Any]

    @classmethod
    def by_form(cls, pattern: bytes) -> Check:
        """For types whose form says all."""
        form = re.compile(pattern).fullmatch
        return cls(lambda values: all(map(form, values)), form)


_DATE_TIME = Check(_are_date_times, _is_date_time)
CHECKS: Mapping[Type, Check] = {
    Type.DATE_TIME: _DATE_TIME,
    Type.TIMESTAMP: _DATE_TIME,
    Type.DATE: Check(_are_dates, len),
    Type.NUMBER: Check.by_form(rb"-?(0|[1-9]\d{0,299})(\.\d{1,300})?|null"),
    Type.COORDINATES: Check.by_form(rb"\[-?\d{1,3}\.\d{1,300}, ?-?\d{1,3}\.\d{1,300}\]"),
}
"""By type."""


def attributes_decoder(column: Field) -> msgspec.json.Decoder[Any] | None:
    """Checks many custom attributes at once; None where a type needs a look at each value."""
    if not all(member.type in _MEMBER_TYPES for member in column.members):
        return None
    members = [(f"member_{index}", _MEMBER_TYPES[member.type], None) for index, member in enumerate(column.members)]
    names = {f"member_{index}": member.name for index, member in enumerate(column.members)}
    try:
        return msgspec.json.Decoder(list[msgspec.defstruct("Attributes", members, rename=names) | None])  # type: ignore[misc]
    except ValueError:
        return None  # a name that no struct can have


def are_attributes(contents: list[bytes], decoder: msgspec.json.Decoder[Any]) -> bool:
    """Whether all are objects or null, and their typed members of their types."""
    joined = b"[%b]" % b",".join(contents)
    try:
        joined.decode()  # the decoder checks the form alone of what it does not look at
        decoder.decode(joined)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def is_odd(content: bytes) -> bool:
    """Whether raw JSON cannot stay as it is: a number that no double holds, no UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    figures = content.translate(_FIGURES, b"+-")
    return (b"9e999" in figures or _LONG_FIGURE in figures) and _ODD_NUMBER.search(content) is not None


def may_be_deep(content: bytes) -> bool:
    """Whether there may be too many levels in it."""
    return len(content) > _DEEP and content.count(b"{") + content.count(b"[") > _DEEP
