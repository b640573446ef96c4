"""The SDK is as the tap's overrides of its private parts expect it: a new SDK version fails here first.

When one of these fails, compare `singer/file_stream.py`, `plugin.py` and `command.py` with the new SDK, then write the
new facts down here.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk import Stream, Tap, metrics
from singer_sdk.helpers._state import StateWriter
from singer_sdk.mapper import PluginMapper
from singer_sdk.plugin_base import JSONSchemaValidator, PluginBase, SingerCommand

from tap_braze_export.singer import file_stream, logs
from tap_braze_export.singer.file_stream import FileStream
from tap_braze_export.singer.plugin import Plugin
from tap_braze_export.tap import TapBrazeExport

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("hook", "signature"),
    [
        (Stream._write_schema_message, "(self) -> 'None'"),
        (Stream._write_activate_version_message, "(self, full_table_version: 'int') -> 'None'"),
        (
            Stream._sync_records,
            (
                "(self, context: 'types.Context | None' = None, *, write_messages: 'bool' = True)"
                " -> 't.Generator[dict, t.Any, t.Any]'"
            ),
        ),
        (Stream._sync_children, "(self, child_context: 'types.Context | None') -> 'None'"),
        (
            Stream._generate_record_messages,
            "(self, record: 'types.Record') -> 't.Generator[singer.RecordMessage, None, None]'",
        ),
        (Stream.get_batch_config, "(self, config: 't.Mapping') -> 'BatchConfig | None'"),
        (Stream.finalize_state_progress_markers, "(self, state: 'dict | None' = None) -> 'None'"),
        (Stream.preprocess_context, "(self, context: 'types.Context') -> 'types.Context'"),
        (PluginBase._setup_signal_handlers, "(self) -> 'None'"),
        (PluginBase._validate_config, "(self, *, raise_errors: 'bool' = True) -> 'list[str]'"),
        (StateWriter.write_state, "(self, state: 'types.TapState') -> 'None'"),
        (
            metrics.Point.__init__,
            (
                "(self, metric_type: 'str', metric: 'Metric', value: '_TVal', tags: 'dict[str, t.Any]' = <factory>)"
                " -> None"
            ),
        ),
        (PluginMapper.register_raw_streams_from_catalog, "(self, catalog: 'Catalog') -> 'None'"),
    ],
)
def test_hooks_have_their_signatures(hook: Callable[..., Any], signature: str) -> None:
    assert str(inspect.signature(hook)) == signature


@pytest.mark.parametrize(
    ("function", "facts"),
    [
        # A child is synced once per file, and each sync announces, counts and logs again: what FileStream silences.
        (
            Stream.sync,
            [
                "context = self.preprocess_context(context) if context else None",
                "self._write_schema_message()",
                "self._stream_version = self._initialized_at // 1000",
                "self._write_activate_version_message(self._stream_version)",
                "batch_config = self.get_batch_config(self.config)\n            if batch_config:",
                "for _ in self._sync_records(context=context):",
            ],
        ),
        (Stream._sync_children, ["child_stream.sync(context=child_context)"]),
        # Batch files as the SDK makes them come before selection and maps, and are the same for all of a stream's maps.
        (Stream.get_batches, ["records = self._sync_records(context, write_messages=False)"]),
        (Stream._generate_batch_messages, ["for stream_map in self.stream_maps:", "manifest=manifest,"]),
        # The rows of the slow path get their time from us, and are selected, conformed and mapped here.
        (
            Stream._generate_record_messages,
            [
                "pop_deselected_record_properties(record, self.schema, self.mask)",
                "level=self.TYPE_CONFORMANCE_LEVEL",
                "stream_map.transform(record)",
                "version=self._stream_version",
                "time_extracted=utc_now()",
            ],
        ),
        (Tap.sync_all, ["self._state_writer.write_state(self.state)", "stream.finalize_state_progress_markers()"]),
        (Tap.run_sync_dry_run, ["stream.ABORT_AT_RECORD_COUNT = dry_run_record_limit", "stream.selected = True"]),
        (Tap.setup_mapper, ["self.mapper.register_raw_streams_from_catalog(self.catalog)"]),
        (PluginBase.setup_mapper, ["plugin_config=dict(self.config)"]),
        # It takes __else__ out of the settings, so the tap hands it a copy.
        (PluginMapper.__init__, ["self.stream_maps_dict.pop(MAPPER_ELSE_OPTION)"]),
        # These install handlers, and print what failed, in ways that the tap replaces.
        (PluginBase.__init__, ["self._setup_signal_handlers()", "self._validate_config(raise_errors=validate_config)"]),
        (SingerCommand.invoke, ["sys.excepthook = self.excepthook"]),
        (StateWriter.write_state, ["state != self._last_emitted_state", "copy.deepcopy(state)"]),
    ],
)
def test_what_the_overrides_rely_on_is_there(function: Callable[..., Any], facts: list[str]) -> None:
    source = inspect.getsource(function)
    for fact in facts:
        assert fact in source


def test_silenced_messages_are_the_sdks() -> None:
    """The log messages that the tap lowers to DEBUG or drops are still those of the SDK."""
    sync = inspect.getsource(Stream.sync)
    assert all(f'"{message}' in sync for message in file_stream.REPEATED_MESSAGES)
    source = inspect.getsource(Tap) + inspect.getsource(PluginBase)
    assert all(f'"{message}"' in source for message in logs.DROPPED_MESSAGES)


def test_private_overrides_stand_in_one_place() -> None:
    """Of the SDK's private hooks FileStream and Plugin override these, and the tap's class none."""
    sdk = {name for name in dir(Stream) if name.startswith("_") and not name.startswith("__")}
    assert {name for name in vars(FileStream) if name in sdk} - {"_abc_impl"} == {
        "_sync_records",
        "_write_schema_message",
        "_write_activate_version_message",
    }
    tap = {name for name in dir(Tap) if name.startswith("_") and not name.startswith("__")}
    assert {name for name in vars(TapBrazeExport) if name in tap} == {"_abc_impl"}
    assert {name for name in vars(Plugin) if name in tap} - {"_abc_impl"} == {
        "_env_var_config",
        "_setup_signal_handlers",
        "_validate_config",
    }


def test_settings_of_the_sdk() -> None:
    """The validator fills in defaults; the tap's own settings are followed by the SDK's."""
    settings: dict[str, Any] = {}
    assert not list(JSONSchemaValidator({"properties": {"a": {"type": "integer", "default": 3}}}).iter_errors(settings))
    assert settings == {"a": 3}
    TapBrazeExport.append_builtin_config(TapBrazeExport.config_jsonschema)
    ours = set(TapBrazeExport.config_jsonschema["properties"])
    assert {"stream_maps", "stream_map_config", "faker_config", "batch_config"} <= ours
    flattening = {name for name in ours if name.startswith("flattening_")}
    assert flattening == {
        "flattening_enabled",
        "flattening_max_depth",
        "flattening_max_key_length",
        "flattening_separator",
    }
