"""Web addresses in settings and in what Braze answers."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from tap_braze_export.errors import ConfigError

_API_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[^\s/\\@?#:\[\]%]+)(?::(?P<port>[0-9]{0,5}))?(?P<path>(/[\w.~-]*)*)",
    re.ASCII | re.IGNORECASE,
)
"""Only what a REST endpoint has: no user, query, fragment, backslash, and nothing that programs read differently."""
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
DEFAULT_PORTS = {"https": 443, "http": 80}
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
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    segments = [segment for segment in found["path"].split("/") if segment]
    if not 0 < port <= _MAX_PORT or {".", ".."} & {*segments} or (scheme == "http" and not is_loopback(host)):
        raise _no_api_url()
    shown_port = "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return "/".join([f"{scheme}://{host}{shown_port}", *segments])


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
        _host(f"[{host}]" if "[" in url.netloc else host)
        has_scheme_and_port = url.scheme in DEFAULT_PORTS and url.port != 0
        has_scheme_and_port &= url.netloc.partition("]")[2][:1] in {"", ":"}  # urlsplit passes over what else is there
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


def is_loopback(host: str) -> bool:
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
