"""The life of segment and control-group exports, several at a time: from the request to the last file."""

from __future__ import annotations

import logging
from concurrent.futures import FIRST_COMPLETED, wait
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption
from tap_braze_export.deliveries import Delivery, Role
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    ExportError,
    InterruptedExportError,
)
from tap_braze_export.exports.completeness import Completeness
from tap_braze_export.exports.estimates import Estimates
from tap_braze_export.exports.journal import Journal
from tap_braze_export.exports.pollers import Pollers
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.exports.request import BrazeFilter, ExportRequest
from tap_braze_export.exports.resume import KnownExport, Status
from tap_braze_export.exports.running import RunningExport, RunningExports
from tap_braze_export.exports.scope import Scopes
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.disk import free_bytes
from tap_braze_export.state import VERSION, exports_in_state, none_or_one, read_bookmarks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import WriteState
    from tap_braze_export.exports.sources import Source
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.settings import Settings
    from tap_braze_export.state import Bookmark

_MICROSECOND = 1e-6
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
        puts_off_full_exports: True if full exports that are due by age wait for the second part of the run.
        compared: The sources whose incremental exports this run has emitted in its first part; none in that part.
        journal_state: The STATE that the run was handed, where this is its second part.
        write_state: Writes STATE; called when exports have been started, before any waiting, and when one has ended.
        free: Free space of the disk that holds a directory, None if it is unknown.

    Attributes:
        bookmarks: The exports by source and segment, as STATE says them.
        failures: See `RunningExports`.
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
        write_state: WriteState,
        puts_off_full_exports: bool = False,
        compared: Collection[tuple[str, str]] = (),
        journal_state: Mapping[str, Any] | None = None,
        free: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        self.bookmarks = read_bookmarks(state)
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
        given = state if journal_state is None else journal_state
        self._scopes = Scopes(
            sources,
            self.bookmarks,
            settings=settings,
            rows_signature=rows_signature,
            now=clock.now(),
            puts_off=puts_off_full_exports,
        )
        self._compared = compared
        self._second_part = partial(
            Exports,
            client=client,
            clock=clock,
            spool=spool,
            progress=progress,
            settings=settings,
            rows_signature=rows_signature,
            files_ahead=files_ahead,
            journal_state=given,
            write_state=write_state,
            free=free,
        )
        self._journals = {source.key: Journal.of(spool, settings.workspace, source.key, given) for source in sources}
        self._last_request = max((bookmark.export.requested_at for bookmark in self.bookmarks.values()), default=0.0)
        braze_filter = BrazeFilter()
        self._requests = [
            ExportRequest(
                source,
                self._scopes[source],
                self.bookmarks.get(source.key),
                rows_signature=rows_signature,
                unique_time=self._unique_time,
                braze_filter=braze_filter,
                client=client,
                clock=clock,
                journal=self._journals[source.key],
                bucket=self._bucket,
                callbacks=self._callbacks,
                settings=settings,
            )
            for source in sources
        ]
        self._completeness = Completeness(
            self.bookmarks, self._journals, max_rejected_lines=settings.max_rejected_lines
        )
        self._running = RunningExports(
            self.bookmarks,
            self._journals,
            waiting=self._requests,
            completeness=self._completeness,
            estimates=self._estimates,
            spool=spool,
            clock=clock,
            progress=progress,
            write_state=write_state,
        )
        self.failures = self._running.failures

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
        for journal in self._journals.values():
            if known := journal.read():
                self._last_request = max(self._last_request, known.export.requested_at)
        for request in list(self._requests):
            self._resume(request)
        if any(not export.is_late for export in self._running):
            self._write_state(must=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Release the locks and the port; transfers under way end with the process."""
        self._pollers.close()
        self._callbacks.__exit__(None, None, None)
        for journal in self._journals.values():
            journal.unlock()

    # Deliveries

    def poll(self) -> Sequence[Delivery]:
        """See `Deliveries`."""
        if self._clock.stopped:
            raise Interruption
        running = len(self._running)
        for request in list(self._requests):
            if request.timer.due and self._may_start(request):
                self._start(request)
        if len(self._running) > running:
            self._write_state(must=False)
        deliveries = [
            Delivery(
                file.export,
                file.name,
                file.size,
                partial(file.blocks, self._bucket),
                partial(self._running.done, export, file),
                partial(self._running.failed, export, file),
                file,
                self._role(export),
            )
            for export in self._running
            for file in self._running.poll(export)
        ]
        self._tell_progress()
        return deliveries

    def advance(self) -> None:
        """See `Deliveries`. Only downloads are polled: their links expire while a slow loader reads a huge file."""
        for export in self._running:
            if isinstance(export.poller, HostedExport) and not export.poller.has_found_files:
                self._running.poll(export)

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
            with self._progress.waiting(self._waits_since, [str(request.source) for request in self._requests]):
                self._clock.sleep(min(seconds, self._progress.longest_wait))

    def state(self) -> dict[str, Any]:
        """See `Deliveries`."""
        return {
            "version": VERSION,
            "exports": exports_in_state(self.bookmarks.values()),
            "resync": self._resync_state,
        }

    def stated(self) -> None:
        """See `Deliveries`."""
        self._running.stated()

    def reason_to_keep_rows(self) -> str:
        """See `Deliveries`."""
        if self.failures:
            return "an export failed"
        return self._completeness.reason_to_keep_rows()

    def second_part(self) -> Exports | None:
        """See `Deliveries`."""
        due = [source for source, last in self._scopes.put_off.items() if self._needs_full_export(source, last)]
        if not due:
            return None
        compared = [source.key for source in due if self._completeness.emitted_whole(source.key)]
        return self._second_part(due, compared=compared, state=self.state())

    def _needs_full_export(self, source: Source, last: float) -> bool:
        """True unless Braze has sent everybody all the same, or the incremental export waits for the next run."""
        bookmark = self.bookmarks.get(source.key)
        if source.key in self._running.interrupted or bookmark is None or bookmark.running:
            return False
        return bookmark.complete is None or bookmark.complete.full_at == last

    def complete_exports(self) -> Sequence[Bookmark]:
        """See `Deliveries`."""
        return self._completeness.complete_exports()

    def review(self) -> None:
        """Compare the counts of users with Braze's estimates."""
        ended = self._completeness.ended_exports
        self._estimates.review([bookmark for bookmark in ended if bookmark.export.updated_since is None])

    # From the request to the end

    def _resume(self, request: ExportRequest) -> None:
        known = request.resume()
        if known and known.status is Status.RUNNING:
            self._follow(request, known)
        elif known and self._bucket is not None:
            poller = self._pollers.late_files(known, self._bucket, self._journals[known.export.key])
            rejected = known.bookmark.rejected
            self._running.add(RunningExport(request.source, poller, is_late=True, rejected_before=rejected))

    def _may_start(self, request: ExportRequest) -> bool:
        if self._running.has_late:
            return False
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
            self._running.fail(request.source, error)
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
            self._running.fail(source, error, f"{bookmark.export}: {error}")
            return
        self.bookmarks[source.key] = bookmark
        self._completeness.begun(bookmark)
        read_before = known.read_before.digests if known.read_before else ()
        self._running.add(RunningExport(source, poller, read_before=read_before))

    def _role(self, export: RunningExport) -> Role:
        asks_for_changes = not export.poller.bookmark.is_full
        if export.source in self._scopes.put_off:  # late files are of the night before; what is continued may be full
            return Role.NAMES_USERS if asks_for_changes and not export.is_late else Role.NONE
        if export.source.key in self._compared:  # late files are of this run's incremental export
            return Role.NAMES_USERS if asks_for_changes else Role.IS_COMPARED
        return Role.NONE

    def _unique_time(self, seconds: float) -> float:
        """The time of a request, at least a microsecond after every other: `exported_at` tells exports apart."""
        self._last_request = max(round(seconds, 6), round(self._last_request + _MICROSECOND, 6))
        return self._last_request

    def _tell_progress(self) -> None:
        self._progress.running(export.status for export in self._running)
