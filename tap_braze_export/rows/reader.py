"""A block of lines → rows of every stream: deduplicated, and rendered as JSON lines."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.careful_path import ObjectCollector
from tap_braze_export.rows.content import add_content, add_contents
from tap_braze_export.rows.decode import UnreadableLineError, decode_user
from tap_braze_export.rows.exact_json import ENCODER, json_text
from tap_braze_export.rows.fast_path import FastPath, without
from tap_braze_export.rows.rendered import Rows, membership_rows
from tap_braze_export.rows.rescued_members import count_rows
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tap_braze_export.files.archive import Block
    from tap_braze_export.rows.careful_path import RowsByKey
    from tap_braze_export.rows.content import Contents
    from tap_braze_export.rows.known_users import BlockCheck, KnownUsers
    from tap_braze_export.rows.rescued_members import MemberCounts
    from tap_braze_export.schema.selection import Selection

    RowsByStream = dict[str, list[dict[str, Any]]]

_USERS_AT_ONCE = 64
"""Users that are read at once: so few that they stay in a core's own cache until they are rendered."""
_BYTES_AT_ONCE = 300_000
"""Bytes of the lines that are read at once, unless it is one: small objects need a hundred times their bytes."""
_PART_BYTES = 32 * 2**20
_REJECTED_LINE_BYTES = 128
"""Bytes that a rejected line costs beside its own."""


@dataclass(frozen=True)
class _OtherUser:
    """A user that the fast path has not read: its members, or None if the line is the one that was last emitted."""

    braze_id: str
    members: dict[str, Any] | None


