"""The content of a user: its rows in a form that neither their time, nor their order, nor that of members changes."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw

from tap_braze_export.rows.exact_json import ENCODER
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED, Type
from tap_braze_export.schema.user_object import USERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Contents = dict[str, list[bytes]]
    """By `braze_id`, what its content is made of: name and rows of one stream after the other."""

_RAW_COLUMNS = [column.name for column in USERS.fields if column.type in (Type.OBJECT, Type.COORDINATES)]
"""Columns of `users` that hold the bytes of the line, with its blanks."""
_NO_RESCUES = f',"{RESCUED}":null'.encode()
_ENCODER = msgspec.json.Encoder(decimal_format="number", order="deterministic")
"""Sorts the members of open objects; columns stay in their order."""
_MEMBERS_DECODER = msgspec.json.Decoder(dict[str, Raw])


def _number(text: str) -> Raw:
    """A number in the one form that this tap writes: one with an exponent has several."""
    if "e" in text or "E" in text:
        with suppress(InvalidOperation):
            return Raw(str(Decimal(text)))
    return Raw(text)


_DECODER = msgspec.json.Decoder(float_hook=_number)


def add_contents(rows: Mapping[str, Sequence[Any]], contents: Contents, *, exported_at: str) -> dict[str, bytes]:
    """Add the contents of users that the fast path has read.

    Args:
        rows: Structs by stream.
        contents: Receives them.
        exported_at: The value of that column in all rows.

    Returns:
        The rendered rows of each stream.
    """
    rendered = {}
    for stream in sorted(rows):
        own = rows[stream]
        is_users = stream == USERS.stream
        rendered[stream] = lines = (ENCODER if is_users else _ENCODER).encode_lines(own)
        time = _time(exported_at)
        end = time + (_NO_RESCUES if lines.endswith(_NO_RESCUES + b"}\n") else b"") + b"}\n"
        found = lines.split(end)[:-1]
        if len(found) != len(own):  # some have rescued members
            found = [_row_of(_MEMBERS_DECODER.decode(line), time) for line in lines.split(b"\n")[:-1]]
        elif is_users:
            _make_canonical(own, found)
        _add(stream, [row.braze_id for row in own], found, contents)
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
    by_stream: dict[str, list[bytes]] = {}
    for stream, row in rows:
        by_stream.setdefault(stream, []).append(_row_of(_MEMBERS_DECODER.decode(row), time))
    for stream in sorted(by_stream):
        _add(stream, [braze_id] * len(by_stream[stream]), by_stream[stream], contents)


def _make_canonical(users: Sequence[Any], lines: list[bytes]) -> None:
    """Make the columns canonical that hold the bytes of the users' lines; all others are."""
    for name in _RAW_COLUMNS:
        head = f'"{name}":'.encode()
        for index, user in enumerate(users):
            value = getattr(user, name, None)
            if value is not None and value is not UNSET:
                written = bytes(value) if type(value) is Raw else ENCODER.encode(value)
                canonical = _canonical(written)
                if canonical != written:
                    lines[index] = lines[index].replace(head + written, head + canonical, 1)


def _add(stream: str, braze_ids: Sequence[str], lines: Iterable[bytes], contents: Contents) -> None:
    """Add the rows of one stream, those of each user sorted."""
    by_user: dict[str, list[bytes]] = {}
    for braze_id, line in zip(braze_ids, lines, strict=True):
        if braze_id in by_user:
            by_user[braze_id].append(line)
        else:
            by_user[braze_id] = [line]
    name = stream.encode()
    for braze_id, own in by_user.items():
        if len(own) > 1:
            own.sort()
        if braze_id in contents:
            contents[braze_id] += (name, *own)
        else:
            contents[braze_id] = [name, *own]


def _row_of(columns: Mapping[str, Raw], time: bytes) -> bytes:
    """Render a row with sorted members in its columns, without its time, its end and the rescued members it lacks."""
    members = (_ENCODER.encode(name) + b":" + _canonical(bytes(value)) for name, value in columns.items())
    return b"{" + b",".join(members).replace(time, b"").removesuffix(_NO_RESCUES)


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
