"""Merges snapshots into what the target has, one range of keys after another, so that memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tap_braze_export.fingerprints.snapshot import USERS, left_table, members_table, segments_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_braze_export.fingerprints.snapshot import Column, Columns, Snapshot, SnapshotWriter

_ROWS_AT_ONCE = 1_000_000
_CERTAIN = 2
"""State of a member that the target has as a member."""
_DOUBTFUL = 1
"""State of a user that the target may have as a member, or not."""
_LEFT = 0
"""State of a user that the target has as one that left."""


@dataclass(frozen=True)
class Emitted:
    """Snapshots of what was emitted, one after the other.

    Attributes:
        snapshots: In the order in which their users were emitted.
        is_doubtful: True if it is not known whether the target has their users, and when it got them.
        signature: Hash of everything that shapes rows; what was emitted with another one cannot be compared.
    """

    snapshots: Sequence[Snapshot]
    is_doubtful: bool
    signature: str


def write_merged(writer: SnapshotWriter, steps: Sequence[Emitted], *, of_profiles: Sequence[Emitted]) -> None:
    """Write the tables of a version: for each user what was emitted last, or that this is not known.

    Args:
        writer: Receives them.
        steps: Everything emitted so far.
        of_profiles: Those of it whose profiles the target still has.
    """
    for low, high in _ranges(of_profiles, USERS):
        writer.add(USERS, _users(of_profiles, low, high))
    for segment_id in segments_in(table for step in steps for each in step.snapshots for table in each.groups):
        table = members_table(segment_id)
        for low, high in _ranges(steps, table):
            columns = _members(steps, segment_id, low, high)
            state = columns.pop("state")
            kept = state != _LEFT
            certain = (state[kept] == _CERTAIN).astype("u1")
            writer.add(table, {name: values[kept] for name, values in columns.items()} | {"certain": certain})


def leavers(steps: Sequence[Emitted], segment_id: str, current: Sequence[Snapshot]) -> Iterator[Columns]:
    """Yield key and id of the members of a segment that are not in the current export of it.

    Args:
        steps: Everything emitted so far.
        segment_id: The segment.
        current: The snapshots of the current export.
    """
    table = members_table(segment_id)
    for low, high in _ranges(steps, table):
        members = _members(steps, segment_id, low, high)
        keys = _concatenated([rows["key"] for each in current for rows in each.between(table, low, high)], "<u8")
        gone = (members["state"] != _LEFT) & ~np.isin(members["key"], keys)
        if gone.any():
            yield {"key": members["key"][gone], "id": members["id"][gone]}


def differing(base: Snapshot, other: Snapshot, *, comparable: bool, is_confirmed: bool) -> Iterator[tuple[str, Column]]:
    """Yield, by table, positions in a version of users that the target may have otherwise by another snapshot.

    Args:
        base: The version.
        other: A part, or another version.
        comparable: True if the same user has the same content in both.
        is_confirmed: True if the target has all that was emitted. Else it may have only some of a user's rows, whose
            time then differs from that of the others, although their content is the same.
    """
    for low, high in _ranges([Emitted([other], is_doubtful=True, signature="")], USERS):
        for rows in other.between(USERS, low, high):
            positions, found = base.lookup(USERS, rows["key"], ["content"])
            differs = positions >= 0
            if comparable and found:
                differs &= (found["content"] != rows["content"]) | _was_emitted(rows, unless=is_confirmed)
            yield USERS, positions[differs]
    for segment_id in segments_in(other.groups):
        table = members_table(segment_id)
        for group in other.groups.get(left_table(segment_id), ()):
            positions, _ = base.lookup(table, other.columns(group)["key"])
            yield table, positions[positions >= 0]
    if is_version(other):
        for table, groups in base.groups.items():
            first = 0
            for group in groups:
                wanted = [] if table == USERS else ["certain"]
                positions, found = other.lookup(table, base.columns(group)["key"], wanted)
                is_doubtful = found["certain"] != 1 if "certain" in found else False
                yield table, first + np.flatnonzero((positions < 0) | is_doubtful)
                first += group.count


def is_version(snapshot: Snapshot) -> bool:
    """True for a version, which has every user; a part has those of one file."""
    return bool(snapshot.facts["is_version"])


def _users(steps: Sequence[Emitted], low: int, high: int) -> dict[str, Column]:
    merged = {name: np.zeros(0, "<u8") for name in ("key", "raw", "content")}
    for step in steps:
        pieces = [(each, rows) for each in step.snapshots for rows in each.between(USERS, low, high)]
        for each, rows in pieces:
            if each.facts["signature"] != step.signature:
                rows["raw"] = rows["content"] = np.zeros(len(rows["key"]), "<u8")
        new = {name: _concatenated([rows[name] for _, rows in pieces], "<u8") for name in merged}
        if step.is_doubtful:
            emitted = [_was_emitted(rows, unless=False) for _, rows in pieces]
            _mark_doubtful(merged, new, _concatenated(emitted, "?"))
            for version in filter(is_version, step.snapshots):
                positions, _ = version.lookup(USERS, merged["key"])
                merged["raw"][positions < 0] = merged["content"][positions < 0] = 0
        else:
            merged = _last({name: np.concatenate([merged[name], new[name]]) for name in merged})
    return merged


def _was_emitted(rows: Columns, *, unless: bool) -> Column:
    """True for each user of a part that was emitted, not skipped, unless that is settled; versions do not say it."""
    none = np.zeros(len(rows["key"]), "u1")
    return np.equal(none if unless else rows.get("emitted", none), 1)


def _mark_doubtful(merged: dict[str, Column], new: dict[str, Column], emitted: Column) -> None:
    """Mark users as not known that were perhaps emitted otherwise, or of whom some rows were perhaps loaded again."""
    keys = merged["key"]
    places, known = _places(keys, new["key"])
    differs = places[known][(merged["content"][places[known]] != new["content"][known]) | emitted[known]]
    merged["raw"][differs] = merged["content"][differs] = 0
    others = np.unique(new["key"][~known])
    zeros = np.zeros(len(others), "<u8")
    order = np.argsort(joined := np.concatenate([keys, others]), kind="stable")
    merged["key"] = joined[order]
    for name in ("raw", "content"):
        merged[name] = np.concatenate([merged[name], zeros])[order]


def _members(steps: Sequence[Emitted], segment_id: str, low: int, high: int) -> dict[str, Column]:
    """The state of each user that is or was a member, sorted by key."""
    merged: dict[str, Column] = {"key": np.zeros(0, "<u8"), "id": np.zeros(0, "S1"), "state": np.zeros(0, "u1")}
    for step in steps:
        pieces = [rows for each in step.snapshots for rows in _states(each, segment_id, low, high, step.signature)]
        if step.is_doubtful:
            versions = [
                each for each in step.snapshots if is_version(each) and members_table(segment_id) in each.groups
            ]
            pieces += [_unmentioned(merged, version, segment_id) for version in versions]
            pieces = [_disagreeing(merged, rows) for rows in pieces]
        merged = _last({name: np.concatenate([merged[name], *(rows[name] for rows in pieces)]) for name in merged})
    return merged


def _states(snapshot: Snapshot, segment_id: str, low: int, high: int, signature: str) -> Iterator[dict[str, Column]]:
    """The rows of one snapshot; members whose rows were of another form are doubtful."""
    for table, state in ((members_table(segment_id), _CERTAIN), (left_table(segment_id), _LEFT)):
        for rows in snapshot.between(table, low, high):
            states = np.full(len(rows["key"]), state, "u1")
            if snapshot.facts["signature"] != signature:
                states[:] = _DOUBTFUL
            elif "certain" in rows:
                states[rows["certain"] == 0] = _DOUBTFUL
            yield {"key": rows["key"], "id": rows["id"], "state": states}


def _unmentioned(merged: dict[str, Column], version: Snapshot, segment_id: str) -> dict[str, Column]:
    """The members that a version does not have: it may have seen them leave."""
    positions, _ = version.lookup(members_table(segment_id), merged["key"])
    rows = {name: values[positions < 0] for name, values in merged.items()}
    return rows | {"state": np.full(len(rows["key"]), _LEFT, "u1")}


def _disagreeing(merged: dict[str, Column], rows: dict[str, Column]) -> dict[str, Column]:
    """The rows that say something else of a user, made doubtful."""
    places, known = _places(merged["key"], rows["key"])
    known[known] = merged["state"][places[known]] == rows["state"][known]
    others = {name: values[~known] for name, values in rows.items()}
    return others | {"state": np.full(len(others["key"]), _DOUBTFUL, "u1")}


def _places(keys: Column, wanted: Column) -> tuple[Column, Column]:
    """Where keys stand among sorted ones, and True for each that is there."""
    places = np.searchsorted(keys, wanted)
    known = places < len(keys)
    known[known] = keys[places[known]] == wanted[known]
    return places, known


def _last(columns: dict[str, Column]) -> dict[str, Column]:
    """Sort rows by key; of several rows with one key, the last one stays."""
    order = np.argsort(columns["key"], kind="stable")
    keys = columns["key"][order]
    is_last = np.append(keys[1:] != keys[:-1], True) if len(keys) else np.zeros(0, bool)
    order = order[is_last]
    return {name: values[order] for name, values in columns.items()}


def _ranges(steps: Sequence[Emitted], table: str) -> list[tuple[int, int]]:
    """Ranges of keys with about `_ROWS_AT_ONCE` rows each: keys are digests, so they are evenly spread."""
    rows = sum(each.count(table) for step in steps for each in step.snapshots)
    count = rows // _ROWS_AT_ONCE + 1
    edges = [index * 2**64 // count for index in range(count + 1)]
    return [*pairwise(edges)]


def _concatenated(columns: Sequence[Column], dtype: str) -> Column:
    return np.concatenate(columns) if columns else np.zeros(0, dtype)