@dataclass
class BlockRows:
    """The rows of one block of lines, or of a part of them where they are many.

    Attributes:
        rows: By stream.
        size: Bytes of the lines that were read.
        careful: Rows that took the careful path.
        lines: Lines that are not blank.
        duplicates: Lines that a later line of the same user replaced.
        unchanged: Users that were skipped, since the target has them as they are.
        rejected: Number and content of each line that is no user object.
        rescued: Rows that have rescued members, by stream; 0 is left out.
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
        self._memberships = selections.get(SEGMENT_MEMBERS.stream) if segment_id else None
        self._segment_id = segment_id
        by_path = {s.table.path: s for s in selections.values() if s.table.path is not None}
        self._has_profiles = bool(by_path)
        self._rescues_text = {
            name
            for name, selection in selections.items()
            if any(column.name == RESCUED and column.loaded for column in selection.columns)
        }
        self._careful_path = ObjectCollector((), by_path)
        self._fast_path = FastPath(by_path, exported_at=exported_at) if strict else None

    def read(self, block: Block) -> Iterator[BlockRows]:
        """Turn a block into rows, unordered; of a user that occurs twice, the last line wins.

        Most blocks give their rows at once. Where the rows are far more than the lines, they come in several parts, so
        that memory stays small. It empties `block.lines` to free memory.
        """
        seen: set[str] = set()
        check = None
        if self._known_users is not None:
            member_of = self._segment_id if self._memberships else ""
            check = self._known_users.check(block.lines, member_of=member_of, has_profiles=self._has_profiles)
        while True:
            with _without_garbage_collection():
                part = self._read_part(block, check, seen)
            if check is not None:
                part.fingerprints = check.result()
            yield part
            if not block.lines:
                return

    def _read_part(self, block: Block, check: BlockCheck | None, seen: set[str]) -> BlockRows:
        """Read lines from the end of a block, so that the last line of a user comes first."""
        part = BlockRows()
        chunks: list[dict[str, Rows]] = []
        users_before, growth, rejected = len(seen), 0, 0
        while block.lines:
            size = part.size
            chunks.append(self._read_chunk(block, check, seen, part))
            growth += sum(rows.size for rows in chunks[-1].values()) - (part.size - size)
            growth += sum(_REJECTED_LINE_BYTES + len(line) for _, line in part.rejected[rejected:])
            rejected = len(part.rejected)
            if growth >= self._part_bytes:
                break
        part.rejected.reverse()
        part.users = len(seen) - users_before
        by_stream: defaultdict[str, list[Rows]] = defaultdict(list)
        for chunk in reversed(chunks):
            for stream, rows in chunk.items():
                by_stream[stream].append(rows)
        part.rows = {stream: Rows.joined(several) for stream, several in by_stream.items()}
        return part

    def _read_chunk(self, block: Block, check: BlockCheck | None, seen: set[str], part: BlockRows) -> dict[str, Rows]:
        """Read the last lines of a block, which loses them, and return the rows of users that were not seen."""
        lines = _last_lines(block.lines)
        start = len(block.lines) - len(lines)
        del block.lines[start:]  # their memory, which the cache still holds, becomes that of their rows
        part.size += sum(map(len, lines))
        same_lines = check.same_lines[start : start + len(lines)] if check else ()
        users = self._decode(lines, block.first_line + start, same_lines, part)
        found = [(user.braze_id, index) for index, user in enumerate(users) if user is not None]
        index_of = dict(found)  # of a user that occurs twice, the last line wins
        for braze_id in index_of.keys() & seen:
            del index_of[braze_id]
        seen.update(index_of)
        part.duplicates += len(found) - len(index_of)
        last = [users[index] for index in index_of.values()]
        structs = [user for user in last if type(user) is not _OtherUser]
        others = [user for user in last if type(user) is _OtherUser]

        # Most become rows as structs; the others, and those that the fast path refuses at last, one by one.
        rows: dict[str, list[Any]] = {}
        if self._fast_path:
            rows, refused = self._fast_path.to_rows(structs)
            again = [lines[index] for braze_id, index in index_of.items() if braze_id in refused]
            others += (_OtherUser(*decode_user(line)) for line in again)
        careful: dict[str, RowsByStream] = {}
        for user in others:
            if user.members is not None:
                careful[user.braze_id] = self.read_carefully(user.braze_id, user.members)
            elif check:
                check.skip_line(start + index_of.pop(user.braze_id))
                part.unchanged += 1

        rendered: dict[str, bytes] = {}
        if check:
            unchanged, rendered = self._compare(check, start, index_of, rows, careful)
            if unchanged:
                part.unchanged += len(unchanged)
                rows, rendered = without(rows, unchanged), {}
                careful = {braze_id: own for braze_id, own in careful.items() if braze_id not in unchanged}
                index_of = {braze_id: index for braze_id, index in index_of.items() if braze_id not in unchanged}
        emitted = self._rendered(rows, careful.values(), rendered, part)
        if self._memberships and index_of:
            emitted[SEGMENT_MEMBERS.stream] = membership_rows(
                self._memberships, index_of, segment_id=self._segment_id, is_member=True, exported_at=self._exported_at
            )
        return emitted

    def _decode(
        self, lines: list[bytes], first_line: int, same_lines: Sequence[str | None], part: BlockRows
    ) -> list[Any]:
        """Decode lines: into a struct where the fast path can; None for a line that is blank or rejected.

        Args:
            lines: The lines.
            first_line: Number of the first one in the file.
            same_lines: For each line, as a `BlockCheck` has it, the `braze_id` if it is unchanged; empty without one.
            part: Receives the number of lines, and the rejected ones.
        """
        are_same = any(same_lines)
        changed = [line for line, same in zip(lines, same_lines, strict=True) if not same] if are_same else lines
        users = self._fast_path.decode(changed) if self._fast_path else [None] * len(changed)
        if are_same:
            structs = iter(users)
            users = [_OtherUser(same, None) if same else next(structs) for same in same_lines]
        part.lines += len(lines)
        for index in range(len(lines) - 1, -1, -1):
            if users[index] is None:
                line = lines[index]
                if not line or line.isspace():
                    part.lines -= 1
                    continue
                try:
                    users[index] = _OtherUser(*decode_user(line))
                except UnreadableLineError:
                    part.rejected.append((first_line + index, line))
        return users

    def read_carefully(self, braze_id: str, user: dict[str, Any]) -> RowsByStream:
        """Return the rows of one decoded user by the careful path."""
        if self._fast_path:
            self._fast_path.learn(user)
        rows: dict[str, RowsByKey] = {}
        self._careful_path.collect(user, {"braze_id": braze_id, EXPORTED_AT: self._exported_at}, rows, {})
        return {stream: [*by_key.values()] for stream, by_key in rows.items()}

    def _compare(
        self,
        check: BlockCheck,
        start: int,
        index_of: Mapping[str, int],
        rows: Mapping[str, Sequence[Any]],
        careful: Mapping[str, RowsByStream],
    ) -> tuple[AbstractSet[str], dict[str, bytes]]:
        """Return the users whose rows need not be emitted; and of all, the rendered rows of each stream but `users`."""
        contents: Contents = {}
        rendered = add_contents(rows, contents, exported_at=self._exported_at)
        for braze_id, own in careful.items():
            lines = ((stream, ENCODER.encode(row)) for stream, several in own.items() for row in several)
            add_content(braze_id, lines, contents, exported_at=self._exported_at)
        users = {
            braze_id: (start + index, b"\n".join(contents.get(braze_id, ()))) for braze_id, index in index_of.items()
        }
        return check.unchanged(users), rendered

    def _rendered(
        self,
        rows: Mapping[str, Sequence[Any]],
        careful: Collection[RowsByStream],
        rendered: Mapping[str, bytes],
        part: BlockRows,
    ) -> dict[str, Rows]:
        """Render rows by stream, those of the careful path last, and count those with rescued data.

        Args:
            rows: The structs of the fast path.
            careful: The rows of each user that took the careful path.
            rendered: Streams of `rows` that are rendered already.
            part: Receives the counts.
        """
        rescued = self._fast_path.rescued(rows) if self._fast_path else {}
        careful_rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for stream, own in chain.from_iterable(map(dict.items, careful)):
            careful_rows[stream] += own
        found = {
            stream: Rows((rendered.get(stream) or ENCODER.encode_lines(own),), len(own))
            for stream, own in rows.items()
            if own
        }
        for stream, own in careful_rows.items():
            part.careful += len(own)
            holders = [row for row in own if row.get(RESCUED)]
            rescued.setdefault(stream, []).extend(row[RESCUED] for row in holders)
            if stream in self._rescues_text:
                for row in holders:
                    row[RESCUED] = json_text(row[RESCUED])
            fast = (found[stream],) if stream in found else ()
            found[stream] = Rows.joined((*fast, Rows.of(own)))
        for stream, data in rescued.items():
            if data:
                part.rescued[stream] += len(data)
                count_rows(stream, data, part.rescued_members)
        return found


def _last_lines(lines: Sequence[bytes]) -> list[bytes]:
    """Return the lines at the end of a list that are read together, at least one."""
    last = [*lines[-_USERS_AT_ONCE:]]
    size = sum(map(len, last))
    while size > _BYTES_AT_ONCE and len(last) > 1:
        size -= len(last.pop(0))
    return last


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
