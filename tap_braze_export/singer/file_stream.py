"""A stream that is synced once per delivered file: what the SDK repeats per child sync, it does once per run.

Every private hook of the SDK that the tap overrides stands here; `tests/test_sdk.py` notices when one changes.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from singer_sdk import Stream
from singer_sdk.exceptions import MapExpressionError
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform
from singer_sdk.singerlib.catalog import Metadata
from singer_sdk.singerlib.messages import ActivateVersionMessage
from typing_extensions import override

from tap_braze_export.errors import TapError
from tap_braze_export.schema.selection import Selection
from tap_braze_export.schema.table import EXPORTED_AT

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from singer_sdk.helpers.types import Context, Record
    from singer_sdk.singerlib import MetadataMapping, RecordMessage

    from tap_braze_export.rows.rendered import Rows
    from tap_braze_export.schema.table import Table
    from tap_braze_export.singer.messages import MessageWriter, Output
    from tap_braze_export.singer.plugin import Plugin

REPEATED_MESSAGES = ("Beginning sync of", "An unhandled error occurred while syncing")
"""What the SDK logs on every sync of a child; the run's one error line says the second better."""


class FileStream(Stream):
    """A stream whose rows come from delivered files, many users at a time."""

    table: Table
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE  # rows are conformed when they are made
    versioned: ClassVar[bool] = True
    """Whether ACTIVATE_VERSION may delete the rows of earlier runs."""

    def __init__(self, tap: Plugin) -> None:
        super().__init__(tap, name=self.table.stream, schema=self.table.json_schema)
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
        """What the catalog selects of this stream's columns."""
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
        self._write_schema_message()

    @property
    def limit_reached(self) -> bool:
        """Whether a dry run has enough rows of this stream."""
        return self.ABORT_AT_RECORD_COUNT is not None and self.emitted >= self.ABORT_AT_RECORD_COUNT

    def emit(self, rows: Rows, exported_at: str) -> None:
        """Write rows: rendered as they are, or as objects where maps, flattening or a limit ask."""
        if self._removed or not rows.count:
            return
        if self.is_plain:
            self.output.write_rows(self.name, rows, exported_at=exported_at, version=self._stream_version)
            self.count(rows.count)
            return
        time_extracted = datetime.fromisoformat(exported_at)
        for record in rows.objects():
            if self.limit_reached:
                return
            for message in self._mapped(record):
                message.time_extracted = time_extracted
                self.output.write_message(message)
            self.count(1)

    def _mapped(self, record: Record) -> list[RecordMessage]:
        """What stream maps and flattening make of a row."""
        try:
            return list(self._generate_record_messages(record))
        except MapExpressionError:
            raise
        except Exception as error:  # noqa: BLE001 - expressions may do anything, and their errors may quote the row
            raise TapError(
                f"stream_maps: an expression for {self.name} fails on a row with {type(error).__name__}: "
                "most columns can be null, so test for that"
            ) from None

    @cached_property
    def is_plain(self) -> bool:
        """Whether every row leaves as it is: no stream map, no flattening and no limit asks for more."""
        stream_map, *others = self.stream_maps
        unchanged = type(stream_map) is SameRecordTransform and not stream_map.flattening_enabled
        return not others and unchanged and self.ABORT_AT_RECORD_COUNT is None

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """The JSON schemas of what stream maps make of this stream, by its names."""
        kept = (each for each in self.stream_maps if not isinstance(each, RemoveRecordTransform))
        return {stream_map.stream_alias: stream_map.transformed_schema for stream_map in kept}

    def finish(self) -> None:
        """Log the run's record count, in the one metric line of this stream."""
        self._counter.exit()

    def activate_version(self) -> None:
        """Tell loaders to delete what this run did not emit."""
        for stream_map in self.stream_maps:
            if self._stream_version is not None and not isinstance(stream_map, RemoveRecordTransform):
                self.writer.write_message(ActivateVersionMessage(stream_map.stream_alias, self._stream_version))

    def count(self, rows: int) -> None:
        """Note that so many rows are written."""
        self.emitted += rows
        self._counter.value += rows

    @cached_property
    def _counter(self) -> Any:
        return self.get_record_counter()

    @cached_property
    def _removed(self) -> bool:
        """Whether stream maps leave nothing of this stream."""
        return all(isinstance(stream_map, RemoveRecordTransform) for stream_map in self.stream_maps)

    # The SDK's public hooks

    @property
    @override
    def metadata(self) -> MetadataMapping:
        metadata = super().metadata
        metadata["properties", EXPORTED_AT].inclusion = Metadata.InclusionType.AUTOMATIC
        return metadata

    @property
    @override
    def emit_activate_version_messages(self) -> bool:
        return self.versioned and super().emit_activate_version_messages

    @override
    def preprocess_context(self, context: Context) -> Context:
        return {"rows": context["rows"].get(self.name), "exported_at": context["exported_at"]}

    @override
    def get_records(self, context: Context | None) -> Iterable[Record]:
        rows = context["rows"] if context else None
        return rows.objects() if rows else ()

    @override
    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """None, for the SDK: its own batches are made before selection and stream maps. See `batches.py`."""

    @override
    def log(self, message: str, *args: Any, level: int = logging.INFO, **kwargs: Any) -> None:
        quiet = message.startswith(REPEATED_MESSAGES)
        super().log(message, *args, level=logging.DEBUG if quiet else level, **kwargs)

    @override
    def finalize_state_progress_markers(self, state: dict[str, Any] | None = None) -> None:
        """Nothing: only `export_files` has state."""

    # The SDK's private hooks

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        if context and context["rows"]:
            self.emit(context["rows"], context["exported_at"])
        self.context = None  # it holds a whole file's rows, also while the next file is read
        yield from ()

    @override
    def _write_schema_message(self) -> None:
        if not self._announced:
            self._announced = True
            super()._write_schema_message()

    @override
    def _write_activate_version_message(self, full_table_version: int) -> None:
        """Nothing at the start of a sync: loaders would delete rows before the run has proved to be whole."""
