"""The parent stream `export_files`, one record per delivered file, and its children, one small class each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import ExportError, TapError
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.run import Run
from tap_braze_export.schema import user_object
from tap_braze_export.schema.custom_attributes import type_of
from tap_braze_export.schema.table import Field
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.singer.batch_messages import Batches
from tap_braze_export.singer.file_stream import FileStream
from tap_braze_export.workers.file_reader import ReadBlock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.singerlib import Catalog

    from tap_braze_export.deliveries import Delivery
    from tap_braze_export.singer.plugin import Plugin

_MOST_LINE_NUMBERS = 10
_OUTPUT_PER_STATE = 110
"""Bytes of output for each byte of STATE, but for the first and the last: thousands of small files share one STATE."""


class ExportFiles(FileStream):
    """The audit log and, by structure only, the parent of every other stream: its selection touches none of them."""

    table = user_object.EXPORT_FILES
    versioned = False

    def __init__(self, tap: Plugin) -> None:
        super().__init__(tap)
        self._plugin = tap
        self._clock = tap.clock
        self._run: Run
        self._batches: Batches | None = None
        self._family: dict[str, FileStream] = {}
        self._delivery: Delivery
        self._rejected = 0
        self._state_written = self._state_bytes = self._states_bytes = 0

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        """The run's files, one row each, whose counts are filled in while the children are synced."""
        for delivery in self._run.deliveries.deliveries():
            self._delivery = delivery
            yield {
                "export_id": delivery.export_id,
                "file": delivery.name,
                "source": delivery.source,
                "segment_id": delivery.segment_id or None,
                "exported_at": delivery.exported_at,
                "read_at": timestamp(self._clock.now()),
                "bytes": delivery.size,
                **dict.fromkeys(("lines", "users", "duplicates", "unchanged", "rejected"), 0),
            }

    @override
    def generate_child_contexts(self, record: Record, context: Context | None) -> Iterable[Context | None]:
        """The rows of each block of the file: one, unless it is huge."""
        for result in self._run.reading.read(self._delivery):
            for count in ("lines", "users", "duplicates"):
                record[count] += getattr(result, count)
            if result.rejected:
                record["rejected"] += len(result.rejected)
                self._reject(result.rejected)
            if self._batches is not None and isinstance(result, ReadBlock):
                for name, file in result.batch_files.items():
                    self._batches.add_file(name, file)
                    self._family[name].count(file.count)
            yield {"rows": result.rows, "exported_at": record["exported_at"]}
        if misses := self._delivery.invalid_user_ids:
            given = {"exported_at": record["exported_at"]}
            rows = Rows.of(msgspec.json.encode(miss | given) for miss in misses)
            yield {"rows": {user_object.INVALID_USER_IDS.stream: rows}, "exported_at": record["exported_at"]}

    def _reject(self, lines: list[tuple[int, bytes]]) -> None:
        self._rejected += len(lines)
        path = self._run.spool.reject(self._delivery.export_id, (line for _, line in lines))
        shown = ", ".join(str(number) for number, _ in lines[:_MOST_LINE_NUMBERS])
        self.logger.warning(
            "%s: %d lines are no user objects, kept in %s: line %s%s",
            self._delivery.name,
            len(lines),
            path,
            shown,
            ", …" if len(lines) > _MOST_LINE_NUMBERS else "",
        )

    # A run, from the first SCHEMA message to the last STATE

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        self._settings = self._plugin.settings
        family = [stream for stream in (self, *self._children) if stream.selected]
        for stream in family:
            stream._write_schema_message()  # noqa: SLF001 - so that tables exist even if no user is delivered
        self._family = {stream.name: stream for stream in family}
        files = self._new_batch_files(family)
        selections = {stream.name: stream.selection for stream in self._children if stream.selected}
        self._run = Run(
            self._settings,
            selections,
            batch_files=files,
            plain=frozenset(stream.name for stream in family if stream.is_plain),
            clock=self._clock,
            logger=self.logger,
            state=dict(self.stream_state),
            remember=self._write_state,
        )
        try:
            if not self._run.is_resync:
                self._run.reading.begin()
            for record in self.get_records(context):
                self._read(record)
                yield record
                if all(stream.limit_reached for stream in family):
                    break
            self._write_state()
        finally:
            self._run.reading.close()
            self._run.progress.close()
            for stream in family:
                stream.finish()
        self._run.deliveries.finish()
        self._fail_if_incomplete()
        self._activate_versions(family)

    def _read(self, record: Record) -> None:
        started, waited = self._clock.now(), self._writer.waited
        try:
            for child_context in self.generate_child_contexts(record, None):
                self._sync_children(child_context)
        except ExportError as error:
            self._run.deliveries.give_up(error)
            return
        if self.selected:
            row = {name: value for name, value in record.items() if name in self.selection.names}
            self.emit(Rows.of([msgspec.json.encode(row)]), record["exported_at"])
        self._delivery.emitted(record["users"])
        self._run.progress.read(
            self._delivery.name,
            users=record["users"],
            seconds=self._clock.now() - started,
            waited=self._writer.waited - waited,
        )
        if self._state_is_due:
            self._write_state()
        self._writer.flush()  # the next file may be an hour away

    def _new_batch_files(self, family: list[FileStream]) -> BatchFiles | None:
        """Have all streams write batch files, where `batch_config` is set."""
        if not (given := self._settings.batch_config):
            return None
        files = BatchFiles.of(given, self._clock)
        files.connect()  # what cannot work should fail before Braze is asked for anything
        self._batches = Batches(files, self._writer)
        for stream in family:
            files.schemas |= stream.schemas
            stream.output = self._batches
        return files

    @property
    def _state_is_due(self) -> bool:
        if self._batches is not None:
            return self._batches.full
        this_and_the_last = 2 * self._state_bytes
        enough = self._writer.written >= (self._states_bytes + this_and_the_last) * _OUTPUT_PER_STATE
        return enough or self._run.is_resync

    def _write_state(self) -> None:
        if self._batches is not None:
            self._batches.close_group()  # STATE names no file whose rows are not announced
        before, state = self._writer.written, self._run.deliveries.state()
        if before == self._state_written and state == self.stream_state:
            return  # the last message says the same
        self.stream_state.clear()
        self.stream_state.update(state)
        self._tap.state_writer.write_state(self.tap_state)
        self._state_written = self._writer.written
        self._state_bytes = self._state_written - before
        self._states_bytes += self._state_bytes

    def _fail_if_incomplete(self) -> None:
        problems = list(self._run.deliveries.failures)
        most = self._settings.max_rejected_lines
        if self._rejected > most:
            problems.append(
                f"{self._rejected} lines could not be read, more than max_rejected_lines ({most}) allows; they are "
                f"kept in {self._run.spool.root / 'rejected'}: look at them, then raise the setting or ask Braze"
            )
        if problems:
            raise TapError("; ".join(problems))

    def _activate_versions(self, family: list[FileStream]) -> None:
        if not self._settings.emit_activate_version_messages:
            return
        reason = self._run.deliveries.reason_to_keep_rows()
        if self._rejected:
            reason = "lines could not be read"
        elif not self._settings.segment_ids:
            reason = "no segment was exported"
        if reason:
            self.logger.warning("No ACTIVATE_VERSION, loaders keep the rows of earlier runs: %s", reason)
            return
        for stream in family:
            stream.activate_version()

    @property
    def _children(self) -> list[FileStream]:
        return [stream for stream in self.child_streams if isinstance(stream, FileStream)]


