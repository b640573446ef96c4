"""A stream that is synced once per delivered file; its SCHEMA and METRIC lines, which the SDK repeats, come once.

This module overrides every private hook of the SDK's stream; `tests/singer/test_sdk.py` fails when one changes.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from singer_sdk import Stream
from singer_sdk.exceptions import MapExpressionError
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import CustomStreamMap, RemoveRecordTransform, SameRecordTransform
from singer_sdk.metrics import Metric, Point, Tag, get_metrics_logger
from singer_sdk.singerlib.catalog import Metadata
from singer_sdk.singerlib.messages import ActivateVersionMessage
from typing_extensions import override

from tap_braze_export.errors import TapError
from tap_braze_export.schema.selection import Selection
from tap_braze_export.schema.table import EXPORTED_AT
from tap_braze_export.singer import map_numbers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.mapper import StreamMap
    from singer_sdk.singerlib import Catalog, MetadataMapping, RecordMessage

    from tap_braze_export.rows.rendered import Rows
    from tap_braze_export.schema.table import Table
    from tap_braze_export.singer.messages import MessageWriter, Output
    from tap_braze_export.singer.plugin import Plugin

REPEATED_MESSAGES = ("Beginning sync of", "An unhandled error occurred while syncing")
"""Log messages of the SDK on every sync of a child, lowered to DEBUG; the run's error line replaces the second."""


