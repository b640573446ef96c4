"""The least that any such program has to do: inflate, decode by type, encode. No fan-out, no keys, no checks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from tap_braze_export.files import archive
from tap_braze_export.schema import user_object
from tap_braze_export.schema.table import Type

_TYPES: dict[Type, Any] = {
    Type.STRING: str | None,
    Type.INTEGER: int | None,
    Type.NUMBER: float | None,
    Type.BOOLEAN: bool | None,
    Type.DATE_TIME: str | None,
    Type.TIMESTAMP: str | int | None,
    Type.DATE: str | None,
    Type.COORDINATES: list[float] | None,
    Type.OBJECT: msgspec.Raw,
}
_LISTS = (user_object.DEVICES, user_object.PURCHASES, user_object.CUSTOM_EVENTS, user_object.CAMPAIGNS_RECEIVED)
_USERS = 128


def _user() -> type[msgspec.Struct]:
    inner: list[Any] = [
        (table.stream, list[msgspec.defstruct(table.stream, _members(table), gc=False)], [])  # type: ignore[misc]
        for table in _LISTS
    ]
    return msgspec.defstruct("User", [*_members(user_object.USERS), *inner], gc=False)


def _members(table: Any) -> list[tuple[str, Any, Any]]:
    own = [column for column in table.fields if column.name not in table.given or not table.path]
    return [(column.name, _TYPES[column.type], None) for column in own]


def _run(path: Path) -> None:
    decode = msgspec.json.Decoder(_user()).decode
    encode_lines = msgspec.json.Encoder().encode_lines
    with path.open("rb") as file:
        blocks = (block for member in archive.members(file, path.name) for block in archive.blocks(file, member))
        for block in blocks:
            for start in range(0, len(block.lines), _USERS):
                users = [decode(line) for line in block.lines[start : start + _USERS]]
                sys.stdout.buffer.write(encode_lines(users))


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
