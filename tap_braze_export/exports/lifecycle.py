"""The segment and control-group exports of a run, several at a time: from the request to the last file."""

from __future__ import annotations

import logging
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption
from tap_braze_export.deliveries import Deliveries, Role
from tap_braze_export.exports.completeness import reason_to_doubt
from tap_braze_export.exports.job import ExportJob
from tap_braze_export.exports.journal import Journal
from tap_braze_export.exports.phases import Phase
from tap_braze_export.exports.scope import first_scope
from tap_braze_export.state import VERSION, exports_in_state, none_or_one, read_bookmarks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tap_braze_export.deliveries import Delivery
    from tap_braze_export.exports.scope import Source
    from tap_braze_export.exports.shared import Shared
    from tap_braze_export.state import Bookmark

_log = logging.getLogger(__name__)


class Exports(Deliveries):
    """Runs the configured exports in Braze and delivers their files.

    The first part of a run may put off full exports that are due by age. Its second part runs them: they are `compared`
    with the incremental ones that the first part has emitted, and the journals go by the STATE that the run was handed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        shared: Shared,
        state: Mapping[str, Any],
        *,
        puts_off_full_exports: bool = False,
        compared: Collection[tuple[str, str]] = (),
        journal_state: Mapping[str, Any] | None = None,
    ) -> None:
        self.failures = shared.failures
        self._shared = shared
        self._resync_state = none_or_one(state.get("resync"))
        self._given_state = state if journal_state is None else journal_state
        self._compared = compared
        self._waits_since = shared.clock.monotonic()
        shared.bookmarks.update(read_bookmarks(state))
        shared.others_go_on = lambda: not self.ended
        shared.make_room = self._make_room
        self._late: list[ExportJob] = []
        self._jobs: list[ExportJob] = []
        self._journals: list[Journal] = []
        for source in sources:
            last = shared.bookmarks.get(source.key)
            scope = first_scope(
                source,
                last.complete if last else None,
                settings=shared.settings,
                rows_signature=shared.rows_signature,
                now=shared.clock.now(),
                measures=puts_off_full_exports,
            )
            journal = Journal(shared.spool, shared.settings.workspace, source.key, self._given_state)
            self._journals.append(journal)
            self._jobs.append(ExportJob(source, scope, journal, shared))

    @override
    def __enter__(self) -> Self:
        """Lock the segments, listen for callbacks, and take up what earlier runs have left.

        Raises:
            ConfigError: The bucket does not exist, or refuses the credentials: nothing is started.
        """
        shared = self._shared
        if shared.bucket is not None:
            shared.bucket.require()
        for journal in self._journals:
            journal.lock()
        shared.callbacks.__enter__()
        in_journals = [known.bookmark for journal in self._journals if (known := journal.read())]
        times = [bookmark.export.requested_at for bookmark in [*shared.bookmarks.values(), *in_journals]]
        shared.last_request = max(times, default=0.0)
        self._late = [late for job in self._jobs if (late := job.resume())]
        return self

    @override
    def __exit__(self, *_: object) -> None:
        """Release the locks and the port; transfers under way end with the process."""
        self._shared.close()
        self._shared.callbacks.__exit__(None, None, None)
        for journal in self._journals:
            journal.unlock()

    # Deliveries

    @override
    def poll(self) -> Sequence[Delivery]:
        if self._shared.clock.stopped:
            raise Interruption
        due = [job for job in self._jobs if job.phase.waits and job.timer.due]
        started = [job.start() for job in due if self._may_start(job)]
        if any(started):
            self._shared.write_state(must=False)
        for job in self._running:
            job.role = self._role(job)
        deliveries = [delivery for job in self._running for delivery in job.poll()]
        self._tell_progress()
        return deliveries

    @override
    def advance(self) -> None:
        """Poll downloads alone: their links expire while a slow loader reads a huge file."""
        for job in self._running:
            if job.is_downloading:
                job.poll()

    @property
    @override
    def ended(self) -> bool:
        return not any(job.phase.waits or job.phase.runs for job in self._all)

    @override
    def wait(self) -> None:
        clock, progress = self._shared.clock, self._shared.progress
        if transfers := [transfer for job in self._running for transfer in job.poller.transfers]:
            self._tell_progress()
            progress.downloading()
            wait(transfers, WAIT_SLICE_SECONDS, FIRST_COMPLETED)
            return
        waiting = [job for job in self._jobs if job.phase.waits]
        times = [job.timer.next for job in [*self._running, *(job for job in waiting if self._may_start(job))]]
        if times and (seconds := min(times) - clock.monotonic()) > 0:
            with progress.waiting(self._waits_since, [str(job.source) for job in waiting]):
                clock.sleep(min(seconds, progress.longest_wait))

    @override
    def state(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "exports": exports_in_state(self._shared.bookmarks.values()),
            "resync": self._resync_state,
        }

    @override
    def stated(self) -> None:
        for job in self._all:
            job.stated()

    @override
    def reason_to_keep_rows(self) -> str:
        if self.failures:
            return "an export failed"
        for job in self._jobs:
            if not (job.phase.is_complete and job.emits_all and job.poller.proven):
                return (
                    f"this run did not itself emit every file of {job.source}, or only assumed that it had every file"
                )
            if reason := reason_to_doubt(job.bookmark):
                return reason
        return ""

    @override
    def second_part(self) -> Exports | None:
        due = [job for job in self._jobs if job.scope.full_follows and self._needs_full_export(job)]
        if not due:
            return None
        return Exports(
            [job.source for job in due],
            replace(self._shared),
            self.state(),
            compared=[job.source.key for job in due if job.phase.is_complete and job.emits_all],
            journal_state=self._given_state,
        )

    @override
    def complete_exports(self) -> Sequence[Bookmark]:
        complete = []
        for bookmark in [job.bookmark for job in self._jobs if job.phase.is_complete and job.poller.proven]:
            if not (reason := reason_to_doubt(bookmark)):
                complete.append(bookmark)
            elif bookmark.export.updated_since is None:
                _log.warning("No user leaves %s in this run: %s", bookmark.export.subject, reason)
        return complete

    @override
    def review(self) -> None:
        """Compare the counts of users with Braze's estimates."""
        ended = [job.bookmark for job in self._jobs if job.phase.is_complete or job.phase is Phase.EMPTY]
        self._shared.estimates.review([each for each in ended if each.export.updated_since is None])

    @property
    def _all(self) -> list[ExportJob]:
        """Late files come before anything else."""
        return [*self._late, *self._jobs]

    @property
    def _running(self) -> list[ExportJob]:
        return [job for job in self._all if job.phase.runs]

    def _may_start(self, job: ExportJob) -> bool:
        if any(late.phase.runs for late in self._late):
            return False
        running = sum(other.phase.runs or other.may_be_running for other in self._jobs)
        return job.may_be_running or running < self._shared.settings.concurrent_exports

    def _role(self, job: ExportJob) -> Role:
        asks_for_changes = not job.bookmark.is_full
        if job.scope.full_follows:  # late files are of the night before; what is continued may be full
            return Role.NAMES_USERS if asks_for_changes and job.phase is not Phase.LATE else Role.NONE
        if job.source.key in self._compared:  # late files are of this run's incremental export
            return Role.NAMES_USERS if asks_for_changes else Role.IS_COMPARED
        return Role.NONE

    def _needs_full_export(self, job: ExportJob) -> bool:
        """True unless Braze has sent everybody all the same, or the incremental export is left to the next run."""
        bookmark = self._shared.bookmarks.get(job.source.key)
        if job.phase is Phase.INTERRUPTED or bookmark is None or bookmark.running:
            return False
        return bookmark.complete is None or bookmark.complete.full_at == job.last_full_at

    def _make_room(self) -> bool:
        """Remove the first download of this run that stays only in case its loader fails; False if there is none."""
        if any(job.phase is Phase.ENDED for job in self._all):
            self._shared.write_state(must=True)
        return any(job.clear() for job in self._all)

    def _tell_progress(self) -> None:
        self._shared.progress.running(job.poller.status for job in self._running)
