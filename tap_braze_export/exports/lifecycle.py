"""The life of segment and control-group exports: so many at a time, from start or adoption to the last file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import requests

from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.clock import Interruption, PollTimer
from tap_braze_export.errors import AuthError, BrazeError, DamagedFileError, ExportError, InterruptedExportError
from tap_braze_export.exports.journal import Entry, Journal
from tap_braze_export.exports.polling import BucketExport, HostedExport
from tap_braze_export.exports.request import SEGMENT, ExportRequest, Source
from tap_braze_export.exports.resume import Left
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.download import Download
from tap_braze_export.files.objects import CopyToDisk, ReadInPlace
from tap_braze_export.report.progress import duration
from tap_braze_export.state import VERSION, read_bookmarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import ExportFile
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.resume import LeftOver
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.settings import Settings

_ESTIMATE_TOLERANCE = 0.2
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Running:
    """An export running in Braze."""

    source: Source
    arrival: ExportPoller
    turn: PollTimer
    late: bool = False
    """Whether it ended in an earlier run and is only looked at for files that came afterwards."""


class Exports:
    """Runs the configured exports in Braze and gives their files as they arrive: `Deliveries`.

    Args:
        sources: What to export, in this order.
        client: Braze.
        clock: Time and waiting.
        spool: Takes downloads and journals.
        progress: Is told while there is nothing to read.
        settings: The tap's settings.
        state: The value of `bookmarks.export_files` that the run was given.
        rows_signature: Hash of everything that shapes rows.
        ahead: Objects that are fetched in advance, and files that each file tells of for processes that read them.
        remember: Writes STATE; called as soon as an export has been started, before any waiting.

    Attributes:
        bookmarks: The exports by source and segment, as STATE remembers them.
        failures: Why exports were given up.
    """

    def __init__(
        self,
        sources: list[Source],
        *,
        client: Braze,
        clock: Clock,
        spool: Spool,
        progress: Progress,
        settings: Settings,
        state: Mapping[str, Any],
        rows_signature: str,
        ahead: int,
        remember: Callable[[], None],
    ) -> None:
        self.bookmarks = read_bookmarks(state)
        self.failures: list[str] = []
        self._resync = state.get("resync")
        self._client = client
        self._clock = clock
        self._spool = spool
        self._session = requests.Session()
        self._progress = progress
        self._settings = settings
        self._ahead = ahead
        self._remember = remember
        self._timeout = settings.export_timeout_seconds
        self._since = clock.now()
        url = settings.bucket_url
        self._bucket = Bucket(url, settings.bucket_options, clock=clock) if url else None
        self._callbacks = Callbacks(settings.callback_url, settings.callback_listen)
        self._journals = {source.key: Journal(spool, settings.api_url, source.key) for source in sources}
        self._starts = [
            ExportRequest(
                source,
                self.bookmarks.get(source.key),
                rows_signature=rows_signature,
                client=client,
                clock=clock,
                journal=self._journals[source.key],
                bucket=self._bucket,
                callbacks=self._callbacks,
                settings=settings,
            )
            for source in sources
        ]
        self._running: list[_Running] = []
        self._whole: dict[tuple[str, str], bool] = {}
        self._delivered: _Running

    # Deliveries

    def deliveries(self) -> Iterator[ExportFile]:
        """The files of all exports, in whatever order Braze delivers them."""
        try:
            for journal in self._journals.values():
                journal.lock()
            with self._callbacks:
                for start in list(self._starts):
                    self._look_back(start)
                while self._starts or self._running:
                    yield from self._round()
        finally:
            self._session.close()
            for journal in self._journals.values():
                journal.unlock()

    def give_up(self, error: ExportError) -> None:
        """Fetch the last delivery once more if it was damaged, else drop its export; the others go on."""
        running = self._delivered
        try:
            if not isinstance(error, DamagedFileError):
                raise error
            running.arrival.damaged(error)
        except ExportError as final:
            self._give_up(running, final)

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE."""
        exports = [bookmark.to_dict() for bookmark in self.bookmarks.values()]
        return {"version": VERSION, "exports": exports, "resync": self._resync}

    def reason_to_keep_rows(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""
        if self.failures:
            return "an export failed"
        for key in self._journals:
            bookmark = self.bookmarks.get(key)
            name = " ".join(key).strip()
            if bookmark is None or bookmark.running or not self._whole.get(key):
                return f"this run did not itself emit every file of {name}, or only assumed that it had every file"
            if not bookmark.users:
                return f"{name} had no user"
            if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
                return f"{name} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
        return ""

    def finish(self) -> None:
        """Compare with Braze's estimates, where the key may ask for them: they are rough, so never a failure."""
        for key in self._journals:
            bookmark = self.bookmarks.get(key)
            if bookmark is None or bookmark.source != SEGMENT or bookmark.running or not bookmark.export_id:
                continue
            try:
                estimate = self._client.segment_size(bookmark.segment_id)
            except BrazeError as error:
                _log.debug("No estimate to compare with: %s", error)
                continue
            if estimate and abs(bookmark.users - estimate) > estimate * _ESTIMATE_TOLERANCE:
                _log.warning(
                    "Segment %s: %s users came, Braze estimates %s; estimates are rough, but look at it if this is new",
                    bookmark.segment_id,
                    f"{bookmark.users:,}",
                    f"{estimate:,}",
                )

    # From start to end

    def _look_back(self, start: ExportRequest) -> None:
        left = start.look_back()
        if left is None:
            return
        if left.left is Left.RUNNING:
            self._follow(start, left)
        elif self._bucket is not None:
            arrival = self._in_bucket(left, self._bucket, settle=None)
            self._running.insert(0, _Running(start.source, arrival, self._new_turn(), late=True))

    def _round(self) -> Iterator[ExportFile]:
        """Start what can be started, look at what is due, wait if there was nothing."""
        if self._clock.stopped:
            raise Interruption
        for start in list(self._starts):
            if start.turn.due and self._may_start(start):
                self._start(start)
        fruitful = False
        for running in [running for running in self._running if running.turn.due]:
            for file in self._look(running):
                fruitful = True
                self._delivered = running
                yield file
        turns = [start.turn.next for start in self._starts if self._may_start(start)]
        turns += [running.turn.next for running in self._running]
        if not fruitful and turns and (seconds := min(turns) - self._clock.now()) > 0:
            names = [running.arrival.bookmark.export_id for running in self._running]
            self._progress.waiting(names or [str(start.source) for start in self._starts], self._since)
            self._clock.sleep(seconds)

    def _may_start(self, start: ExportRequest) -> bool:
        if any(running.late for running in self._running):
            return False  # late files before anything else
        others = sum(other.may_run for other in self._starts if other is not start)
        most: int = self._settings.concurrent_exports
        return len(self._running) + others < most

    def _start(self, start: ExportRequest) -> None:
        try:
            found = start.attempt()
        except AuthError:
            raise
        except (BrazeError, ExportError) as error:
            if self._clock.stopped:
                raise Interruption from None
            self._starts.remove(start)
            self._fail(start.source, str(error))
        else:
            if found is not None:
                self._follow(start, found)

    def _follow(self, start: ExportRequest, found: LeftOver) -> None:
        """Wait for the files of an export, after writing down that it runs."""
        source, bookmark, journal = start.source, found.bookmark, self._journals[start.source.key]
        self._starts.remove(start)
        journal.write(Entry(bookmark, found.url, found.token))
        self._callbacks.expect(found.token)
        arrival: ExportPoller
        if found.url is not None:
            try:
                arrival = self._hosted(found, found.url)
            except ExportError as error:
                journal.forget()
                self._fail(source, f"export {bookmark.export_id}: {error}")
                return
        elif self._bucket is not None:
            arrival = self._in_bucket(found, self._bucket, settle=self._settings.settle_seconds)
        else:
            self._fail(
                source,
                f"Braze answered without a url, so it delivers export {bookmark.export_id} into this workspace's own "
                "bucket: set bucket_url (and bucket_options) to that bucket, and the next run continues with it",
            )
            return
        self.bookmarks[bookmark.key] = bookmark
        self._whole[bookmark.key] = not bookmark.files
        self._running.append(_Running(source, arrival, self._new_turn()))
        self._remember()

    def _hosted(self, found: LeftOver, url: str) -> HostedExport:
        path = self._spool.folder(found.bookmark.export_id) / "download"
        deadline = found.bookmark.requested_at + self._timeout
        download = Download(url, path=path, session=self._session, clock=self._clock, deadline=deadline)
        return HostedExport(found.bookmark, download, path, ahead=self._ahead)

    def _in_bucket(self, found: LeftOver, bucket: Bucket, *, settle: float | None) -> BucketExport:
        folder = self._spool.folder(found.bookmark.export_id)
        return BucketExport(
            found.bookmark,
            bucket,
            ReadInPlace(bucket) if self._settings.dask_scheduler else CopyToDisk(bucket, folder),
            clock=self._clock,
            settle_seconds=settle,
            called_back=lambda: self._callbacks.received(found.token),
            ahead=self._ahead,
        )

    def _look(self, running: _Running) -> Iterator[ExportFile]:
        arrival, found = running.arrival, 0
        bookmark = arrival.bookmark
        try:
            for file in arrival.look():
                found += 1
                yield file
                if running not in self._running:
                    return
            waited, deadline = self._clock.now() - bookmark.requested_at, bookmark.requested_at + self._timeout
            over = waited > self._timeout and not arrival.complete and not running.late
            if over and (meaning := arrival.overdue(deadline)):
                raise ExportError(f"{duration(waited)} after it was requested {meaning}")  # noqa: TRY301
        except ExportError as error:
            self._give_up(running, error)
            return
        running.turn.polled(found=bool(found))
        if running.late and found:
            _log.warning("Export %s: %d files came after the last run had ended", bookmark.export_id, found)
        if arrival.complete:
            self._running.remove(running)
            if not running.late:
                bookmark.running = False
                self._whole[bookmark.key] &= arrival.proven
            self._remember()  # before the journal and the download go: a run that is killed here continues with them
            self._clear(running)

    def _give_up(self, running: _Running, error: ExportError) -> None:
        if self._clock.stopped:
            raise Interruption from None  # it was broken off, it is not broken
        bookmark = running.arrival.bookmark
        self._fail(running.source, f"export {bookmark.export_id}: {error}")
        self._running.remove(running)
        if isinstance(error, InterruptedExportError):
            return
        if not running.late:
            self.bookmarks.pop(bookmark.key, None)
            if bookmark.last_users is not None:  # the next export is compared with it
                nothing = replace(bookmark, export_id="", running=False, in_bucket=False, digests={})
                self.bookmarks[bookmark.key] = replace(nothing, users=bookmark.last_users)
        self._clear(running)

    def _clear(self, running: _Running) -> None:
        bookmark = running.arrival.bookmark
        if not running.late:
            self._journals[bookmark.key].forget()
        self._spool.clear(bookmark.export_id)

    def _fail(self, source: Source, reason: str) -> None:
        _log.warning("Giving up %s: %s", source, reason)
        self.failures.append(f"{source}: {reason}")

    def _new_turn(self) -> PollTimer:
        return PollTimer(self._clock, self._settings.poll_interval_seconds)
