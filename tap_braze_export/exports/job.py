"""One export in this run, from its request to its end; each change of its phase goes through the table of `phases`."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tap_braze_export.clock import LONG_WAIT_SECONDS, Interruption, PollTimer
from tap_braze_export.deliveries import Delivery, Role
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    DamagedFileError,
    DiskFullError,
    ExportError,
    InterruptedExportError,
    LostResponseError,
    RunningExportError,
)
from tap_braze_export.exports.completeness import note_end
from tap_braze_export.exports.phases import Phase, Record, step_between
from tap_braze_export.exports.pollers import late_poller, poller_of
from tap_braze_export.exports.request import ExportRequest
from tap_braze_export.exports.resume import known_export, late_export
from tap_braze_export.report.facts import ASSUMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_braze_export.exports.journal import Journal, KnownExport
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.scope import Scope, Source
    from tap_braze_export.exports.shared import Shared
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.state import Bookmark

_MAX_LOST_RESPONSES = 8
"""Requests in a row without a response after which this run asks no more."""
_log = logging.getLogger(__name__)


class ExportJob:
    """An export of one source.

    Attributes:
        last_full_at: When the last complete full export was accepted, as STATE knew it then.
        last: The last export of the source, as STATE knew it when the run began.
        phase: Where it stands.
        known: The export, once this run or an earlier one has requested it.
        poller: Finds its files, once it runs.
        role: The part that it has in measuring Braze's filter.
        emits_all: True if this run emits every file of it itself.
    """

    def __init__(
        self, source: Source, scope: Scope, journal: Journal, shared: Shared, late: KnownExport | None = None
    ) -> None:
        self.source = source
        self.scope = scope
        self.last = shared.bookmarks.get(source.key)
        self.last_full_at = self.last.complete.full_at if self.last and self.last.complete else None
        self.phase = Phase.PLANNED
        self.known = late
        self.poller: ExportPoller
        self.role = Role.NONE
        self.emits_all = False
        self._journal = journal
        self._shared = shared
        self._request = ExportRequest(source, scope, self.last, shared)
        self._timer = PollTimer(shared.clock, shared.settings.poll_interval_seconds)
        self._lost_responses = 0
        self._files_read = 0
        self._rejected_before = late.bookmark.rejected if late else 0
        if late:
            self.poller = late_poller(late, journal, shared)
            self._move(Phase.LATE)

    @property
    def bookmark(self) -> Bookmark:
        """The export, as STATE says it."""
        if self.known is None:
            raise RuntimeError(f"no export of {self.source} was requested")
        return self.known.bookmark

    @property
    def may_be_running(self) -> bool:
        """True if Braze may be running it already: an earlier run left it, or the response was lost."""
        return self.known is not None and self.phase in (Phase.PLANNED, Phase.LOST)

    @property
    def timer(self) -> PollTimer:
        """Says when to try, or to poll, next."""
        return self.poller.timer if self.phase.runs else self._timer

    @property
    def is_downloading(self) -> bool:
        """True while the link of a hosted export waits to be used."""
        return self.phase in (Phase.RUNNING, Phase.FETCHING) and not self.bookmark.in_bucket

    # Until it runs

    def resume(self) -> ExportJob | None:
        """Take up what earlier runs have left of the source; a job for files that came late, which are read first."""
        wanted, shared = self._request.wanted(), self._shared
        has_bucket = shared.bucket is not None
        in_journal = self._journal.read()
        late = late_export(self.last, wanted, has_bucket=has_bucket)
        known = known_export(
            self.last,
            in_journal,
            wanted,
            given_state=self._journal.given_state,
            timeout=shared.settings.export_timeout_seconds,
            has_bucket=has_bucket,
        )
        self._journal.clear_others([each.export.export_id for each in (late, known) if each])
        if known is None:
            if in_journal:
                step_between(in_journal.phase, Phase.CLEARED)
            self._journal.forget()
        else:
            self.known = known
            if known.phase is Phase.LOST:
                self._move(Phase.LOST)
            else:
                self._log_continued(known)
        return ExportJob(self.source, self.scope, self._journal, shared, late) if late else None

    def start(self) -> bool:
        """Request it, or go on with what an earlier run has requested; True once it runs.

        Raises:
            AuthError: The key lacks the permission.
        """
        try:
            if self.known and self.phase is Phase.PLANNED:
                self._run(self.known)
            elif self.known and self.phase is Phase.LOST and (found := self._request.found(self.known)):
                self._run(found)
            else:
                self._ask()
        except AuthError:
            if self.phase is Phase.REQUESTED:
                self._move(Phase.GIVEN_UP)
            raise
        except (BrazeError, ExportError) as error:
            self._fail(error)
        return self.phase.runs

    def _ask(self) -> None:
        """Request it once; if it does not run then, `timer` says when to try again."""
        requested = self._request.new()
        was_lost = self.phase is Phase.LOST  # then the journal keeps the request that may have started something
        if not was_lost:
            self._move(Phase.REQUESTED, requested)
        try:
            known = self._request.send(requested)
        except RunningExportError:
            self._lost_responses = 0
            if not was_lost:
                self._move(Phase.REFUSED)
            self._request.wait_for_other("wait" if was_lost else self._shared.settings.on_running_export)
            reason = "Braze is still exporting it"
        except LostResponseError as error:
            if not was_lost:
                self._move(Phase.LOST, self._request.sent(requested, error.sent_at))
            self._lost_responses += 1
            if self._lost_responses >= _MAX_LOST_RESPONSES:
                raise InterruptedExportError(
                    f"{error}: {self._lost_responses} times in a row, run again later"
                ) from None
            _log.warning("%s; the next request will show if Braze has received it", error)
            reason = "the response was lost"
        else:
            self._run(known)
            return
        self._timer.polled(found=False)
        if (wait := self._timer.next - self._shared.clock.monotonic()) > LONG_WAIT_SECONDS:
            _log.info("The export of %s is requested again in %.0f s: %s", self.source, wait, reason)

    def _log_continued(self, known: KnownExport) -> None:
        at, name, files = known.export.exported_at, known.export.export_id, known.bookmark.files
        if known.read_before:
            reason = "is read again, without a new one, as the loader has not confirmed it"
            _log.info("The export of %s %s: export %s of %s, %d files confirmed", at, reason, name, self.source, files)
        else:
            _log.info("Continuing export %s of %s, %d files done", name, self.source, files)

    # While it runs

    def _run(self, known: KnownExport) -> None:
        """Wait for the files of an export, after recording that it runs.

        Raises:
            ExportError: Its URL is no address, or it has none and no bucket is configured.
        """
        if known.read_before:  # the record stays: it says which files there were
            self._move(Phase.KEPT)
        self._move(Phase.RUNNING, known)
        self._shared.callbacks.expect(known.token)
        self._shared.bookmarks[self.source.key] = known.bookmark
        self.emits_all = not known.bookmark.files
        self.poller = poller_of(known, self._journal, self._shared)

    def poll(self) -> Sequence[Delivery]:
        """The next files of it; it ends, or is given up, if there can be no more."""
        try:
            files = self.poller.poll()
            if self.poller.complete:
                self._require_all()
        except ExportError as error:
            self._fail(error)
            return ()
        if self.poller.complete:
            self._end()
        elif self.phase is not Phase.LATE:
            without_files = Phase.FETCHING if self.poller.transfers else Phase.RUNNING
            self._move(Phase.READING if files else without_files)
        return [self._delivery(file) for file in files]

    def _delivery(self, file: DeliveredFile) -> Delivery:
        return Delivery(
            file.export,
            file.name,
            file.size,
            partial(file.blocks, self._shared.bucket),
            partial(self._done, file),
            partial(self._failed, file),
            file,
            self.role,
        )

    def _done(self, file: DeliveredFile, users: int, rejected: int) -> None:
        self.poller.done(file, users, rejected)
        self._files_read += 1

    def _failed(self, file: DeliveredFile, error: ExportError) -> None:
        """Have a file read or fetched once more if that may help, else give its export up."""
        try:
            if not isinstance(error, DamagedFileError):
                raise error
            self.poller.damaged(file, error)
        except ExportError as final:
            self._fail(final)

    # Its end

    def _require_all(self) -> None:
        """Check that every file has come, once all that are there were read.

        Raises:
            ExportError: Some must be missing.
        """
        bookmark, read_before = self.bookmark, self.known.read_before if self.known else None
        gone = sum(digest not in bookmark.digests for digest in read_before.digests) if read_before else 0
        if gone:
            raise ExportError(
                f"{gone} files of it, which an earlier run has read, are gone: run again for a new export"
            )
        found_none = not (self.phase is Phase.LATE or self.poller.has_found_files)
        if found_none and (reason := self._shared.estimates.reason_for_files(bookmark, *self.poller.elsewhere)):
            raise ExportError(reason)

    def _end(self) -> None:
        bookmark, shared, poller = self.bookmark, self._shared, self.poller
        most_rejected = shared.settings.max_rejected_lines
        if self.phase is Phase.LATE:
            if self._files_read:
                _log.warning("%s: %d files came after the last run had ended", bookmark.export, self._files_read)
            if self._rejected_before <= most_rejected < bookmark.rejected:
                bookmark.complete = None
            self._move(Phase.ENDED)
        else:
            if not poller.proven:
                shared.progress.facts.reached(ASSUMED, [bookmark.export])
            has_files = poller.has_found_files
            is_known = note_end(bookmark, proven=poller.proven, has_files=has_files, max_rejected_lines=most_rejected)
            self._move(Phase.ENDED if is_known else Phase.EMPTY)
        shared.write_state(must=False)
        if bookmark.in_bucket:
            self._journal.clear(bookmark.export.export_id)  # the files themselves are still there

    def stated(self) -> None:
        """Note that STATE was written: only now may the journal say that the export has ended.

        A run that is killed before reads such an export again, as its journal then says that it runs.
        """
        if self.phase is Phase.ENDED:
            self._move(Phase.KEPT)

    def clear(self) -> bool:
        """Remove a download that stays only in case the loader fails; False if there is none."""
        if self.phase is not Phase.KEPT or self.bookmark.in_bucket:
            return False
        self._move(Phase.CLEARED)
        _log.info("The disk is full. %s is removed, which was kept in case its loader fails", self.bookmark.export)
        return True

    def _fail(self, error: ExportError | BrazeError) -> None:
        """Give the export up, or leave it to the next run; this run goes on with the others."""
        if self._shared.clock.stopped:
            raise Interruption from None  # the signal broke a transfer off; the export is not broken
        ran, was_late, is_left = self.phase.runs, self.phase is Phase.LATE, isinstance(error, InterruptedExportError)
        may_retry = ran or self.phase in (Phase.PLANNED, Phase.REFUSED)
        if isinstance(error, DiskFullError) and may_retry and self._shared.make_room():
            return
        if not ran:
            self._move(Phase.INTERRUPTED if is_left or self.phase is Phase.LOST else Phase.GIVEN_UP)
            self._tell(str(error))
            return
        bookmark = self.bookmark
        if is_left:
            self._move(Phase.INTERRUPTED)
        else:
            self._move(Phase.GIVEN_UP)
            if was_late:
                bookmark.complete = None  # it lacks a file
            else:
                self._drop_bookmark(bookmark)
        if bookmark.in_bucket:
            self._journal.clear(bookmark.export.export_id)
        is_damaged = isinstance(error, DamagedFileError) and not was_late
        self._tell(f"{bookmark.export}: {error}{'; run again for a new export' if is_damaged else ''}")

    def _drop_bookmark(self, bookmark: Bookmark) -> None:
        """Have STATE name the export no more; what the next one goes by stays."""
        bookmarks, key = self._shared.bookmarks, self.source.key
        bookmarks.pop(key, None)
        if bookmark.last_users is not None or bookmark.complete is not None:
            none = replace(bookmark.export, export_id="")
            bookmarks[key] = replace(bookmark, export=none, running=False, in_bucket=False, digests={}, users=0)

    def _tell(self, reason: str) -> None:
        self._shared.failures.append(reason if str(self.source) in reason else f"{self.source}: {reason}")
        if self._shared.others_go_on():
            _log.warning("The export of %s is given up, the others go on; the end of this log says why", self.source)

    def _move(self, phase: Phase, known: KnownExport | None = None) -> None:
        """Go to another phase, once the journal's record is as the table says; `known` is the export from now on."""
        if phase is self.phase:
            return
        record = step_between(self.phase, phase).record
        if record is Record.WRITTEN and known:
            self._journal.write(known)
        elif record is Record.ENDS:
            self._journal.end(self.bookmark, proven=self.poller.proven)
        elif record is Record.REMOVED:
            self._journal.forget()
            self._journal.clear(self.bookmark.export.export_id)
        self.phase, self.known = phase, known or self.known
