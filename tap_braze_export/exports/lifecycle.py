"""The life of segment and control-group exports, several at a time: from the request to the last file."""

from __future__ import annotations

import logging
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import requests

from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption, PollTimer
from tap_braze_export.errors import AuthError, BrazeError, DamagedFileError, ExportError, InterruptedExportError
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.delivery import ExportDelivery
from tap_braze_export.exports.estimates import Estimates
from tap_braze_export.exports.journal import Journal
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.exports.request import ExportRequest, Source
from tap_braze_export.exports.resume import KnownExport, Status
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.download import Download
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace
from tap_braze_export.state import VERSION, read_bookmarks
from tap_braze_export.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.settings import Settings

_MAX_TRANSFERS = 8
_SHORTEST_LATE_SECONDS = 120.0
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _RunningExport:
    """An export whose files are waited for, or read.

    Attributes:
        source: What is exported.
        poller: Finds its files.
        is_late: True if it ended in an earlier run, and only files that came afterwards are read.
        files_read: Files that this run has emitted.
    """

    source: Source
    poller: ExportPoller
    is_late: bool = False
    files_read: int = 0


class Exports:
    """Runs the configured exports in Braze and delivers their files: `Deliveries`.

    Args:
        sources: What to export, in this order.
        client: Braze.
        clock: Time and waiting.
        spool: Has the downloads and journals.
        progress: Reports waiting.
        settings: The tap's settings.
        state: The value of `bookmarks.export_files` that the run was given.
        rows_signature: Hash of everything that shapes rows.
        files_ahead: Files beyond the current one that workers can read.
        write_state: Writes STATE; called as soon as an export has been started, before any waiting.

    Attributes:
        bookmarks: The exports by source and segment, as STATE says them.
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
        files_ahead: int,
        write_state: Callable[[], None],
    ) -> None:
        self.bookmarks = read_bookmarks(state)
        self.failures: list[str] = []
        self._resync_state = state.get("resync")
        self._client = client
        self._clock = clock
        self._spool = spool
        self._session = requests.Session()
        self._threads = DaemonThreads(_MAX_TRANSFERS)
        self._progress = progress
        self._settings = settings
        self._files_ahead = files_ahead
        self._write_state = write_state
        self._started_at = clock.now()
        url = settings.bucket_url
        self._bucket = Bucket(url, settings.bucket_options, clock=clock) if url else None
        self._estimates = Estimates(client, url or "")
        self._callbacks = Callbacks(settings.callback_url, settings.callback_listen)
        self._journals = {source.key: Journal(spool, settings.api_url, source.key) for source in sources}
        self._requests = [
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
        self._running: list[_RunningExport] = []
        self._is_whole: dict[tuple[str, str], bool] = {}
        """By source and segment: True if this run itself emits every file, and knows that it has every file."""

    def __enter__(self) -> Self:
        """Lock the segments, listen for callbacks, and continue what earlier runs left."""
        for journal in self._journals.values():
            journal.lock()
        self._callbacks.__enter__()
        for request in list(self._requests):
            self._resume(request)
        return self

    def __exit__(self, *_: object) -> None:
        """Release the locks and the port; transfers under way end with the process."""
        self._threads.shutdown()
        self._session.close()
        self._callbacks.__exit__(None, None, None)
        for journal in self._journals.values():
            journal.unlock()

    # Deliveries

    def poll(self) -> Sequence[ExportDelivery]:
        """See `Deliveries`."""
        if self._clock.stopped:
            raise Interruption
        for request in list(self._requests):
            if request.timer.due and self._may_start(request):
                self._start(request)
        return [
            ExportDelivery(file, self._bucket, partial(self._done, export, file), partial(self._failed, export, file))
            for export in list(self._running)
            for file in self._poll(export)
        ]

    @property
    def ended(self) -> bool:
        """See `Deliveries`."""
        return not self._requests and not self._running

    def wait(self) -> None:
        """See `Deliveries`."""
        if transfers := [transfer for export in self._running for transfer in export.poller.transfers]:
            wait(transfers, WAIT_SLICE_SECONDS, FIRST_COMPLETED)
            return
        times = [request.timer.next for request in self._requests if self._may_start(request)]
        times += [export.poller.timer.next for export in self._running]
        if times and (seconds := min(times) - self._clock.now()) > 0:
            names = [export.poller.bookmark.export_id for export in self._running]
            self._progress.waiting(names or [str(request.source) for request in self._requests], self._started_at)
            self._clock.sleep(seconds)

    def state(self) -> dict[str, Any]:
        """See `Deliveries`."""
        exports = [bookmark.to_dict() for bookmark in self.bookmarks.values()]
        return {"version": VERSION, "exports": exports, "resync": self._resync_state}

    def reason_to_keep_rows(self) -> str:
        """See `Deliveries`."""
        if self.failures:
            return "an export failed"
        for key in self._journals:
            bookmark = self.bookmarks.get(key)
            name = " ".join(key).strip()
            if bookmark is None or bookmark.running or not self._is_whole.get(key):
                return f"this run did not itself emit every file of {name}, or only assumed that it had every file"
            if not bookmark.users:
                return f"{name} had no user"
            if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
                return f"{name} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
        return ""

    def review(self) -> None:
        """Compare the counts of users with Braze's estimates."""
        self._estimates.review(self.bookmarks[key] for key in self._journals if key in self.bookmarks)

    # From the request to the end

    def _resume(self, request: ExportRequest) -> None:
        known = request.resume()
        if known is None:
            return
        if known.status is Status.RUNNING:
            self._follow(request, known)
        elif self._bucket is not None:
            poller = self._bucket_export(known, self._bucket, settle_seconds=None)
            self._running.insert(0, _RunningExport(request.source, poller, is_late=True))

    def _may_start(self, request: ExportRequest) -> bool:
        if any(export.is_late for export in self._running):
            return False  # late files before anything else
        others = sum(other.may_run for other in self._requests if other is not request)
        return len(self._running) + others < self._settings.concurrent_exports

    def _start(self, request: ExportRequest) -> None:
        try:
            known = request.attempt()
        except AuthError:
            raise
        except (BrazeError, ExportError) as error:
            if self._clock.stopped:
                raise Interruption from None
            self._requests.remove(request)
            self._fail(request.source, str(error))
        else:
            if known is not None:
                self._follow(request, known)

    def _follow(self, request: ExportRequest, known: KnownExport) -> None:
        """Wait for the files of an export, after recording that it runs."""
        source, bookmark, journal = request.source, known.bookmark, self._journals[request.source.key]
        self._requests.remove(request)
        journal.write(known)
        self._callbacks.expect(known.token)
        poller: ExportPoller
        if known.url is not None:
            try:
                poller = self._hosted_export(known, known.url)
            except ExportError as error:
                journal.forget()
                self._fail(source, f"export {bookmark.export_id}: {error}")
                return
        elif self._bucket is not None:
            poller = self._bucket_export(known, self._bucket, settle_seconds=self._settings.settle_seconds)
        else:
            self._fail(
                source,
                f"Braze responded without a url, so it delivers export {bookmark.export_id} into this workspace's own "
                "bucket: set bucket_url (and bucket_options) to that bucket, and the next run continues with it",
            )
            return
        self.bookmarks[bookmark.key] = bookmark
        self._is_whole[bookmark.key] = not bookmark.files
        self._running.append(_RunningExport(source, poller))
        self._write_state()

    def _hosted_export(self, known: KnownExport, url: str) -> HostedExport:
        path = self._spool.folder(known.bookmark.export_id) / "download"
        deadline = known.bookmark.requested_at + self._settings.export_timeout_seconds
        download = Download(url, path=path, session=self._session, clock=self._clock, deadline=deadline)
        return HostedExport(
            known.bookmark,
            download,
            path,
            timer=self._new_timer(),
            threads=self._threads,
            clock=self._clock,
            deadline=deadline,
            max_files=1 + self._files_ahead,
        )

    def _bucket_export(self, known: KnownExport, bucket: Bucket, *, settle_seconds: float | None) -> BucketExport:
        folder = self._spool.folder(known.bookmark.export_id)
        return BucketExport(
            known.bookmark,
            bucket,
            ReadInPlace(bucket) if self._settings.dask_scheduler else CopyToDisk(bucket, folder),
            timer=self._new_timer(),
            threads=self._threads,
            clock=self._clock,
            settle_seconds=settle_seconds,
            deadline=self._deadline(known, settle_seconds),
            called_back=lambda: self._callbacks.received(known.token),
            max_objects=1 + max(1, self._files_ahead),
        )

    def _deadline(self, known: KnownExport, settle_seconds: float | None) -> float:
        """When an export is given up, in epoch seconds; late files have `settle_minutes` to become complete."""
        if settle_seconds is None:
            return self._clock.now() + max(self._settings.settle_seconds, _SHORTEST_LATE_SECONDS)
        return known.bookmark.requested_at + self._settings.export_timeout_seconds

    def _poll(self, export: _RunningExport) -> Sequence[DeliveredFile]:
        try:
            files = export.poller.poll()
        except ExportError as error:
            self._give_up(export, error)
            return ()
        if export.poller.complete:
            if (
                not export.is_late
                and not export.poller.has_found_files
                and (reason := self._estimates.reason_for_files(export.poller.bookmark))
            ):
                self._give_up(export, ExportError(reason))
            else:
                self._complete(export)
        return files

    def _done(self, export: _RunningExport, file: DeliveredFile, users: int) -> None:
        export.poller.done(file, users)
        export.files_read += 1

    def _failed(self, export: _RunningExport, file: DeliveredFile, error: ExportError) -> None:
        """Have a file fetched once more if it is damaged for the first time, else give its export up."""
        try:
            if not isinstance(error, DamagedFileError):
                raise error
            export.poller.damaged(file, error)
        except ExportError as final:
            self._give_up(export, final)

    def _complete(self, export: _RunningExport) -> None:
        bookmark = export.poller.bookmark
        self._running.remove(export)
        if export.is_late and export.files_read:
            _log.warning("Export %s: %d files came after the last run had ended", bookmark.export_id, export.files_read)
        if not export.is_late:
            bookmark.running = False
            self._is_whole[bookmark.key] &= export.poller.proven
        self._write_state()  # before the journal and the download go: a run that is killed here continues with them
        self._clear(export)

    def _give_up(self, export: _RunningExport, error: ExportError) -> None:
        if self._clock.stopped:
            raise Interruption from None  # the signal broke a transfer off; the export is not broken
        bookmark = export.poller.bookmark
        self._running.remove(export)
        self._fail(export.source, f"export {bookmark.export_id}: {error}")
        if isinstance(error, InterruptedExportError):
            return
        if not export.is_late:
            self.bookmarks.pop(bookmark.key, None)
            if bookmark.last_users is not None:  # the next export is compared with it
                none_running = replace(bookmark, export_id="", running=False, in_bucket=False, digests={})
                self.bookmarks[bookmark.key] = replace(none_running, users=bookmark.last_users)
        self._clear(export)

    def _clear(self, export: _RunningExport) -> None:
        bookmark = export.poller.bookmark
        if not export.is_late:
            self._journals[bookmark.key].forget()
        self._spool.clear(bookmark.export_id)

    def _fail(self, source: Source, reason: str) -> None:
        self.failures.append(f"{source}: {reason}")
        if self._requests or self._running:
            _log.warning("The export of %s is given up, the others go on; the end of this log says why", source)

    def _new_timer(self) -> PollTimer:
        return PollTimer(self._clock, self._settings.poll_interval_seconds)
