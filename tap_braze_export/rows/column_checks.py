"""Conforms the columns of the fast path's structs, many values at a time: most are in their final form already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from itertools import chain
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw

from tap_braze_export.rows.conform import UNFIT, conform_to, conformer
from tap_braze_export.rows.exact_json import DECODER, Integer64
from tap_braze_export.rows.raw_json import are_plain_numbers, unfit
from tap_braze_export.schema.table import RESCUED, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field

    ConformColumns = Callable[[Sequence[Any], set[str]], None]
    """Conforms columns of structs; adds the `braze_id` of each that the careful path has to read to the set."""

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


def conform_columns(columns: Iterable[Field], selection: Selection) -> Iterator[ConformColumns]:
    """Yield the functions that conform the columns of a struct; none for what the decoder has checked."""
    date_times = [column for column in columns if column.type is Type.DATE_TIME and not column.loaded]
    if date_times:
        yield partial(_conform_date_times, date_times, [attrgetter(column.name) for column in date_times])
    for column in columns:
        if column in date_times:
            continue
        if column.name == "custom_attributes":
            yield _conform_attributes(column, selection)
        elif column.type is Type.OBJECT and column.name != RESCUED:
            yield from _conform_flags(column, selection)
        elif column.loaded:
            yield partial(_conform_values, column.name, conform_to(column))
        elif column.type in _CHECKS:
            yield partial(_conform_checked, column, attrgetter(column.name), _CHECKS[column.type])


def _conform_date_times(
    columns: Sequence[Field], getters: Sequence[Callable[[Any], Any]], objects: Sequence[Any], refused: set[str]
) -> None:
    """Check all dates and times of objects at once, else column by column."""
    check = _CHECKS[Type.DATE_TIME]
    if not check.are_final([*chain.from_iterable(map(get, objects) for get in getters)]):
        for column, get in zip(columns, getters, strict=True):
            _conform_checked(column, get, check, objects, refused)


def _conform_checked(
    column: Field, get: Callable[[Any], Any], check: _Check, objects: Sequence[Any], refused: set[str]
) -> None:
    """Check all values of a column at once; where some are not final, conform those of an unusual form one by one."""
    if check.are_final([*map(get, objects)]):
        return
    holders = [item for item in objects if get(item) is not None]
    if column.type is Type.DATE_TIME and (rewritten := _rewrite_utc([*map(get, holders)])):
        for item, text in zip(holders, rewritten, strict=True):
            setattr(item, column.name, text)
        return
    usual = [item for item in holders if check.is_usual(get(item))]
    unusual = [item for item in holders if not check.is_usual(get(item))]
    one_by_one = unusual if check.are_final([*map(get, usual)]) else holders
    _conform_values(column.name, conform_to(column), one_by_one, refused)


def _conform_values(name: str, to_type: Callable[[Any], Any], objects: Iterable[Any], refused: set[str]) -> None:
    for item in objects:
        value = getattr(item, name)
        if isinstance(value, Raw):
            try:
                value = DECODER.decode(value)
            except (UnicodeDecodeError, msgspec.MsgspecError):  # well formed, but an integer of too many digits
                value = UNFIT
        if value is UNFIT or (value is not None and (value := to_type(value)) is UNFIT):
            refused.add(item.braze_id)
            value = None
        setattr(item, name, value)


def _conform_flags(column: Field, selection: Selection) -> Iterator[ConformColumns]:
    """Drop deselected members of an object of flags; conform the others where the catalog has edited them."""
    is_edited = column.loaded or any(member.type is not Type.BOOLEAN or member.is_edited for member in column.members)
    if not is_edited and not selection.dropped.get(column.name):
        return
    name, conform = column.name, conformer(column, selection)

    def conform_all(objects: Sequence[Any], refused: set[str]) -> None:
        for item in objects:
            rescued: dict[str, Any] = {}
            if (flags := getattr(item, name)) is not None:
                setattr(item, name, conform(flags, rescued))
                if rescued:
                    refused.add(item.braze_id)

    yield conform_all


def _conform_attributes(column: Field, selection: Selection) -> ConformColumns:
    """Check the custom attributes of all users; they stay the bytes they are unless something in them has to change."""
    conform = conformer(column, selection)
    may_be_final = not selection.dropped.get(column.name) and not column.loaded
    are_typed = attributes_check(column) if may_be_final else None

    def conform_all(users: Sequence[Any], refused: set[str]) -> None:
        holders = [user for user in users if user.custom_attributes is not None]
        contents = [bytes(user.custom_attributes) for user in holders]
        are_final = are_typed and are_typed(contents)
        for index in unfit(contents) if are_final else range(len(holders)):
            user, rescued = holders[index], dict[str, Any]()
            try:
                value = DECODER.decode(contents[index])
            except (UnicodeDecodeError, msgspec.MsgspecError):
                refused.add(user.braze_id)
                continue
            user.custom_attributes = None if value is None else conform(value, rescued)
            if rescued:
                refused.add(user.braze_id)

    return conform_all


def attributes_check(column: Field) -> Callable[[Sequence[bytes]], bool] | None:
    """Return the function that tells if all are objects with typed members of their types; None if none can tell."""
    typed = [member for member in column.members if member.type is not Type.ANY or member.is_edited]
    if not typed:
        return lambda contents: all(content.startswith(b"{") for content in contents)
    if any(member.is_edited or member.type not in _MEMBER_TYPES for member in typed):
        return None
    members = [(f"member_{index}", _MEMBER_TYPES[member.type], None) for index, member in enumerate(typed)]
    names = {f"member_{index}": member.name for index, member in enumerate(typed)}
    try:
        decoder = msgspec.json.Decoder(list[msgspec.defstruct("Attributes", members, rename=names) | None])  # type: ignore[misc]
    except ValueError:
        return None  # a name that no struct can have

    def are_typed(contents: Sequence[bytes]) -> bool:
        try:
            decoder.decode(b"[%b]" % b",".join(contents))
        except msgspec.MsgspecError:
            return False
        return True

    return are_typed


def _is_usual_date_time(text: str) -> bool:
    """True if it has the form that most dates have, and no form that the careful path would change."""
    return text[10:11] == "T" and text.endswith(("Z", "+00:00")) and text.isupper()


def _are_date_times(values: Sequence[str | None]) -> bool:
    texts: Sequence[Any] = values
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


def _rewrite_utc(values: Sequence[str]) -> list[str] | None:
    """Rewrite dates and times as RFC 3339, some of them like `2020-07-10 15:00:00.000 UTC`; None if others are odd."""
    joined = '","'.join(values)
    if " UTC" not in joined:
        return None
    rewritten = joined.replace(" UTC", "Z").replace(" ", "T").split('","')
    return rewritten if len(rewritten) == len(values) and _are_date_times(rewritten) else None


def _are_dates(values: Sequence[str | None]) -> bool:
    texts = [*filter(None, values)]
    joined = '","'.join(texts)
    try:
        return "" not in values and len(_DATES_DECODER.decode(f'["{joined}"]' if texts else "[]")) == len(texts)
    except msgspec.MsgspecError:
        return False


def _are_integers(values: Sequence[int | str | None]) -> bool:
    numbers: Sequence[Any] = values
    try:
        sum(numbers)  # the fastest way to touch all of them
    except TypeError:
        return {*map(type, values)} <= {int, NoneType}
    return True


@dataclass(frozen=True)
class _Check:
    """The checks of one type.

    Attributes:
        are_final: True if all values, null among them, are in their final form.
        is_usual: True if one value that is not null has the usual form; `are_final` decides on values of that form.
    """

    are_final: Callable[[list[Any]], bool]
    is_usual: Callable[[Any], Any]


_are_coordinates = re.compile(rb"\[-?\d{1,3}\.\d{1,300}, ?-?\d{1,3}\.\d{1,300}\]").fullmatch
_CHECKS: Mapping[Type, _Check] = {
    Type.INTEGER: _Check(_are_integers, lambda value: type(value) is int),
    Type.DATE_TIME: _Check(_are_date_times, _is_usual_date_time),
    Type.TIMESTAMP: _Check(
        lambda values: {*map(type, values)} <= {str, NoneType} and _are_date_times(values),
        lambda value: isinstance(value, str) and _is_usual_date_time(value),
    ),
    Type.DATE: _Check(_are_dates, len),
    Type.NUMBER: _Check(
        lambda values: are_plain_numbers([*filter(None, values)]),
        re.compile(rb"-?(0|[1-9]\d{0,99})(\.\d{1,99})?").fullmatch,
    ),
    Type.COORDINATES: _Check(
        lambda values: all(_are_coordinates(value) for value in values if value is not None), _are_coordinates
    ),
}
"""The checks by type; the decoder itself checks the other types."""
