"""How an export comes to run: continued from an earlier run, requested, or waited for while Braze runs another."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from tap_braze_export.braze import endpoints
from tap_braze_export.braze.callback import new_token
from tap_braze_export.clock import LONG_WAIT_SECONDS, PollTimer
from tap_braze_export.errors import (
    BrazeError,
    InterruptedExportError,
    LostResponseError,
    RunningExportError,
)
from tap_braze_export.export import GLOBAL_CONTROL_GROUP, SEGMENT, Export
from tap_braze_export.exports.resume import KnownExport, Status, known_export, late_export
from tap_braze_export.exports.scope import Scope
from tap_braze_export.report.units import duration
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.braze.callback import Callbacks
    from tap_braze_export.braze.client import Braze, Started
    from tap_braze_export.clock import Clock
    from tap_braze_export.exports.journal import Journal
    from tap_braze_export.exports.sources import Source
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.settings import Settings

_CLOCK_DIFFERENCE_SECONDS = 120
"""Largest difference between this machine's time of a request and the time in the export's name."""
_MAX_LOST_RESPONSES = 8
"""Requests in a row without a response after which the export is given up."""
_log = logging.getLogger(__name__)


@dataclass
class BrazeFilter:
    """Braze's parameter `user_last_updated_at`, as far as this run knows it.

    Attributes:
        is_refused: True once Braze has refused a request with it and accepted the same one without it.
    """

    is_refused: bool = False


class ExportRequest:
    """The request of one export, repeated until the export runs.

    Args:
        source: What to export.
        scope: The users to ask for.
        last: The last export of it, as STATE knows it.
        rows_signature: Hash of everything that shapes rows.
        unique_time: Makes the time of a request another one than that of every other export.
        braze_filter: Shared by the requests of a run.
        client: Braze.
        clock: Time.
        journal: This machine's record of the running export.
        bucket: Where files may be delivered.
        callbacks: Gives the address that Braze calls.
        settings: The tap's settings.

    Attributes:
        timer: Says when to try next.
    """

    def __init__(
        self,
        source: Source,
        scope: Scope,
        last: Bookmark | None,
        *,
        rows_signature: str,
        unique_time: Callable[[float], float],
        braze_filter: BrazeFilter,
        client: Braze,
        clock: Clock,
        journal: Journal,
        bucket: Bucket | None,
        callbacks: Callbacks,
        settings: Settings,
    ) -> None:
        self.source = source
        self.scope = scope
        self._unique_time = unique_time
        self._braze_filter = braze_filter
        self.timer = PollTimer(clock, settings.poll_interval_seconds)
        self._last = last
        self._last_id = last.export.export_id if last else ""
        self._rows_signature = rows_signature
        self._client = client
        self._clock = clock
        self._journal = journal
        self._bucket = bucket
        self._callbacks = callbacks
        self._settings = settings
        self._unanswered: KnownExport | None = None
        self._continued: KnownExport | None = None
        self._refused_since: float | None = None
        self._lost_responses = 0

    @property
    def may_be_running(self) -> bool:
        """True if Braze may be running it already: an earlier run left it, or the response was lost."""
        return self._unanswered is not None or self._continued is not None

    def resume(self) -> KnownExport | None:
        """The export of an earlier run that this one reads first: an ended one with late files, else a running one.

        `attempt` continues what is left: a running export beside an ended one, or a request without a response.
        """
        wanted, has_bucket = self._wanted(), self._bucket is not None
        late = late_export(self._last, wanted, has_bucket=has_bucket)
        known = known_export(
            self._last,
            self._journal.read(),
            wanted,
            given_state=self._journal.given_state,
            timeout=self._settings.export_timeout_seconds,
            has_bucket=has_bucket,
        )
        self._journal.clear_others([each.export.export_id for each in (late, known) if each])
        if known is None:
            self._journal.forget()
        elif known.status is Status.REQUESTED:
            self._unanswered = known
        else:
            self._log_continued(known)
            if late is None:
                return known
            self._continued = known
        return late

    def attempt(self) -> KnownExport | None:
        """Request the export; None if it does not run yet and `timer` says when to try again.

        Raises:
            AuthError: The key lacks the permission.
            BrazeError: Braze refuses.
            InterruptedExportError: Braze runs another export of it, and the settings say not to wait (any longer); or
                responses are lost again and again.
        """
        if self._continued:
            continued, self._continued = self._continued, None
            return continued
        if found := self._find_unanswered():
            return found
        requested = KnownExport(
            self._wanted(), token=new_token(), follows=self._last.export.export_id if self._last else ""
        )
        if self._unanswered is None:
            self._journal.write(requested)
        try:
            started = self._post(requested.token)
        except RunningExportError:
            self._wait_for_other()
            reason = "Braze is still exporting it"
        except LostResponseError as error:
            if self._unanswered is None:
                self._unanswered = self._sent(requested, error.sent_at)
                self._journal.write(self._unanswered)
            self._lost_responses += 1
            if self._lost_responses >= _MAX_LOST_RESPONSES:
                raise InterruptedExportError(
                    f"{error}: {self._lost_responses} times in a row, run again later"
                ) from None
            _log.warning("%s; the next request will show if Braze has received it", error)
            reason = "the response was lost"
        except BrazeError:
            if self._unanswered is None:  # else the request before this one may still have started something
                self._journal.forget()
            raise
        else:
            return self._accepted(requested, started)
        self.timer.polled(found=False)
        if (wait := self.timer.next - self._clock.monotonic()) > LONG_WAIT_SECONDS:
            _log.info("The export of %s is requested again in %.0f s: %s", self.source, wait, reason)
        return None

    def _accepted(self, requested: KnownExport, started: Started) -> KnownExport:
        sent = self._sent(requested, started.sent_at)
        accepted_at = started.sent_at if started.braze_time is None else started.braze_time
        bookmark = replace(
            sent.bookmark,
            export=replace(sent.export, export_id=started.object_prefix),
            in_bucket=started.url is None,
            # The time of the request is a later one where a clock was set back since the last export.
            accepted_at=None if accepted_at == sent.export.requested_at else accepted_at,
        )
        _log.info(
            "Requested the export of %s: export %s, %d fields; %s",
            self.source,
            bookmark.export.export_id,
            len(self.source.fields.requested_fields),
            self.scope,
        )
        return replace(sent, bookmark=bookmark, url=started.url, follows="")

    def _log_continued(self, known: KnownExport) -> None:
        bookmark = known.bookmark
        if known.read_before:
            _log.info(
                "The export of %s is read again, without a new one, as the loader has not confirmed it: "
                "export %s of %s, %d files confirmed",
                bookmark.export.exported_at,
                bookmark.export.export_id,
                self.source,
                bookmark.files,
            )
        else:
            _log.info(
                "Continuing export %s of %s, %d files done", bookmark.export.export_id, self.source, bookmark.files
            )

    def _wanted(self) -> Bookmark:
        return Bookmark(
            Export(*self.source.key, "", self._clock.now(), self.scope.updated_since),
            requested_fields=self.source.fields.requested_fields,
            rows_signature=self._rows_signature,
            last_users=self._last.users_to_compare if self._last else None,
            is_full=self.scope.is_full,
            complete=self._last.complete if self._last else None,
        )

    def _sent(self, requested: KnownExport, at: float) -> KnownExport:
        """The request, dated by the try that Braze accepted or did not answer: refused tries started nothing."""
        export = Export(*self.source.key, "", self._unique_time(at), self.scope.updated_since)
        return replace(requested, bookmark=replace(requested.bookmark, export=export, is_full=self.scope.is_full))

    def _ask_for_everybody(self) -> None:
        if self.scope.updated_since is not None:
            self.scope = Scope(None, reason="Braze refuses user_last_updated_at")

    def _post(self, token: str) -> Started:
        """Request the export; for everybody, where Braze accepts that and refuses `user_last_updated_at`."""
        if self._braze_filter.is_refused:
            self._ask_for_everybody()
        asked = self.scope
        try:
            return self._post_once(token)
        except BrazeError as error:
            if asked.updated_since is None or error.status != HTTPStatus.BAD_REQUEST:
                raise
            refusal = error
        self._ask_for_everybody()
        try:
            started = self._post_once(token)
        except (RunningExportError, BrazeError) as error:
            if not isinstance(error, LostResponseError):
                self.scope = asked
            raise
        if not self._braze_filter.is_refused:
            self._braze_filter.is_refused = True
            reason = str(refusal).removesuffix(f"; {endpoints.SEGMENT.advice}")  # which is for another parameter
            _log.warning("Everybody is exported, as Braze refuses user_last_updated_at: %s", reason)
        return started

    def _post_once(self, token: str) -> Started:
        fields, callback = self.source.fields, self._callbacks.endpoint(token)
        output_format = self._settings.output_format
        if self.source.kind == GLOBAL_CONTROL_GROUP:
            return self._client.start_control_group_export(
                fields_to_export=fields.fields_to_export, callback_endpoint=callback, output_format=output_format
            )
        return self._client.start_segment_export(
            self.source.segment_id,
            fields_to_export=fields.fields_to_export,
            custom_attributes_to_export=fields.custom_attributes_to_export,
            callback_endpoint=callback,
            output_format=output_format,
            user_last_updated_at=self.scope.requested,
        )

    def _wait_for_other(self) -> None:
        choice = "wait" if self._unanswered else self._settings.on_running_export
        self._lost_responses = 0
        if self._unanswered is None:
            self._journal.forget()
        is_first = self._refused_since is None
        now = self._clock.monotonic()
        self._refused_since = now if self._refused_since is None else self._refused_since
        waited = now - self._refused_since
        if choice == "fail" or waited > self._settings.export_timeout_seconds:
            raise InterruptedExportError(
                f"Braze is already exporting it{f', for {duration(waited)} now' if waited > 1 else ''}: wait until it "
                "has ended, or set on_running_export to wait or cancel"
            )
        if not is_first:
            return
        if choice == "cancel" and self.source.kind == SEGMENT:  # the control group's export cannot be cancelled
            self._client.cancel_segment_export(self.source.segment_id)
            _log.info("Braze is already exporting %s: cancelled that export", self.source)
        else:
            _log.info("Braze is already exporting %s: waiting until it has ended", self.source)

    def _find_unanswered(self) -> KnownExport | None:
        """The export of a request without a response: in a bucket, by the time in its folder's name."""
        requested = self._unanswered
        if requested is None or self._bucket is None or self.source.kind == GLOBAL_CONTROL_GROUP:
            return None
        others = {requested.follows, self._last_id}
        by_difference = {
            abs(int(started) - requested.export.requested_at): export_id
            for export_id in self._bucket.export_ids(self.source.segment_id)
            if export_id not in others and (started := export_id.rpartition("-")[2]).isdecimal()
        }
        if not by_difference or min(by_difference) > _CLOCK_DIFFERENCE_SECONDS:
            return None
        export_id = by_difference[min(by_difference)]
        _log.info("Found export %s of %s in the bucket by its time", export_id, self.source)
        export = replace(requested.export, export_id=export_id)
        return replace(requested, bookmark=replace(requested.bookmark, export=export, in_bucket=True))
