"""The request of one export: for whom it asks, and what follows from a Braze that refuses it, or is busy."""

from __future__ import annotations

import logging
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from tap_braze_export.braze import endpoints
from tap_braze_export.braze.callback import new_token
from tap_braze_export.errors import BrazeError, InterruptedExportError, LostResponseError, RunningExportError
from tap_braze_export.export import GLOBAL_CONTROL_GROUP, SEGMENT, Export
from tap_braze_export.exports.journal import KnownExport
from tap_braze_export.exports.scope import Scope
from tap_braze_export.report.units import duration
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from tap_braze_export.braze.client import Started
    from tap_braze_export.exports.scope import Source
    from tap_braze_export.exports.shared import Shared

_CLOCK_DIFFERENCE_SECONDS = 120
"""Largest difference between this machine's time of a request and the time in the export's name."""
_log = logging.getLogger(__name__)


class ExportRequest:
    """Requests an export of one source."""

    def __init__(self, source: Source, scope: Scope, last: Bookmark | None, shared: Shared) -> None:
        self._scope = scope
        self._last = last
        self._last_id = last.export.export_id if last else ""
        self._source = source
        self._shared = shared
        self._refused_since: float | None = None

    def wanted(self) -> Bookmark:
        """The export that is to be requested."""
        return Bookmark(
            Export(*self._source.key, "", self._shared.clock.now(), self._scope.updated_since),
            requested_fields=self._source.fields.requested_fields,
            rows_signature=self._shared.rows_signature,
            last_users=self._last.users_to_compare if self._last else None,
            is_full=self._scope.is_full,
            complete=self._last.complete if self._last else None,
        )

    def new(self) -> KnownExport:
        """A request that is about to be sent."""
        return KnownExport(self.wanted(), token=new_token(), follows=self._last_id)

    def send(self, requested: KnownExport) -> KnownExport:
        """Request the export; returns the one that Braze has started.

        Raises:
            RunningExportError: Braze runs another export of it.
            LostResponseError: No response came.
            BrazeError: Braze refuses.
        """
        started = self._post(requested.token)
        sent = self.sent(requested, started.sent_at)
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
            self._source,
            bookmark.export.export_id,
            len(bookmark.requested_fields),
            self._scope,
        )
        return replace(sent, bookmark=bookmark, url=started.url, follows="")

    def sent(self, requested: KnownExport, at: float) -> KnownExport:
        """The request, dated by the try that Braze accepted or did not answer: refused tries started nothing."""
        export = Export(*self._source.key, "", self._shared.unique_time(at), self._scope.updated_since)
        return replace(requested, bookmark=replace(requested.bookmark, export=export, is_full=self._scope.is_full))

    def wait_for_other(self, choice: str) -> None:
        """Decide what follows when Braze runs another export of the source.

        Raises:
            InterruptedExportError: The wait is over.
        """
        now = self._shared.clock.monotonic()
        is_first = self._refused_since is None
        self._refused_since = now if self._refused_since is None else self._refused_since
        waited = now - self._refused_since
        if choice == "fail" or waited > self._shared.settings.export_timeout_seconds:
            raise InterruptedExportError(
                f"Braze is already exporting it{f', for {duration(waited)} now' if waited > 1 else ''}: wait until it "
                "has ended, or set on_running_export to wait or cancel"
            )
        if not is_first:
            return
        if choice == "cancel" and self._source.kind == SEGMENT:  # the control group's export cannot be cancelled
            self._shared.client.cancel_segment_export(self._source.segment_id)
            _log.info("Braze is already exporting %s: cancelled that export", self._source)
        else:
            _log.info("Braze is already exporting %s: waiting until it has ended", self._source)

    def found(self, lost: KnownExport) -> KnownExport | None:
        """The export of a request without a response: in a bucket, by the time in its folder's name."""
        bucket = self._shared.bucket
        if bucket is None or self._source.kind == GLOBAL_CONTROL_GROUP:
            return None
        by_difference = {
            abs(int(started) - lost.export.requested_at): export_id
            for export_id in bucket.export_ids(self._source.segment_id)
            if export_id not in (lost.follows, self._last_id) and (started := export_id.rpartition("-")[2]).isdecimal()
        }
        if not by_difference or min(by_difference) > _CLOCK_DIFFERENCE_SECONDS:
            return None
        export = replace(lost.export, export_id=by_difference[min(by_difference)])
        _log.info("Found export %s of %s in the bucket by its time", export.export_id, self._source)
        return replace(lost, bookmark=replace(lost.bookmark, export=export, in_bucket=True))

    def _post(self, token: str) -> Started:
        """Request the export; for everybody, where Braze accepts that and refuses `user_last_updated_at`."""
        if self._shared.filter_is_refused:
            self._ask_for_everybody()
        asked = self._scope
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
                self._scope = asked
            raise
        if not self._shared.filter_is_refused:
            self._shared.filter_is_refused = True
            reason = str(refusal).removesuffix(f"; {endpoints.SEGMENT.advice}")  # which is for another parameter
            _log.warning("Everybody is exported, as Braze refuses user_last_updated_at: %s", reason)
        return started

    def _ask_for_everybody(self) -> None:
        if self._scope.updated_since is not None:
            self._scope = Scope(None, reason="Braze refuses user_last_updated_at")

    def _post_once(self, token: str) -> Started:
        fields, client = self._source.fields, self._shared.client
        callback, output_format = self._shared.callbacks.endpoint(token), self._shared.settings.output_format
        if self._source.kind == GLOBAL_CONTROL_GROUP:
            return client.start_control_group_export(
                fields_to_export=fields.fields_to_export, callback_endpoint=callback, output_format=output_format
            )
        return client.start_segment_export(
            self._source.segment_id,
            fields_to_export=fields.fields_to_export,
            custom_attributes_to_export=fields.custom_attributes_to_export,
            callback_endpoint=callback,
            output_format=output_format,
            user_last_updated_at=self._scope.requested,
        )
