"""What a run emits piece by piece: delivered files on local disk, fetched once more if they are damaged."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tap_braze_export import archive
from tap_braze_export.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.archive import Block, Member
    from tap_braze_export.bookmarks import Bookmark
    from tap_braze_export.errors import ExportError

_log = logging.getLogger(__name__)


class Delivery(Protocol):
    """What is emitted together and then covered by one STATE: a delivered file, or a group of ids requests."""

    @property
    def export_id(self) -> str:
        """Braze's `object_prefix`, or `ids-…`."""

    @property
    def name(self) -> str:
        """Its name in `export_files`."""

    @property
    def source(self) -> str:
        """`segment`, `global_control_group` or `ids`."""

    @property
    def segment_id(self) -> str:
        """The segment; empty where there is none."""

    @property
    def exported_at(self) -> str:
        """The column of that name in all its rows."""

    @property
    def size(self) -> int:
        """Compressed bytes."""

    @property
    def invalid_user_ids(self) -> Sequence[dict[str, str]]:
        """Identifiers that matched nobody, as rows of that stream without `exported_at`."""

    def blocks(self) -> Iterator[Block]:
        """The users, one a line.

        Raises:
            ExportError: If they cannot be read to their end.
        """

    def emitted(self, users: int) -> None:
        """Note that all rows are written, before STATE is."""


class Deliveries(Protocol):
    """A run's source of users: segment exports or a resync.

    Attributes:
        failures: What was given up, and why; the run goes on and fails at its end.
    """

    failures: list[str]

    def deliveries(self) -> Iterator[Delivery]:
        """What is to be emitted, in the order it arrives."""

    def give_up(self, error: ExportError) -> None:
        """Go on without the last delivery and what belongs to it: it cannot be read."""

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE."""

    def finish(self) -> None:
        """Look back on the run: warn of what seems odd."""

    def unsafe_to_delete(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""


class FetchedObject:
    """An object as Braze delivered it: one gzip stream, or a zip of several files.

    Args:
        name: The object's name.
        path: Where it stands on local disk.
        fetch: Fetches it there again.
    """

    def __init__(self, name: str, path: Path, fetch: Callable[[], None]) -> None:
        self._name = name
        self._path = path
        self._fetch = fetch
        self._fetched_again = False

    def members(self) -> list[Member]:
        """The files in it.

        Raises:
            DamagedFileError: If it is damaged, also when fetched once more.
        """
        try:
            return archive.members(self._path, self._name)
        except DamagedFileError as error:
            self._fetch_again(error)
            return archive.members(self._path, self._name)

    def blocks(self, member: Member) -> Iterator[Block]:
        """The lines of one file; after a second fetch, those that were not given yet.

        Raises:
            DamagedFileError: As above.
        """
        given = 0
        while True:
            try:
                for block in archive.blocks(self._path, member):
                    if block.first_line > given:
                        given = block.first_line + len(block.lines) - 1
                        yield block
            except DamagedFileError as error:
                self._fetch_again(error)
            else:
                return

    def _fetch_again(self, error: DamagedFileError) -> None:
        if self._fetched_again:
            raise error
        self._fetched_again = True
        _log.warning("%s; fetching it once more", error)
        self._fetch()


@dataclass(frozen=True)
class ExportFile:
    """One delivered file and the export that it belongs to: a `Delivery`."""

    bookmark: Bookmark
    member: Member
    delivered: FetchedObject
    invalid_user_ids: Sequence[dict[str, str]] = ()

    @property
    def export_id(self) -> str:
        """Braze's `object_prefix`."""
        return self.bookmark.export_id

    @property
    def name(self) -> str:
        """Its name in `export_files`."""
        return self.member.name

    @property
    def source(self) -> str:
        """`segment` or `global_control_group`."""
        return self.bookmark.source

    @property
    def segment_id(self) -> str:
        """The segment; empty for the control group."""
        return self.bookmark.segment_id

    @property
    def exported_at(self) -> str:
        """When the export was requested."""
        return self.bookmark.exported_at

    @property
    def size(self) -> int:
        """Compressed bytes."""
        return self.member.size

    def blocks(self) -> Iterator[Block]:
        """Its lines; see `FetchedObject.blocks`."""
        return self.delivered.blocks(self.member)

    def emitted(self, users: int) -> None:
        """Note that all its rows are written."""
        self.bookmark.emitted(self.name, users)
