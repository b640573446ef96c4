"""The exports of a run that Braze has started: their files are waited for and read, then they end or are given up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import DamagedFileError, DiskFullError, ExportError, InterruptedExportError
from tap_braze_export.exports.journal import make_room
from tap_braze_export.report.progress import ExportStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence, Sized

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import WriteState
    from tap_braze_export.exports.completeness import Completeness
    from tap_braze_export.exports.estimates import Estimates
    from tap_braze_export.exports.journal import Journal
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.sources import Source
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.state import Bookmark

    Key = tuple[str, str]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class RunningExport:
    """An export whose files are waited for, or read.

    Attributes:
        source: What is exported.
        poller: Finds its files.
        is_late: True if it ended in an earlier run, and only files that came afterwards are read.
        rejected_before: Lines of it that earlier runs have rejected, of one that is late.
        read_before: Digests of the files that an earlier run has read of it, to its end.
        files_read: Files that this run has emitted.
        waits_for_space: True if its files found the disk full, and are fetched once other exports are read.
    """

    source: Source
    poller: ExportPoller
    is_late: bool = False
    rejected_before: int = 0
    read_before: Collection[bytes] = ()
    files_read: int = 0
    waits_for_space: bool = False

    @property
    def holds_space(self) -> bool:
        """True if its files take up space on the disk until they are read."""
        return not self.waits_for_space and (self.poller.has_found_files or any(self.poller.transfers))

    @property
    def status(self) -> ExportStatus:
        """Its state, for people."""
        return ExportStatus(
            export=self.poller.bookmark.export,
            files_left=self.poller.files_left,
            received=self.poller.received_bytes,
            expected=self.poller.expected_bytes,
            quiet_until=self.poller.quiet_until,
        )

    @property
    def reason_incomplete(self) -> str:
        """Why files are missing although every file that is there was read; empty if none is."""
        gone = sum(digest not in self.poller.bookmark.digests for digest in self.read_before)
        return (
            f"{gone} files of it, which an earlier run has read, are gone: run again for a new export" if gone else ""
        )


class RunningExports:
    """The exports of a run that Braze has started, in the order in which their files are read.

    Args:
        bookmarks: The exports by source, as STATE says them; kept up to date.
        journals: The journals by source.
        waiting: The requests that are still to be made.
        completeness: Notes which exports were read whole.
        estimates: Knows if an export without files may be empty.
        spool: Has the downloads.
        clock: Time.
        progress: Is told of exports that end.
        write_state: Writes STATE.

    Attributes:
        failures: Why exports were given up.
        interrupted: The sources of those of them that the next run continues.
    """

    def __init__(
        self,
        bookmarks: dict[Key, Bookmark],
        journals: Mapping[Key, Journal],
        *,
        waiting: Sized,
        completeness: Completeness,
        estimates: Estimates,
        spool: Spool,
        clock: Clock,
        progress: Progress,
        write_state: WriteState,
    ) -> None:
        self.failures: list[str] = []
        self.interrupted: set[Key] = set()
        self._bookmarks = bookmarks
        self._journals = journals
        self._waiting = waiting
        self._completeness = completeness
        self._estimates = estimates
        self._spool = spool
        self._clock = clock
        self._progress = progress
        self._write_state = write_state
        self._exports: list[RunningExport] = []
        self._unstated: list[tuple[Journal, Bookmark, bool]] = []
        """Journals of exports that were read to their ends since STATE was last written."""

    def __iter__(self) -> Iterator[RunningExport]:
        """Iterate over a copy: polling removes exports that end."""
        return iter([*self._exports])

    def __len__(self) -> int:
        """The number of exports that run."""
        return len(self._exports)

    @property
    def has_late(self) -> bool:
        """True while late files of an earlier run's export are read, which come before anything else."""
        return any(export.is_late for export in self._exports)

    def add(self, export: RunningExport) -> None:
        """Follow an export; one that ended in an earlier run comes first."""
        self._exports.insert(0 if export.is_late else len(self._exports), export)

    def stated(self) -> None:
        """Note that STATE was written: only now may a journal say that its export has ended.

        A run that is killed before reads such an export again, as its journal then says that it runs.
        """
        for journal, bookmark, proven in self._unstated:
            journal.keep(bookmark, proven=proven)
        self._unstated.clear()

    def poll(self, export: RunningExport) -> Sequence[DeliveredFile]:
        """The next files of an export; it ends, or is given up, if there can be no more."""
        others_hold_space = any(other.holds_space for other in self._exports if other is not export)
        if export.waits_for_space and others_hold_space:
            return ()
        export.waits_for_space = False
        try:
            files = export.poller.poll()
        except DiskFullError as error:
            if self._made_room():
                return ()
            if not others_hold_space:
                self._give_up(export, error)
                return ()
            name = export.poller.bookmark.export
            _log.warning("%s: %s. If not, it is fetched once the exports before it are read", name, error)
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

    def _made_room(self) -> bool:
        """Remove a download that stays only in case a loader fails; False if there is none."""
        if self._unstated:
            self._write_state(must=True)
        return make_room(self._spool, self._journals.values())

    def _reason_incomplete(self, export: RunningExport) -> str:
        """Why an export whose files were all read must lack some; empty if it need not."""
        poller = export.poller
        if export.reason_incomplete or export.is_late or poller.has_found_files:
            return export.reason_incomplete
        if poller.bookmark.export.updated_since is None:
            return self._estimates.reason_for_files(poller.bookmark, *poller.elsewhere)
        where, is_certain = poller.elsewhere
        return f"no file has come to bucket_url: {where} has its files, so set bucket_url to that" if is_certain else ""

    def done(self, export: RunningExport, file: DeliveredFile, users: int, rejected: int) -> None:
        """Note that the rows of a file are written."""
        export.poller.done(file, users, rejected)
        export.files_read += 1

    def failed(self, export: RunningExport, file: DeliveredFile, error: ExportError) -> None:
        """Have a file read or fetched once more if that may help, else give its export up."""
        if isinstance(error, DiskFullError) and self._made_room():
            return
        try:
            if not isinstance(error, DamagedFileError):
                raise error
            export.poller.damaged(file, error)
        except ExportError as final:
            self._give_up(export, final)

    def _complete(self, export: RunningExport) -> None:
        bookmark, journal = export.poller.bookmark, self._journals[export.source.key]
        self._exports.remove(export)
        if export.is_late:
            if export.files_read:
                _log.warning("%s: %d files came after the last run had ended", bookmark.export, export.files_read)
            self._completeness.late_files_ended(bookmark, rejected_before=export.rejected_before)
        else:
            self._end(export, journal)
        self._write_state(must=False)
        if bookmark.in_bucket:
            journal.clear(bookmark.export.export_id)  # the files themselves are still there

    def _end(self, export: RunningExport, journal: Journal) -> None:
        """Note that an export was read to its end."""
        bookmark, proven = export.poller.bookmark, export.poller.proven
        bookmark.running = False
        if not proven:
            self._progress.facts.assumed_complete(bookmark.export)
        if self._completeness.ended(bookmark, proven=proven, has_files=export.poller.has_found_files):
            self._unstated.append((journal, bookmark, proven))
        else:
            journal.forget()
            journal.clear(bookmark.export.export_id)

    def _give_up(self, export: RunningExport, error: ExportError) -> None:
        if self._clock.stopped:
            raise Interruption from None  # the signal broke a transfer off; the export is not broken
        bookmark, journal = export.poller.bookmark, self._journals[export.source.key]
        self._exports.remove(export)
        is_damaged = isinstance(error, DamagedFileError) and not export.is_late
        remedy = "; run again for a new export" if is_damaged else ""
        self.fail(export.source, error, f"{bookmark.export}: {error}{remedy}")
        if isinstance(error, InterruptedExportError):
            return  # bookmark and journal stay: the next run continues it
        if export.is_late:
            bookmark.complete = None  # it lacks a file
        else:
            self._bookmarks.pop(bookmark.export.key, None)
            if bookmark.last_users is not None or bookmark.complete is not None:  # the next export goes by them
                none = replace(bookmark.export, export_id="")
                none_running = replace(bookmark, export=none, running=False, in_bucket=False, digests={})
                self._bookmarks[none.key] = replace(none_running, users=0)
            journal.forget()
        journal.clear(bookmark.export.export_id)

    def fail(self, source: Source, error: Exception, reason: str = "") -> None:
        """Note why an export is given up; the run goes on with the others."""
        reason = reason or str(error)
        if isinstance(error, InterruptedExportError):
            self.interrupted.add(source.key)
        self.failures.append(reason if str(source) in reason else f"{source}: {reason}")
        if self._waiting or self._exports:
            _log.warning("The export of %s is given up, the others go on; the end of this log says why", source)
