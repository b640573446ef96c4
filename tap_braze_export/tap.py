"""The tap: its name, settings, cross-field rules and streams."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from singer_sdk import typing as th
from typing_extensions import override

from tap_braze_export import streams
from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import ConfigError
from tap_braze_export.files.bucket_url import check_storage_url, read_storage_url
from tap_braze_export.preflight import check, list_segments
from tap_braze_export.report import page_file
from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES, attribute_fields, discovered_types
from tap_braze_export.schema.selection import RequestedFields, rows_signature
from tap_braze_export.schema.table import Type
from tap_braze_export.settings import IDENTIFIER_SETTINGS, Settings, check_callback_url, read_api_url, read_date_time
from tap_braze_export.singer import batch_files
from tap_braze_export.singer.file_stream import FileStream
from tap_braze_export.singer.plugin import Plugin
from tap_braze_export.workers import dask_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from singer_sdk.streams import Stream

    from tap_braze_export.schema.table import Field

STREAMS: Sequence[type[FileStream]] = (
    streams.ExportFiles,
    streams.Users,
    streams.Devices,
    streams.Purchases,
    streams.CustomEvents,
    streams.CampaignsReceived,
    streams.CanvasesReceived,
    streams.CanvasStepsReceived,
    streams.Apps,
    streams.PushTokens,
    streams.UserAliases,
    streams.CardsClicked,
    streams.SegmentMembers,
    streams.InvalidUserIds,
)

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
_LARGEST_INTEGER = 10**9
"""Of any setting: what is computed of it stays a number that programs can hold."""
_A_CENTURY_OF_DAYS = 36_500
_NOTHING_TO_EXPORT = "nothing to export: set segment_ids, global_control_group or identifiers such as external_ids"


def _strings(name: str, title: str, description: str) -> th.Property[Any]:
    return th.Property(name, th.ArrayType(th.StringType), title=title, description=description)


def _integer(
    name: str, title: str, description: str, minimum: int = 1, maximum: int = _LARGEST_INTEGER
) -> th.Property[Any]:
    return th.Property(
        name,
        th.IntegerType(minimum=minimum, maximum=maximum),
        default=getattr(Settings, name),
        title=title,
        description=description,
    )


class TapBrazeExport(Plugin):
    """Singer tap for Braze user exports: every profile of a segment, or of a list of identifiers, as tables."""

    name = "tap-braze-export"

    config_jsonschema = th.PropertiesList(
        th.Property(
            "api_url",
            th.StringType,
            required=True,
            title="API URL",
            description="REST endpoint of the instance, such as https://rest.iad-01.braze.com",
        ),
        th.Property("api_key", th.StringType, required=True, secret=True, title="API key", description="REST API key"),
        _strings("segment_ids", "Segments", "API identifiers of the segments to export"),
        th.Property(
            "global_control_group",
            th.BooleanType,
            default=Settings.global_control_group,
            title="Global Control Group",
            description="Also export the members of the Global Control Group (needs the stream segment_members)",
        ),
        _strings("external_ids", "External ids", "External ids to resync"),
        _strings("braze_ids", "Braze ids", "Braze ids to resync"),
        _strings("emails", "E-mail addresses", "E-mail addresses to resync"),
        _strings("phones", "Phone numbers", "Phone numbers to resync, in E.164"),
        _strings("device_ids", "Device ids", "Device ids to resync"),
        th.Property(
            "user_aliases",
            th.ArrayType(
                th.ObjectType(
                    th.Property("alias_name", th.StringType, required=True),
                    th.Property("alias_label", th.StringType, required=True),
                )
            ),
            title="User aliases",
            description="Aliases to resync, as objects of alias_name and alias_label",
        ),
        th.Property(
            "identifiers_url",
            th.StringType,
            title="Identifiers file",
            description="Identifiers to resync, CSV with a header or JSON lines: a file, folder or pattern (*), a local"
            " path or fsspec URL",
        ),
        th.Property(
            "custom_attributes",
            th.ObjectType(additional_properties=th.StringType(allowed_values=[*ATTRIBUTE_TYPES])),
            title="Custom attribute types",
            description=f"Types of custom attributes by name: {', '.join(ATTRIBUTE_TYPES)}",
        ),
        th.Property(
            "discover_custom_attributes",
            th.BooleanType,
            default=Settings.discover_custom_attributes,
            title="Discover custom attributes",
            description="Ask Braze for the custom attributes and their types at discovery",
        ),
        th.Property(
            "incremental",
            th.BooleanType,
            default=Settings.incremental,
            title="Incremental exports",
            description="Between full exports, ask Braze only for users updated since the last complete export",
        ),
        _integer(
            "full_export_days",
            "Full export after",
            "With incremental: days after the last complete full export at which a run asks for everybody again",
            maximum=_A_CENTURY_OF_DAYS,
        ),
        _integer(
            "overlap_minutes",
            "Overlap",
            "With incremental: minutes before the last complete export's request from which users are asked for",
            minimum=0,
        ),
        th.Property(
            "start_date",
            th.DateTimeType,
            title="Start date",
            description="Never ask for users of a segment that were last updated before this time, in no export",
        ),
        _strings(
            "extra_export_fields",
            "Extra fields",
            "More names for fields_to_export, unchecked; their values land in _rescued_data of users",
        ),
        th.Property(
            "bucket_url",
            th.StringType,
            title="Bucket",
            description="Where Braze delivers: s3://bucket/prefix, gs://…, abfs://…, or a local directory",
        ),
        th.Property(
            "bucket_options",
            th.ObjectType(additional_properties=True),
            secret=True,
            title="Bucket options",
            description="fsspec options for the bucket, such as key, secret, endpoint_url",
        ),
        th.Property(
            "output_format",
            th.StringType(allowed_values=["zip", "gzip"]),
            default=Settings.output_format,
            title="Output format",
            description="Archive format of the export files",
        ),
        th.Property(
            "callback_url",
            th.StringType,
            title="Callback URL",
            description="Address that Braze calls when an export is complete; an unguessable token is added",
        ),
        th.Property(
            "callback_listen",
            th.StringType,
            title="Callback listener",
            description="host:port to listen on for the callback",
        ),
        th.Property(
            "on_running_export",
            th.StringType(allowed_values=["wait", "cancel", "fail"]),
            default=Settings.on_running_export,
            title="On a running export",
            description="What to do when Braze says that the segment is already being exported",
        ),
        _integer(
            "export_timeout_minutes",
            "Export timeout",
            "Minutes after its request at which an export is given up",
        ),
        _integer(
            "poll_interval_seconds",
            "Poll interval",
            "Seconds between the first two polls; the interval grows to at most 60",
        ),
        _integer(
            "settle_minutes",
            "Settle time",
            "Minutes without a new file after which a bucket export is complete, if there is no callback",
            minimum=0,
        ),
        _integer("concurrent_exports", "Concurrent exports", "Exports running in Braze at a time", maximum=100),
        _integer("concurrent_requests", "Concurrent requests", "Requests of the ids export open at a time"),
        th.Property(
            "requests_per_minute",
            th.IntegerType(minimum=1, maximum=_LARGEST_INTEGER),
            title="Requests per minute",
            description="Cap for the ids export, below what Braze's headers allow",
        ),
        th.Property(
            "spool_dir",
            th.StringType,
            title="Spool directory",
            description="Private directory for downloads and running jobs; default in the user's cache directory",
        ),
        th.Property(
            "fingerprints_url",
            th.StringType,
            title="Fingerprints",
            description="Where to remember what was emitted, so that unchanged users are skipped: a directory, or an "
            "fsspec URL such as s3://bucket/prefix",
        ),
        _integer(
            "max_rejected_lines",
            "Rejected lines",
            "More unreadable lines than this make the run fail",
            minimum=0,
        ),
        th.Property(
            "report_path",
            th.StringType,
            title="Report",
            description="HTML page that each run writes about itself; {started_at} in the file's name is the time at "
            "which the run began. It needs the extra report",
        ),
        _integer("workers", "Workers", "Processes that read files; 0 chooses", minimum=0),
        th.Property(
            "emit_activate_version_messages",
            th.BooleanType,
            default=Settings.emit_activate_version_messages,
            title="ACTIVATE_VERSION",
            description="After a run that provably emitted everything, tell loaders to delete the rows of earlier runs",
        ),
        th.Property(
            "dask_scheduler",
            th.StringType,
            title="Dask scheduler",
            description="Address of a Dask scheduler whose workers turn the bucket's files into batch files",
        ),
    ).to_dict()

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
        selections = {each.name: each.selection for each in selected if not isinstance(each, streams.ExportFiles)}
        fields = RequestedFields.of(selections.values(), self.settings.extra_export_fields)
        return rows_signature(selections, fields, self.settings.row_shaping)

    @classmethod
    @override
    def help_to_configure(cls, config: Mapping[str, Any], errors: list[str]) -> None:
        if errors == [_NOTHING_TO_EXPORT]:
            list_segments(Settings.of(config), clock=cls.clock, logger=cls.logger)

    @override
    def discover_streams(self) -> Sequence[Stream]:
        return [stream(self) for stream in STREAMS]

    def custom_attributes(self) -> list[Field]:
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
