"""Lines → rows of every stream: decode, conform, rescue, deduplicate, render.

A block of lines becomes one `Rows` per stream, rendered as JSON lines: exactly what a BATCH file holds, and what a
RECORD message holds between its constant head and tail.
"""

from __future__ import annotations

import gc
import json
import re
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.rows.column_checks import is_too_deep, may_be_deep
from tap_braze_export.rows.columns import conformer
from tap_braze_export.rows.conform import MOST_DIGITS, UNFIT, read_number, to_string
from tap_braze_export.rows.device_key import key_by_content, key_by_id
from tap_braze_export.rows.fast_path import StrictReader
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import BY_PATH, DEVICE_IDS, SEGMENT_MEMBERS, USER_ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.files.archive import Block
    from tap_braze_export.schema.selection import Selection

    RowsByKey = dict[tuple[Any, ...], dict[str, Any]]
    RenderedRows = list[tuple[str, bytes]]

_USERS = 64
"""Users that are read at once: so few that they stay in a core's own cache until they are rendered."""
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=read_number)
_UNSTORABLE = re.compile(
    rb"(?P<kept>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u0000|u[dD][89a-fA-F])[\s\S])"
    rb"|\\u[0-9a-fA-F]{4}|\xed[\xa0-\xbf][\x80-\xbf]"
)
"""Escapes to be kept as they are; then NUL and lone surrogates, escaped or raw, which no database stores as text."""


@dataclass
class BlockRows:
    """What one block of lines gave: rows by stream, counts, and the lines that could not be read."""

    rows: Mapping[str, Rows] = field(default_factory=dict)
    lines: int = 0
    users: int = 0
    duplicates: int = 0
    rejected: list[tuple[int, bytes]] = field(default_factory=list)
    """Line number and content of each line that is no user object."""


class UnreadableLineError(ValueError):
    """A line that is no JSON object, has no `braze_id`, or is nested too deeply."""


