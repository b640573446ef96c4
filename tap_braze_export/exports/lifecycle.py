"""The life of segment and control-group exports, several at a time: from the request to the last file."""

from __future__ import annotations

import logging
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    DamagedFileError,
    DiskFullError,
    ExportError,
    InterruptedExportError,
)
from tap_braze_export.exports.completeness import Completeness
from tap_braze_export.exports.delivery import ExportDelivery
from tap_braze_export.exports.estimates import Estimates
from tap_braze_export.exports.journal import Journal, make_room
from tap_braze_export.exports.pollers import Pollers
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.exports.request import ExportRequest, Source
from tap_braze_export.exports.resume import KnownExport, Status
from tap_braze_export.exports.running import RunningExport
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.disk import free_bytes
from tap_braze_export.state import VERSION, none_or_one, read_bookmarks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import CompleteExport
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.settings import Settings

_log = logging.getLogger(__name__)


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
        free: Free space of the disk that holds a directory, None if it is unknown.

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
        free: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        self.bookmarks = read_bookmarks(state)
        self.failures: list[str] = []
        self._resync_state = none_or_one(state.get("resync"))
        self._client = client
        self._clock = clock
        self._spool = spool
        self._progress = progress
        self._settings = settings
        self._write_state = write_state
        self._waits_since = clock.monotonic()
        url = settings.bucket_url
        self._bucket = Bucket(url, settings.bucket_options, clock=clock) if url else None
        self._estimates = Estimates(client, self._bucket.shown_url if self._bucket else "")
        self._callbacks = Callbacks(settings.callback_url, settings.callback_listen)
        self._pollers = Pollers(
            settings,
            bucket=self._bucket,
            callbacks=self._callbacks,
            clock=clock,
            files_ahead=files_ahead,
            free=free,
        )
        self._journals = {source.key: Journal.of(spool, settings.workspace, source.key, state) for source in sources}
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
        self._running: list[RunningExport] = []
        self._completeness = Completeness(self.bookmarks, self._journals)

    def __enter__(self) -> Self:
        """Lock the segments, listen for callbacks, and continue what earlier runs left.

        Raises:
            ConfigError: The bucket does not exist, or refuses the credentials: nothing is started.
        """
        if self._bucket is not None:
            self._bucket.require()
        for journal in self._journals.values():
            journal.lock()
        self._callbacks.__enter__()
        for request in list(self._requests):
            self._resume(request)
        return self

    def __exit__(self, *_: object) -> None:
        """Release the locks and the port; transfers under way end with the process."""
        self._pollers.close()
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
        deliveries = [
            ExportDelivery(file, self._bucket, partial(self._done, export, file), partial(self._failed, export, file))
            for export in list(self._running)
            for file in self._poll(export)
        ]
        self._tell_progress()
        return deliveries

    def advance(self) -> None:
        """See `Deliveries`. Only downloads are polled: their links expire while a slow loader reads a huge file."""
        for export in list(self._running):
            if isinstance(export.poller, HostedExport) and not export.poller.has_found_files:
                self._poll(export)

    @property
    def ended(self) -> bool:
        """See `Deliveries`."""
        return not (self._requests or self._running)

    def wait(self) -> None:
        """See `Deliveries`."""
        if transfers := [transfer for export in self._running for transfer in export.poller.transfers]:
            self._tell_progress()
            self._progress.downloading()
            wait(transfers, WAIT_SLICE_SECONDS, FIRST_COMPLETED)
            return
        times = [request.timer.next for request in self._requests if self._may_start(request)]
        times += [export.poller.timer.next for export in self._running if not export.waits_for_space]
        if times and (seconds := min(times) - self._clock.monotonic()) > 0:
            self._progress.waiting(self._waits_since, [str(request.source) for request in self._requests])
            began = self._clock.monotonic()
            self._clock.sleep(min(seconds, self._progress.longest_wait))
            self._progress.waited(self._clock.monotonic() - began)

    def state(self) -> dict[str, Any]:
        """See `Deliveries`."""
        exports = [bookmark.to_dict() for bookmark in self.bookmarks.values()]
        return {"version": VERSION, "exports": exports, "resync": self._resync_state}

    def reason_to_keep_rows(self) -> str:
        """See `Deliveries`."""
        if self.failures:
            return "an export failed"
        return self._completeness.reason_to_keep_rows()

    def complete_exports(self) -> Sequence[CompleteExport]:
        """See `Deliveries`."""
        return self._completeness.complete_exports()

    def review(self) -> None:
        """Compare the counts of users with Braze's estimates."""
        self._estimates.review(self._completeness.ended_exports)

    # From the request to the end

    def _resume(self, request: ExportRequest) -> None:
        known = request.resume()
        if known and known.status is Status.RUNNING:
            self._follow(request, known)
        elif known and self._bucket is not None:
            poller = self._pollers.late_files(known, self._bucket, self._journals[known.bookmark.key])
            self._running.insert(0, RunningExport(request.source, poller, is_late=True))

    def _may_start(self, request: ExportRequest) -> bool:
        if any(export.is_late for export in self._running):
            return False  # late files before anything else
        others = sum(other.may_be_running for other in self._requests if other is not request)
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
        if known.read_before is None:  # else the record stays: it says which files there were
            journal.write(known)
        self._callbacks.expect(known.token)
        try:
            poller = self._pollers.of(known, journal)
        except ExportError as error:
            if not isinstance(error, InterruptedExportError):
                journal.forget()
            self._fail(source, f"export {bookmark.export_id}: {error}")
            return
        self.bookmarks[bookmark.key] = bookmark
        self._completeness.begun(bookmark)
        read_before = known.read_before.digests if known.read_before else ()
        self._running.append(RunningExport(source, poller, read_before=read_before))
        self._write_state()

    def _tell_progress(self) -> None:
        self._progress.running((export.status for export in self._running), not_started=len(self._requests))

    def _poll(self, export: RunningExport) -> Sequence[DeliveredFile]:
        others_hold_space = any(other.holds_space for other in self._running if other is not export)
        if export.waits_for_space and others_hold_space:
            return ()
        export.waits_for_space = False
        try:
            files = export.poller.poll()
        except DiskFullError as error:
            if make_room(self._spool, self._journals.values()):
                return ()
            if not others_hold_space:
                self._give_up(export, error)
                return ()
            name = export.poller.bookmark.export_id
            _log.warning("Export %s: %s. If not, it is fetched once the exports before it are read", name, error)
            export.waits_for_space = True
            return ()
        except ExportError as error:
            self._give_up(export, error)
            return ()
        if export.poller.complete:
            if reason := self._reason_incomplete(export):
                self._give_up(export, ExportError(reason))
            else:
                self._complete(export)
        return files

    def _reason_incomplete(self, export: RunningExport) -> str:
        """Why an export whose files were all read must lack some; empty if it need not."""
        if export.reason_incomplete or export.is_late or export.poller.has_found_files:
            return export.reason_incomplete
        return self._estimates.reason_for_files(export.poller.bookmark, *export.poller.elsewhere)

    def _done(self, export: RunningExport, file: DeliveredFile, users: int) -> None:
        export.poller.done(file, users)
        export.files_read += 1

    def _failed(self, export: RunningExport, file: DeliveredFile, error: ExportError) -> None:
        """Have a file read or fetched once more if that may help, else give its export up."""
        if isinstance(error, DiskFullError) and make_room(self._spool, self._journals.values()):
            return
        try:
            if not isinstance(error, DamagedFileError):
                raise error
            export.poller.damaged(file, error)
        except ExportError as final:
            self._give_up(export, final)

    def _complete(self, export: RunningExport) -> None:
        bookmark, journal = export.poller.bookmark, self._journals[export.source.key]
        self._running.remove(export)
        if export.is_late:
            if export.files_read:
                _log.warning(
                    "Export %s: %d files came after the last run had ended", bookmark.export_id, export.files_read
                )
            self._write_state()
        else:
            bookmark.running = False
            self._completeness.ended(bookmark, proven=export.poller.proven)
            self._progress.complete(bookmark.export_id, assumed=not export.poller.proven)
            self._write_state()  # before the journal says so: a run that is killed here continues with it
            journal.keep(bookmark, proven=export.poller.proven)
        if bookmark.in_bucket:
            journal.clear(bookmark.export_id)  # the files themselves are still there

    def _give_up(self, export: RunningExport, error: ExportError) -> None:
        if self._clock.stopped:
            raise Interruption from None  # the signal broke a transfer off; the export is not broken
        bookmark, journal = export.poller.bookmark, self._journals[export.source.key]
        self._running.remove(export)
        is_damaged = isinstance(error, DamagedFileError) and not export.is_late
        remedy = "; run again for a new export" if is_damaged else ""
        self._fail(export.source, f"export {bookmark.export_id}: {error}{remedy}")
        if isinstance(error, InterruptedExportError):
            return  # bookmark and journal stay: the next run continues it
        if not export.is_late:
            self.bookmarks.pop(bookmark.key, None)
            if bookmark.last_users is not None:  # the next export is compared with it
                none_running = replace(bookmark, export_id="", running=False, in_bucket=False, digests={})
                self.bookmarks[bookmark.key] = replace(none_running, users=bookmark.last_users)
            journal.forget()
        journal.clear(bookmark.export_id)

    def _fail(self, source: Source, reason: str) -> None:
        self.failures.append(reason if str(source) in reason else f"{source}: {reason}")
        if self._requests or self._running:
            _log.warning("The export of %s is given up, the others go on; the end of this log says why", source)
