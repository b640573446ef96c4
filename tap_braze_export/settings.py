"""The tap's settings as one typed, frozen object; null and blank mean "not set" here, for every setting.

`tap.py` describes the settings to users and takes the defaults from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import ConfigError

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
_API_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[^\s/\\@?#:\[\]%]+)(?::(?P<port>[0-9]{0,5}))?(?P<path>(/[\w.~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
"""Only what a REST endpoint has: no user, query, fragment, backslash, and nothing that programs read differently."""
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_PORT = 65_535


def read_api_url(text: str) -> str:
    """The address of Braze's REST endpoint in its one spelling.

    Raises:
        ConfigError: It is none, or the key would be sent to it in the clear.
    """
    found = _API_URL.fullmatch(text.strip())
    if found is None:
        raise _no_api_url()
    scheme, host = found["scheme"].lower(), _host(found["host"])
    port = int(found["port"] or _DEFAULT_PORTS[scheme])
    segments = [segment for segment in found["path"].split("/") if segment]
    if not 0 < port <= _MAX_PORT or {".", ".."} & {*segments} or (scheme == "http" and not _is_loopback(host)):
        raise _no_api_url()
    shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    return "/".join([f"{scheme}://{host}{shown_port}", *segments])


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


def check_callback_url(text: str) -> None:
    """Check the address that Braze calls.

    Raises:
        ConfigError: It is no web address.
    """
    if not is_web_address(text):
        raise ConfigError("callback_url must be a web address such as https://hooks.example.com/braze")


def is_web_address(text: str) -> bool:
    """True if a text is an http or https address, with a host and without blanks."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
        _host(f"[{host}]" if ":" in host else host)
        has_scheme_and_port = url.scheme in _DEFAULT_PORTS and url.port != 0
    except (ValueError, ConfigError):
        return False
    return has_scheme_and_port and " " not in text and text.isprintable()


def _host(text: str) -> str:
    """A host in its one spelling."""
    try:
        if text.startswith("["):
            return f"[{ip_address(text[1:-1])}]"
        name = text.encode("idna").decode().lower().removesuffix(".")
    except ValueError:
        raise _no_api_url() from None
    if not _HOST_NAME.fullmatch(name):
        raise _no_api_url()
    return name


def _is_loopback(host: str) -> bool:
    """True if a host is this machine."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _no_api_url() -> ConfigError:
    return ConfigError(
        "api_url must be an https address such as https://rest.iad-01.braze.com, without user and query, since the key"
        " is sent to it"
    )


def without_unset(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the settings that are null or blank."""
    return {name: value for name, value in config.items() if not is_unset(value)}


def is_unset(value: object) -> bool:
    """True for null and for blank text."""
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings by their names in the configuration; lists are tuples, times carry their unit."""

    api_url: str
    api_key: str = field(repr=False)
    segment_ids: tuple[str, ...] = ()
    global_control_group: bool = False
    external_ids: tuple[str, ...] = field(default=(), repr=False)
    braze_ids: tuple[str, ...] = field(default=(), repr=False)
    emails: tuple[str, ...] = field(default=(), repr=False)
    phones: tuple[str, ...] = field(default=(), repr=False)
    device_ids: tuple[str, ...] = field(default=(), repr=False)
    user_aliases: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    identifiers_url: str | None = field(default=None, repr=False)
    custom_attributes: Mapping[str, str] = field(default_factory=dict)
    discover_custom_attributes: bool = False
    incremental: bool = False
    full_export_days: int = 7
    overlap_minutes: int = 60
    start_date: str | None = None
    extra_export_fields: tuple[str, ...] = ()
    bucket_url: str | None = None
    bucket_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    output_format: str = "zip"
    callback_url: str | None = None
    callback_listen: str | None = None
    on_running_export: str = "wait"
    export_timeout_minutes: int = 360
    poll_interval_seconds: int = 10
    settle_minutes: int = 10
    concurrent_exports: int = 4
    concurrent_requests: int = 8
    requests_per_minute: int | None = None
    spool_dir: str | None = None
    fingerprints_url: str | None = None
    max_rejected_lines: int = 0
    report_path: str | None = None
    workers: int = 0
    dask_scheduler: str | None = None
    emit_activate_version_messages: bool = False
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
        if not _is_loopback(url.hostname or ""):
            return self.api_url
        return url._replace(netloc=f"localhost:{url.port or _DEFAULT_PORTS[url.scheme]}").geturl()

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
