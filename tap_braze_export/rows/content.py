"""The content of a user: its rows in a form that neither their time nor any order in them changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.rows.exact_json import DECODER
from tap_braze_export.schema.table import EXPORTED_AT, Type
from tap_braze_export.schema.user_object import USERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_ORDERED_COLUMNS = frozenset(column.name for column in USERS.fields if column.type is Type.COORDINATES)
"""Lists whose order has a meaning: longitude, then latitude."""
_ENCODER = msgspec.json.Encoder(decimal_format="number", order="sorted")


def contents_of(rows: Mapping[str, tuple[Iterable[str], Sequence[bytes]]], *, exported_at: str) -> dict[str, bytes]:
    """Return the content of each user that has rows.

    Two contents are the same if the rows are the same but for `exported_at`, the order of the rows, of the
    members of open objects and of the items of lists in these.

    Args:
        rows: By stream, the `braze_id` of each row and the rendered rows.
        exported_at: The value of that column in all rows.
    """
    time = f',"{EXPORTED_AT}":"{exported_at}"'.encode()
    parts: dict[str, list[bytes]] = {}
    for stream in sorted(rows):
        of_user: dict[str, list[bytes]] = {}
        for braze_id, row in zip(*rows[stream], strict=True):
            of_user.setdefault(braze_id, []).append(_canonical(row.replace(time, b"")))
        name = stream.encode()
        for braze_id, own in of_user.items():
            own.sort()
            parts.setdefault(braze_id, []).extend((name, *own))
    return {braze_id: b"\n".join(own) for braze_id, own in parts.items()}


def _canonical(row: bytes) -> bytes:
    """Return a row with sorted members and items, if it holds an object or list."""
    if row.find(b"{", 1) < 0 and b"[" not in row:
        return row  # its members are in the order of the columns
    try:
        return _ENCODER.encode({name: _sorted(name, value) for name, value in DECODER.decode(row).items()})
    except (msgspec.MsgspecError, RecursionError):
        return row  # nested too deeply, or an integer of too many digits: here any other order is a change


def _sorted(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {member: _sorted("", inner) for member, inner in value.items()}
    if isinstance(value, list) and name not in _ORDERED_COLUMNS:
        return [msgspec.Raw(item) for item in sorted(_ENCODER.encode(_sorted("", item)) for item in value)]
    return value
