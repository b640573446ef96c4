"""The content of a user: its rows in a form that neither their time, nor their order, nor that of members changes."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from tap_braze_export.schema.table import EXPORTED_AT, RESCUED, Type
from tap_braze_export.schema.user_object import USERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Contents = dict[str, list[bytes]]
    """By `braze_id`, what its content is made of: name and rows of one stream after the other."""

_ATTRIBUTES = "custom_attributes"
_RAW_COLUMNS = [column.name for column in USERS.fields if column.type in (Type.OBJECT, Type.COORDINATES)]
"""Columns of `users` that hold the bytes of the line, with its blanks."""
_BLANKS = b" \t\r\n"
_NULL = Raw(b"null")
_RESCUES = f'"{RESCUED}":{{'.encode()
_ENCODER = msgspec.json.Encoder(decimal_format="number", order="deterministic")
"""Sorts the members of open objects; columns stay in their order."""
_MEMBERS_DECODER = msgspec.json.Decoder(dict[str, Raw])


def _number(text: str) -> Raw:
    """A number in the one form that this tap writes: one with an exponent has several."""
    with suppress(InvalidOperation):
        return Raw(str(Decimal(text)) if "e" in text or "E" in text else text)
    return Raw(text)


_DECODER = msgspec.json.Decoder(float_hook=_number)


def add_contents(rows: Mapping[str, Sequence[Any]], contents: Contents, *, exported_at: str) -> dict[str, bytes]:
    """Add the contents of users that the fast path has read.

    Args:
        rows: Structs by stream; the rows of a user stand together.
        contents: Receives them.
        exported_at: The value of that column in all rows.

    Returns:
        The rendered rows of each stream but `users`.
    """
    time, rendered = _time(exported_at), {}
    for stream in sorted(rows):
        own = rows[stream]
        braze_ids = [row.braze_id for row in own]
        if stream == USERS.stream:
            lines = _users_without_raw_columns(own, contents)
        else:
            rendered[stream] = lines = _ENCODER.encode_lines(own)
        rows_without_time = lines.replace(time, b"").split(b"\n")
        if _RESCUES in lines:
            rows_without_time = [_row_of(_MEMBERS_DECODER.decode(row)) for row in rows_without_time[:-1]]
        _add(stream, braze_ids, rows_without_time, contents)
    return rendered


def add_content(braze_id: str, rows: Iterable[tuple[str, bytes]], contents: Contents, *, exported_at: str) -> None:
    """Add the content of a user that the careful path has read.

    Args:
        braze_id: The user.
        rows: Stream and JSON of each row.
        contents: Receives it.
        exported_at: The value of that column in all rows.
    """
    time = _time(exported_at)
    by_stream: dict[str, list[dict[str, Raw]]] = {}
    for stream, row in rows:
        by_stream.setdefault(stream, []).append(_MEMBERS_DECODER.decode(row))
    for stream in sorted(by_stream):
        own = by_stream[stream]
        for name in _RAW_COLUMNS if stream == USERS.stream else ():
            if (value := own[0].get(name, _NULL)) != _NULL:
                _add_raw(braze_id, name, bytes(value), contents)
                own[0][name] = _NULL
        lines = [_row_of(row).replace(time, b"") for row in own]
        _add(stream, [braze_id] * len(lines), lines, contents)


def _users_without_raw_columns(users: Sequence[Any], contents: Contents) -> bytes:
    """Add the columns of users that hold the bytes of their lines; returns the rows without them."""
    names = [name for name in _RAW_COLUMNS if hasattr(users[0], name)] if users else []
    values = [[getattr(user, name) for name in names] for user in users]
    for user, own in zip(users, values, strict=True):
        for name, value in zip(names, own, strict=True):
            if value is not None:
                raw = bytes(value) if isinstance(value, Raw) else _ENCODER.encode(value)
                _add_raw(user.braze_id, name, raw, contents)
                setattr(user, name, None)
    lines = _ENCODER.encode_lines(users)
    for user, own in zip(users, values, strict=True):
        for name, value in zip(names, own, strict=True):
            setattr(user, name, value)
    return lines


def _add_raw(braze_id: str, name: str, value: bytes, contents: Contents) -> None:
    content = _canonical(value) if name == _ATTRIBUTES else value.translate(None, _BLANKS)
    contents.setdefault(braze_id, []).append(content)


def _add(stream: str, braze_ids: Sequence[str], lines: list[bytes], contents: Contents) -> None:
    """Add the rows of one stream, those of each user sorted."""
    name, start = stream.encode(), 0
    for braze_id, rows in groupby(braze_ids):
        end = start + len([*rows])
        own = sorted(lines[start:end])
        start = end
        contents.setdefault(braze_id, []).extend((name, *own))


def _row_of(columns: Mapping[str, Raw]) -> bytes:
    """Render a row with sorted members in its columns."""
    members = (_ENCODER.encode(name) + b":" + _canonical(bytes(value)) for name, value in columns.items())
    return b"{" + b",".join(members) + b"}"


def _canonical(value: bytes) -> bytes:
    """Return JSON in the one form that this tap would write, with sorted members; the order of items has a meaning."""
    if not value.startswith((b"{", b"[")) and b"\\" not in value:
        return value
    try:
        return _ENCODER.encode(_DECODER.decode(value))
    except (msgspec.MsgspecError, RecursionError):
        return value  # nested too deeply, or an integer of too many digits: here any other order is a change


def _time(exported_at: str) -> bytes:
    return f',"{EXPORTED_AT}":"{exported_at}"'.encode()
