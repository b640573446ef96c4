"""Finds the files of an export in the company's bucket, where they come one by one, and decides that it has ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import DamagedFileError, DiskFullError, ExportError
from tap_braze_export.exports.polling import missing_files
from tap_braze_export.exports.unread_objects import UnreadObject, remark
from tap_braze_export.report.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor, Future

    from tap_braze_export.clock import Clock, PollTimer
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import BucketObject, DeliveredFile
    from tap_braze_export.files.prefetch import Fetcher
    from tap_braze_export.state import Bookmark

_SHORTEST_EMPTY_SECONDS = 60.0
"""Seconds without any file, at least, after which an export that may have no user counts as empty."""
_FETCH_SECONDS = 600.0
"""Time that the fetch of an object may take although the export's deadline has passed."""
_log = logging.getLogger(__name__)


class BucketExport:
    """An export that Braze writes into the company's bucket, file by file.

    It has ended when Braze calls back, after `settle_seconds` without a new file, or at its deadline. A damaged file
    may be a half-written one: it has until the end to change, and is then fetched once more. A damaged file that is
    gone was renamed if another file has come since; else the export cannot be complete.

    Args:
        bookmark: The export.
        bucket: The bucket.
        fetcher: Makes an object readable.
        timer: Paces the listings.
        threads: Runs the transfers.
        clock: Time.
        settle_seconds: Quiet after the last new file that counts as the end; None to list just once.
        deadline: Seconds of the monotonic clock at which it ends.
        may_be_empty: True if a bucket that stays without a file may mean that there is no user.
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
        may_be_empty: bool = False,
        called_back: Callable[[], bool] = lambda: False,
        max_objects: int = 1,
    ) -> None:
        self.bookmark = bookmark
        self.timer = timer
        self.waits_since = clock.monotonic_at(bookmark.export.requested_at)
        self.proven = False
        self._bucket = bucket
        self._fetcher = fetcher
        self._threads = threads
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._deadline = deadline
        self._may_be_empty = may_be_empty
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
        self._listed_at = clock.monotonic()
        self._newest_listed_at = self._listed_at
        """Monotonic seconds of the listing that first showed the newest file."""
        self._newest_missing_at = self._listed_at
        """Monotonic seconds of the listing before that one."""

    @property
    def complete(self) -> bool:
        """True once every file was read."""
        return self._ended and not (self._objects or self._gone or self._is_too_late)

    @property
    def has_found_files(self) -> bool:
        """True if a file has come."""
        return bool(self._seen)

    @property
    def elsewhere(self) -> tuple[str, bool]:
        """See `ExportPoller`."""
        return self._bucket.elsewhere(self.bookmark.export.export_id, self.bookmark.export.segment_id)

    @property
    def files_left(self) -> int:
        """See `ExportPoller`; an object that is not fetched yet counts as one file."""
        return len(self._objects) + sum(len(unread.files) - 1 for unread in self._busy if unread.files)

    @property
    def transfers(self) -> Iterable[Future[Any]]:
        """See `ExportPoller`."""
        return [*self._searches.values(), *(unread.fetching for unread in self._busy if unread.fetching)]

    @property
    def received_bytes(self) -> int:
        """See `ExportPoller`; a copy from the bucket says nothing before its end."""
        return 0

    @property
    def expected_bytes(self) -> int:
        """See `ExportPoller`."""
        return sum(unread.listed.size for unread in self._busy if unread.fetching)

    @property
    def quiet_until(self) -> float | None:
        """See `ExportPoller`."""
        if self._settle_seconds is None or self._ended or self._objects or not self._seen:
            return None
        return self._newest_listed_at + self._settle_seconds

    def poll(self) -> Sequence[DeliveredFile]:
        """See `ExportPoller`."""
        if self.timer.due:
            self._list_objects()
        self._collect()
        self._start_fetches()
        files = [file for unread in self._busy for file in unread.files]
        if not files and not self.complete:
            self._check_end()
        return files

    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        """See `ExportPoller`."""
        self.bookmark.emitted(file.name, users, rejected)
        unread = self._holder_of(file)
        unread.files.remove(file)
        if not unread.files:
            self._finish(unread)

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """See `ExportPoller`. A file that has changed meanwhile was still being written: that is no second damage."""
        self._retry_later(self._holder_of(file), error)

    def _list_objects(self) -> None:
        """List the bucket. Quiet lasts from listing to listing: how long files take to be read says nothing."""
        self.proven = self._called_back()  # asked before the listing, which then shows every file
        now = self._clock.monotonic()
        listed = self._listed(is_last=self.proven or self._settle_seconds is None or now > self._deadline)
        new = {found.path: found for found in listed if self._seen.get(found.path) != found}
        for found in new.values():
            if found.path in self._seen:
                self.bookmark.forget(found.name)  # it has changed: if it was read, it is read again
        if new:
            self._seen |= new
            self._newest_listed_at, self._newest_missing_at = now, self._listed_at
        self._listed_at = now
        is_quiet = (bool(self._seen) or self._may_be_empty) and not new
        shortest = 0.0 if self._seen else _SHORTEST_EMPTY_SECONDS
        patience = max(self._settle_seconds or 0.0, shortest)
        settled = self._settle_seconds is None or (is_quiet and now - self._newest_listed_at >= patience)
        past_deadline = is_quiet and now > self._deadline
        if self._settle_seconds is not None and settled and self._seen and not (self.proven or self._ended):
            _log.info(
                "%s: no new file in the bucket for %s (settle_minutes), so it is assumed to be complete; with"
                " callback_url Braze would say so",
                self.bookmark.export,
                duration(now - self._newest_listed_at),
            )
        self._ended = self.proven or settled or past_deadline
        to_read = [found for found in new.values() if not (self._is_too_late or self.bookmark.has_emitted(found.name))]
        self._forget_gone({found.path for found in listed}, has_new=bool(new))
        for found in to_read:
            self._objects.setdefault(found.path, UnreadObject(found)).listed = found
        if self._ended:
            for unread in self._objects.values():
                unread.may_retry = unread.damaged is not None and not unread.is_lost
        self.timer.polled(found=bool(to_read))

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
        """Note the transfers that have ended; an error is raised once the objects before it are fetched and read."""
        must_wait = False
        for unread in self._busy:
            if unread.fetching and unread.fetching.done():
                if (problem := unread.fetching.exception()) and must_wait:
                    if isinstance(problem, DiskFullError):
                        name = unread.listed.name
                        _log.warning("%s: %s. If not, it is copied once the files before it are read", name, problem)
                        unread.fetching = None
                        self._max_objects = 1  # for the rest of this export, one copy at a time
                    return  # the next poll finds it again
                fetching, unread.fetching = unread.fetching, None
                try:
                    unread.stored, members = fetching.result()
                except DamagedFileError as error:
                    self._retry_later(unread, error)
                    continue
                if unread.listed != unread.fetched:  # it has changed meanwhile
                    unread.drop_copy()
                    continue
                unread.names = [member.name for member in members]
                unread.files = missing_files(self.bookmark, unread.stored, members)
                if not unread.files:
                    self._finish(unread)
            must_wait = must_wait or bool(unread.fetching or unread.files)

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
        waited = f"{duration(now - self.waits_since)} after it was requested"
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
