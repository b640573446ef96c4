"""How the files of one export arrive: all at once behind a signed URL, or one by one in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tap_braze_export.files import ExportFile, FetchedObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_braze_export.bookmarks import Bookmark
    from tap_braze_export.delivery import Download


class Arrival(Protocol):
    """The files of one export, as they come."""

    bookmark: Bookmark
    complete: bool
    """Whether every file was given."""
    proven: bool
    """Whether completeness is known, not only assumed."""

    def look(self) -> Iterator[ExportFile]:
        """The files that have come since the last look.

        Raises:
            ExportError: If the export cannot be read to its end.
        """

    def overdue(self) -> str:
        """What it can mean that the deadline has passed, and what to do."""


class Hosted:
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded."""

    proven = True

    def __init__(self, bookmark: Bookmark, download: Download, path: Path) -> None:
        self.bookmark = bookmark
        self.complete = False
        self._download = download
        self._path = path

    def look(self) -> Iterator[ExportFile]:
        """All files, once the download is there."""
        if not self._download.look():
            return
        delivered = FetchedObject(self._download.name, self._path, self._download_again)
        for member in delivered.members():
            if not self.bookmark.has_emitted(member.name):
                yield ExportFile(self.bookmark, member, delivered)
        self.complete = True

    def overdue(self) -> str:
        """See `Arrival`."""
        return (
            "its download is still not there (403 or 404). Braze may need longer: raise export_timeout_minutes. Or the "
            "export failed, or its file became too large (Braze sends an e-mail then): select fewer fields, split the "
            "audience into segments by random bucket number, or connect a bucket to Braze and set bucket_url. Or the "
            "link expired before it was used"
        )

    def _download_again(self) -> None:
        self._path.unlink(missing_ok=True)
        self._download.look()
