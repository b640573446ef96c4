"""The fingerprints of one run: read what the target has, record what is emitted, leave a version at the end.

A part lists whom a run emitted; who stands in a part that STATE does not confirm is emitted.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tap_braze_export.errors import TapError
from tap_braze_export.fingerprints.columns import (
    Part,
    PartFacts,
    Source,
    UnreadableError,
    Version,
    between,
    key_ranges,
    members_table,
    merged,
    write_version,
)
from tap_braze_export.fingerprints.known import Known
from tap_braze_export.fingerprints.store import began_at, new_run_id, part_name, parts_of, run_of, version_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.fingerprints.known import BlockFingerprints
    from tap_braze_export.fingerprints.store import Store

_MAX_PARTS = 10_000_000
"""Parts that a run may have in STATE; each has the users of a file, or of 64 MiB of one."""
_KEPT_SECONDS = 14 * 24 * 3600
"""So long files stay that a version includes: another pipeline may not have seen them."""
_BASE = "base"
_OTHER_ROWS = "the last fingerprints are of another selection, schema, stream map or tap version"
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
    def part_names(self) -> list[str]:
        """The names of the parts, in the order in which they were emitted."""
        return [part_name(run_id, number) for run_id, count in self.parts for number in range(count)]


class Fingerprints:
    """The fingerprints of a run; a context manager.

    Args:
        store: The files.
        signature: Hash of everything that shapes rows.
        state: The member `fingerprints` of the STATE that the run was given.
        clock: Time.
        is_resync: True if users are emitted whatever they were, and only listed for other runs.
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
        self._clock = clock
        self._is_resync = is_resync
        self._keeps_all = keeps_all
        self._run_id = new_run_id(clock)
        self._parts = 0
        self._includes: dict[str, int] = {}
        """Parts of other runs that the next version knows of."""
        self._sources: list[Source] = []
        """All that was emitted before this run."""
        self._unended: list[Source] = []
        """Those of it whose runs have not ended: their loaders may be the last ones."""
        self._is_changed = True
        """False as long as the version that STATE names says it all."""

    def __enter__(self) -> Self:
        """Find out what the target has.

        Raises:
            TapError: If the storage cannot be used.
        """
        self._store.mark(self._run_id)  # first: whoever finds it removes nothing
        try:
            self.known = Known(None) if self._is_resync else self._find_known()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what only this run needs: one that was killed leaves it."""
        with suppress(TapError):
            names = self._store.names()
            self._store.remove([name for name in names if name.startswith(version_name(self._run_id, _BASE))])
            self._store.unmark(self._run_id)
        self._store.close()

    def record(self, block: BlockFingerprints, *, export_id: str) -> None:
        """Write a part, before the rows of its users are.

        Raises:
            TapError: If it cannot be written.
        """
        self.known.emitted(block)
        if part := block.part(signature=self._signature, export_id=export_id):
            self._write(part)

    def leavers(self, export_id: str, member_of: str, users: int) -> Iterator[list[str]]:
        """Yield the users that left a segment since its last complete export, and record that they are emitted.

        Args:
            export_id: The export of the segment that is complete now.
            member_of: The `segment_id` of its `segment_members` rows.
            users: Users of that export, counted file by file.

        Raises:
            TapError: If they cannot be recorded.
        """
        try:
            names = [*self._confirmed.part_names, *self._own_names]
            parts = [name for name in names if self._store.part(name).facts.export_id == export_id]
            if sum(self._store.part(name).facts.users for name in parts) != users:
                _log.info("No user leaves %s: not all files of its export have fingerprints", member_of)
                return
            sources = [*self._sources, *self._own_sources]
            rows = sum(source.open().count(members_table(member_of)) for source in sources) + users
            for low, high in key_ranges(rows):
                members = merged(sources, members_table(member_of), low, high)
                seen = [between({"key": self._store.part(name).seen}, low, high)["key"] for name in parts]
                gone = ~np.isin(members["key"], np.concatenate([members["key"][:0], *seen]))
                if gone.any():
                    keys, ids = members["key"][gone], members["id"][gone]
                    columns = {
                        "key": keys,
                        "id": ids,
                        "raw": keys,
                        "content": keys,
                        "emitted": np.ones(len(keys), bool),
                    }
                    self._write(Part(PartFacts(self._signature, segment=member_of, has_left=True), columns, keys[:0]))
                    yield [braze_id.decode() for braze_id in ids.tolist()]
        except UnreadableError:
            _log.warning("No user leaves %s: files of fingerprints are gone or damaged", member_of)

    def finish(self, *, only_own: bool) -> None:
        """Write the version that the next run compares users with.

        Args:
            only_own: True if the target may delete every profile that this run has not emitted.

        Raises:
            TapError: If it cannot be written.
        """
        if self._is_resync:
            return
        if only_own:
            self._write(Part(PartFacts(self._signature, deletes=True), {"key": np.zeros(0, "<u8")}, np.zeros(0, "<u8")))
        if not (self._is_changed or self._parts):
            return
        since = [*self._own_sources, *self._unended]
        sources = [*self._sources, *since]
        try:
            self._write_version("version", sources, of_users=since if only_own else sources)
        except UnreadableError:
            _log.warning("Files of fingerprints are gone or damaged: the next run emits all users")
            self._confirmed, self._parts = Confirmed(), 0
        else:
            self._confirmed, self._parts = Confirmed(version_name(self._run_id)), 0

    def state(self) -> list[dict[str, Any]]:
        """The member `fingerprints` of STATE: all parts that were written so far have left, too."""
        own = ((self._run_id, self._parts),) if self._parts else ()
        return replace(self._confirmed, parts=(*self._confirmed.parts, *own)).to_list()

    def _find_known(self) -> Known:
        """Find what the target has, and remove what nobody needs any more."""
        names = {name for name in self._store.names() if run_of(name) != self._run_id}
        live = self._store.live_runs(names)
        version, reason = self._open_version(names)
        included = version.facts.includes if version else {}
        found, confirmed = parts_of(names), dict(self._confirmed.parts)
        doubted: list[str] = []
        for run_id, numbers in sorted(found.items()):
            first = max(included.get(run_id, 0), confirmed.get(run_id, 0))
            new = sorted(number for number in numbers if number >= first)
            if new and new != [*range(first, new[-1] + 1)]:
                reason = reason or f"a part of {run_id} is missing at fingerprints_url"
            doubted += [part_name(run_id, number) for number in new]
        self._includes = {run_id: max(found.get(run_id, {-1})) + 1 for run_id in map(run_of, names)}
        if version and self._may_be_removed(names, included):
            reason = reason or "the last fingerprints are so old that other runs may have removed what they emitted"
        reason = reason or self._problem(names, doubted)
        self._unended = [self._source(name, is_doubted=True) for name in doubted if run_of(name) in live]
        if not reason:
            if version and not (self._keeps_all or live):
                self._prune(names, version)
            self._sources = self._before(version, doubted, is_doubted=False)
            try:
                return self._compared(version)
            except UnreadableError:  # another program has removed it meanwhile
                reason = "files at fingerprints_url are gone or damaged"
        self._sources = [each for each in self._before(version, doubted, is_doubted=True) if _is_readable(each)]
        self._unended = [each for each in self._unended if _is_readable(each)]
        _log.log(logging.WARNING if names else logging.INFO, "All users are emitted: %s", reason)
        return Known(None)

    def _before(self, version: Version | None, doubted: Sequence[str], *, is_doubted: bool) -> list[Source]:
        """All that was emitted before this run."""
        sources = [Source(lambda: version, is_doubted)] if version else []
        sources += [self._source(name, is_doubted=is_doubted) for name in self._confirmed.part_names]
        return sources + [self._source(name, is_doubted=True) for name in doubted]

    def _compared(self, version: Version | None) -> Known:
        """The users that the target has: by the version that STATE names, or by one with all parts since."""
        name = self._confirmed.version
        self._is_changed = not version or len(self._sources) > 1
        if self._is_changed:
            name = version_name(self._run_id, _BASE)
            self._write_version(_BASE, self._sources, of_users=self._sources)
            self._sources = [Source(partial(self._store.version, name, is_checked=True))]
        return Known(partial(self._store.version, name, is_checked=True))

    def _may_be_removed(self, names: Iterable[str], included: Collection[str]) -> bool:
        """True if another pipeline may have removed parts that the version does not include."""
        name = self._confirmed.version
        if self._clock.age(began_at(name)) < _KEPT_SECONDS:
            return False
        others = (each.removesuffix(".json") for each in names if each.endswith("/version.json"))
        new = [each for each in others if each != name and run_of(each) not in included]
        try:
            return any(self._store.version(each, is_checked=True).facts.replaces != name for each in new)
        except UnreadableError:
            return True

    def _open_version(self, names: Collection[str]) -> tuple[Version | None, str]:
        """Open the version that STATE names; else say why all users are emitted."""
        name = self._confirmed.version
        if not name:
            return None, "" if self._confirmed.parts else "STATE names no fingerprints of an earlier run"
        if f"{name}.json" not in names:
            return None, f"{name}, which STATE names, is missing at fingerprints_url"
        try:
            version = self._store.version(name)
        except UnreadableError:
            return None, f"{name} at fingerprints_url is damaged"
        return version, "" if version.facts.signature == self._signature else _OTHER_ROWS

    def _problem(self, names: Collection[str], doubted: Sequence[str]) -> str:
        """Why parts do not say what the target has; empty if they do."""
        confirmed = self._confirmed.part_names
        for name in (*confirmed, *doubted):
            if name not in names:
                return f"{name} is missing at fingerprints_url"
            try:
                facts = self._store.part(name).facts
            except UnreadableError:
                return f"{name} at fingerprints_url is damaged"
            if facts.deletes:
                return "a run that was not confirmed may have had loaders delete users"
            if facts.signature != self._signature and name in confirmed:
                return _OTHER_ROWS
        return ""

    def _prune(self, names: Iterable[str], version: Version) -> None:
        """Remove what the version replaces, and what it includes and is old."""
        needed = (self._confirmed.version, *(f"{run_id}/" for run_id, _ in self._confirmed.parts))

        def goes(name: str) -> bool:
            if name.startswith(needed) or run_of(name) not in version.facts.includes:
                return False
            is_old = self._clock.age(began_at(name)) > _KEPT_SECONDS
            is_replaced = bool(version.facts.replaces) and name.startswith(version.facts.replaces)
            return is_replaced or is_old or "/" + _BASE in name or name.endswith("/running")

        self._store.remove(sorted(filter(goes, names)))

    def _write_version(self, what: str, sources: Sequence[Source], *, of_users: Sequence[Source]) -> None:
        name = version_name(self._run_id, what)
        write_version(
            lambda end: self._store.create(name + end),
            lambda end: self._store.path(name + end),
            sources,
            of_users=of_users,
            signature=self._signature,
            includes=self._includes | ({self._run_id: self._parts} if self._parts else {}),
            replaces=self._confirmed.version,
        )

    def _source(self, name: str, *, is_doubted: bool) -> Source:
        return Source(partial(self._store.part, name), is_doubted)

    @property
    def _own_names(self) -> list[str]:
        return [part_name(self._run_id, number) for number in range(self._parts)]

    @property
    def _own_sources(self) -> list[Source]:
        return [self._source(name, is_doubted=False) for name in self._own_names]

    def _write(self, part: Part) -> None:
        with self._store.create(part_name(self._run_id, self._parts)) as file:
            part.write(file)
        self._parts += 1


def _is_readable(source: Source) -> bool:
    try:
        source.open()
    except UnreadableError:
        return False
    return True
