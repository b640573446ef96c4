"""The parent stream `export_files`, one record per delivered file, and its children, one small class each."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from tap_braze_export import schema
from tap_braze_export.bookmarks import timestamp
from tap_braze_export.client import Braze
from tap_braze_export.errors import ExportError, TapError
from tap_braze_export.exports import Exports
from tap_braze_export.fanout import Reader
from tap_braze_export.identifiers import IDENTIFIER_SETTINGS
from tap_braze_export.lanes import Threads
from tap_braze_export.progress import Progress
from tap_braze_export.resync import Resync
from tap_braze_export.rows import Rows
from tap_braze_export.schema import GLOBAL_CONTROL_GROUP, SEGMENT_MEMBERS
from tap_braze_export.selection import RequestedFields
from tap_braze_export.spool import Spool
from tap_braze_export.start import SEGMENT, Source
from tap_braze_export.stream import FileStream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.singerlib import Catalog

    from tap_braze_export.files import Deliveries, Delivery
    from tap_braze_export.selection import Selection
    from tap_braze_export.tap import TapBrazeExport

_SHAPING_SETTINGS = (
    "stream_maps",
    "stream_map_config",
    "faker_config",
    "flattening_enabled",
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
)
_MOST_LINE_NUMBERS = 10
_OUTPUT_PER_STATE = 100
"""Bytes of output for each byte of STATE, but for the first and the last: thousands of small files share one STATE."""


class ExportFiles(FileStream):
    """The audit log and, by structure only, the parent of every other stream: its selection touches none of them."""

    table = schema.EXPORT_FILES
    versioned = False

    def __init__(self, tap: TapBrazeExport) -> None:
        super().__init__(tap)
        self._clock = tap.clock
        self._delivery: Delivery
        self._rejected = 0
        self._state_written = self._state_bytes = 0

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        """The run's files, one row each, whose counts are filled in while the children are synced."""
        for delivery in self._deliveries.deliveries():
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
        reader = self._reader()
        for block in self._delivery.blocks():
            result = reader.read(block)
            for count in ("lines", "users", "duplicates"):
                record[count] += getattr(result, count)
            if result.rejected:
                record["rejected"] += len(result.rejected)
                self._reject(result.rejected)
            yield {"rows": result.rows, "exported_at": record["exported_at"]}
        if misses := self._delivery.invalid_user_ids:
            given = {"exported_at": record["exported_at"]}
            rows = Rows.of(msgspec.json.encode(miss | given) for miss in misses)
            yield {"rows": {schema.INVALID_USER_IDS.stream: rows}, "exported_at": record["exported_at"]}

    def _reader(self) -> Reader:
        delivery = self._delivery
        control_group = delivery.source == GLOBAL_CONTROL_GROUP
        wanted = {
            name: selection
            for name, selection in self._selections.items()
            if name == SEGMENT_MEMBERS.stream or not control_group
        }
        segment_id = GLOBAL_CONTROL_GROUP if control_group else delivery.segment_id
        return Reader(wanted, exported_at=delivery.exported_at, segment_id=segment_id)

    def _reject(self, lines: list[tuple[int, bytes]]) -> None:
        self._rejected += len(lines)
        path = self._spool.reject(self._delivery.export_id, (line for _, line in lines))
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
        family = [stream for stream in (self, *self._children) if stream.selected]
        for stream in family:
            stream._write_schema_message()  # noqa: SLF001 - so that tables exist even if no user is delivered
        self._build()
        self._spool.open()
        try:
            for record in self.get_records(context):
                self._read(record)
                yield record
                if all(stream.limit_reached for stream in family):
                    break
            self._write_state()
        finally:
            self._progress.close()
            for stream in family:
                stream.finish()
        self._deliveries.finish()
        self._fail_if_incomplete()
        self._activate_versions(family)

    def _read(self, record: Record) -> None:
        started = self._clock.now()
        try:
            for child_context in self.generate_child_contexts(record, None):
                self._sync_children(child_context)
        except ExportError as error:
            self._deliveries.give_up(error)
            return
        if self.selected:
            row = {name: value for name, value in record.items() if name in self.selection.names}
            self.emit(Rows.of([msgspec.json.encode(row)]), record["exported_at"])
        self._delivery.emitted(record["users"])
        self._progress.read(self._delivery.name, users=record["users"], seconds=self._clock.now() - started)
        enough = self._writer.written - self._state_written >= self._state_bytes * _OUTPUT_PER_STATE
        if enough or self._is_resync:
            self._write_state()

    def _write_state(self) -> None:
        before, state = self._writer.written, self._deliveries.state()
        if before == self._state_written and state == self.stream_state:
            return  # the last message says the same
        self.stream_state.clear()
        self.stream_state.update(state)
        self._tap.state_writer.write_state(self.tap_state)
        self._state_written = self._writer.written
        self._state_bytes = self._state_written - before

    def _fail_if_incomplete(self) -> None:
        problems = list(self._deliveries.failures)
        most = self.config["max_rejected_lines"]
        if self._rejected > most:
            problems.append(
                f"{self._rejected} lines could not be read, more than max_rejected_lines ({most}) allows; they are "
                f"kept in {self._spool.root / 'rejected'}: look at them, then raise the setting or ask Braze"
            )
        if problems:
            raise TapError("; ".join(problems))

    def _activate_versions(self, family: list[FileStream]) -> None:
        if not self.config.get("emit_activate_version_messages"):
            return
        reason = self._deliveries.unsafe_to_delete()
        if self._rejected:
            reason = "lines could not be read"
        elif not self.config.get("segment_ids"):
            reason = "no segment was exported"
        if reason:
            self.logger.warning("No ACTIVATE_VERSION, loaders keep the rows of earlier runs: %s", reason)
            return
        for stream in family:
            stream.activate_version()

    @property
    def _children(self) -> list[FileStream]:
        return [stream for stream in self.child_streams if isinstance(stream, FileStream)]

    # What a run is made of, built when it starts: making a stream does no input or output

    def _build(self) -> None:
        """Put the run together from the settings and the selection."""
        config = self.config
        self._spool = Spool(config.get("spool_dir"), clock=self._clock)
        self._progress = Progress(self._clock, self.logger)
        self._client = Braze(config["api_url"], config["api_key"], clock=self._clock)
        self._selections: dict[str, Selection] = {
            stream.name: stream.selection for stream in self._children if stream.selected
        }
        fields = RequestedFields.of(self._selections.values(), config.get("extra_export_fields", ()))
        self._deliveries: Deliveries = self._resync(fields) if self._is_resync else self._exports(fields)

    @property
    def _is_resync(self) -> bool:
        return any(self.config.get(setting) for setting in IDENTIFIER_SETTINGS)

    def _resync(self, fields: RequestedFields) -> Resync:
        if self.config.get("segment_ids") or self.config.get("global_control_group"):
            self.logger.info("Identifiers are given, so this run is a resync: no segment is exported")
        return Resync(
            fields,
            client=self._client,
            clock=self._clock,
            lanes=Threads(),
            spool=self._spool,
            config=self.config,
            state=dict(self.stream_state),
            shape=self._shape(fields),
        )

    def _exports(self, fields: RequestedFields) -> Exports:
        return Exports(
            self._sources(fields),
            client=self._client,
            clock=self._clock,
            spool=self._spool,
            progress=self._progress,
            config=self.config,
            state=dict(self.stream_state),
            shape=self._shape(fields),
            remember=self._write_state,
        )

    def _sources(self, fields: RequestedFields) -> list[Source]:
        segment_ids = dict.fromkeys(self.config.get("segment_ids", ()))
        sources = [Source(SEGMENT, segment_id, fields) for segment_id in segment_ids]
        if self.config.get("global_control_group"):
            if SEGMENT_MEMBERS.stream in self._selections:
                sources.append(Source(GLOBAL_CONTROL_GROUP, "", RequestedFields.of(())))
            else:
                self.logger.info("The Global Control Group is not exported: the stream segment_members is not selected")
        return sources

    def _shape(self, fields: RequestedFields) -> str:
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
        settings = {name: self.config.get(name) for name in _SHAPING_SETTINGS}
        content = msgspec.json.encode([fields.asked_for, columns, dropped, settings], order="sorted")
        return hashlib.blake2b(content, digest_size=16).hexdigest()


