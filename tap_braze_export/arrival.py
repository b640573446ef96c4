"""How the files of one export arrive: all at once behind a signed URL, or one by one in a bucket."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from tap_braze_export import archive
from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import ExportFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_braze_export.bookmarks import Bookmark
    from tap_braze_export.bucket import Bucket, BucketObject
    from tap_braze_export.clock import Clock
    from tap_braze_export.delivery import Download

_log = logging.getLogger(__name__)


class Arrival(Protocol):
    """The files of one export, as they come.

    Attributes:
        bookmark: The export.
        complete: Whether every file was given.
        proven: Whether that is known, not only assumed.
    """

    bookmark: Bookmark
    complete: bool
    proven: bool

    def look(self) -> Iterator[ExportFile]:
        """The files that have come since the last look, without those that the target has.

        Raises:
            ExportError: If the export cannot be read to its end.
        """

    def damaged(self, error: DamagedFileError) -> None:
        """Have the last file fetched once more by a later look.

        Raises:
            DamagedFileError: If it was fetched once more already.
        """

    def overdue(self, deadline: float) -> str:
        """What it can mean that the deadline has passed, and what to do; empty if every file came before it."""


class Hosted:
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded.

    Args:
        bookmark: The export.
        download: Fetches it.
        path: Where the download stands when it is complete.
    """

    proven = True

    def __init__(self, bookmark: Bookmark, download: Download, path: Path) -> None:
        self.bookmark = bookmark
        self.complete = False
        self._download = download
        self._path = path
        self._fetched_again = False

    def look(self) -> Iterator[ExportFile]:
        """See `Arrival`."""
        if not self._download.look():
            return
        try:
            members = archive.members(self._path, self._download.name)
        except DamagedFileError as error:
            self.damaged(error)
            return
        for member in members:
            if not self.bookmark.has_emitted(member.name):
                yield ExportFile(self.bookmark, member, self._path)
                if not self._path.exists():
                    return  # it was damaged
        self.complete = True

    def damaged(self, error: DamagedFileError) -> None:
        """See `Arrival`."""
        if self._fetched_again:
            raise error
        _log.warning("%s; fetching it once more", error)
        self._fetched_again = True
        self._path.unlink()

    def overdue(self, deadline: float) -> str:  # noqa: ARG002 - a download comes as a whole
        """See `Arrival`."""
        return (
            "its download is still not there (403 or 404). Braze may need longer: raise export_timeout_minutes. Or the "
            "export failed, or its file became too large (Braze sends an e-mail then): select fewer fields, split the "
            "audience into segments by random bucket number, or connect a bucket to Braze and set bucket_url. Or the "
            "link expired before it was used"
        )


class InBucket:
    """An export that Braze writes into the company's bucket, file by file.

    Args:
        bookmark: The export.
        bucket: The bucket.
        folder: Takes one object at a time.
        clock: Time.
        settle_seconds: Quiet after the last new file that counts as the end; None to look just once.
        called_back: Tells whether Braze has said that the export is complete.
    """

    def __init__(
        self,
        bookmark: Bookmark,
        bucket: Bucket,
        folder: Path,
        *,
        clock: Clock,
        settle_seconds: float | None,
        called_back: Callable[[], bool] = lambda: False,
    ) -> None:
        self.bookmark = bookmark
        self.complete = False
        self.proven = False
        self._bucket = bucket
        self._path = folder / "object"
        self._clock = clock
        self._settle = settle_seconds
        self._called_back = called_back
        self._seen: dict[str, BucketObject] = {}
        self._damaged: dict[str, BucketObject] = {}
        self._listed = clock.now()
        self._last_new = self._not_before = self._listed
        """When a listing first showed the newest file, and when the listing before it did not."""

    def look(self) -> Iterator[ExportFile]:
        """See `Arrival`. Quiet is from listing to listing: how long files take to be read says nothing."""
        self.proven = self._called_back()  # asked before the listing, which then holds every file
        now = self._clock.now()
        objects = self._bucket.objects(self.bookmark.export_id, self.bookmark.segment_id or None)
        new = {found.path: found for found in objects if self._seen.get(found.path) != found}
        if new:
            self._seen |= new
            self._last_new, self._not_before = now, self._listed
        self._listed = now
        settled = self._settle is None or (bool(self._seen) and now - self._last_new >= self._settle)
        ended = self.proven or settled
        for found in objects:
            # A damaged file may be a half-written one: it has until the end to grow, and is then fetched once more.
            due = found.path in new or (ended and found.path in self._damaged)
            if due and not self.bookmark.has_emitted(found.name):
                yield from self._read(found)
        self.complete = ended and not self._damaged

    def damaged(self, error: DamagedFileError) -> None:
        """See `Arrival`. A file that has changed meanwhile was still being written: that is no second damage."""
        if self._damaged.get(self._current.path) == self._current:
            raise error
        _log.warning("%s; fetching it once more when it has changed, or the export has ended", error)
        self._damaged[self._current.path] = self._current

    def overdue(self, deadline: float) -> str:
        """See `Arrival`."""
        if self._seen and self._not_before <= deadline:
            return ""
        if self._seen:
            return (
                "files are still coming, or one of them stays incomplete: raise export_timeout_minutes, and set "
                "callback_url so that Braze can say when the export is complete"
            )
        return (
            "no file has come. The segment may be empty (set callback_url, so that Braze can say so), the export may "
            "have failed (Braze sends an e-mail), bucket_url may name another bucket or prefix than Braze's partner "
            "settings, or Braze needs longer: raise export_timeout_minutes"
        )

    def _read(self, found: BucketObject) -> Iterator[ExportFile]:
        self._current = found
        try:
            self._bucket.fetch(found, self._path)
            members = archive.members(self._path, found.name)
        except DamagedFileError as error:
            self.damaged(error)
            return
        before = self._damaged.get(found.path)
        for member in members:
            if not self.bookmark.has_emitted(member.name):
                yield ExportFile(self.bookmark, member, self._path)
                if self._damaged.get(found.path) != before:
                    return
        self._damaged.pop(found.path, None)
        self.bookmark.emitted_whole(found.name, [member.name for member in members])
        self._path.unlink()
