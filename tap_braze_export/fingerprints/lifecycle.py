"""The fingerprints of one run: read what the target has, record what is emitted, leave a version at the end."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tap_braze_export.errors import TapError
from tap_braze_export.fingerprints.known import Known
from tap_braze_export.fingerprints.merge import Emitted, differing, leavers, write_merged
from tap_braze_export.fingerprints.snapshot import USERS, UnreadableSnapshotError, left_table
from tap_braze_export.fingerprints.store import (
    Store,
    StoredVersion,
    lost_error,
    new_run_id,
    part_name,
    part_number,
    run_of,
    running_name,
    version_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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
        self._others: dict[str, Snapshot] = {}
        """All else that was emitted, by name: by runs whose STATE was not confirmed, or by resyncs."""

    def __enter__(self) -> Self:
        """Find out what the target has.

        Raises:
            TapError: If the storage cannot be used.
        """
        self._found = self._store.names()
        self._live = self._store.live_runs(self._found)
        with _files_needed():
            self.known = Known(None) if self._is_resync else self._known()
        self._store.mark(self._run_id)
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
            steps = self._steps()
            emitted = [each for step in steps if not step.is_doubtful for each in step.snapshots]
            parts = [each for each in emitted if each.facts.get("export_id") == export_id]
            if sum(part.facts["users"] for part in parts) != users:
                _log.info(
                    "No user leaves %s: an earlier run emitted files of this export without fingerprints", member_of
                )
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
            steps = self._steps()
            if not (self._confirmed.parts or any(step.snapshots for step in steps[1:])):
                return
            includes = [*self._found, *self._own_names, running_name(self._run_id)]
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
        others = sorted(names - included - {*self._confirmed.names})
        reason = reason or _gap(names | {*self._confirmed.names}, included)
        for name in others:
            if name.endswith("/running"):
                continue
            try:
                self._others[name] = self._store.open(name)
            except UnreadableSnapshotError:
                reason = reason or f"{name} at fingerprints_url is damaged"
        if reason:
            self._last_signature = ""
            _log.log(logging.WARNING if self._found else logging.INFO, "All users are emitted: %s", reason)
            return Known(None)
        ended = (name for name in included & names if run_of(name) not in self._live)
        if not self._keeps_all:
            self._store.remove(sorted(ended, key=lambda name: not name.endswith("/version")))
        base = self._last[0]
        known = Known(StoredVersion(self._store, self._confirmed.version))
        emitted_since = [(part, True) for part in self._last[1:]] + [(each, False) for each in self._others.values()]
        for other, is_confirmed in emitted_since:
            comparable = other.facts["signature"] == self._signature
            for table, positions in differing(base, other, comparable=comparable, is_confirmed=is_confirmed):
                known.note_changed(table, positions)
        return known

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
        return [
            Emitted(self._last, is_doubtful=False, signature=self._last_signature),
            Emitted(ended, is_doubtful=True, signature=self._signature),
            Emitted(own, is_doubtful=False, signature=self._signature),
            Emitted(unended, is_doubtful=True, signature=self._signature),
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


def _gap(names: Iterable[str], included: Iterable[str]) -> str:
    """Which part of a run is missing, although a later one is there; empty if none is.

    Parts before one that the version includes are not missed: it knows of them, or its run emitted everybody. A run
    that was killed may have removed some of them and not the others.
    """
    found, known = _parts_of_runs(names), _parts_of_runs(included)
    for run_id, numbers in found.items():
        first_unknown = max(known.get(run_id, {-1})) + 1
        if missing := {*range(first_unknown, max(numbers) + 1)} - numbers:
            return f"{part_name(run_id, min(missing))} is missing at fingerprints_url"
    return ""


def _parts_of_runs(names: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the parts of each run."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        if name.endswith(".part"):
            numbers.setdefault(run_of(name), set()).add(part_number(name))
    return numbers