class Reader:
    """Reads the lines of one export into the rows of the selected streams."""

    def __init__(
        self, selections: Mapping[str, Selection], *, exported_at: str, segment_id: str, strict: bool = True
    ) -> None:
        """Compile the selections.

        Args:
            selections: The selected streams by name.
            exported_at: The value of that column in every row.
            segment_id: The segment that every user of the export is a member of; empty where there is none.
            strict: Whether lines that are exactly as the schema says take the fast path.
        """
        self._given = {EXPORTED_AT: exported_at}
        self._membership: dict[str, Any] | None = None
        if segment_id and SEGMENT_MEMBERS.stream in selections:
            names = selections[SEGMENT_MEMBERS.stream].names
            row = {"segment_id": segment_id, "braze_id": "", "is_member": True, EXPORTED_AT: exported_at}
            self._membership = {name: value for name, value in row.items() if name in names}
        by_path = {s.table.path: s for s in selections.values() if s.table.path is not None}
        self._user = ObjectCollector((), by_path)
        self._strict = StrictReader(by_path, exported_at=exported_at) if strict else None

    def read(self, block: Block) -> BlockRows:
        """The rows of a block, which loses its lines, in no order. Of a user that occurs twice, the last one wins."""
        result = BlockRows()
        seen: set[str] = set()
        found: list[dict[str, list[Rows]]] = []
        with _uncollected():
            # From the end, so that the last one of a user comes first.
            for start in reversed(range(0, len(block.lines), _USERS)):
                lines = block.lines[start:]
                del block.lines[start:]  # their memory, which the cache still holds, becomes that of their rows
                found.append(self._read(lines, block.first_line + start, seen, result))
        result.rejected.reverse()
        result.users = len(seen)
        result.rows = _joined(reversed(found))
        return result

    def _read(self, lines: list[bytes], first: int, seen: set[str], result: BlockRows) -> dict[str, list[Rows]]:
        """The rows of some lines, without users that were seen already."""
        strict: list[Any] = []
        careful: list[RenderedRows] = []
        taken: dict[str, bytes] = {}
        users = self._strict.decode(lines) if self._strict else [None] * len(lines)
        for index in reversed(range(len(lines))):
            line, user = lines[index], users[index]
            if user is None and (not line or line.isspace()):
                continue
            result.lines += 1
            if user is None and self._strict:
                (user,) = self._strict.decode([line])  # what made it be refused may have been learned meanwhile
            try:
                braze_id, members = (user.braze_id, None) if user is not None else decode_user(line)
            except UnreadableLineError:
                result.rejected.append((first + index, line))
                continue
            if braze_id in seen:
                result.duplicates += 1
                continue
            seen.add(braze_id)
            taken[braze_id] = line
            if members is None:
                strict.append(user)
            else:
                careful.append(self._read_carefully(braze_id, members))
        rows: dict[str, list[Rows]] = {}
        if self._strict is not None:
            strict.reverse()
            fast, refused = self._strict.to_rows(strict)
            rows = {stream: [found] for stream, found in fast.items()}
            careful += (self._read_carefully(*decode_user(taken[braze_id])) for braze_id in refused)
        for stream, rendered in _by_stream(reversed(careful)).items():
            rows.setdefault(stream, []).append(Rows.of(rendered))
        if self._membership and taken:
            joined = _ENCODER.encode_lines([self._membership | {"braze_id": braze_id} for braze_id in reversed(taken)])
            rows[SEGMENT_MEMBERS.stream] = [Rows((joined,), len(taken))]
        return rows

    def _read_carefully(self, braze_id: str, user: dict[str, Any]) -> RenderedRows:
        if self._strict is not None:
            self._strict.learn(user)
        found: dict[str, RowsByKey] = {}
        self._user.collect(user, {"braze_id": braze_id} | self._given, found, {})
        return [(stream, _ENCODER.encode(row)) for stream, rows in found.items() for row in rows.values()]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector away from objects that make no cycles: it takes a tenth of the time otherwise."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _by_stream(rendered: Iterable[RenderedRows]) -> dict[str, list[bytes]]:
    rows: dict[str, list[bytes]] = {}
    for some in rendered:
        for stream, row in some:
            rows.setdefault(stream, []).append(row)
    return rows


def _joined(found: Iterable[dict[str, list[Rows]]]) -> dict[str, Rows]:
    """The rows of many users, by stream."""
    by_stream: dict[str, list[Rows]] = {}
    for rows in found:
        for stream, some in rows.items():
            by_stream.setdefault(stream, []).extend(some)
    return {stream: Rows.joined(some) for stream, some in by_stream.items()}


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
    if may_be_deep(line) and is_too_deep(user):
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


class ObjectCollector:
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
            name: ObjectCollector(place, by_path)
            for name, place in inner.items()
            if any(wanted[: len(place)] == place for wanted in by_path)
        }
        columns = selection.columns if selection else [column for column in own if column.name in table.keys]
        self._blank: dict[str, Any] = {column.name: None for column in columns}
        self._conform = {column.name: conformer(column, selection) for column in columns if column.name in self._known}

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


def _device_key(row: dict[str, Any], device: dict[str, Any], rows: RowsByKey) -> str:
    """By id, else by content; with an ordinal where two devices of one user are alike."""
    ids = ((name, to_string(device.get(name))) for name in DEVICE_IDS)
    if key := key_by_id((None if text is UNFIT else text, name in row) for name, text in ids):
        return key
    key = key_by_content(device)

    def alike(ordinal: int) -> str:
        return key if ordinal == 1 else f"{key}-{ordinal}"

    # The ordinals of one key have no gap, so that a list of a million equal devices takes no million looks each.
    ordinals = range(1, len(rows) + 1)
    return alike(1 + bisect_left(ordinals, 1, key=lambda ordinal: (row["braze_id"], alike(ordinal)) not in rows))
