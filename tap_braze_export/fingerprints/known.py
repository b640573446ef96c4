"""The users that the target has, as a version tells: answers the reader's `KnownUsers`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tap_braze_export.fingerprints.columns import IS_MEMBER, USERS, Part, PartFacts, UnreadableError, members_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tap_braze_export.fingerprints.columns import Column, Version

_DIGEST_BYTES = 8
_MAX_ID_BYTES = 64
"""A user with a longer id is always emitted: ids stand in columns of one width."""
_ID_NAME = b'"braze_id"'
_sha256 = partial(hashlib.sha256, usedforsecurity=False)


def digests(contents: Iterable[bytes]) -> Column:
    """Eight bytes of each content's SHA-256, which processors compute faster than any other standard hash."""
    return np.frombuffer(b"".join([_sha256(content).digest()[:_DIGEST_BYTES] for content in contents]), "<u8")


@dataclass
class BlockFingerprints:
    """The fingerprints of the users of one block of lines.

    Attributes:
        users: Number of users, also of those without a fingerprint.
        seen: Digests of the ids of all users, sorted.
        keys: Those of users whose line is not the one last emitted, sorted.
        ids: Their ids.
        raws: Digests of their lines.
        contents: Digests of their contents.
        are_emitted: True for each that is emitted, False for each that is skipped.
        member_of: The segment whose memberships are emitted; empty for none.
        has_profiles: True if more than memberships is emitted.
        skipped: Positions in the version of all users that are skipped.
        emitted: Positions there of the others that it has.
    """

    users: int
    seen: Column
    keys: Column
    ids: Column
    raws: Column
    contents: Column
    are_emitted: Column
    member_of: str
    has_profiles: bool
    skipped: Column
    emitted: Column

    def part(self, **facts: Any) -> Part | None:
        """The part that lists them; None if there is nothing to say."""
        columns = {"key": self.keys, "raw": self.raws, "content": self.contents, "emitted": self.are_emitted}
        if not (self.users if self.member_of else len(self.keys)):
            return None
        if self.member_of:
            columns["id"] = self.ids
        facts |= {"segment": self.member_of, "has_profiles": self.has_profiles, "users": self.users}
        return Part(PartFacts(**facts), columns, self.seen if self.member_of else self.seen[:0])


class Known:
    """The users that the target has. It can be sent to other processes, which open the version themselves.

    Args:
        open_version: Opens the version; None if every user is to be emitted.
    """

    def __init__(self, open_version: Callable[[], Version] | None) -> None:
        self._open_version = open_version
        self._emitted: Column | None = None
        """True for each of the version's profiles that was emitted since."""

    @property
    def is_reliable(self) -> bool:
        """True if unchanged users are skipped."""
        return self._open_version is not None

    @cached_property
    def _version(self) -> Version | None:
        try:
            return self._open_version() if self._open_version else None
        except UnreadableError:  # another program has removed it meanwhile
            return None

    def __getstate__(self) -> dict[str, Any]:
        # The run itself finds out if a worker has skipped somebody who was emitted meanwhile.
        return {"_open_version": self._open_version, "_emitted": None}

    def check(self, lines: Sequence[bytes], *, member_of: str, has_profiles: bool) -> BlockCheck:
        """See `rows.known_users.KnownUsers`."""
        return BlockCheck(self, lines, member_of=member_of, has_profiles=has_profiles)

    def emitted(self, block: BlockFingerprints) -> None:
        """Note users that are emitted: whoever stands in another file, too, is emitted again."""
        if self._version is not None and len(block.emitted):
            if self._emitted is None:
                self._emitted = np.zeros(self._version.count(USERS), bool)
            self._emitted[block.emitted] = True

    def is_outdated(self, block: BlockFingerprints) -> bool:
        """True if a worker skipped a user that was emitted with another content meanwhile."""
        return self._emitted is not None and bool(self._emitted[block.skipped].any())

    def find(self, keys: Column, *, member_of: str, has_profiles: bool) -> Found:
        """Find users by the digests of their ids."""
        none, version = np.zeros(len(keys), "<u8"), self._version
        found = Found(np.full(len(keys), -1, np.int64), none, none, np.zeros(len(keys), bool))
        if version is not None and has_profiles:
            found.positions, columns = version.find(USERS, keys, ["raw", "content"])
            found.raws, found.contents = columns["raw"], columns["content"]
            if self._emitted is not None:
                found.positions[(found.positions >= 0) & self._emitted[found.positions]] = -1
        if version is not None and member_of:
            positions, columns = version.find(members_table(member_of), keys, ["state"])
            found.are_members = (positions >= 0) & (columns["state"] == IS_MEMBER)
        return found


