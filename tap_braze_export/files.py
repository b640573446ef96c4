"""A delivered file of JSON lines on local disk, fetched once more if it is damaged."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tap_braze_export import archive
from tap_braze_export.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_braze_export.archive import Block, Member
    from tap_braze_export.bookmarks import Bookmark

_log = logging.getLogger(__name__)


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
    """One delivered file and the export that it belongs to."""

    bookmark: Bookmark
    member: Member
    delivered: FetchedObject

    @property
    def name(self) -> str:
        """Its name in `export_files`."""
        return self.member.name

    def blocks(self) -> Iterator[Block]:
        """Its lines; see `FetchedObject.blocks`."""
        return self.delivered.blocks(self.member)
