"""A block of lines → rows of every stream: deduplicated, and rendered as JSON lines."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.careful_path import ObjectCollector
from tap_braze_export.rows.content import add_content, add_contents
from tap_braze_export.rows.decode import UnreadableLineError, decode_user
from tap_braze_export.rows.exact_json import ENCODER
from tap_braze_export.rows.fast_path import FastPath, without
from tap_braze_export.rows.memberships import membership_rows
from tap_braze_export.rows.rendered import Rows, row_encoders
from tap_braze_export.rows.rescued_members import add, kept_names
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.files.archive import Block
    from tap_braze_export.rows.careful_path import RowsByKey
    from tap_braze_export.rows.content import Contents
    from tap_braze_export.rows.known_users import BlockCheck, KnownUsers
    from tap_braze_export.rows.rescued_members import MemberCounts
    from tap_braze_export.schema.selection import Selection

    RenderedRows = list[tuple[str, bytes, tuple[str, ...]]]
    """Stream and JSON of each row of a user, and the names of its rescued members."""

_NONE: Mapping[str, bytes] = MappingProxyType({})
_USERS_AT_ONCE = 64
"""Users that are read at once: so few that they stay in a core's own cache until they are rendered."""
_BYTES_AT_ONCE = 300_000
"""Bytes of the lines that are read at once, unless it is one: small objects need a hundred times their bytes."""
_PART_BYTES = 32 * 2**20
_REJECTED_LINE_BYTES = 128
"""Bytes that a rejected line costs beside its own."""


@dataclass
class BlockRows:
    """The rows of one block of lines, or of a part of them where they are many.

    Attributes:
        rows: The rows by stream.
        size: Bytes of the lines that were read.
        careful: Number of rows that took the careful path.
        lines: Number of lines that are not blank.
        users: Number of users in them.
        duplicates: Number of lines that a later line of the same user replaced.
        unchanged: Number of users that were skipped, since the target has them as they are.
        rejected: Line number and content of each line that is no user object.
        rescued: Number of rows that have rescued members, by stream; 0 is left out.
        rescued_members: The same by stream and member.
        fingerprints: Of these users, if users are compared with what was emitted before.
    """

    rows: Mapping[str, Rows] = field(default_factory=dict)
    size: int = 0
    careful: int = 0
    lines: int = 0
    users: int = 0
    duplicates: int = 0
    unchanged: int = 0
    rejected: list[tuple[int, bytes]] = field(default_factory=list)
    rescued: Counter[str] = field(default_factory=Counter)
    rescued_members: MemberCounts = field(default_factory=Counter)
    fingerprints: Any = None


@dataclass(frozen=True)
class _Chunk:
    """Some lines of a block.

    Attributes:
        lines: The lines.
        start: Index of the first one in the block.
        first_line: Its number in the file.
        check: The check of the block; None to emit all users.
        same_lines: For each line, as `check` says it, the `braze_id` if it is unchanged; empty without a check.
    """

    lines: list[bytes]
    start: int
    first_line: int
    check: BlockCheck | None
    same_lines: Sequence[str | None]


