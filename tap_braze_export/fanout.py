"""Lines → rows of every stream: decode, conform, rescue, deduplicate, render.

A block of lines becomes one `Rows` per stream, rendered as JSON lines: exactly what a BATCH file holds, and what a
RECORD message holds between its constant head and tail.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.conform import CONFORM, UNFIT, to_string
from tap_braze_export.schema import BY_PATH, DEVICE_IDS, EXPORTED_AT, RESCUED, SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tap_braze_export.archive import Block
    from tap_braze_export.schema import Field
    from tap_braze_export.selection import Selection

    RowsByKey = dict[tuple[Any, ...], dict[str, Any]]

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_CANONICAL = msgspec.json.Encoder(decimal_format="number", order="deterministic")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_LONGEST_INT = 4300
"""Digits of the longest integer that Python converts without being asked."""
_UNSTORABLE = dict.fromkeys([0, *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}")
"""NUL and lone surrogates, which no database stores as text."""


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
    """A line that is no JSON object, or has no `braze_id`."""


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
    """A line's `braze_id` and object: every digit kept (fractions as `Decimal`), every text storable.

    Raises:
        UnreadableLineError: If it is no JSON object or has no `braze_id`.
    """
    try:
        value = _DECODER.decode(line)
        odd = b"\\u0000" in line
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = _decode_odd(line)
        odd = True
    if not isinstance(value, dict):
        raise UnreadableLineError
    user = _storable(value) if odd else value
    braze_id = to_string(user.get("braze_id"))
    if braze_id is UNFIT or braze_id == "":
        raise UnreadableLineError
    return braze_id, user


def _decode_odd(line: bytes) -> Any:
    """What only the standard library reads: lone surrogates, and integers of any length."""
    try:
        return json.loads(
            line.decode("utf-8", "surrogatepass"),
            parse_float=Decimal,
            parse_int=lambda digits: int(digits) if len(digits) < _LONGEST_INT else Decimal(digits),
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise UnreadableLineError from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.translate(_UNSTORABLE)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value


class _Objects:
    """The objects at one place of the user object: their rows, and those of the lists inside them."""

    def __init__(self, path: tuple[str, ...], by_path: Mapping[tuple[str, ...], Selection]) -> None:
        table = BY_PATH[path]
        selection = by_path.get(path)
        own = [column for column in table.fields if column.name not in table.given]
        inner = {place[-1]: place for place in BY_PATH if place and place[:-1] == path}
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
            rescued: Takes what fits nowhere, where this stream is not selected: the owner's rescued data.
        """
        if self._stream:
            rescued = {}
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
            if (value := source.get(name)) is not None:
                objects.collect_list(value, name, row, found, rescued)
        if self._stream:
            if rescued and RESCUED in row:
                row[RESCUED] = rescued
            rows[tuple([row[name] for name in self._keys])] = row

    def collect_list(
        self,
        value: Any,
        name: str,
        owner: dict[str, Any],
        found: dict[str, RowsByKey],
        rescued: dict[str, Any],
    ) -> None:
        """Add the rows of a list of objects; what is no object goes to the owner's rescued data."""
        if isinstance(value, dict) and name == "user_aliases":
            value = [value]  # Braze's table of fields calls it an object, its examples show a list
        if not isinstance(value, list):
            rescued[name] = value
            return
        given = {column: owner[column] for column in (*self._given, EXPORTED_AT) if column in owner}
        for item in value:
            if isinstance(item, dict):
                self.collect(item, given, found, rescued)
        strange = [item for item in value if item is not None and not isinstance(item, dict)]
        if strange:
            rescued[name] = strange


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
    content = {name: value for name, value in device.items() if value is not None}
    key = f"anonymous-{_digest(_CANONICAL.encode(content), 8)}"
    alike = [key, *(f"{key}-{ordinal}" for ordinal in range(2, len(rows) + 2))]
    return next(candidate for candidate in alike if (row["braze_id"], candidate) not in rows)


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
