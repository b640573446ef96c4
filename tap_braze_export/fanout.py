"""Lines → rows of every stream: decode, conform, rescue, deduplicate, render.

A block of lines becomes one `Rows` per stream, rendered as JSON lines: exactly what a BATCH file holds, and what a
RECORD message holds between its constant head and tail.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.conform import CONFORM, MOST_DIGITS, UNFIT, read_number, to_string
from tap_braze_export.schema import BY_PATH, DEVICE_IDS, EXPORTED_AT, RESCUED, SEGMENT_MEMBERS, USER_ALIASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tap_braze_export.archive import Block
    from tap_braze_export.schema import Field
    from tap_braze_export.selection import Selection

    RowsByKey = dict[tuple[Any, ...], dict[str, Any]]

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="deterministic")
_DECODER = msgspec.json.Decoder(float_hook=read_number)
_MOST_LEVELS = 500
"""Lists and objects inside each other; loaders written in Python give up before 1,000, depending on their own stack."""
_UNSTORABLE = re.compile(
    rb"(?P<kept>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u0000|u[dD][89a-fA-F])[\s\S])"
    rb"|\\u[0-9a-fA-F]{4}|\xed[\xa0-\xbf][\x80-\xbf]"
)
"""Escapes to be kept as they are; then NUL and lone surrogates, escaped or raw, which no database stores as text."""


@dataclass(frozen=True)
class Rows:
    """The rows of one stream from one block of lines, as JSON lines."""

    jsonl: bytes
    """Each row followed by a newline."""
    count: int

    @classmethod
    def of(cls, rows: Iterable[bytes]) -> Rows:
        """The rendered rows, joined."""
        lines = [*rows, b""]
        return cls(b"\n".join(lines), len(lines) - 1)

    def objects(self) -> Iterator[dict[str, Any]]:
        """The rows as objects, for stream maps and flattening."""
        return map(_DECODER.decode, self.jsonl.split(b"\n")[:-1])


@dataclass
class FanOut:
    """What one block of lines gave: rows by stream, counts, and the lines that could not be read."""

    rows: dict[str, Rows] = field(default_factory=dict)
    lines: int = 0
    users: int = 0
    duplicates: int = 0
    rejected: list[tuple[int, bytes]] = field(default_factory=list)
    """Line number and content of each line that is no user object."""


class UnreadableLineError(ValueError):
    """A line that is no JSON object, has no `braze_id`, or is nested too deeply."""


class Reader:
    """Reads the lines of one export into the rows of the selected streams."""

    def __init__(self, selections: Mapping[str, Selection], *, exported_at: str, segment_id: str) -> None:
        """Compile the selections.

        Args:
            selections: The selected streams by name.
            exported_at: The value of that column in every row.
            segment_id: The segment that every user of the export is a member of; empty where there is none.
        """
        self._given = {EXPORTED_AT: exported_at}
        self._membership: dict[str, Any] | None = None
        if segment_id and SEGMENT_MEMBERS.stream in selections:
            names = selections[SEGMENT_MEMBERS.stream].names
            row = {"segment_id": segment_id, "braze_id": "", "is_member": True, EXPORTED_AT: exported_at}
            self._membership = {name: value for name, value in row.items() if name in names}
        by_path = {s.table.path: s for s in selections.values() if s.table.path is not None}
        self._user = _Objects((), by_path)

    def read(self, block: Block) -> FanOut:
        """The rows of a block. Of a user that stands in it twice, the last one wins."""
        result = FanOut()
        users: dict[str, list[tuple[str, bytes]]] = {}
        for number, line in enumerate(block.lines, block.first_line):
            if not line or line.isspace():
                continue
            result.lines += 1
            try:
                braze_id, user = decode_user(line)
            except UnreadableLineError:
                result.rejected.append((number, line))
                continue
            result.duplicates += braze_id in users
            users[braze_id] = self._render(braze_id, user)
        result.users = len(users)
        by_stream: dict[str, list[bytes]] = {}
        for rows in users.values():
            for stream, row in rows:
                by_stream.setdefault(stream, []).append(row)
        result.rows = {stream: Rows.of(lines) for stream, lines in by_stream.items()}
        return result

    def _render(self, braze_id: str, user: dict[str, Any]) -> list[tuple[str, bytes]]:
        found: dict[str, RowsByKey] = {}
        self._user.collect(user, {"braze_id": braze_id} | self._given, found, {})
        rendered = [(stream, _ENCODER.encode(row)) for stream, rows in found.items() for row in rows.values()]
        if self._membership:
            rendered.append((SEGMENT_MEMBERS.stream, _ENCODER.encode(self._membership | {"braze_id": braze_id})))
        return rendered


def decode_user(line: bytes) -> tuple[str, dict[str, Any]]:
    """A line's `braze_id` and object: every digit kept, every text storable.

    Raises:
        UnreadableLineError: If it is no JSON object, has no `braze_id`, or is nested too deeply.
    """
    try:
        user = _decode_odd(line) if b"\\u0000" in line else _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        user = _decode_odd(line)
    if not isinstance(user, dict):
        raise UnreadableLineError
    if line.count(b"{") + line.count(b"[") > _MOST_LEVELS and _is_too_deep(user):
        raise UnreadableLineError
    braze_id = to_string(user.get("braze_id"))
    if braze_id is UNFIT or braze_id == "":
        raise UnreadableLineError
    return braze_id, user


def _decode_odd(line: bytes) -> Any:
    """What only the standard library reads, integers of any length; and what has to be made storable first."""
    try:
        return json.loads(
            _UNSTORABLE.sub(lambda found: found["kept"] or b"\\ufffd", line).decode(),
            parse_float=read_number,
            parse_int=lambda text: int(text) if len(text.lstrip("-")) <= MOST_DIGITS else text,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise UnreadableLineError from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS):
        items = (item.values() if isinstance(item, dict) else item for item in level)
        level = [inner for item in items for inner in item if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


class _Objects:
    """The objects at one place of the user object: their rows, and those of the lists inside them."""

    def __init__(self, path: tuple[str, ...], by_path: Mapping[tuple[str, ...], Selection]) -> None:
        table = BY_PATH[path]
        selection = by_path.get(path)
        own = [column for column in table.fields if column.name not in table.given]
        inner = {place[-1]: place for place in BY_PATH if place and place[:-1] == path}
        self._path = path
        self._stream = table.stream if selection else None
        self._keys = table.keys
        self._given = table.given
        self._known = {column.name for column in own} | inner.keys()
        self._lists = {
            name: _Objects(place, by_path)
            for name, place in inner.items()
            if any(wanted[: len(place)] == place for wanted in by_path)
        }
        columns = selection.columns if selection else [column for column in own if column.name in table.keys]
        self._blank: dict[str, Any] = {column.name: None for column in columns}
        self._conform = {column.name: _conformer(column, selection) for column in columns if column.name in self._known}

    def collect(
        self,
        source: dict[str, Any],
        given: dict[str, Any],
        found: dict[str, RowsByKey],
        rescued: dict[str, Any],
    ) -> None:
        """Add the rows of one object; of two rows with the same key the later one wins.

        Args:
            source: The object as decoded.
            given: The columns that it does not hold itself: ids of its owner, `exported_at`.
            found: Takes the rows, by stream and key.
            rescued: Takes what fits nowhere.
        """
        row = self._blank.copy()
        for name, value in source.items():
            conform = self._conform.get(name)
            if conform is not None:
                row[name] = None if value is None else conform(value, rescued)
            elif name not in self._known:
                rescued[name] = value
        row |= given
        rows = found.setdefault(self._stream, {}) if self._stream else {}
        for name in self._keys:
            if row.get(name) is None:
                row[name] = _device_key(row, source, rows) if name == "device_key" else ""
        for name, objects in self._lists.items():
            if (value := source.get(name)) is not None and (strange := objects.collect_list(value, row, found)):
                rescued[name] = strange
        if self._stream:
            if rescued and RESCUED in row:
                row[RESCUED] = rescued
            rows[tuple([row[name] for name in self._keys])] = row

    def collect_list(self, value: Any, owner: dict[str, Any], found: dict[str, RowsByKey]) -> Any:
        """Add the rows of a list of objects.

        Returns:
            What the owner has to rescue: a value that is no list; the items that are no objects and, where this stream
            is not selected, what its own rows would have rescued.
        """
        if isinstance(value, dict) and self._path == USER_ALIASES.path:
            value = [value]  # Braze's table of fields calls it an object, its examples show a list
        if not isinstance(value, list):
            return value
        given = {column: owner[column] for column in (*self._given, EXPORTED_AT) if column in owner}
        strange: list[Any] = []
        for item in value:
            if isinstance(item, dict):
                rescued: dict[str, Any] = {}
                self.collect(item, given, found, rescued)
                if rescued and not self._stream:
                    strange.append(rescued)
            elif item is not None:
                strange.append(item)
        return strange


def _conformer(column: Field, selection: Selection | None) -> Callable[[Any, dict[str, Any]], Any]:
    """A function of a value and the row's rescued data that returns what the column holds."""
    name = column.name
    to_type = CONFORM[column.type]

    def conform(value: Any, rescued: dict[str, Any]) -> Any:
        fitting = to_type(value)
        if fitting is UNFIT:
            rescued[name] = value
            return None
        return fitting

    dropped = selection.dropped.get(name, frozenset()) if selection else frozenset()
    if not column.members and not dropped:
        return conform
    members = {member.name: CONFORM[member.type] for member in column.members}
    closed = name == "custom_attributes" and bool(dropped)

    def conform_members(value: Any, rescued: dict[str, Any]) -> Any:
        if not isinstance(value, dict):
            return conform(value, rescued)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            to_member = members.get(key)
            if to_member is None:
                if key not in dropped and not closed:
                    kept[key] = item
            elif item is None:
                kept[key] = None
            else:
                fitting = to_member(item)
                if fitting is UNFIT:
                    rescued[f"{name}.{key}"] = item
                kept[key] = None if fitting is UNFIT else fitting
        return kept

    return conform_members


def _device_key(row: dict[str, Any], device: dict[str, Any], rows: RowsByKey) -> str:
    """The first id that is set, hashed where its column is deselected; else a hash of the content with an ordinal."""
    for name in DEVICE_IDS:
        value = to_string(device.get(name))
        if value is not UNFIT and value != "":
            return str(value) if name in row else _digest(value.encode(), 16)
    content = {name: value for name, value in device.items() if value is not None and value != ""}
    key = f"anonymous-{_digest(_CANONICAL.encode(content), 8)}"

    def alike(ordinal: int) -> str:
        return key if ordinal == 1 else f"{key}-{ordinal}"

    # The ordinals of one key have no gap, so that a list of a million equal devices takes no million looks each.
    ordinals = range(1, len(rows) + 1)
    return alike(1 + bisect_left(ordinals, 1, key=lambda ordinal: (row["braze_id"], alike(ordinal)) not in rows))


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
