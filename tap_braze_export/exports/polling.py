"""How the files of one export come: all at once behind a signed URL, or one by one in a bucket."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tap_braze_export.errors import DamagedFileError, ExportError
from tap_braze_export.files import archive
from tap_braze_export.files.objects import DeliveredFile, LocalObject, open_local
from tap_braze_export.report.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from tap_braze_export.clock import Clock, PollTimer
    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.download import Download
    from tap_braze_export.files.objects import BucketObject, StoredObject
    from tap_braze_export.files.prefetch import Fetched, Fetcher
    from tap_braze_export.state import Bookmark

_FETCH_GRACE_SECONDS = 600.0
"""Time that the fetch of an object has, although the export's deadline has passed."""
_log = logging.getLogger(__name__)


class ExportPoller(Protocol):
    """The files of one export, as they come.

    Attributes:
        bookmark: The export.
        timer: Says when to poll next.
        complete: True once every file was read.
        proven: True if it is known, not only assumed, that every file has come.
    """

    bookmark: Bookmark
    timer: PollTimer
    complete: bool
    proven: bool

    def poll(self) -> Sequence[DeliveredFile]:
        """The next files that can be read, without those that the target has. Never waits for a transfer.

        Raises:
            ExportError: If the export cannot be read to its end.
        """

    @property
    def transfers(self) -> Iterable[Future[object]]:
        """The transfers under way."""

    def done(self, file: DeliveredFile, users: int) -> None:
        """Note that a file's rows are written."""

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """Have a damaged file fetched once more.

        Raises:
            DamagedFileError: If it was fetched once more already.
        """


class HostedExport:
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded.

    Args:
        bookmark: The export.
        download: Fetches it.
        path: Where the download is when it is complete.
        timer: Paces the attempts.
        threads: Runs the attempts.
        clock: Time.
        deadline: Epoch seconds at which the export is given up, unless its download is there.
        max_files: Files that `poll` returns at most.
    """

    proven = True

    def __init__(
        self,
        bookmark: Bookmark,
        download: Download,
        path: Path,
        *,
        timer: PollTimer,
        threads: Executor,
        clock: Clock,
        deadline: float,
        max_files: int = 1,
    ) -> None:
        self.bookmark = bookmark
        self.timer = timer
        self._download = download
        self._object = LocalObject(download.name, path)
        self._threads = threads
        self._clock = clock
        self._deadline = deadline
        self._max_files = max_files
        self._attempt: Future[bool] | None = None
        self._files: list[DeliveredFile] | None = None
        self._fetched_again = False

    @property
    def complete(self) -> bool:
        """True once every file was read."""
        return self._files == []

    @property
    def transfers(self) -> Iterable[Future[object]]:
        """See `ExportPoller`."""
        return [self._attempt] if self._attempt else []

    def poll(self) -> Sequence[DeliveredFile]:
        """See `ExportPoller`."""
        if self._attempt and self._attempt.done():
            attempt, self._attempt = self._attempt, None
            is_there = attempt.result()
            self.timer.polled(found=is_there)
            if is_there:
                self._list_files()
        if self._files is None and not self._attempt:
            if self._clock.now() > self._deadline:
                raise ExportError(self._overdue())
            if self.timer.due:
                self._attempt = self._threads.submit(self._download.attempt)
        return (self._files or [])[: self._max_files]

    def done(self, file: DeliveredFile, users: int) -> None:
        """See `ExportPoller`."""
        self.bookmark.emitted(file.name, users)
        if self._files:
            self._files.remove(file)

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:  # noqa: ARG002 - it comes as a whole
        """See `ExportPoller`."""
        self._fetch_again(error)

    def _list_files(self) -> None:
        try:
            with open_local(self._object) as opened:
                members = archive.members(opened, self._object.name)
        except DamagedFileError as error:
            self._fetch_again(error)
            return
        self._files = missing_files(self.bookmark, self._object, members)

    def _fetch_again(self, error: DamagedFileError) -> None:
        if self._fetched_again:
            raise error
        _log.warning("%s; fetching it once more", error)
        self._fetched_again = True
        self._files = None
        self._object.path.unlink()

    def _overdue(self) -> str:
        waited = duration(self._clock.now() - self.bookmark.requested_at)
        return (
            f"{waited} after it was requested its download is still not there (403 or 404). Braze may need longer: raise "
            "export_timeout_minutes. Or the export failed, or its file became too large (Braze sends an e-mail then): "
            "select fewer fields, split the audience into segments by random bucket number, or connect a bucket to "
            "Braze and set bucket_url. Or the link expired before it was used"
        )


@dataclass(eq=False)
class _Object:
    """An object of the export that is not yet read to its end.

    Attributes:
        listed: The object as the last listing showed it.
        fetching: The transfer under way.
        fetched: The object as it was when its transfer began.
        fetched_at: Epoch seconds of that.
        stored: Where it can be read.
        files: Its files that are still to be read.
        names: The names of all its files.
        damaged: The version of it that proved damaged.
        may_retry: True if that version is to be fetched once more.
    """

    listed: BucketObject
    fetching: Future[Fetched] | None = None
    fetched: BucketObject | None = None
    fetched_at: float = 0.0
    stored: StoredObject | None = None
    files: list[DeliveredFile] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    damaged: BucketObject | None = None
    may_retry: bool = False

    @property
    def is_busy(self) -> bool:
        """True while it is fetched or read."""
        return self.fetching is not None or self.stored is not None

    @property
    def is_due(self) -> bool:
        """True if it can be fetched now."""
        return not self.is_busy and (self.listed != self.damaged or self.may_retry)

    def drop_copy(self) -> None:
        """Remove the local copy; an object in the bucket is its owner's."""
        if isinstance(self.stored, LocalObject):
            self.stored.path.unlink()
        self.stored = None


