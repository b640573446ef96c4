"""Finds the files of an export in the company's bucket, where they come one by one, and decides that it has ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.errors import DamagedFileError, ExportError, TapError
from tap_braze_export.exports.polling import ExportPoller
from tap_braze_export.exports.unread_objects import UnreadObject, remark
from tap_braze_export.report.progress import ExportStatus
from tap_braze_export.report.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import BucketObject, DeliveredFile, StoredObject
    from tap_braze_export.files.prefetch import Fetcher
    from tap_braze_export.state import Bookmark

_SHORTEST_EMPTY_SECONDS = 60.0
"""Seconds without any file, at least, after which an export that may have no user counts as empty."""
_FETCH_SECONDS = 600.0
"""Time that the fetch of an object may take although the export's deadline has passed."""
_log = logging.getLogger(__name__)


class BucketExport(ExportPoller):
    """An export that Braze writes into the company's bucket, file by file.

    It has ended when Braze calls back, after `settle_seconds` without a new file, or at its deadline. A damaged file
    may be a half-written one: it has until the end to change, and is then fetched once more. A damaged file that is
    gone was renamed if another file has come since; else the export cannot be complete.

    Args:
        bookmark: The export.
        bucket: The bucket.
        fetcher: Makes an object readable.
        settle_seconds: Seconds after the last new file that count as the end; None to list just once.
        called_back: Tells if Braze has said that the export is complete.
        max_objects: Objects that are fetched and not yet read at most.
        given: See `ExportPoller`.
    """

    def __init__(
        self,
        bookmark: Bookmark,
        bucket: Bucket,
        fetcher: Fetcher,
        *,
        settle_seconds: float | None,
        called_back: Callable[[], bool] = lambda: False,
        max_objects: int = 1,
        **given: Any,
    ) -> None:
        super().__init__(bookmark, **given)
        self._bucket = bucket
        self._fetcher = fetcher
        self._settle_seconds = settle_seconds
        self._called_back = called_back
        self._max_objects = max_objects
        self._objects: dict[str, UnreadObject] = {}
        self._busy: list[UnreadObject] = []
        """Those that are fetched or read, so that a poll does not look at thousands that wait."""
        self._seen: dict[str, BucketObject] = {}
        self._empty_listings = 0
        self._gone: list[str] = []
        """Paths of unread objects that are gone. Emptied when a new object comes, as they may have been renamed."""
        self._searches: dict[str, Future[BucketObject | None]] = {}
        """By the path of a lost object the search for the one that it was to be."""
        self._ended = False
        self._listed_at = self._clock.monotonic()
        self._newest_listed_at = self._listed_at
        """Monotonic seconds of the listing that first showed the newest file."""
        self._newest_missing_at = self._listed_at
        """Monotonic seconds of the listing before that one."""

    @property
    @override
    def complete(self) -> bool:
        return self._ended and not (self._objects or self._gone or self._is_too_late)

    @property
    @override
    def has_found_files(self) -> bool:
        return bool(self._seen)

    @property
    @override
    def elsewhere(self) -> tuple[str, bool]:
        return self._bucket.elsewhere(self.bookmark.export.export_id, self.bookmark.export.segment_id)

    @property
    @override
    def transfers(self) -> Sequence[Future[Any]]:
        return [*self._searches.values(), *(unread.fetching for unread in self._busy if unread.fetching)]

    @property
    @override
    def status(self) -> ExportStatus:
        """Its state, for people; an object that is not fetched yet counts as one file."""
        waits_for_more = self._settle_seconds is not None and self._seen and not (self._ended or self._objects)
        return ExportStatus(
            export=self.bookmark.export,
            files_left=len(self._objects) + sum(len(unread.files) - 1 for unread in self._busy if unread.files),
            expected=sum(unread.listed.size for unread in self._busy if unread.fetching),
            quiet_until=self._newest_listed_at + (self._settle_seconds or 0.0) if waits_for_more else None,
        )

    @override
    def poll(self) -> Sequence[DeliveredFile]:
        if self.timer.due:
            self._list_objects()
        self._collect()
        self._start_fetches()
        files = [file for unread in self._busy for file in unread.files]
        if not files and not self.complete:
            self._check_end()
        return files

    @override
    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        self.bookmark.emitted(file.name, users, rejected)
        unread = self._holder_of(file)
        unread.files.remove(file)
        if not unread.files:
            self._finish(unread)

    @override
    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """Fetch it once more; if it has changed meanwhile it was still being written: that is no second damage."""
        self._retry_later(self._holder_of(file), error)

    # The bucket, and the end

    def _list_objects(self) -> None:
        """List the bucket, and tell by what is new if the export has ended.

        The time without a new file counts from listing to listing: how long files take to be read says nothing.
        """
        self.proven = self._called_back()  # asked before the listing, which then shows every file
        now = self._clock.monotonic()
        is_past_deadline = now > self._deadline
        listed = self._listed(is_last=self.proven or self._settle_seconds is None or is_past_deadline)
        new = [found for found in listed if self._seen.get(found.path) != found]
        self._note_new(new, now)
        if self._settle_seconds is None or self.proven:
            self._ended = True
        elif new or not (self._seen or self._may_be_empty):
            self._ended = False
        else:
            self._ended = self._has_settled(now) or is_past_deadline
        self._forget_gone({found.path for found in listed}, has_new=bool(new))
        to_read = [found for found in new if not (self._is_too_late or self.bookmark.has_emitted(found.name))]
        for found in to_read:
            self._objects.setdefault(found.path, UnreadObject(found)).listed = found
        if self._ended:
            for unread in self._objects.values():
                unread.may_retry = unread.damaged is not None and not unread.is_lost
        self.timer.polled(found=bool(to_read))

    def _note_new(self, new: Sequence[BucketObject], now: float) -> None:
        """Note the objects, or versions of objects, that no listing before has shown."""
        for found in new:
            if found.path in self._seen:
                self.bookmark.forget(found.name)  # it has changed: if it was read, it is read again
            self._seen[found.path] = found
        if new:
            self._newest_listed_at, self._newest_missing_at = now, self._listed_at
        self._listed_at = now

    def _has_settled(self, now: float) -> bool:
        """True after `settle_minutes` without a new file, of which a line tells; an empty bucket has a minute."""
        seconds = now - self._newest_listed_at
        if seconds < max(self._settle_seconds or 0.0, 0.0 if self._seen else _SHORTEST_EMPTY_SECONDS):
            return False
        if self._seen and not self._ended:
            _log.info(
                "%s: no new file in the bucket for %s (settle_minutes), so it is assumed to be complete; with"
                " callback_url Braze would say so",
                self.bookmark.export,
                duration(seconds),
            )
        return True

    def _listed(self, *, is_last: bool) -> list[BucketObject]:
        """The files that are there; while there are none, Braze's folder is also looked for nearby, ever less often."""
        export = (self.bookmark.export.export_id, self.bookmark.export.segment_id or None)
        listed = self._bucket.objects(*export)
        if listed or self._seen:
            return listed
        self._empty_listings += 1
        looks_nearby = is_last or self._empty_listings.bit_count() == 1
        return self._bucket.objects(*export) if looks_nearby and self._bucket.find_misplaced() else []

    def _forget_gone(self, listed: set[str], *, has_new: bool) -> None:
        """Forget objects that are no longer listed and cannot be read any more."""
        gone = [path for path, unread in self._objects.items() if path not in listed and not unread.is_busy]
        for path in gone:
            _log.warning("%s is gone from the bucket and could not be read before", self._objects.pop(path).listed.name)
        self._gone = [] if has_new else [*self._gone, *gone]

    @property
    def _is_too_late(self) -> bool:
        """True if the newest file came after the deadline, and Braze has not said that it was the last one."""
        return self._newest_missing_at > self._deadline and not self.proven

    def _check_end(self) -> None:
        """Give up an export that has nothing to read now and can no longer become complete.

        Raises:
            ExportError: It says what to do.
        """
        now = self._clock.monotonic()
        if self._ended and self._objects and all(unread.is_lost for unread in self._objects.values()):
            self._judge(next(iter(self._objects.values())))
            return
        if self._ended and self._gone and not self._objects:
            name = self._gone[0].rpartition("/")[2]
            raise ExportError(f"{name} was deleted from the bucket before it was read: run again for a new export")
        if now <= self._deadline:
            return
        waited = f"{self._waited} after it was requested"
        if not self._seen:
            where, is_certain = self.elsewhere
            if is_certain:
                raise ExportError(
                    f"{waited} no file has come to bucket_url: {where} has its files, so set bucket_url to that"
                )
            raise ExportError(
                f"{waited} no file has come. The segment may be empty (set callback_url, so that Braze can say so), "
                "the export may have failed (Braze sends an e-mail), bucket_url may name another bucket or prefix than "
                f"Braze's partner settings{f' ({where} is there)' if where else ''}, or Braze needs longer: raise"
                " export_timeout_minutes"
            )
        if self._is_too_late:
            raise ExportError(
                f"{waited} files are still coming, or one of them stays incomplete: raise export_timeout_minutes, and "
                "set callback_url so that Braze can say when the export is complete"
            )
        for unread in self._objects.values():
            if unread.fetching and now > max(self._deadline, unread.fetched_at) + _FETCH_SECONDS:
                raise ExportError(f"{waited} {unread.listed.name} still could not be fetched: run again")

    def _judge(self, unread: UnreadObject) -> None:
        """Leave a lost object alone if another one holds what it was to be, which only a complete export can prove.

        Raises:
            DamagedFileError: It does not, or nobody knows if it is complete.
        """
        lost, error = unread.listed, unread.lost
        if lost.path not in self._searches:
            unread.fetched_at = self._clock.monotonic()
            others = [found for found in self._seen.values() if found.path not in self._objects]
            self._searches[lost.path] = self._threads.submit(self._bucket.twin, lost, others)
        search = self._searches[lost.path]
        if not search.done() and self._clock.monotonic() <= unread.fetched_at + _FETCH_SECONDS:
            return
        del self._searches[lost.path]
        try:
            twin = search.result() if search.done() else None
        except ExportError:
            twin = None
        if twin is None or not self.proven:
            raise DamagedFileError(f"{error}{remark(str(error), twin)}")
        _log.warning(
            "%s, and is left alone: it begins as %s does, which was read, so it was left behind when that was written"
            " anew; give Braze's account the permission to delete objects",
            error,
            twin.name,
        )
        self.bookmark.emitted_whole(lost.name, unread.names)
        del self._objects[lost.path]

    # Objects on their way

    def _start_fetches(self) -> None:
        self._busy = [unread for unread in self._busy if unread.is_busy]
        for unread in self._objects.values():
            if len(self._busy) >= self._max_objects:
                return
            if unread.is_due:
                if unread.damaged is not None:
                    self._clock.count_retry()
                unread.fetched, unread.fetched_at = unread.listed, self._clock.monotonic()
                unread.fetching = self._threads.submit(self._fetcher.fetch, unread.listed)
                self._busy.append(unread)

    def _collect(self) -> None:
        """Take over what the transfers have brought.

        Raises:
            TapError: One has failed, and nothing else of the export is fetched or read.
        """
        for unread in self._busy:
            if unread.fetching and unread.fetching.done():
                fetching, unread.fetching = unread.fetching, None
                try:
                    unread.stored, members = fetching.result()
                except DamagedFileError as error:
                    self._retry_later(unread, error)
                except TapError as error:
                    unread.failure = error
                else:
                    self._list_members(unread, unread.stored, members)
        failures = [unread.failure for unread in self._busy if unread.failure]
        if failures and not any(unread.fetching or unread.files for unread in self._busy):
            raise failures[0]

    def _list_members(self, unread: UnreadObject, stored: StoredObject, members: Sequence[Member]) -> None:
        """Note the files of an object that is here, unless it has changed meanwhile: then it is fetched again."""
        if unread.listed != unread.fetched:
            unread.drop_copy()
            return
        unread.names = [member.name for member in members]
        unread.files = self._missing_files(stored, members)
        if not unread.files:
            self._finish(unread)

    def _retry_later(self, unread: UnreadObject, error: DamagedFileError) -> None:
        unread.drop_copy()
        unread.files = []
        if unread.damaged == unread.fetched:
            unread.lost, unread.may_retry = error, False
            return
        _log.warning("%s; fetching it once more when it has changed, or the export has ended", error)
        unread.damaged, unread.may_retry = unread.fetched, False

    def _finish(self, unread: UnreadObject) -> None:
        unread.drop_copy()
        if unread.listed != unread.fetched:  # it has changed while it was read: it is read again
            for name in unread.names:
                self.bookmark.forget(name)
            return
        self.bookmark.emitted_whole(unread.listed.name, unread.names)
        del self._objects[unread.listed.path]

    def _holder_of(self, file: DeliveredFile) -> UnreadObject:
        return next(unread for unread in self._busy if file in unread.files)
