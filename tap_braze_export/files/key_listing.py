"""The keys below a prefix of an object store, taken literally, and Braze's folder near the configured prefix."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING, Any

from fsspec.asyn import sync

from tap_braze_export.errors import TapError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.files.storage import Storage

    Info = dict[str, Any]

BRAZES_FOLDER = "segment-export"
_MAX_FOLDERS = 20
"""Folders below and beside the prefix that are looked into: each costs a listing."""
_MAX_DATES = 5
_MAX_NAMED = 3


class NearbyKeys:
    """Looks for Braze's folder near the prefix of a bucket, with a limited number of listings.

    The bucket has no name if it is a directory, whose slashes the system merges; the prefix is then its whole path.
    """

    def __init__(self, storage: Storage, bucket: str, prefix: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._prefix = prefix
        self._before_keys = f"{bucket}/" if bucket else ""

    def with_more_slashes(self) -> list[str]:
        """The paths of Braze's folder that differ from the right one by their slashes alone, of those that exist."""
        if not self._bucket:
            return []
        found = [prefix for prefix in _spellings(self._prefix) if self._has(f"{prefix}{BRAZES_FOLDER}/")]
        return [f"{self._bucket}/{prefix}{BRAZES_FOLDER}" for prefix in found]

    def below_other_prefixes(self) -> list[str]:
        """The paths of Braze's folder above, below and beside the prefix; at most three."""
        found: list[str] = []
        for prefix in self._other_prefixes():
            if self._has(f"{prefix}{BRAZES_FOLDER}/"):
                found.append(f"{self._before_keys}{prefix}{BRAZES_FOLDER}")
            if len(found) == _MAX_NAMED:
                break
        return found

    def holds(self, path: str, export_id: str, segment_id: str) -> bool:
        """True if Braze's folder at a path, one that was found, has files of an export."""
        top = path.removeprefix(self._before_keys)
        dates = sorted(self._folders(f"{top}/{segment_id}/"), reverse=True)[:_MAX_DATES]
        return any(self._has(f"{date}{export_id}/") for date in dates)

    def _other_prefixes(self) -> Iterator[str]:
        here = f"{self._prefix}/" if self._prefix else ""
        parts = self._prefix.split("/") if self._prefix else []
        above = ["/".join([*parts[:length], ""]) for length in range(len(parts) - 1, -1, -1)]
        yield from above if self._bucket else above[:1]
        yield from self._folders(here)[:_MAX_FOLDERS]
        if above and above[0] != "/":
            yield from (folder for folder in self._folders(above[0])[:_MAX_FOLDERS] if folder != here)

    def _has(self, prefix: str) -> bool:
        return bool(self._listed(prefix, limit=1))

    def _folders(self, prefix: str) -> list[str]:
        return [
            f"{info['name'].rstrip('/').removeprefix(self._before_keys)}/"
            for info in self._listed(prefix, limit=_MAX_FOLDERS)
            if info["type"] == "directory" and info["name"].rpartition("/")[2] != BRAZES_FOLDER
        ]

    def _listed(self, prefix: str, *, limit: int) -> list[dict[str, Any]]:
        """The content of a prefix; nothing if it cannot be listed: credentials may be good for the right one alone."""
        try:
            return self._storage.once("listed", lambda: listed(self._storage.files, self._bucket, prefix, limit=limit))
        except TapError:
            return []


def listed(files: Any, bucket: str, prefix: str, *, limit: int | None = None) -> list[Info]:
    """The folders and objects directly below a prefix, as fsspec has them; libraries merge or drop slashes.

    A file system without keys has no bucket; its paths are prefixes. Raises what the storage's library does.
    """
    if hasattr(files, "call_s3"):
        found = _in_s3(files, bucket, prefix, limit)
    elif hasattr(files, "service_client"):  # adlfs
        return sync(files.loop, _in_azure, files, bucket, prefix, limit)  # type: ignore[no-any-return]
    elif "gs" in files.protocol:
        found = _in_google(files, bucket, prefix, limit)
    else:
        try:
            return list(files.ls(f"{bucket}/{prefix}" if bucket else prefix, detail=True))[:limit]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return [*islice(found, limit)]


def _in_s3(files: Any, bucket: str, prefix: str, limit: int | None) -> Iterator[Info]:
    more: dict[str, Any] = {"MaxKeys": limit} if limit else {}
    while True:
        page = files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
        yield from (_folder(bucket, each["Prefix"]) for each in page.get("CommonPrefixes", ()))
        yield from (
            {**each, "name": f"{bucket}/{each['Key']}", "size": each["Size"], "type": "file"}
            for each in page.get("Contents", ())
        )
        if not page.get("IsTruncated"):
            return
        more["ContinuationToken"] = page["NextContinuationToken"]


def _in_google(files: Any, bucket: str, prefix: str, limit: int | None) -> Iterator[Info]:
    more: dict[str, Any] = {"maxResults": limit} if limit else {}
    while True:
        page = files.call("GET", "b/{}/o", bucket, prefix=prefix, delimiter="/", json_out=True, **more)
        yield from (_folder(bucket, each) for each in page.get("prefixes", ()))
        yield from (
            {**each, "name": f"{bucket}/{each['name']}", "size": int(each.get("size", 0)), "type": "file"}
            for each in page.get("items", ())
        )
        if not page.get("nextPageToken"):
            return
        more["pageToken"] = page["nextPageToken"]


async def _in_azure(files: Any, bucket: str, prefix: str, limit: int | None) -> list[Info]:
    found: list[Info] = []
    async with files.service_client.get_container_client(bucket) as container:
        async for each in container.walk_blobs(name_starts_with=prefix, delimiter="/", results_per_page=limit):
            if hasattr(each, "size"):
                info = {"name": f"{bucket}/{each.name}", "size": each.size, "etag": each.etag, "type": "file"}
                found.append({**info, "contentEncoding": each.content_settings.content_encoding})
            else:
                found.append(_folder(bucket, each.name))
            if len(found) == limit:
                break
    return found


def _folder(bucket: str, prefix: str) -> Info:
    return {"name": f"{bucket}/{prefix.removesuffix('/')}", "size": 0, "type": "directory"}


def _spellings(prefix: str) -> list[str]:
    """The prefixes that a folder setting with slashes too many can lead to; the right one is none of them."""
    parts = [part for part in prefix.split("/") if part]
    if not parts:
        return ["/", "//", "///"]
    joined = dict.fromkeys(separator.join(parts) for separator in ("/", "//"))
    spelt = [f"{lead}{path}{tail}" for path, tail, lead in product(joined, ("/", "//", "///"), ("", "/"))]
    return spelt[1:]
