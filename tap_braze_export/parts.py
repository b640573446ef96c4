"""Makes the parts of a run from its settings: where users come from, who reads them, and what is known of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tap_braze_export.braze.client import Braze
from tap_braze_export.exports.lifecycle import Exports
from tap_braze_export.exports.scope import sources_of
from tap_braze_export.exports.shared import Shared
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.schema.selection import RequestedFields, rows_signature
from tap_braze_export.schema.user_object import INVALID_USER_IDS, SEGMENT_MEMBERS
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.singer.batch_messages import Batches
from tap_braze_export.workers.file_reader import FileReader
from tap_braze_export.workers.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import Deliveries, WriteState
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.fingerprints.known import Known
    from tap_braze_export.fingerprints.lifecycle import Fingerprints
    from tap_braze_export.fingerprints.measured import MeasuredFilter
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.settings import Settings
    from tap_braze_export.singer.file_stream import FileStream
    from tap_braze_export.singer.messages import MessageWriter

_log = logging.getLogger(__name__)


@dataclass
class Parts:
    """Makes the parts of one run."""

    settings: Settings
    streams: Sequence[FileStream]
    selections: Mapping[str, Selection]
    writer: MessageWriter
    clock: Clock
    spool: Spool
    progress: Progress
    _batch_files: BatchFiles | None = None

    def batches(self) -> Batches | None:
        """Have all streams write batch files, where `batch_config` is set.

        Raises:
            TapError: The storage cannot work: it ends the run before anything is requested.
        """
        if not self.settings.batch_config:
            return None
        files = self._batch_files = BatchFiles.of(self.settings.batch_config, self.clock)
        files.check()
        batches = Batches(files, self.writer)
        for stream in self.streams:
            files.schemas |= stream.schemas
            stream.output = batches
        return batches

    def fingerprints(self, state: Any, *, keeps_all: bool) -> Fingerprints | None:
        """The fingerprints, where they are used."""
        url = self.settings.fingerprints_url
        if not url or any(stream.is_limited for stream in self.streams):
            return None
        # Imported here, since it is an extra.
        from tap_braze_export.fingerprints.lifecycle import Fingerprints  # noqa: PLC0415
        from tap_braze_export.fingerprints.store import Store  # noqa: PLC0415

        return Fingerprints(
            Store(url, self.settings.storage_options(url), self.spool, self.clock),
            signature=self.rows_signature,
            state=state,
            clock=self.clock,
            is_resync=self.settings.is_resync,
            keeps_all=keeps_all,
        )

    def measured_filter(self) -> MeasuredFilter:
        """Measures Braze's filter of updated users by fingerprints."""
        from tap_braze_export.fingerprints.measured import MeasuredFilter  # noqa: PLC0415 - an extra

        return MeasuredFilter()

    def read_ahead(self, known_users: Known | None) -> ReadAhead:
        """The readers of files."""
        reader = FileReader(
            self.selections,
            known_users,
            batch_files=self._batch_files,
            plain_streams=frozenset(stream.name for stream in self.streams if stream.is_plain),
        )
        return ReadAhead(self.settings, reader, spool=self.spool, clock=self.clock)

    def deliveries(
        self, state: Mapping[str, Any], files_ahead: int, write_state: WriteState, known_users: Known | None
    ) -> Deliveries:
        """The segment exports, or the resync."""
        client = Braze(self.settings.api_url, self.settings.api_key, clock=self.clock)
        if self.settings.is_resync:
            if self.settings.segment_ids or self.settings.global_control_group:
                _log.info("Identifiers are given, so this run is a resync: no segment is exported")
            return Resync(
                self._requested_fields,
                client=client,
                clock=self.clock,
                spool=self.spool,
                settings=self.settings,
                state=dict(state),
                rows_signature=self.rows_signature,
                lists_misses=INVALID_USER_IDS.stream in self.selections,
            )
        with_memberships = SEGMENT_MEMBERS.stream in self.selections
        shared = Shared(
            client=client,
            clock=self.clock,
            spool=self.spool,
            progress=self.progress,
            settings=self.settings,
            rows_signature=self.rows_signature,
            files_ahead=files_ahead,
            write_state=write_state,
        )
        return Exports(
            sources_of(self.settings, self._requested_fields, with_memberships=with_memberships),
            shared,
            dict(state),
            puts_off_full_exports=known_users is not None and known_users.is_reliable,
        )

    @cached_property
    def _requested_fields(self) -> RequestedFields:
        return RequestedFields.of(self.selections.values(), self.settings.extra_export_fields)

    @cached_property
    def rows_signature(self) -> str:
        """A hash that is equal only if an export gives the same rows."""
        return rows_signature(self.selections, self._requested_fields, self.settings.row_shaping)
