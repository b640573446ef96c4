"""What a run is made of, put together from settings and selection when it starts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.braze.client import Braze
from tap_braze_export.exports.lifecycle import Exports
from tap_braze_export.exports.request import SEGMENT, Source
from tap_braze_export.files.spool import Spool
from tap_braze_export.report.progress import Progress
from tap_braze_export.resync.lanes import Threads
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.schema.user_object import GLOBAL_CONTROL_GROUP, SEGMENT_MEMBERS
from tap_braze_export.workers.memory import keep_freed_memory
from tap_braze_export.workers.read_ahead import ReadAhead

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import Deliveries
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.settings import Settings
    from tap_braze_export.singer.batch_files import BatchFiles


class Run:
    """The parts of one run: segment exports, or a resync where an identifier is given.

    Args:
        settings: The tap's settings.
        selections: What the catalog selects, by stream.
        batch_files: Writes batch files, where they are wanted.
        plain: Streams whose rows leave as they are, without stream maps and flattening.
        clock: Time and waiting.
        logger: Takes the progress.
        state: The value of `bookmarks.export_files` that the run was given.
        remember: Writes STATE.

    Raises:
        TapError: If a part cannot work, such as a spool directory that cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        selections: Mapping[str, Selection],
        *,
        batch_files: BatchFiles | None,
        plain: frozenset[str],
        clock: Clock,
        logger: logging.Logger,
        state: Mapping[str, Any],
        remember: Callable[[], None],
    ) -> None:
        keep_freed_memory()
        self.is_resync = settings.is_resync
        self.spool = Spool(settings.spool_dir, clock=clock)
        self.spool.open()
        self.progress = Progress(clock, logger)
        self._settings = settings
        self._selections = selections
        self._logger = logger
        self.reading = ReadAhead(
            replace(settings, dask_scheduler=None) if self.is_resync else settings,  # Braze is slower than one machine
            selections,
            batch_files=batch_files,
            plain=plain,
            spool=self.spool,
            clock=clock,
        )
        fields = RequestedFields.of(selections.values(), settings.extra_export_fields)
        client = Braze(settings.api_url, settings.api_key, clock=clock)
        self.deliveries: Deliveries
        try:
            if self.is_resync:
                if settings.segment_ids or settings.global_control_group:
                    logger.info("Identifiers are given, so this run is a resync: no segment is exported")
                self.deliveries = Resync(
                    fields,
                    client=client,
                    clock=clock,
                    lanes=Threads(),
                    spool=self.spool,
                    settings=settings,
                    state=state,
                    rows_signature=self._rows_signature(fields),
                )
            else:
                self.deliveries = Exports(
                    self._sources(fields),
                    client=client,
                    clock=clock,
                    spool=self.spool,
                    progress=self.progress,
                    settings=settings,
                    state=state,
                    rows_signature=self._rows_signature(fields),
                    ahead=self.reading.ahead,
                    remember=remember,
                )
        except BaseException:
            self.reading.close()
            raise

    def _sources(self, fields: RequestedFields) -> list[Source]:
        segment_ids = dict.fromkeys(self._settings.segment_ids)
        sources = [Source(SEGMENT, segment_id, fields) for segment_id in segment_ids]
        if self._settings.global_control_group:
            if SEGMENT_MEMBERS.stream in self._selections:
                sources.append(Source(GLOBAL_CONTROL_GROUP, "", RequestedFields.of(())))
            else:
                self._logger.info("The Global Control Group is not exported: segment_members is not selected")
        return sources

    def _rows_signature(self, fields: RequestedFields) -> str:
        """A hash that is equal only if an export gives the same rows."""
        columns = {
            name: {
                column.name: [column.type.name, {member.name: member.type.name for member in column.members}]
                for column in selection.columns
            }
            for name, selection in self._selections.items()
        }
        dropped = {
            name: {column: sorted(members) for column, members in selection.dropped.items()}
            for name, selection in self._selections.items()
        }
        content = msgspec.json.encode(
            [fields.requested_fields, columns, dropped, self._settings.row_shaping], order="sorted"
        )
        return hashlib.blake2b(content, digest_size=16).hexdigest()
