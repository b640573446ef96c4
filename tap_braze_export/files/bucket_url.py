"""The settings that name a storage: read in the forms that people paste, else refused with the form to use."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tap_braze_export.errors import ConfigError

_CLOUD_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_WEB_SCHEMES = frozenset({"http", "https"})
_DIRECTORY_SCHEMES = frozenset({"file", "local"})
_WANTED = "the bucket as s3://bucket/prefix, gs://bucket/prefix or abfs://container/prefix, or a local directory"
_ARN = re.compile(r"arn:[^:/]+:(?P<service>[\w-]+):(?P<region>[^:/]*):(?P<account>[^:/]*):(?P<resource>.*)", re.DOTALL)
_ACCESS_POINT = re.compile(r"accesspoint[:/](?P<name>[^:/]+)(/+(?P<prefix>.*))?", re.DOTALL)
_BRAZES_FOLDER = re.compile(r"(^|/+)segment-export(/+[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(/.*)?)?/*$")
"""Path that Braze appends to the prefix: its folder, and perhaps a segment's folder in it."""


def read_bucket_url(text: str) -> str:
    """The address of the bucket and the prefix, without what Braze appends to it; of its folder alone, what it is in.

    Raises:
        ConfigError: It cannot be a bucket.
    """
    url = read_storage_url(text, setting="bucket_url")
    return _BRAZES_FOLDER.sub("", url) or ("/" if url.startswith("/") else ".")


def read_storage_url(text: str, *, setting: str) -> str:
    """The address of a bucket and a prefix, or of a directory.

    Raises:
        ConfigError: It cannot be one.
    """
    check_storage_url(text, setting=setting)
    url = text.strip()
    scheme, separator, path = url.partition("://")
    scheme = scheme.lower()
    if arn := _ARN.fullmatch(path if scheme in {"s3", "s3a"} else url):
        return _read_arn(arn, setting)
    if not separator:
        if re.match(r"(?!file:/)[A-Za-z][\w+.-]+:", url):
            raise _refusal(setting, "has no :// after its scheme")
        return url
    if scheme in _WEB_SCHEMES:
        raise _refusal(setting, "is a web address", f"{_WANTED}; the host of a store is endpoint_url in bucket_options")
    if scheme in _DIRECTORY_SCHEMES:
        if not path.startswith(("/", "~")):
            raise _refusal(setting, "names a directory without a slash before it", f"{scheme}:///{path}")
    elif scheme in _CLOUD_SCHEMES:
        bucket = path.partition("/")[0]
        if not bucket.strip():
            raise _refusal(setting, "names no bucket")
        if ":" in bucket:
            raise _refusal(setting, "holds credentials, which go into bucket_options or the environment")
        if "?" in path:
            raise _refusal(setting, "holds a query: credentials go into bucket_options or the environment")
    return f"{scheme}://{path}"


def _read_arn(arn: re.Match[str], setting: str) -> str:
    """The address of a bucket for an ARN: that of an access point stays, as no other form of its name is in it."""
    point = _ACCESS_POINT.fullmatch(arn["resource"])
    if arn["service"] == "s3" and point and arn["region"] and re.fullmatch(r"\d{12}", arn["account"]):
        name = arn[0].removesuffix(arn["resource"])
        return f"s3://{name}accesspoint/{point['name']}/{point['prefix'] or ''}".rstrip("/")
    if arn["service"] == "s3" and arn["resource"] and not arn["account"]:
        raise _refusal(setting, "is an ARN", f"s3://{arn['resource']}")
    raise _refusal(
        setting,
        "is an ARN, but of no bucket and of no access point in one region",
        "the bucket as s3://bucket/prefix, or an access point by its alias, which AWS shows among its properties",
    )


def check_storage_url(text: str, *, setting: str) -> None:
    """Refuse an address that cannot be taken apart, such as one with half of the brackets of an IPv6 host.

    Raises:
        ConfigError: It is one.
    """
    try:
        parts = urlsplit(text.strip())
        _ = parts.port if parts.scheme in _WEB_SCHEMES else None
    except ValueError:
        raise ConfigError(f"{setting} cannot be read as an address: check its host, port and brackets") from None


def shown_bucket_url(url: str) -> str:
    """The address for logs and errors: without a password and a query."""
    address, _, _ = url.partition("?")
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@", "", address)


def split_bucket(path: str) -> tuple[str, str]:
    """The bucket, or an access point's ARN in its place, and the key or prefix, of a path in an object store."""
    bucket, _, prefix = path.partition("/")
    if bucket.startswith("arn:"):
        name, _, prefix = prefix.partition("/")
        bucket = f"{bucket}/{name}"
    return bucket, prefix


def _refusal(setting: str, problem: str, form: str = _WANTED) -> ConfigError:
    return ConfigError(f"{setting} {problem}: name {form}")