@dataclass
class Found:
    """Some users in the version.

    Attributes:
        positions: Of their profiles; -1 where there is none that can be relied on.
        raws: Digests of the lines last emitted, if there is one.
        contents: Digests of the contents last emitted, if there is one.
        are_members: True for each member of the segment.
    """

    positions: Column
    raws: Column
    contents: Column
    are_members: Column


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
        same = (found.positions >= 0) & (found.raws == self._raws)
        if member_of:
            same &= found.are_members
        self.same_lines: list[str | None] = [None] * len(lines)
        for index in np.flatnonzero(same).tolist():
            self.same_lines[index] = self._ids[index].decode()
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
        contents = digests(content for _, content in users.values())
        lines = np.fromiter((index for index, _ in users.values()), np.int64, len(users))
        keys, found = self._find(ids, lines)
        same = np.full(len(ids), self._has_profiles or bool(self._member_of))
        if self._has_profiles:
            same &= (found.positions >= 0) & (found.contents == contents)
        if self._member_of:
            same &= found.are_members
        self._others.append((keys, ids, self._raws[lines], contents, found.positions, same))
        return {braze_id for braze_id, is_same in zip(users, same.tolist(), strict=True) if is_same}

    def _find(self, ids: Sequence[bytes], lines: Column) -> tuple[Column, Found]:
        """Find the users of some lines: as they were found by the first id of the line, where that is their own."""
        keys = self._keys[lines]
        found = Found(*(values[lines] for values in vars(self._found).values()))
        wrong = [place for place, line in enumerate(lines.tolist()) if self._ids[line] != ids[place]]
        if wrong:
            keys[wrong] = digests(ids[place] for place in wrong)
            again = self._known.find(keys[wrong], member_of=self._member_of, has_profiles=self._has_profiles)
            for name, values in vars(again).items():
                getattr(found, name)[wrong] = values
        return keys, found

    def result(self) -> BlockFingerprints:
        """See `rows.known_users.BlockCheck`."""
        skipped_lines = np.array(self._skipped_lines, np.int64)
        none: Any = (self._keys[:0], [], self._keys[:0], self._keys[:0], self._found.positions[:0], np.zeros(0, bool))
        keys, ids, raws, contents, positions, same = zip(none, *self._others, strict=True)
        all_ids = [braze_id for some in ids for braze_id in some]
        fitting = np.fromiter(map(_fits, all_ids), bool, len(all_ids))
        all_keys, all_positions, are_same = map(np.concatenate, (keys, positions, same))
        order = np.argsort(all_keys)
        order = order[fitting[order]]
        width = max(map(len, all_ids), default=1)
        block = BlockFingerprints(
            users=len(all_ids) + len(skipped_lines),
            seen=np.sort(np.concatenate([self._keys[skipped_lines], all_keys[order]])),
            keys=all_keys[order],
            ids=np.array(all_ids, f"S{max(1, min(width, _MAX_ID_BYTES))}")[order],
            raws=np.concatenate(raws)[order],
            contents=np.concatenate(contents)[order],
            are_emitted=~are_same[order],
            member_of=self._member_of,
            has_profiles=self._has_profiles,
            skipped=_found_only([self._found.positions[skipped_lines], all_positions[are_same]]),
            emitted=_found_only([all_positions[~are_same]]),
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
    joined = np.concatenate(positions)
    return joined[joined >= 0]
