"""The tap's settings, each declared once: type, default and the words in which users read of it.

Null and blank mean "not set" here, for every setting.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import ConfigError
from tap_braze_export.http.addresses import DEFAULT_PORTS, is_loopback, read_api_url
from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROW_SHAPING_SETTINGS = (
    "stream_maps",
    "stream_map_config",
    "faker_config",
    "flattening_enabled",
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
)
"""Settings of the SDK that change what rows look like."""
_MINUTE = 60
_LARGEST_INTEGER = 10**9
"""Of any setting: what is computed of it stays a number that programs can hold."""
_A_CENTURY_OF_DAYS = 36_500
_SECRET = {"secret": True, "writeOnly": True}
_ALIAS = {
    "type": "object",
    "properties": {"alias_name": {"type": ["string"]}, "alias_label": {"type": ["string"]}},
    "required": ["alias_name", "alias_label"],
    "additionalProperties": True,
}
_OBJECT = {"type": "object", "properties": {}, "additionalProperties": True}
_JSON_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "minimum": 1, "maximum": _LARGEST_INTEGER},
    "tuple[str, ...]": {"type": "array", "items": {"type": ["string"]}},
    "tuple[Mapping[str, str], ...]": {"type": "array", "items": _ALIAS},
    "Mapping[str, str]": _OBJECT,
    "Mapping[str, Any]": _OBJECT,
}
"""The JSON schema of a setting's type, as its annotation spells it."""


def read_date_time(text: str, *, setting: str) -> float:
    """Epoch seconds of a date-time, or of the begin of a date; without an offset it is in UTC.

    Raises:
        ConfigError: It is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        timestamp(seconds)  # in UTC it may lie beyond the years that there are
    except (ValueError, OverflowError):
        raise ConfigError(f"{setting} must be a date-time such as 2026-01-31T00:00:00Z") from None
    return seconds


def without_unset(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the settings that are null or blank."""
    return {name: value for name, value in config.items() if value is not None and not _is_blank(value)}


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _setting(title: str, description: str, default: Any = None, *, repr: bool = True, **words: Any) -> Any:  # noqa: A002
    """Describe a setting to its users; `words` are more of its JSON schema."""
    given = {"default_factory": dict} if default == {} else {"default": default}
    return field(**given, repr=repr, metadata={"title": title, "description": description, **words})


