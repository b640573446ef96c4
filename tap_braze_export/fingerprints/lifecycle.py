"""The fingerprints of one run: read what the target has, record what is emitted, leave a version at the end."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tap_braze_export.errors import TapError
from tap_braze_export.fingerprints.file_names import (
    is_snapshot,
    missing_part,
    new_run_id,
    part_name,
    reads_name,
    run_of,
    running_name,
    version_name,
)
from tap_braze_export.fingerprints.known import Known
from tap_braze_export.fingerprints.merge import Emitted, differing, leavers, write_merged
from tap_braze_export.fingerprints.snapshot import USERS, UnreadableSnapshotError, left_table
from tap_braze_export.fingerprints.store import Store, StoredVersion, lost_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from tap_braze_export.clock import Clock
    from tap_braze_export.fingerprints.known import BlockFingerprints
    from tap_braze_export.fingerprints.snapshot import Columns, Snapshot, SnapshotWriter

_MAX_PARTS = 10_000_000
"""Parts that a run may have in STATE; each has the users of a file, or of 64 MiB of one."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Confirmed:
    """The fingerprints that the target has confirmed: a version, and parts that were emitted since.

    Attributes:
        version: Name of the version; empty for none.
        parts: Run and number of parts, from its first one.
    """

    version: str = ""
    parts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, state: Any) -> Self:
        """Read the member `fingerprints` of STATE; anything else than the tap's own is nothing."""
        try:
            (state,) = state
            found = cls(state["version"], tuple((run_id, count) for run_id, count in state["parts"]))
        except (KeyError, TypeError, ValueError):
            return cls()
        is_own = isinstance(found.version, str) and all(
            isinstance(run_id, str) and isinstance(count, int) and 0 <= count <= _MAX_PARTS
            for run_id, count in found.parts
        )
        return found if is_own else cls()

    def to_list(self) -> list[dict[str, Any]]:
        """The member `fingerprints` of STATE; empty if the target has confirmed nothing."""
        is_empty = not (self.version or self.parts)
        return [] if is_empty else [{"version": self.version, "parts": [list(part) for part in self.parts]}]

    @property
    def names(self) -> list[str]:
        """The names of the version and of all parts, in the order in which they were emitted."""
        parts = [part_name(run_id, number) for run_id, count in self.parts for number in range(count)]
        return [self.version, *parts] if self.version else parts


