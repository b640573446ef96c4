"""Fingerprints of made-up users, without the users: what it takes to build a version of them, and to use it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.export import CACHE, USERS_PER_FILE
from tap_braze_export.clock import Clock
from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.columns import USERS, Part, PartFacts, Source, between, write_version
from tap_braze_export.fingerprints.known import BlockFingerprints, Known
from tap_braze_export.fingerprints.lifecycle import Fingerprints
from tap_braze_export.fingerprints.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.fingerprints.columns import Column, Columns

SEGMENT = "all-users"
VERSION = "20261122T000000Z-000000000000/version"
_SIGNATURE = "made up"
_CHANGED = 20
"""Of so many users one has changed since the version."""
_NONE = np.zeros(0, np.int64)


def version_of(users: int) -> Path:
    """The directory that has a version of so many users."""
    return CACHE / f"{users}.fingerprints"


class _Everybody(Part):
    """A part whose columns are made as they are read."""

    def rows(self, table: str, low: int, high: int, *, is_doubted: bool) -> Columns:
        """See `Part`."""
        keys = between({"key": self.columns["key"]}, low, high)["key"]
        columns = {"key": keys, "id": _ids(keys), "raw": keys + 1, "content": keys + 2}
        part = Part(self.facts, columns | {"emitted": np.ones(len(keys), bool)}, keys[:0])
        return part.rows(table, low, high, is_doubted=is_doubted)


def make(users: int) -> None:
    """Write a version of users."""
    facts = PartFacts(_SIGNATURE, segment=SEGMENT, has_profiles=True)
    keys = np.sort(_keys(users))
    sources = [Source(lambda: _Everybody(facts, {"key": keys, "id": _ids(keys[:1])}, keys[:0]))]
    store = _store(str(version_of(users)))
    write_version(
        lambda end: store.create(VERSION + end),
        lambda end: store.path(VERSION + end),
        sources,
        of_users=sources,
        signature=_SIGNATURE,
        includes={},
        replaces="",
    )


def build(users: int) -> None:
    """Write the parts of a night and, over the version of the night before, the version that follows from them."""
    with TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder)
        (root / VERSION).parent.mkdir()
        for path in (version_of(users) / VERSION).parent.iterdir():
            (root / VERSION).with_name(path.name).hardlink_to(path)
        store = _store(folder, str(root / "spool"))
        state = [{"version": VERSION, "parts": []}]
        with Fingerprints(store, signature=_SIGNATURE, state=state, clock=Clock(), is_resync=False) as fingerprints:
            for block in _blocks(users):
                fingerprints.record(block, export_id="export")
            fingerprints.finish(only_own=False)
            made = fingerprints.state()[0]["version"]
        size = sum(path.stat().st_size for path in (root / made).parent.glob("version*"))
        assert store.version(made).count(USERS) == users
    sys.stderr.write(f"{size / users:.1f} bytes a user\n")


def use(users: int) -> None:
    """Find all users of a night in the version."""
    known = Known(partial(_store(str(version_of(users))).version, VERSION, is_checked=True))
    found = 0
    for keys in _files(users):
        columns = known.find(keys, member_of=SEGMENT, has_profiles=True)
        found += int(((columns.positions >= 0) & columns.are_members & (columns.raws == keys + 1)).sum())
    assert found == users


def _store(url: str, spool: str | None = None) -> Store:
    return Store(url, {}, Spool(spool, clock=Clock()), Clock())


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
        changed = keys[keys % _CHANGED == 0]
        yield BlockFingerprints(
            users=len(keys),
            seen=keys,
            keys=changed,
            ids=_ids(changed),
            raws=changed + 1,
            contents=changed + 3,
            are_emitted=np.ones(len(changed), bool),
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
