"""A block of lines → rows of every stream: deduplicated, and rendered as JSON lines."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.careful_path import ObjectCollector
from tap_braze_export.rows.decode import UnreadableLineError, decode_user
from tap_braze_export.rows.exact_json import ENCODER
from tap_braze_export.rows.fast_path import FastPath
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.files.archive import Block
    from tap_braze_export.rows.careful_path import RowsByKey
    from tap_braze_export.schema.selection import Selection

    RenderedRows = list[tuple[str, bytes]]

_USERS_AT_ONCE = 64
"""Users that are read at once: so few that they stay in a core's own cache until they are rendered."""


@dataclass
class BlockRows:
    """The rows of one block of lines.

    Attributes:
        rows: The rows by stream.
        lines: Number of lines that are not blank.
        users: Number of users in them.
        duplicates: Number of lines that a later line of the same user replaced.
        rejected: Line number and content of each line that is no user object.
        rescued: Number of rows that have rescued members, by stream; 0 is left out.
    """

    rows: Mapping[str, Rows] = field(default_factory=dict)
    lines: int = 0
    users: int = 0
    duplicates: int = 0
    rejected: list[tuple[int, bytes]] = field(default_factory=list)
    rescued: Counter[str] = field(default_factory=Counter)


class Reader:
    """Reads the lines of one export into the rows of the selected streams.

    Args:
        selections: The selected streams by name.
        exported_at: The value of that column in every row.
        segment_id: The segment that every user of the export is a member of; empty where there is none.
        strict: True if lines that are exactly as the schema says take the fast path.
    """

    def __init__(
        self, selections: Mapping[str, Selection], *, exported_at: str, segment_id: str, strict: bool = True
    ) -> None:
        self._given = {EXPORTED_AT: exported_at}
        self._membership: dict[str, Any] | None = None
        if segment_id and SEGMENT_MEMBERS.stream in selections:
            names = selections[SEGMENT_MEMBERS.stream].names
            row = {"segment_id": segment_id, "braze_id": "", "is_member": True, EXPORTED_AT: exported_at}
            self._membership = {name: value for name, value in row.items() if name in names}
        by_path = {s.table.path: s for s in selections.values() if s.table.path is not None}
        self._careful_path = ObjectCollector((), by_path)
        self._fast_path = FastPath(by_path, exported_at=exported_at) if strict else None
        self._rescued: Counter[str] = Counter()

    def read(self, block: Block) -> BlockRows:
        """Turn a block into rows, unordered; of a user that occurs twice, the last line wins.

        It empties `block.lines` to free memory.
        """
        result = BlockRows()
        seen: set[str] = set()
        chunks: list[dict[str, list[Rows]]] = []
        with _without_garbage_collection():
            # From the end, so that the last line of a user comes first.
            for start in reversed(range(0, len(block.lines), _USERS_AT_ONCE)):
                lines = block.lines[start:]
                del block.lines[start:]  # their memory, which the cache still holds, becomes that of their rows
                chunks.append(self._read_chunk(lines, block.first_line + start, seen, result))
        result.rejected.reverse()
        result.users = len(seen)
        result.rescued, self._rescued = self._rescued, Counter()
        result.rows = _joined(reversed(chunks))
        return result

    def read_carefully(self, braze_id: str, user: dict[str, Any]) -> RenderedRows:
        """Return the rendered rows of one decoded user with their streams, by the careful path."""
        if self._fast_path is not None:
            self._fast_path.learn(user)
        rows_by_stream: dict[str, RowsByKey] = {}
        self._careful_path.collect(user, {"braze_id": braze_id} | self._given, rows_by_stream, {})
        for stream, rows in rows_by_stream.items():
            if count := sum(row.get(RESCUED) is not None for row in rows.values()):
                self._rescued[stream] += count
        return [(stream, ENCODER.encode(row)) for stream, rows in rows_by_stream.items() for row in rows.values()]

    def _read_chunk(
        self, lines: list[bytes], first_line: int, seen: set[str], result: BlockRows
    ) -> dict[str, list[Rows]]:
        """Return the rows of some lines by stream, without users that were seen; count the lines in `result`."""
        fast: list[Any] = []
        careful: list[RenderedRows] = []
        line_of: dict[str, bytes] = {}
        users = self._fast_path.decode(lines) if self._fast_path else [None] * len(lines)
        for index in reversed(range(len(lines))):
            line, user = lines[index], users[index]
            if user is None and (not line or line.isspace()):
                continue
            result.lines += 1
            if user is None and self._fast_path:
                (user,) = self._fast_path.decode([line])  # it may know by now the member that it refused
            try:
                braze_id, members = (user.braze_id, None) if user is not None else decode_user(line)
            except UnreadableLineError:
                result.rejected.append((first_line + index, line))
                continue
            if braze_id in seen:
                result.duplicates += 1
                continue
            seen.add(braze_id)
            line_of[braze_id] = line
            if members is None:
                fast.append(user)
            else:
                careful.append(self.read_carefully(braze_id, members))
        rows: dict[str, list[Rows]] = {}
        if self._fast_path is not None:
            fast.reverse()
            accepted, refused = self._fast_path.to_rows(fast, self._rescued)
            rows = {stream: [rendered] for stream, rendered in accepted.items()}
            careful += (self.read_carefully(*decode_user(line_of[braze_id])) for braze_id in refused)
        for stream, rendered_rows in _by_stream(reversed(careful)).items():
            rows.setdefault(stream, []).append(Rows.of(rendered_rows))
        if self._membership and line_of:
            memberships = ENCODER.encode_lines([self._membership | {"braze_id": name} for name in reversed(line_of)])
            rows[SEGMENT_MEMBERS.stream] = [Rows((memberships,), len(line_of))]
        return rows


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch the cyclic collector off: the objects here make no cycles, and it would cost a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _by_stream(users: Iterable[RenderedRows]) -> dict[str, list[bytes]]:
    rows: dict[str, list[bytes]] = {}
    for user in users:
        for stream, row in user:
            rows.setdefault(stream, []).append(row)
    return rows


def _joined(chunks: Iterable[dict[str, list[Rows]]]) -> dict[str, Rows]:
    """Join the rows of several chunks by stream."""
    by_stream: dict[str, list[Rows]] = {}
    for rows in chunks:
        for stream, several in rows.items():
            by_stream.setdefault(stream, []).extend(several)
    return {stream: Rows.joined(several) for stream, several in by_stream.items()}
