"""The tap: its name, cross-field rules and the two kinds of streams.

`settings.py` declares the settings, `schema/user_object.py` the tables of the streams.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import ConfigError
from tap_braze_export.files.bucket_url import check_storage_url, read_storage_url
from tap_braze_export.http.addresses import check_callback_url, read_api_url
from tap_braze_export.preflight import check, list_segments
from tap_braze_export.report import page_file
from tap_braze_export.run import Run
from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES, attribute_fields, discovered_types
from tap_braze_export.schema.selection import RequestedFields, rows_signature
from tap_braze_export.schema.table import Type
from tap_braze_export.schema.user_object import EXPORT_FILES, TABLES, USERS
from tap_braze_export.settings import IDENTIFIER_SETTINGS, Settings, json_schema, read_date_time
from tap_braze_export.singer import batch_files
from tap_braze_export.singer.file_stream import FileStream
from tap_braze_export.singer.plugin import Plugin
from tap_braze_export.workers import dask_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from singer_sdk.helpers.types import Context
    from singer_sdk.streams import Stream

    from tap_braze_export.schema.table import Field

_SOURCES = ("segment_ids", "global_control_group", *IDENTIFIER_SETTINGS)
_READ_BY: Mapping[str, Callable[[str], object]] = {
    "api_url": read_api_url,
    "callback_url": check_callback_url,
    "bucket_url": partial(read_storage_url, setting="bucket_url"),
    "fingerprints_url": partial(read_storage_url, setting="fingerprints_url"),
    "identifiers_url": partial(check_storage_url, setting="identifiers_url"),
    "start_date": partial(read_date_time, setting="start_date"),
}
"""The function that reads the text of a setting; it raises a ConfigError if it is no address, or no date-time."""
_NOTHING_TO_EXPORT = "nothing to export: set segment_ids, global_control_group or identifiers such as external_ids"


class ExportFiles(FileStream):
    """The audit log and, by structure only, the parent of every other stream: its selection touches none of them."""

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        run = Run(
            self.plugin.settings,
            self,
            [stream for stream in (self, *self.children) if stream.selected],
            writer=self.writer,
            clock=self.plugin.clock,
            state=self.stream_state,
            send_state=lambda: self._tap.state_writer.write_state(self.tap_state),
        )
        yield from run.records()


class UserStream(FileStream):
    """Any other stream: synced once per file."""

    parent_stream_type = ExportFiles


class TapBrazeExport(Plugin):
    """Singer tap for Braze user exports: every profile of a segment, or of a list of identifiers, as tables."""

    name = "tap-braze-export"

    config_jsonschema = json_schema()

    @override
    def check(self) -> None:
        check(
            self.settings,
            self.unknown_settings,
            state=self.state.get("bookmarks", {}).get("export_files"),
            rows_signature=self._rows_signature() if self.input_catalog else None,
            clock=self.clock,
            logger=self.logger,
        )

    def _rows_signature(self) -> str:
        """The hash of what the catalog selects, as a run makes it."""
        selected = (stream for stream in self.streams.values() if isinstance(stream, FileStream) and stream.selected)
        selections = {each.name: each.selection for each in selected if not isinstance(each, ExportFiles)}
        fields = RequestedFields.of(selections.values(), self.settings.extra_export_fields)
        return rows_signature(selections, fields, self.settings.row_shaping)

    @classmethod
    @override
    def help_to_configure(cls, config: Mapping[str, Any], errors: list[str]) -> None:
        if errors == [_NOTHING_TO_EXPORT]:
            list_segments(Settings.of(config), clock=cls.clock, logger=cls.logger)

    @override
    def discover_streams(self) -> Sequence[Stream]:
        attributes = self._custom_attributes()
        tables = (table.with_attributes(attributes) if table is USERS else table for table in TABLES)
        return [
            ExportFiles(self, EXPORT_FILES),
            *(UserStream(self, table) for table in tables if table is not EXPORT_FILES),
        ]

    def _custom_attributes(self) -> list[Field]:
        """The typed members of custom_attributes; a catalog holds them, so the tap asks Braze without one only."""
        config, types = self.config, dict[str, Type]()
        if config.get("discover_custom_attributes") and self.input_catalog is None:
            if not {"api_url", "api_key"} <= config.keys():
                raise ConfigError("discover_custom_attributes needs api_url and api_key, also for discovery")
            client = Braze(self.settings.api_url, self.settings.api_key, clock=self.clock)
            types = discovered_types(client.custom_attributes())
        given = {name: ATTRIBUTE_TYPES[kind] for name, kind in config.get("custom_attributes", {}).items()}
        return attribute_fields(types | given)

    @override
    def rules(self) -> list[str]:
        config, errors = self.config, [*_errors_in_texts(self.config)]
        segment_ids = config.get("segment_ids")
        if isinstance(segment_ids, list) and not all(str(segment_id).strip() for segment_id in segment_ids):
            errors.append("segment_ids holds an empty text: name segments by their API identifiers")
        if not any(config.get(setting) for setting in _SOURCES):
            errors.append(_NOTHING_TO_EXPORT)
        if config.get("callback_listen") and not config.get("callback_url"):
            errors.append("callback_listen needs callback_url, the address under which Braze reaches it")
        if config.get("emit_activate_version_messages") and config.get("batch_config"):
            errors.append("emit_activate_version_messages does not go with batch_config: batch files carry no version")
        if "batch_config" in config:
            errors += batch_files.errors_in(config["batch_config"])
        errors += dask_cluster.errors_in(config)
        errors += page_file.errors_in(config)
        if config.get("fingerprints_url") and not find_spec("numpy"):
            errors.append("fingerprints_url needs: pip install 'tap-braze-export[fingerprints]'")
        return errors


def _errors_in_texts(config: Mapping[str, Any]) -> Iterator[str]:
    """List the errors of settings that are addresses or date-times."""
    for setting, read in _READ_BY.items():
        if isinstance(text := config.get(setting), str) and text.strip():
            try:
                read(text)
            except ConfigError as error:
                yield str(error)