class BucketExport:
    """An export that Braze writes into the company's bucket, file by file.

    It has ended when Braze calls back, after `settle_seconds` without a new file, or at its deadline. A damaged file
    may be a half-written one: it has until the end to change, and is then fetched once more.

    Args:
        bookmark: The export.
        bucket: The bucket.
        fetcher: Makes an object readable.
        timer: Paces the listings.
        threads: Runs the transfers.
        clock: Time.
        settle_seconds: Quiet after the last new file that counts as the end; None to list just once.
        deadline: Epoch seconds at which it ends.
        called_back: Tells if Braze has said that the export is complete.
        max_objects: Objects that are fetched and not yet read at most.
    """

    def __init__(
        self,
        bookmark: Bookmark,
        bucket: Bucket,
        fetcher: Fetcher,
        *,
        timer: PollTimer,
        threads: Executor,
        clock: Clock,
        settle_seconds: float | None,
        deadline: float,
        called_back: Callable[[], bool] = lambda: False,
        max_objects: int = 1,
    ) -> None:
        self.bookmark = bookmark
        self.timer = timer
        self.proven = False
        self._bucket = bucket
        self._fetcher = fetcher
        self._threads = threads
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._deadline = deadline
        self._called_back = called_back
        self._max_objects = max_objects
        self._objects: dict[str, _Object] = {}
        self._seen: dict[str, BucketObject] = {}
        self._ended = False
        self._listed_at = clock.now()
        self._last_new_at = self._not_before = self._listed_at
        """When a listing first showed the newest file, and when the listing before it did not."""

    @property
    def complete(self) -> bool:
        """True once every file was read."""
        return self._ended and not self._objects

    @property
    def transfers(self) -> Iterable[Future[object]]:
        """See `ExportPoller`."""
        return [waiting.fetching for waiting in self._objects.values() if waiting.fetching]

    def poll(self) -> Sequence[DeliveredFile]:
        """See `ExportPoller`."""
        if self.timer.due:
            self._list_objects()
        self._collect()
        self._fetch_next()
        files = [file for waiting in self._objects.values() for file in waiting.files]
        if not files and not self.complete:
            self._check_deadline()
        return files

    def done(self, file: DeliveredFile, users: int) -> None:
        """See `ExportPoller`."""
        self.bookmark.emitted(file.name, users)
        holder = self._holder_of(file)
        holder.files.remove(file)
        if not holder.files:
            self._finish(holder)

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """See `ExportPoller`. A file that has changed meanwhile was still being written: that is no second damage."""
        self._retry_later(self._holder_of(file), error)

    def _list_objects(self) -> None:
        """List the bucket. Quiet lasts from listing to listing: how long files take to be read says nothing."""
        self.proven = self._called_back()  # asked before the listing, which then shows every file
        now = self._clock.now()
        listed = self._bucket.objects(self.bookmark.export_id, self.bookmark.segment_id or None)
        new = {found.path: found for found in listed if self._seen.get(found.path) != found}
        if new:
            self._seen |= new
            self._last_new_at, self._not_before = now, self._listed_at
        self._listed_at = now
        settled = self._settle_seconds is None or (
            bool(self._seen) and now - self._last_new_at >= self._settle_seconds
        )
        self._ended = self.proven or settled
        unread = [found for found in new.values() if not self.bookmark.has_emitted(found.name)]
        for found in unread:
            self._objects.setdefault(found.path, _Object(found)).listed = found
        if self._ended:
            for waiting in self._objects.values():
                waiting.may_retry = waiting.damaged is not None
        self.timer.polled(found=bool(unread))

    def _fetch_next(self) -> None:
        busy = sum(waiting.is_busy for waiting in self._objects.values())
        for waiting in self._objects.values():
            if busy >= self._max_objects:
                return
            if waiting.is_due:
                waiting.fetched, waiting.fetched_at = waiting.listed, self._clock.now()
                waiting.fetching = self._threads.submit(self._fetcher.fetch, waiting.listed)
                busy += 1

    def _collect(self) -> None:
        """Note the transfers that have ended; an error is raised once the files before it are read."""
        are_files_before = False
        for waiting in list(self._objects.values()):
            if waiting.fetching and waiting.fetching.done():
                if waiting.fetching.exception() and are_files_before:
                    return
                fetching, waiting.fetching = waiting.fetching, None
                try:
                    waiting.stored, members = fetching.result()
                except DamagedFileError as error:
                    self._retry_later(waiting, error)
                    continue
                waiting.names = [member.name for member in members]
                waiting.files = missing_files(self.bookmark, waiting.stored, members)
                if not waiting.files:
                    self._finish(waiting)
            are_files_before = are_files_before or bool(waiting.files)

    def _retry_later(self, waiting: _Object, error: DamagedFileError) -> None:
        waiting.drop_copy()
        waiting.files = []
        if waiting.damaged == waiting.fetched:
            raise error
        _log.warning("%s; fetching it once more when it has changed, or the export has ended", error)
        waiting.damaged, waiting.may_retry = waiting.fetched, False

    def _finish(self, waiting: _Object) -> None:
        self.bookmark.emitted_whole(waiting.listed.name, waiting.names)
        waiting.drop_copy()
        del self._objects[waiting.listed.path]

    def _holder_of(self, file: DeliveredFile) -> _Object:
        return next(waiting for waiting in self._objects.values() if file in waiting.files)

    def _check_deadline(self) -> None:
        """End an export that is past its deadline, unless its files came in time.

        Raises:
            ExportError: It says what to do.
        """
        if self._clock.now() <= self._deadline or (self._seen and self._not_before <= self._deadline):
            return
        waited = duration(self._clock.now() - self.bookmark.requested_at)
        if self._seen:
            raise ExportError(
                f"{waited} after it was requested files are still coming, or one of them stays incomplete: raise "
                "export_timeout_minutes, and set callback_url so that Braze can say when the export is complete"
            )
        raise ExportError(
            f"{waited} after it was requested no file has come. The segment may be empty (set callback_url, so that "
            "Braze can say so), the export may have failed (Braze sends an e-mail), bucket_url may name another bucket "
            "or prefix than Braze's partner settings, or Braze needs longer: raise export_timeout_minutes"
        )


def missing_files(bookmark: Bookmark, stored: StoredObject, members: Iterable[Member]) -> list[DeliveredFile]:
    """The files of an object that the target does not have."""
    return [
        DeliveredFile(
            stored, member, bookmark.export_id, bookmark.exported_at, bookmark.source, bookmark.segment_id
        )
        for member in members
        if not bookmark.has_emitted(member.name)
    ]