class Users(FileStream):
    """One row per profile."""

    table = user_object.USERS
    parent_stream_type = ExportFiles

    def __init__(self, tap: Plugin) -> None:
        self.table = user_object.USERS.with_attributes(tap.custom_attributes())
        super().__init__(tap)

    @override
    def apply_catalog(self, catalog: Catalog) -> None:
        """Take the types of custom attributes from the catalog: it knows them from its discovery."""
        super().apply_catalog(catalog)
        properties = self.effective_schema.get("properties", {})
        attributes = properties.get("custom_attributes", {}).get("properties", {})
        self.table = user_object.USERS.with_attributes(
            Field(name, type_of(definition), "") for name, definition in attributes.items()
        )


class Devices(FileStream):
    """One row per device of a profile."""

    table = user_object.DEVICES
    parent_stream_type = ExportFiles


class Purchases(FileStream):
    """One row per product bought."""

    table = user_object.PURCHASES
    parent_stream_type = ExportFiles


class CustomEvents(FileStream):
    """One row per event name."""

    table = user_object.CUSTOM_EVENTS
    parent_stream_type = ExportFiles


class CampaignsReceived(FileStream):
    """One row per campaign."""

    table = user_object.CAMPAIGNS_RECEIVED
    parent_stream_type = ExportFiles


class CanvasesReceived(FileStream):
    """One row per Canvas."""

    table = user_object.CANVASES_RECEIVED
    parent_stream_type = ExportFiles


class CanvasStepsReceived(FileStream):
    """One row per step of a Canvas."""

    table = user_object.CANVAS_STEPS_RECEIVED
    parent_stream_type = ExportFiles


class Apps(FileStream):
    """One row per app used."""

    table = user_object.APPS
    parent_stream_type = ExportFiles


class PushTokens(FileStream):
    """One row per push token."""

    table = user_object.PUSH_TOKENS
    parent_stream_type = ExportFiles


class UserAliases(FileStream):
    """One row per alias."""

    table = user_object.USER_ALIASES
    parent_stream_type = ExportFiles


class CardsClicked(FileStream):
    """One row per card."""

    table = user_object.CARDS_CLICKED
    parent_stream_type = ExportFiles


class SegmentMembers(FileStream):
    """One row per membership of an exported segment."""

    table = user_object.SEGMENT_MEMBERS
    parent_stream_type = ExportFiles
    versioned = False


class InvalidUserIds(FileStream):
    """One row per identifier of a resync that matched nobody."""

    table = user_object.INVALID_USER_IDS
    parent_stream_type = ExportFiles
    versioned = False