_flag = partial(_setting, default=False)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings by their names in the configuration; lists are tuples, times carry their unit.

    Those without a description are the SDK's, which describes them.
    """

    api_url: str = _setting(
        "API URL", "REST endpoint of the instance, such as https://rest.iad-01.braze.com", default=MISSING
    )
    api_key: str = _setting("API key", "REST API key", default=MISSING, repr=False, **_SECRET)
    segment_ids: tuple[str, ...] = _setting("Segments", "API identifiers of the segments to export", ())
    global_control_group: bool = _flag(
        "Global Control Group", "Also export the members of the Global Control Group (needs the stream segment_members)"
    )
    external_ids: tuple[str, ...] = _setting("External ids", "External ids to resync", (), repr=False)
    braze_ids: tuple[str, ...] = _setting("Braze ids", "Braze ids to resync", (), repr=False)
    emails: tuple[str, ...] = _setting("E-mail addresses", "E-mail addresses to resync", (), repr=False)
    phones: tuple[str, ...] = _setting("Phone numbers", "Phone numbers to resync, in E.164", (), repr=False)
    device_ids: tuple[str, ...] = _setting("Device ids", "Device ids to resync", (), repr=False)
    user_aliases: tuple[Mapping[str, str], ...] = _setting(
        "User aliases", "Aliases to resync, as objects of alias_name and alias_label", (), repr=False
    )
    identifiers_url: str | None = _setting(
        "Identifiers file",
        "Identifiers to resync, CSV with a header or JSON lines: a file, folder or pattern (*), a local path or fsspec"
        " URL",
        repr=False,
    )
    custom_attributes: Mapping[str, str] = _setting(
        "Custom attribute types",
        f"Types of custom attributes by name: {', '.join(ATTRIBUTE_TYPES)}",
        {},
        additionalProperties={"type": ["string"], "enum": [*ATTRIBUTE_TYPES]},
    )
    discover_custom_attributes: bool = _flag(
        "Discover custom attributes", "Ask Braze for the custom attributes and their types at discovery"
    )
    incremental: bool = _flag(
        "Incremental exports", "Between full exports, ask Braze only for users updated since the last complete export"
    )
    full_export_days: int = _setting(
        "Full export after",
        "With incremental: days after the last complete full export at which a run asks for everybody again",
        7,
        maximum=_A_CENTURY_OF_DAYS,
    )
    overlap_minutes: int = _setting(
        "Overlap",
        "With incremental: minutes before the last complete export's request from which users are asked for",
        60,
        minimum=0,
    )
    start_date: str | None = _setting(
        "Start date",
        "Never ask for users of a segment that were last updated before this time, in no export",
        format="date-time",
    )
    extra_export_fields: tuple[str, ...] = _setting(
        "Extra fields", "More names for fields_to_export, unchecked; their values land in _rescued_data of users", ()
    )
    bucket_url: str | None = _setting(
        "Bucket", "Where Braze delivers: s3://bucket/prefix, gs://…, abfs://…, or a local directory"
    )
    bucket_options: Mapping[str, Any] = _setting(
        "Bucket options", "fsspec options for the bucket, such as key, secret, endpoint_url", {}, repr=False, **_SECRET
    )
    output_format: str = _setting("Output format", "Archive format of the export files", "zip", enum=["zip", "gzip"])
    callback_url: str | None = _setting(
        "Callback URL", "Address that Braze calls when an export is complete; an unguessable token is added"
    )
    callback_listen: str | None = _setting("Callback listener", "host:port to listen on for the callback")
    on_running_export: str = _setting(
        "On a running export",
        "What to do when Braze says that the segment is already being exported",
        "wait",
        enum=["wait", "cancel", "fail"],
    )
    export_timeout_minutes: int = _setting(
        "Export timeout", "Minutes after its request at which an export is given up", 360
    )
    poll_interval_seconds: int = _setting(
        "Poll interval", "Seconds between the first two polls; the interval grows to at most 60", 10
    )
    settle_minutes: int = _setting(
        "Settle time",
        "Minutes without a new file after which a bucket export is complete, if there is no callback",
        10,
        minimum=0,
    )
    concurrent_exports: int = _setting("Concurrent exports", "Exports running in Braze at a time", 4, maximum=100)
    concurrent_requests: int = _setting("Concurrent requests", "Requests of the ids export open at a time", 8)
    requests_per_minute: int | None = _setting(
        "Requests per minute", "Cap for the ids export, below what Braze's headers allow"
    )
    spool_dir: str | None = _setting(
        "Spool directory", "Private directory for downloads and running jobs; default in the user's cache directory"
    )
    fingerprints_url: str | None = _setting(
        "Fingerprints",
        "Where to remember what was emitted, so that unchanged users are skipped: a directory, or an fsspec URL such as"
        " s3://bucket/prefix",
    )
    max_rejected_lines: int = _setting(
        "Rejected lines", "More unreadable lines than this make the run fail", 0, minimum=0
    )
    report_path: str | None = _setting(
        "Report",
        "HTML page that each run writes about itself; {started_at} in the file's name is the time at which the run"
        " began. It needs the extra report",
    )
    workers: int = _setting("Workers", "Processes that read files; 0 chooses", 0, minimum=0)
    emit_activate_version_messages: bool = _flag(
        "ACTIVATE_VERSION",
        "After a run that provably emitted everything, tell loaders to delete the rows of earlier runs",
    )
    dask_scheduler: str | None = _setting(
        "Dask scheduler", "Address of a Dask scheduler whose workers turn the bucket's files into batch files"
    )
    batch_config: Mapping[str, Any] | None = field(default=None, repr=False)
    row_shaping: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The SDK's settings that change what rows look like: stream maps and flattening."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """The settings of a valid configuration.

        Raises:
            ConfigError: `api_url` is no address to which a key may be sent.
        """
        given = without_unset(config)
        known = {setting.name for setting in fields(cls)}
        values = {name: _frozen(value) for name, value in given.items() if name in known}
        values["api_url"] = read_api_url(given["api_url"])
        shaping = {name: given[name] for name in _ROW_SHAPING_SETTINGS if name in given}
        return cls(**values, row_shaping=shaping)

    @property
    def is_resync(self) -> bool:
        """True if an identifier is given: then only the ids export is used."""
        return any(getattr(self, name) for name in IDENTIFIER_SETTINGS)

    @property
    def workspace(self) -> str:
        """The identity of the workspace behind `api_url`, for records that this machine keeps of it."""
        url = urlsplit(self.api_url)
        if not is_loopback(url.hostname or ""):
            return self.api_url
        return url._replace(netloc=f"localhost:{url.port or DEFAULT_PORTS[url.scheme]}").geturl()

    def storage_options(self, url: str) -> Mapping[str, Any]:
        """Options for another storage: the bucket's, where the scheme is the same; no other is sent its secrets."""
        scheme = urlsplit(url).scheme
        return self.bucket_options if scheme and scheme == urlsplit(self.bucket_url or "").scheme else {}

    @property
    def start_seconds(self) -> float | None:
        """`start_date` in epoch seconds."""
        return None if self.start_date is None else read_date_time(self.start_date, setting="start_date")

    @property
    def overlap_seconds(self) -> float:
        """Seconds before the last complete export's request from which an incremental export asks."""
        return self.overlap_minutes * _MINUTE

    @property
    def export_timeout_seconds(self) -> float:
        """Seconds after its request at which an export is given up."""
        return self.export_timeout_minutes * _MINUTE

    @property
    def settle_seconds(self) -> float:
        """Seconds without a new file after which a bucket export is complete."""
        return self.settle_minutes * _MINUTE


def json_schema() -> dict[str, Any]:
    """The JSON schema of the settings that are the tap's own."""
    properties, required = {}, []
    for setting in fields(Settings):
        if setting.metadata:
            words = {**_JSON_SCHEMAS[str(setting.type).removesuffix(" | None")], **setting.metadata}
            if setting.default is MISSING and setting.default_factory is MISSING:
                required.append(setting.name)
            elif setting.default not in (MISSING, None, ()):
                words["default"] = setting.default
            words["type"] = [words["type"], *([] if setting.name in required else ["null"])]
            properties[setting.name] = words
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"type": "object", "properties": properties, "required": required, "$schema": schema}


IDENTIFIER_KINDS = {
    "external_ids": "external_id",
    "user_aliases": "user_alias",
    "braze_ids": "braze_id",
    "emails": "email",
    "phones": "phone",
    "device_ids": "device_id",
}
"""The kind of identifier that each setting lists, in the order in which they are requested."""
IDENTIFIER_SETTINGS = (*IDENTIFIER_KINDS, "identifiers_url")
"""Any of these makes the run a resync."""


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
