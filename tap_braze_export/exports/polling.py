"""How the files of one export arrive: all at once behind a signed URL, or one by one in a bucket."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tap_braze_export.deliveries import ExportFile
from tap_braze_export.errors import DamagedFileError, ExportError
from tap_braze_export.files import archive
from tap_braze_export.files.objects import forget, on_disk
from tap_braze_export.files.prefetch import Prefetcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.clock import Clock
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.download import Download
    from tap_braze_export.files.objects import BucketObject, Fetcher, Place
    from tap_braze_export.state import Bookmark

_log = logging.getLogger(__name__)


class ExportPoller(Protocol):
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


class HostedExport:
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded.

    Args:
        bookmark: The export.
        download: Fetches it.
        path: Where the download stands when it is complete.
        ahead: Files that each file tells of in advance.
    """

    proven = True

    def __init__(self, bookmark: Bookmark, download: Download, path: Path, *, ahead: int = 0) -> None:
        self.bookmark = bookmark
        self.complete = False
        self._download = download
        self._path = path
        self._ahead = ahead
        self._fetched_again = False

    def look(self) -> Iterator[ExportFile]:
        """See `ExportPoller`."""
        if not self._download.attempt():
            return
        try:
            with on_disk(self._path, self._download.name) as opened:
                members = archive.members(opened, self._download.name)
        except DamagedFileError as error:
            self.damaged(error)
            return
        files = [ExportFile(self.bookmark, member, self._path) for member in members]
        files = [file for file in files if not self.bookmark.has_emitted(file.name)]
        for index, file in enumerate(files, 1):
            yield replace(file, following=partial(tuple, files[index : index + self._ahead]))
            if not self._path.exists():
                return  # it was damaged
        self.complete = True

    def damaged(self, error: DamagedFileError) -> None:
        """See `ExportPoller`."""
        if self._fetched_again:
            raise error
        _log.warning("%s; fetching it once more", error)
        self._fetched_again = True
        self._path.unlink()

    def overdue(self, deadline: float) -> str:  # noqa: ARG002 - a download comes as a whole
        """See `ExportPoller`."""
        return (
            "its download is still not there (403 or 404). Braze may need longer: raise export_timeout_minutes. Or the "
            "export failed, or its file became too large (Braze sends an e-mail then): select fewer fields, split the "
            "audience into segments by random bucket number, or connect a bucket to Braze and set bucket_url. Or the "
            "link expired before it was used"
        )


@dataclass(frozen=True)
class _Landed:
    """An object that is ready to be read: its files that the target does not have, and the names of all of them."""

    place: Place
    files: list[ExportFile]
    names: list[str]


class BucketExport:
    """An export that Braze writes into the company's bucket, file by file.

    Args:
        bookmark: The export.
        bucket: The bucket.
        landing: Makes an object ready; some more are begun in advance.
        clock: Time.
        settle_seconds: Quiet after the last new file that counts as the end; None to look just once.
        called_back: Tells whether Braze has said that the export is complete.
        ahead: Objects that are fetched in advance, and files that each file tells of.
    """

    def __init__(
        self,
        bookmark: Bookmark,
        bucket: Bucket,
        landing: Fetcher,
        *,
        clock: Clock,
        settle_seconds: float | None,
        called_back: Callable[[], bool] = lambda: False,
        ahead: int = 0,
    ) -> None:
        self.bookmark = bookmark
        self.complete = False
        self.proven = False
        self._bucket = bucket
        self._landing = Prefetcher(landing, clock)
        self._ahead = ahead
        self._landed: dict[BucketObject, _Landed] = {}
        self._clock = clock
        self._settle = settle_seconds
        self._called_back = called_back
        self._seen: dict[str, BucketObject] = {}
        self._damaged: dict[str, BucketObject] = {}
        self._listed = clock.now()
        self._last_new = self._not_before = self._listed
        """When a listing first showed the newest file, and when the listing before it did not."""

    def look(self) -> Iterator[ExportFile]:
        """See `ExportPoller`. Quiet is from listing to listing: how long files take to be read says nothing."""
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
        # A damaged file may be a half-written one: it has until the end to grow, and is then fetched once more.
        due = [found for found in objects if found.path in new or (ended and found.path in self._damaged)]
        due = [found for found in due if not self.bookmark.has_emitted(found.name)]
        for index, found in enumerate(due, 1):
            yield from self._read(found, due[index : index + self._ahead])
        self.complete = ended and not self._damaged

    def damaged(self, error: DamagedFileError) -> None:
        """See `ExportPoller`. A file that has changed meanwhile was still being written: that is no second damage."""
        if self._damaged.get(self._current.path) == self._current:
            raise error
        _log.warning("%s; fetching it once more when it has changed, or the export has ended", error)
        self._damaged[self._current.path] = self._current

    def overdue(self, deadline: float) -> str:
        """See `ExportPoller`."""
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

    def _read(self, found: BucketObject, upcoming: Sequence[BucketObject]) -> Iterator[ExportFile]:
        self._current = found
        for other in upcoming:
            if other not in self._landed:
                self._landing.expect(other)
        try:
            landed = self._landed.pop(found) if found in self._landed else self._land(found)
        except DamagedFileError as error:
            self.damaged(error)
            return
        before = self._damaged.get(found.path)
        for index, file in enumerate(landed.files, 1):
            yield replace(file, following=partial(self._following, landed.files[index:], upcoming))
            if self._damaged.get(found.path) != before:
                forget(landed.place)
                return
        self._damaged.pop(found.path, None)
        self.bookmark.emitted_whole(found.name, landed.names)
        forget(landed.place)

    def _following(self, files: Sequence[ExportFile], upcoming: Iterable[BucketObject]) -> Sequence[ExportFile]:
        """The files after one, of objects made ready for it; what cannot be read now is told in its turn."""
        following = [*files]
        for found in upcoming:
            if len(following) >= self._ahead:
                break
            if found not in self._landed:
                try:
                    self._landed[found] = self._land(found)
                except ExportError:
                    break
            following += self._landed[found].files
        return following[: self._ahead]

    def _land(self, found: BucketObject) -> _Landed:
        place, members = self._landing.take(found)
        files = [ExportFile(self.bookmark, member, place, self._bucket) for member in members]
        missing = [file for file in files if not self.bookmark.has_emitted(file.name)]
        return _Landed(place, missing, [file.name for file in files])
