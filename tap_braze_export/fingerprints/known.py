"""The users that the target has, as the last confirmed version tells: answers the reader's `KnownUsers`."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tap_braze_export.fingerprints.snapshot import USERS, members_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tap_braze_export.fingerprints.snapshot import Column, Snapshot

_DIGEST_BYTES = 8
_MAX_ID_BYTES = 64
"""A user with a longer id is always emitted: ids stand in columns of one width."""
_ID_NAME = b'"braze_id"'


def digests(contents: Iterable[bytes]) -> Column:
    """Eight bytes of each content's SHA-256, which processors compute faster than any other standard hash."""
    sha256 = hashlib.sha256
    joined = b"".join([sha256(content, usedforsecurity=False).digest()[:_DIGEST_BYTES] for content in contents])
    return np.frombuffer(joined, "<u8")


@dataclass
class BlockFingerprints:
    """The fingerprints of users of one block of lines.

    Attributes:
        users: Number of users, also of those without a fingerprint.
        keys: Digests of their ids, sorted.
        ids: Their ids.
        raws: Digests of their lines.
        contents: Digests of their contents.
        are_emitted: 1 for each that is emitted, 0 for each that is skipped.
        member_of: The segment whose memberships are emitted; empty for none.
        has_profiles: True if more than memberships is emitted.
        skipped: Positions in the last version of the users that were skipped.
        emitted: Positions there of the others that it has.
    """

    users: int
    keys: Column
    ids: Column
    raws: Column
    contents: Column
    are_emitted: Column
    member_of: str
    has_profiles: bool
    skipped: Column
    emitted: Column

    def tables(self) -> dict[str, dict[str, Column]]:
        """Its tables, for a snapshot."""
        tables = {}
        if self.has_profiles:
            digests = {"key": self.keys, "raw": self.raws, "content": self.contents}
            tables[USERS] = {**digests, "emitted": self.are_emitted}
        if self.member_of:
            tables[members_table(self.member_of)] = {"key": self.keys, "id": self.ids}
        return tables


class SnapshotSource(Protocol):
    """Where a worker finds the version."""

    def open(self) -> Snapshot:
        """Open it.

        Raises:
            TapError: If it cannot be read.
        """


@dataclass
class _Found:
    """The rows of some users in the version.

    Attributes:
        positions: Of their rows; -1 where there is none that can be relied on.
        raws: Digests of the lines last emitted.
        contents: Digests of the contents last emitted.
        are_members: True for each member of the segment.
    """

    positions: Column
    raws: Column
    contents: Column
    are_members: Column


class Known:
    """The users that the target has: the last version that it has confirmed, and what may have changed since.

    It can be sent to other processes, which open the version themselves.

    Args:
        source: Opens that version; None if every user is to be emitted.
    """

    def __init__(self, source: SnapshotSource | None) -> None:
        self._source = source
        self._changed: dict[str, Column] = {}
        """By table of the version, True for each of its rows that may not be what the target has."""

    @property
    def is_reliable(self) -> bool:
        """True if unchanged users are skipped."""
        return self._source is not None

    @cached_property
    def base(self) -> Snapshot | None:
        """The version."""
        return self._source.open() if self._source else None

    def __getstate__(self) -> tuple[SnapshotSource | None, dict[str, tuple[int, bytes]]]:
        packed = {
            table: (len(rows), zlib.compress(np.packbits(rows).tobytes(), 1)) for table, rows in self._changed.items()
        }
        return self._source, packed

    def __setstate__(self, state: tuple[SnapshotSource | None, dict[str, tuple[int, bytes]]]) -> None:
        self._source, packed = state
        self._changed = {
            table: np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=count).view(bool)
            for table, (count, bits) in packed.items()
        }

    def check(self, lines: Sequence[bytes], *, member_of: str, has_profiles: bool) -> BlockCheck:
        """See `rows.known_users.KnownUsers`."""
        return BlockCheck(self, lines, member_of=member_of, has_profiles=has_profiles)

    def note_changed(self, table: str, positions: Column) -> None:
        """Note rows of the version that may not be what the target has."""
        if self.base is not None and len(positions):
            rows = self._changed.setdefault(table, np.zeros(self.base.count(table), bool))
            rows[positions] = True

    def emitted(self, block: BlockFingerprints) -> None:
        """Note users that are emitted: whoever stands in another file, too, is emitted again."""
        self.note_changed(USERS, block.emitted)

    def is_outdated(self, block: BlockFingerprints) -> bool:
        """True if a worker skipped a user that was emitted with another content meanwhile."""
        rows = self._changed.get(USERS)
        return rows is not None and bool(rows[block.skipped].any())

    def find(self, keys: Column, *, member_of: str, has_profiles: bool) -> _Found:
        """Find users by the digests of their ids, in any order."""
        none = np.zeros(len(keys), "<u8")
        found = _Found(np.full(len(keys), -1, np.int64), none, none, np.zeros(len(keys), bool))
        if self.base is None or not len(keys):
            return found
        order = np.argsort(keys)
        if has_profiles:
            positions, columns = self._lookup(USERS, keys, order, ["raw", "content"])
            found.positions = positions
            found.raws, found.contents = columns.get("raw", none), columns.get("content", none)
        if member_of:
            positions, columns = self._lookup(members_table(member_of), keys, order, ["certain"])
            found.are_members = (positions >= 0) & (columns.get("certain", none) == 1)
        return found

    def _lookup(
        self, table: str, keys: Column, order: Column, wanted: Sequence[str]
    ) -> tuple[Column, dict[str, Column]]:
        assert self.base is not None  # noqa: S101 - find() has asked
        sorted_positions, sorted_columns = self.base.lookup(table, keys[order], wanted)
        if (rows := self._changed.get(table)) is not None:
            sorted_positions[(sorted_positions >= 0) & rows[sorted_positions]] = -1
        positions = np.empty_like(sorted_positions)
        positions[order] = sorted_positions
        columns = {}
        for name, values in sorted_columns.items():
            columns[name] = np.empty_like(values)
            columns[name][order] = values
        return positions, columns