class Fingerprints:
    """The fingerprints of a run; a context manager.

    The target never lacks a change: a part is written before its rows are; only what STATE names counts as what the
    target has; and whatever else is found marks its users as changed.

    Args:
        store: The files.
        signature: Hash of everything that shapes rows.
        state: The member `fingerprints` of the STATE that the run was given.
        clock: Time.
        is_resync: True if users are emitted whatever they were, and only marked as changed for other runs.
        keeps_all: True if nothing is removed, since STATE is this run's own and the target may not have confirmed it.

    Attributes:
        known: Says which users need not be emitted again.
    """

    known: Known

    def __init__(
        self, store: Store, *, signature: str, state: Any, clock: Clock, is_resync: bool, keeps_all: bool = False
    ) -> None:
        self._store = store
        self._signature = signature
        self._confirmed = Confirmed.of(state)
        self._is_resync = is_resync
        self._keeps_all = keeps_all
        self._run_id = new_run_id(clock)
        self._parts = 0
        self._version = ""
        self._found: list[str] = []
        self._live: frozenset[str] = frozenset()
        """Other runs that have not ended."""
        self._last: list[Snapshot] = []
        """The target's users by STATE: a version, and the parts emitted since."""
        self._last_signature = signature
        """Empty if the target may have other rows."""
        self._knows_all = True
        """False once a file of another run is gone."""
        self._others: dict[str, Snapshot] = {}
        """All else that was emitted, by name: by runs whose STATE was not confirmed, or by resyncs."""

    def __enter__(self) -> Self:
        """Find out what the target has.

        Raises:
            TapError: If the storage cannot be used.
        """
        self._store.mark(self._run_id)  # first: until it says what it reads, nobody removes anything
        try:
            self._found = [name for name in self._store.names() if run_of(name) != self._run_id]
            self._live = self._store.live_runs(self._found)
            if self._is_resync:
                self._store.note_reads(self._run_id, ())
                self.known = Known(None)
            else:
                self.known = self._known()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the mark of this run: only one that was killed leaves it."""
        with suppress(TapError):
            self._store.unmark(self._run_id)
        self._store.close()

    def record(self, block: BlockFingerprints, *, export_id: str) -> None:
        """Write a part, before the rows of its users are.

        Raises:
            TapError: If it cannot be written.
        """
        if not block.users:
            return
        self.known.emitted(block)
        tables = block.tables()
        if self._is_resync and USERS in tables:
            nothing = np.zeros(len(block.keys), "<u8")
            tables[USERS] |= {"raw": nothing, "content": nothing}
        self._write_part(tables, export_id=export_id, users=block.users)

    def leavers(self, export_id: str, member_of: str, users: int) -> Iterator[list[str]]:
        """Yield the users that left a segment since its last complete export, and record that they are emitted.

        Args:
            export_id: The export of the segment that is complete now.
            member_of: The `segment_id` of its `segment_members` rows.
            users: Users of that export, counted file by file.

        Raises:
            TapError: If they cannot be recorded.
        """
        with _files_needed():
            try:
                yield from self._leavers(export_id, member_of, users)
            except UnreadableSnapshotError:
                self._forget_gone()
                yield from self._leavers(export_id, member_of, users)

    def _leavers(self, export_id: str, member_of: str, users: int) -> Iterator[list[str]]:
        steps = self._steps()
        emitted = [each for step in steps if not step.is_doubtful for each in step.snapshots]
        parts = [each for each in emitted if each.facts.get("export_id") == export_id]
        if sum(part.facts["users"] for part in parts) != users:
            _log.info("No user leaves %s: an earlier run emitted files of this export without fingerprints", member_of)
            return
        for rows in leavers(steps, member_of, parts):
            self._write_part({left_table(member_of): rows}, export_id=export_id, users=0)
            yield [braze_id.decode() for braze_id in rows["id"].tolist()]

    def finish(self, *, only_own: bool) -> None:
        """Write the version that the next run compares users with.

        Args:
            only_own: True if the target may delete every profile that this run has not emitted.

        Raises:
            TapError: If it cannot be written.
        """
        if self._is_resync:
            return
        with _files_needed():
            try:
                self._write_version(only_own=only_own)
            except UnreadableSnapshotError:
                self._forget_gone()
                self._write_version(only_own=only_own)

    def _write_version(self, *, only_own: bool) -> None:
        steps = self._steps()
        if not (self._confirmed.parts or any(step.snapshots for step in steps[1:])):
            return
        own_marks = (running_name(self._run_id), reads_name(self._run_id))
        includes = [*self._found, *self._own_names, *own_marks]
        facts = {"is_version": True, "signature": self._signature, "includes": includes}
        of_profiles = steps[2:] if only_own else steps
        name = version_name(self._run_id)
        self._store.write(name, lambda writer: write_merged(writer, steps, of_profiles=of_profiles), facts)
        self._version = name

    def state(self) -> list[dict[str, Any]]:
        """The member `fingerprints` of STATE: all parts that were written so far have left, too."""
        if self._version:
            return Confirmed(self._version).to_list()
        own = ((self._run_id, self._parts),) if self._parts else ()
        return replace(self._confirmed, parts=(*self._confirmed.parts, *own)).to_list()

    def _known(self) -> Known:
        reason = self._read_last()
        included = set(self._last[0].facts.get("includes", ())) if self._last else set()
        names = set(self._found)
        others = sorted(filter(is_snapshot, names - included - {*self._confirmed.names}))
        self._store.note_reads(self._run_id, [*self._confirmed.names, *others])
        reason = reason or missing_part(names | {*self._confirmed.names}, included)
        for name in others:
            try:
                self._others[name] = self._store.open(name)
            except UnreadableSnapshotError:
                reason = reason or f"{name} at fingerprints_url is damaged"
        if not reason:
            try:
                known = self._compared()
            except UnreadableSnapshotError:
                reason = "files of another run at fingerprints_url are gone or damaged"
            else:
                if not self._keeps_all:
                    self._prune(included & names)
                return known
        self._last_signature = ""
        _log.log(logging.WARNING if self._found else logging.INFO, "All users are emitted: %s", reason)
        return Known(None)

    def _compared(self) -> Known:
        """The users of the version, and which of them were perhaps emitted otherwise since."""
        base = self._last[0]
        known = Known(StoredVersion(self._store, self._confirmed.version))
        known.base = base
        emitted_since = [(part, True) for part in self._last[1:]] + [(each, False) for each in self._others.values()]
        for other, is_confirmed in emitted_since:
            comparable = other.facts["signature"] == self._signature
            for table, positions in differing(base, other, comparable=comparable, is_confirmed=is_confirmed):
                known.note_changed(table, positions)
        return known

    def _prune(self, names: AbstractSet[str]) -> None:
        """Remove files that the version includes, but for those of runs that go on, and what these may read."""
        live = self._store.live_runs(self._store.names()) - {self._run_id}
        read = [self._store.reads(run_id) for run_id in live]
        if None in read:
            return  # one has just begun: the next run removes them
        kept = frozenset[str]().union(*filter(None, read))
        unneeded = [name for name in names - kept if run_of(name) not in live | self._live]
        self._store.remove(sorted(unneeded, key=lambda name: not name.endswith("/version")))

    def _forget_gone(self) -> None:
        """Forget files of other runs that are gone: nobody knows any more what the target has of their users."""
        _log.warning("Files of another run are gone from fingerprints_url: the next run emits all users")
        self._last = [each for each in self._last if not each.is_gone]
        self._others = {name: each for name, each in self._others.items() if not each.is_gone}
        self._knows_all = False

    def _read_last(self) -> str:
        """Open what the target has by STATE, as far as it can be read; returns why it cannot be relied on."""
        names, found, reason = self._confirmed.names, set(self._found), ""
        if not self._confirmed.version:
            reason = "STATE names no fingerprints of an earlier run"
        for name in names:
            try:
                if name in found:
                    self._last.append(self._store.open(name, stays_mapped=name == self._confirmed.version))
                else:
                    reason = reason or f"{name}, which STATE names, is missing at fingerprints_url"
            except UnreadableSnapshotError:
                reason = reason or f"{name} at fingerprints_url is damaged"
        if any(each.facts["signature"] != self._signature for each in self._last):
            reason = reason or "the last fingerprints are of another selection, schema, stream map or tap version"
        return reason

    def _steps(self) -> list[Emitted]:
        """Everything that was emitted, in order; nobody knows when that of a run was which had not ended."""
        ended = [each for name, each in self._others.items() if run_of(name) not in self._live]
        unended = [each for name, each in self._others.items() if run_of(name) in self._live]
        own = [self._store.open(name, is_checked=True) for name in self._own_names]
        signature, last = (self._signature, self._last_signature) if self._knows_all else ("", "")
        return [
            Emitted(self._last, is_doubtful=False, signature=last),
            Emitted(ended, is_doubtful=True, signature=signature),
            Emitted(own, is_doubtful=False, signature=signature),
            Emitted(unended, is_doubtful=True, signature=signature),
        ]

    @property
    def _own_names(self) -> list[str]:
        return [part_name(self._run_id, number) for number in range(self._parts)]

    def _write_part(self, tables: Mapping[str, Columns], *, export_id: str, users: int) -> None:
        def fill(writer: SnapshotWriter) -> None:
            for table, columns in tables.items():
                writer.add(table, columns)

        facts = {"is_version": False, "signature": self._signature, "export_id": export_id, "users": users}
        self._store.write(part_name(self._run_id, self._parts), fill, facts)
        self._parts += 1


@contextmanager
def _files_needed() -> Iterator[None]:
    """End the run with one line if files go that it needs.

    Raises:
        TapError: They are gone, or damaged.
    """
    try:
        yield
    except UnreadableSnapshotError:
        raise lost_error("a file of this run") from None