class Users(FileStream):
    """One row per profile."""

    table = schema.USERS
    parent_stream_type = ExportFiles

    def __init__(self, tap: TapBrazeExport) -> None:
        self.table = schema.USERS.with_attributes(tap.custom_attributes())
        super().__init__(tap)

    @override
    def apply_catalog(self, catalog: Catalog) -> None:
        """Take the types of custom attributes from the catalog: it knows them from its discovery."""
        super().apply_catalog(catalog)
        properties = self.effective_schema.get("properties", {})
        attributes = properties.get("custom_attributes", {}).get("properties", {})
        self.table = schema.USERS.with_attributes(
            schema.Field(name, schema.type_of(definition), "") for name, definition in attributes.items()
        )


class Devices(FileStream):
    """One row per device of a profile."""

    table = schema.DEVICES
    parent_stream_type = ExportFiles


class Purchases(FileStream):
    """One row per product bought."""

    table = schema.PURCHASES
    parent_stream_type = ExportFiles


class CustomEvents(FileStream):
    """One row per event name."""

    table = schema.CUSTOM_EVENTS
    parent_stream_type = ExportFiles


class CampaignsReceived(FileStream):
    """One row per campaign."""

    table = schema.CAMPAIGNS_RECEIVED
    parent_stream_type = ExportFiles


class CanvasesReceived(FileStream):
    """One row per Canvas."""

    table = schema.CANVASES_RECEIVED
    parent_stream_type = ExportFiles


class CanvasStepsReceived(FileStream):
    """One row per step of a Canvas."""

    table = schema.CANVAS_STEPS_RECEIVED
    parent_stream_type = ExportFiles


class Apps(FileStream):
    """One row per app used."""

    table = schema.APPS
    parent_stream_type = ExportFiles


class PushTokens(FileStream):
    """One row per push token."""

    table = schema.PUSH_TOKENS
    parent_stream_type = ExportFiles


class UserAliases(FileStream):
    """One row per alias."""

    table = schema.USER_ALIASES
    parent_stream_type = ExportFiles


class CardsClicked(FileStream):
    """One row per card."""

    table = schema.CARDS_CLICKED
    parent_stream_type = ExportFiles


class SegmentMembers(FileStream):
    """One row per membership of an exported segment."""

    table = schema.SEGMENT_MEMBERS
    parent_stream_type = ExportFiles
    versioned = False


class InvalidUserIds(FileStream):
    """One row per identifier of a resync that matched nobody."""

    table = schema.INVALID_USER_IDS
    parent_stream_type = ExportFiles
    versioned = False