class BlockCheck:
    """See `rows.known_users.BlockCheck`."""

    def __init__(self, known: Known, lines: Sequence[bytes], *, member_of: str, has_profiles: bool) -> None:
        self._known = known
        self._member_of = member_of
        self._has_profiles = has_profiles
        self._raws = digests(lines)
        self._ids = [*map(_first_id, lines)]
        self._keys = digests(self._ids)
        self._found = found = known.find(self._keys, member_of=member_of, has_profiles=has_profiles)
        # A first id that is not the user's own finds another user, whose line was another one.
        same = (found.positions >= 0) & (found.raws == self._raws) & (found.contents != 0)
        if member_of:
            same &= found.are_members
        self.same_lines = [
            braze_id.decode() if is_same else None for braze_id, is_same in zip(self._ids, same.tolist(), strict=True)
        ]
        self._skipped_lines: list[int] = []
        self._others: list[tuple[Column, list[bytes], Column, Column, Column, Column]] = []

    def skip_line(self, index: int) -> None:
        """See `rows.known_users.BlockCheck`."""
        self._skipped_lines.append(index)

    def unchanged(self, users: Mapping[str, tuple[int, bytes]]) -> AbstractSet[str]:
        """See `rows.known_users.BlockCheck`."""
        if not users:
            return frozenset()
        ids = [braze_id.encode() for braze_id in users]
        keys, contents = digests(ids), digests(content for _, content in users.values())
        lines = np.fromiter((index for index, _ in users.values()), np.int64, len(users))
        found = self._find(keys, lines)
        same = np.full(len(ids), self._has_profiles or bool(self._member_of))
        if self._has_profiles:
            same &= (found.positions >= 0) & (found.contents == contents)
        if self._member_of:
            same &= found.are_members
        same &= np.fromiter(map(_fits, ids), bool, len(ids))
        self._others.append((keys, ids, self._raws[lines], contents, found.positions, same))
        return {braze_id for braze_id, is_same in zip(users, same.tolist(), strict=True) if is_same}

    def _find(self, keys: Column, lines: Column) -> _Found:
        """Find the users of some lines: as they were found by the first id of the line, where that is their own."""
        of_lines = (values[lines] for values in vars(self._found).values())
        found = _Found(*of_lines)
        if len(wrong := np.flatnonzero(self._keys[lines] != keys)):
            again = self._known.find(keys[wrong], member_of=self._member_of, has_profiles=self._has_profiles)
            for name, values in vars(again).items():
                getattr(found, name)[wrong] = values
        return found

    def result(self) -> BlockFingerprints:
        """See `rows.known_users.BlockCheck`."""
        lines = np.array(self._skipped_lines, np.int64)
        keys = [self._keys[lines]]
        ids = [self._ids[index] for index in self._skipped_lines]
        raws, contents = [self._raws[lines]], [self._found.contents[lines]]
        skipped, emitted = [self._found.positions[lines]], []
        are_emitted = [np.zeros(len(lines), "u1")]
        for other_keys, other_ids, other_raws, other_contents, positions, same in self._others:
            keys.append(other_keys)
            ids += other_ids
            raws.append(other_raws)
            contents.append(other_contents)
            skipped.append(positions[same])
            emitted.append(positions[~same])
            are_emitted.append((~same).astype("u1"))
        fitting = np.fromiter(map(_fits, ids), bool, len(ids))
        all_keys = np.concatenate(keys)
        order = np.argsort(all_keys, kind="stable")
        order = order[fitting[order]]
        width = max((len(braze_id) for braze_id, fits in zip(ids, fitting, strict=True) if fits), default=1)
        block = BlockFingerprints(
            users=len(ids),
            keys=all_keys[order],
            ids=np.array(ids, f"S{width}")[order],
            raws=np.concatenate(raws)[order],
            contents=np.concatenate(contents)[order],
            are_emitted=np.concatenate(are_emitted)[order],
            member_of=self._member_of,
            has_profiles=self._has_profiles,
            skipped=_found_only(skipped),
            emitted=_found_only(emitted),
        )
        self._skipped_lines, self._others = [], []
        self._known.emitted(block)
        return block


def _first_id(line: bytes) -> bytes:
    """The first text after a member's name `braze_id`, which nearly always is the user's own id; empty if none is."""
    start = line.find(b'"', line.find(_ID_NAME) + len(_ID_NAME)) + 1
    return line[start : line.find(b'"', start)] if start > len(_ID_NAME) else b""


def _fits(braze_id: bytes) -> bool:
    return len(braze_id) <= _MAX_ID_BYTES and b"\0" not in braze_id


def _found_only(positions: Sequence[Column]) -> Column:
    joined = np.concatenate(positions) if positions else np.zeros(0, np.int64)
    return joined[joined >= 0]
