"""Fingerprints of made-up users, without the users: what it takes to build a version of them, and to use it."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.export import CACHE, USERS_PER_FILE
from tap_braze_export.clock import Clock
from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.known import BlockFingerprints, Known
from tap_braze_export.fingerprints.lifecycle import Fingerprints
from tap_braze_export.fingerprints.snapshot import USERS, Snapshot, SnapshotWriter, members_table
from tap_braze_export.fingerprints.store import Store, StoredVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.fingerprints.snapshot import Column

SEGMENT = "all-users"
VERSION = "20261122T000000Z-000000000000/version"
_SIGNATURE = "made up"
_CHANGED = 20
"""Of so many users one has changed since the version."""
_VERSION_ROWS = 1_000_000
_NONE = np.zeros(0, np.int64)


def version_of(users: int) -> Path:
    """The directory that has a version of so many users."""
    return CACHE / f"{users}.fingerprints"


def make(users: int) -> None:
    """Write a version of users."""
    keys = np.sort(_keys(users))
    path = version_of(users) / VERSION
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name("draft")
    with draft.open("wb") as file:
        writer = SnapshotWriter(file)
        for some in (keys[start : start + _VERSION_ROWS] for start in range(0, users, _VERSION_ROWS)):
            writer.add(USERS, {"key": some, "raw": some + 1, "content": some + 2})
        for some in (keys[start : start + _VERSION_ROWS] for start in range(0, users, _VERSION_ROWS)):
            certain = np.ones(len(some), "u1")
            writer.add(members_table(SEGMENT), {"key": some, "id": _ids(some), "certain": certain})
        writer.finish({"is_version": True, "signature": _SIGNATURE, "includes": []})
    draft.rename(path)


def build(users: int) -> None:
    """Write the parts of a night and, over the version of the night before, the version that follows from them."""
    with TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder)
        old = root / VERSION
        old.parent.mkdir()
        old.hardlink_to(version_of(users) / VERSION)
        store = Store(folder, {}, Spool(str(root / "spool"), clock=Clock()), Clock())
        state = [{"version": VERSION, "parts": []}]
        with Fingerprints(store, signature=_SIGNATURE, state=state, clock=Clock(), is_resync=False) as fingerprints:
            for block in _blocks(users):
                fingerprints.record(block, export_id="export")
            fingerprints.finish(only_own=False)
            made = fingerprints.state()[0]["version"]
        size = (root / made).stat().st_size
        assert Snapshot.open(root / made).count(USERS) == users
    sys.stderr.write(f"{size / users:.1f} bytes a user\n")


def use(users: int) -> None:
    """Find all users of a night in the version."""
    known = Known(StoredVersion(Store(str(version_of(users)), {}, Spool(None, clock=Clock()), Clock()), VERSION))
    found = 0
    for keys in _files(users):
        columns = known.find(keys, member_of=SEGMENT, has_profiles=True)
        found += int(((columns.positions >= 0) & columns.are_members & (columns.raws == keys + 1)).sum())
    assert found == users


def _keys(users: int) -> Column:
    """Made-up digests of ids, in no order."""
    return np.random.default_rng(1).integers(0, 2**64, users, "<u8")


def _files(users: int) -> Iterator[Column]:
    """The keys of one delivered file after another; as a generator makes them, they need no memory together."""
    random = np.random.default_rng(1)
    for start in range(0, users, USERS_PER_FILE):
        yield random.integers(0, 2**64, min(USERS_PER_FILE, users - start), "<u8")


def _blocks(users: int) -> Iterator[BlockFingerprints]:
    for keys in map(np.sort, _files(users)):
        yield BlockFingerprints(
            users=len(keys),
            keys=keys,
            ids=_ids(keys),
            raws=keys + 1,
            contents=np.where(keys % _CHANGED, keys + 2, keys + 3),
            are_emitted=(keys % _CHANGED == 0).astype("u1"),
            member_of=SEGMENT,
            has_profiles=True,
            skipped=_NONE,
            emitted=_NONE,
        )


def _ids(keys: Column) -> Column:
    """An id of 24 hexadecimal digits, as Braze's are, for each key."""
    halves = np.repeat(keys.view("u1").reshape(-1, 8), 3, axis=1)
    return np.frombuffer(np.frombuffer(b"0123456789abcdef", "u1")[halves % 16].tobytes(), "S24")


if __name__ == "__main__":  # each in a process of its own, whose memory is measured
    {"make": make, "build": build, "use": use}[sys.argv[1]](int(sys.argv[2]))