class FileStream(Stream):
    """A stream whose rows come from delivered files, many users at a time.

    Attributes:
        table: Name, keys and columns of the stream.
        plugin: The tap.
        writer: Writes messages to standard output.
        output: Receives the rows: RECORD messages or batch files.
        emitted: Number of rows written.
    """

    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE  # rows are conformed when they are made

    def __init__(self, tap: Plugin, table: Table) -> None:
        self.table = table
        super().__init__(tap, name=table.stream, schema=table.json_schema)
        self.primary_keys = self.table.keys
        self.state_partitioning_keys = ()
        self.selected_by_default = self.table.selected_by_default
        self.plugin = tap
        self.writer: MessageWriter = tap.message_writer  # type: ignore[assignment]
        self.output: Output = self.writer
        self._announced = False
        self.emitted = 0

    @cached_property
    def selection(self) -> Selection:
        """The columns that the catalog selects."""
        return Selection.of(self.table, self.mask, self.effective_schema)

    @property
    def children(self) -> list[FileStream]:
        """The streams that are synced once per file of this one."""
        return [stream for stream in self.child_streams if isinstance(stream, FileStream)]

    def emit_to_children(self, rows: Mapping[str, Rows], exported_at: str) -> None:
        """Sync the child streams with the rows of one block, by stream."""
        self._sync_children({"rows": rows, "exported_at": exported_at})

    def write_schema(self) -> None:
        """Write the SCHEMA message, once per run."""
        if not self._announced:
            self._announced = True
            super()._write_schema_message()

    @property
    def is_limited(self) -> bool:
        """True in a dry run, which wants only a few rows."""
        return self.ABORT_AT_RECORD_COUNT is not None

    @property
    def limit_reached(self) -> bool:
        """True if a dry run has enough rows of this stream."""
        return self.ABORT_AT_RECORD_COUNT is not None and self.emitted >= self.ABORT_AT_RECORD_COUNT

    def emit(self, rows: Rows, exported_at: str) -> None:
        """Write rows as they are, or one by one where stream maps, flattening or a dry run need objects."""
        if not self._kept_maps or not rows.count:
            return
        if self.is_plain:
            self.output.write_rows(self.name, rows, exported_at=exported_at, version=self._stream_version)
            self.count(rows.count)
            return
        time_extracted = datetime.fromisoformat(exported_at)
        for record in rows.objects(map_numbers.DECODER) if self._has_expressions else rows.objects():
            if self.limit_reached:
                return
            for message in self._mapped(record):
                message.time_extracted = time_extracted
                self.output.write_message(message)
            self.count(1)

    def _mapped(self, record: Record) -> list[RecordMessage]:
        """Apply stream maps and flattening to a row."""
        try:
            return [self._finished(message) for message in self._generate_record_messages(record)]
        except MapExpressionError as error:
            raise TapError(
                f"stream_maps: an expression for {self.name} fails: {str(error).removesuffix('.')}"
            ) from None
        except Exception as error:  # noqa: BLE001 - expressions may raise anything, and errors may quote the row
            raise TapError(
                f"stream_maps: an expression for {self.name} fails on a row with {type(error).__name__}: "
                "most columns can be null, so test for that"
            ) from None

    def _finished(self, message: RecordMessage) -> RecordMessage:
        """Give untouched numbers all their digits again, and flatten the row."""
        if self._has_expressions:
            message.record = map_numbers.exact(message.record)
        if flattening := self.plugin.flattenings.get(message.stream):
            message.record = flattening.flatten(message.record)
        return message

    @cached_property
    def is_plain(self) -> bool:
        """True if every row is written as it is: without stream maps, flattening and a dry run's limit."""
        stream_map, *others = self.stream_maps
        unchanged = type(stream_map) is SameRecordTransform and stream_map.stream_alias not in self.plugin.flattenings
        return not others and unchanged and not self.is_limited

    @cached_property
    def _has_expressions(self) -> bool:
        """True if a stream map may calculate with values of a row."""
        return any(isinstance(stream_map, CustomStreamMap) for stream_map in self._kept_maps)

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """The JSON schemas of the streams that stream maps make of this one, by name."""
        return {stream_map.stream_alias: stream_map.transformed_schema for stream_map in self._kept_maps}

    def finish(self) -> None:
        """Log the record count of the run in the one METRIC line of this stream, at level DEBUG."""
        point = Point("counter", Metric.RECORD_COUNT, self.emitted, {Tag.STREAM: self.name})
        get_metrics_logger().debug("METRIC: %s", point)

    def activate_version(self) -> None:
        """Tell loaders to delete the rows that this run did not emit."""
        if self._stream_version is not None:
            for stream_map in self._kept_maps:
                self.writer.write_message(ActivateVersionMessage(stream_map.stream_alias, self._stream_version))

    def count(self, rows: int) -> None:
        """Count written rows."""
        self.emitted += rows

    @cached_property
    def _kept_maps(self) -> list[StreamMap]:
        """The stream maps that keep rows; none if the stream is removed."""
        return [each for each in self.stream_maps if not isinstance(each, RemoveRecordTransform)]

    # The SDK's public hooks

    @override
    def apply_catalog(self, catalog: Catalog) -> None:
        """Take the columns as the catalog declares them, the types of custom attributes among them."""
        super().apply_catalog(catalog)
        if declaration := self.plugin.declarations.get(self.name):
            self.table = declaration.table

    @property
    @override
    def metadata(self) -> MetadataMapping:
        metadata = super().metadata
        metadata["properties", EXPORTED_AT].inclusion = Metadata.InclusionType.AUTOMATIC
        return metadata

    @property
    @override
    def emit_activate_version_messages(self) -> bool:
        """Only of what is in user objects a run can tell that all of it was emitted."""
        return self.table.path is not None and super().emit_activate_version_messages

    @override
    def preprocess_context(self, context: Context) -> Context:
        return {"rows": context["rows"].get(self.name), "exported_at": context["exported_at"]}

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        rows = context["rows"] if context else None
        return rows.objects() if rows else ()

    @override
    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """None: the SDK would make its batches before selection and stream maps. See `batch_messages.py`."""

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        quiet = message.startswith(REPEATED_MESSAGES)
        super().log(message, *args, level=logging.DEBUG if quiet else level, **kwargs)

    @override
    def finalize_state_progress_markers(self, state: dict[str, Any] | None = None) -> None:
        """Do nothing: only `export_files` has state."""

    # The SDK's private hooks

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        if context and context["rows"]:
            self.emit(context["rows"], context["exported_at"])
        self.context = None  # it would keep a whole file's rows in memory while the next file is read
        yield from ()

    @override
    def _write_schema_message(self) -> None:
        """Nothing at the start of a sync: loaders connect on SCHEMA, and no connection survives an hour's wait."""
        if self.plugin.writes_schemas_at_once:
            self.write_schema()

    @override
    def _write_activate_version_message(self, full_table_version: int) -> None:
        """Do nothing at the start of a sync: loaders would delete rows before the run is known to be complete."""