class Reader:
    """Reads the lines of one export into the rows of the selected streams.

    Args:
        selections: The selected streams by name.
        exported_at: The value of that column in every row.
        segment_id: The segment that every user of the export is a member of; empty where there is none.
        strict: True if lines that are exactly as the schema says take the fast path.
        known_users: Says which users need not be emitted again; None to emit all.
        part_bytes: Bytes by which rows may exceed their lines, whose memory they get, before they are handed out.
    """

    def __init__(
        self,
        selections: Mapping[str, Selection],
        *,
        exported_at: str,
        segment_id: str,
        strict: bool = True,
        known_users: KnownUsers | None = None,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._part_bytes = part_bytes
        self._known_users = known_users
        self._exported_at = exported_at
        self._given = {EXPORTED_AT: exported_at}
        self._member_of = segment_id if SEGMENT_MEMBERS.stream in selections else ""
        self._selections = selections
        by_path = {s.table.path: s for s in selections.values() if s.table.path is not None}
        self._has_profiles = bool(by_path)
        self._encoders = row_encoders(selections)
        self._careful_path = ObjectCollector((), by_path)
        self._fast_path = FastPath(by_path, exported_at=exported_at) if strict else None

    def read(self, block: Block) -> Iterator[BlockRows]:
        """Turn a block into rows, unordered; of a user that occurs twice, the last line wins.

        Most blocks give their rows at once. Where the rows are far more than the lines, they come in several parts, so
        that memory stays small. It empties `block.lines` to free memory.
        """
        seen: set[str] = set()
        check = self._check(block.lines)
        while True:
            with _without_garbage_collection():
                rows = self._read_part(block, check, seen)
            if check is not None:
                rows.fingerprints = check.result()
            yield rows
            if not block.lines:
                return

    def _read_part(self, block: Block, check: BlockCheck | None, seen: set[str]) -> BlockRows:
        """Read lines from the end of a block, so that the last line of a user comes first."""
        result = BlockRows()
        chunks: list[dict[str, list[Rows]]] = []
        users_before, growth, rejected = len(seen), 0, 0
        while block.lines:
            lines, line_bytes = _last_lines(block.lines)
            start = len(block.lines) - len(lines)
            del block.lines[start:]  # their memory, which the cache still holds, becomes that of their rows
            result.size += line_bytes
            same_lines = check.same_lines[start : start + len(lines)] if check else ()
            chunk = _Chunk(lines, start, block.first_line + start, check, same_lines)
            chunks.append(self._read_chunk(chunk, seen, result))
            growth += sum(rows.size for several in chunks[-1].values() for rows in several) - line_bytes
            growth += sum(_REJECTED_LINE_BYTES + len(line) for _, line in result.rejected[rejected:])
            rejected = len(result.rejected)
            if growth >= self._part_bytes:
                break
        result.rejected.reverse()
        result.users = len(seen) - users_before
        result.rows = _joined(reversed(chunks))
        return result

    def read_carefully(self, braze_id: str, user: dict[str, Any]) -> RenderedRows:
        """Return the rows of one decoded user by the careful path."""
        if self._fast_path is not None:
            self._fast_path.learn(user)
        rows_by_stream: dict[str, RowsByKey] = {}
        self._careful_path.collect(user, {"braze_id": braze_id} | self._given, rows_by_stream, {})
        return [
            (stream, self._encoders[stream](row), kept_names(row.get(RESCUED) or ()))
            for stream, rows in rows_by_stream.items()
            for row in rows.values()
        ]

    def _check(self, lines: Sequence[bytes]) -> BlockCheck | None:
        if self._known_users is None:
            return None
        return self._known_users.check(lines, member_of=self._member_of, has_profiles=self._has_profiles)

    def _read_chunk(self, chunk: _Chunk, seen: set[str], result: BlockRows) -> dict[str, list[Rows]]:
        """Return the rows of some lines by stream, without users that were seen; count the lines in `result`."""
        fast: list[Any] = []
        careful: dict[str, RenderedRows] = {}
        index_of: dict[str, int] = {}
        users = self._decode(chunk)
        generation = self._fast_path.generation if self._fast_path else 0
        for index in reversed(range(len(chunk.lines))):
            line, user = chunk.lines[index], users[index]
            if user is None and (not line or line.isspace()):
                continue
            result.lines += 1
            if chunk.check and (same := chunk.same_lines[index]):
                if _is_first(same, seen, result):
                    result.unchanged += 1
                    chunk.check.skip_line(chunk.start + index)
                continue
            try:
                braze_id, user, members = self._decode_again(line, user, generation)
            except UnreadableLineError:
                result.rejected.append((chunk.first_line + index, line))
                continue
            if not _is_first(braze_id, seen, result):
                continue
            index_of[braze_id] = index
            if members is None:
                fast.append(user)
            else:
                careful[braze_id] = self.read_carefully(braze_id, members)
        rows: dict[str, list[Any]] = {}
        if self._fast_path is not None:
            fast.reverse()
            rows, refused = self._fast_path.to_rows(fast)
            for braze_id in refused:
                careful[braze_id] = self.read_carefully(*decode_user(chunk.lines[index_of[braze_id]]))
        return self._emitted(chunk, index_of, rows, careful, result)

    def _emitted(
        self,
        chunk: _Chunk,
        index_of: Mapping[str, int],
        rows: dict[str, list[Any]],
        careful: Mapping[str, RenderedRows],
        result: BlockRows,
    ) -> dict[str, list[Rows]]:
        """Render the rows of users by stream, without users whose content is unchanged."""
        if chunk.check is None:
            return self._rendered(rows, careful, index_of, result)
        contents: Contents = {}
        rendered = add_contents(rows, contents, exported_at=self._exported_at)
        for braze_id, own in careful.items():
            add_content(braze_id, ((stream, row) for stream, row, _ in own), contents, exported_at=self._exported_at)
        unchanged = chunk.check.unchanged(
            {
                braze_id: (chunk.start + index, b"\n".join(contents.get(braze_id, ())))
                for braze_id, index in index_of.items()
            }
        )
        if not unchanged:
            return self._rendered(rows, careful, index_of, result, rendered)
        result.unchanged += len(unchanged)
        return self._rendered(
            without(rows, unchanged),
            {braze_id: own for braze_id, own in careful.items() if braze_id not in unchanged},
            [braze_id for braze_id in index_of if braze_id not in unchanged],
            result,
        )

    def _decode(self, chunk: _Chunk) -> list[Any]:
        """Decode the lines of a chunk; None for each that is unchanged or that the fast path refuses."""
        if self._fast_path is None:
            return [None] * len(chunk.lines)
        if not any(chunk.same_lines):
            return self._fast_path.decode(chunk.lines)
        others = [line for line, same in zip(chunk.lines, chunk.same_lines, strict=True) if not same]
        users = iter(self._fast_path.decode(others))
        return [None if same else next(users) for same in chunk.same_lines]

    def _decode_again(self, line: bytes, user: Any, generation: int) -> tuple[str, Any, dict[str, Any] | None]:
        """Return a user's id, and the user as the fast path has it, else as an object.

        Args:
            line: The line.
            user: As the fast path has decoded it; None if it has refused it.
            generation: Of the fast path at that time.

        Raises:
            UnreadableLineError: If the line holds no user.
        """
        if user is None and self._fast_path and self._fast_path.generation != generation:
            (user,) = self._fast_path.decode([line])  # it knows by now the member that it refused, perhaps
        if user is not None:
            return user.braze_id, user, None
        braze_id, members = decode_user(line)
        return braze_id, None, members

    def _rendered(
        self,
        rows: Mapping[str, list[Any]],
        careful: Mapping[str, RenderedRows],
        members: Collection[str],
        result: BlockRows,
        rendered_before: Mapping[str, bytes] = _NONE,
    ) -> dict[str, list[Rows]]:
        """Render rows by stream; those of the careful path and `members` come in reverse."""
        if self._fast_path is not None:
            self._fast_path.count_rescued(rows, result.rescued, result.rescued_members)
        rendered = {
            stream: [Rows((rendered_before.get(stream) or ENCODER.encode_lines(own),), len(own))]
            for stream, own in rows.items()
            if own
        }
        by_stream: dict[str, list[bytes]] = {}
        for own_rows in reversed([*careful.values()]):
            result.careful += len(own_rows)
            for stream, row, rescued in own_rows:
                by_stream.setdefault(stream, []).append(row)
                if rescued:
                    result.rescued[stream] += 1
                    add(result.rescued_members, (((stream, name), 1) for name in rescued))
        for stream, lines in by_stream.items():
            rendered.setdefault(stream, []).append(Rows.of(lines))
        if self._member_of and members:
            memberships = membership_rows(
                self._selections[SEGMENT_MEMBERS.stream],
                reversed([*members]),
                segment_id=self._member_of,
                is_member=True,
                exported_at=self._exported_at,
            )
            rendered[SEGMENT_MEMBERS.stream] = [memberships]
        return rendered


def _last_lines(lines: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Return the lines at the end of a list that are read together, at least one, and their bytes."""
    last = [*lines[-_USERS_AT_ONCE:]]
    size = sum(map(len, last))
    while size > _BYTES_AT_ONCE and len(last) > 1:
        size -= len(last.pop(0))
    return last, size


def _is_first(braze_id: str, seen: set[str], result: BlockRows) -> bool:
    """True if no later line of the same user was read; else the line is counted as a duplicate."""
    if braze_id in seen:
        result.duplicates += 1
        return False
    seen.add(braze_id)
    return True


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


def _joined(chunks: Iterable[dict[str, list[Rows]]]) -> dict[str, Rows]:
    """Join the rows of several chunks by stream."""
    by_stream: dict[str, list[Rows]] = {}
    for rows in chunks:
        for stream, several in rows.items():
            by_stream.setdefault(stream, []).extend(several)
    return {stream: Rows.joined(several) for stream, several in by_stream.items()}
