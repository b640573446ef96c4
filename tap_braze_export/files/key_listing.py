"""Lists what stands below a prefix of an object store, taken literally: libraries merge or drop slashes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from fsspec.asyn import sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    Info = dict[str, Any]


def listed(files: Any, bucket: str, prefix: str, *, limit: int | None = None) -> list[Info]:
    """The folders and objects directly below a prefix, as fsspec has them; raises what the storage's library does.

    Args:
        files: The file system.
        bucket: The bucket; empty for a file system without keys, whose paths are prefixes.
        prefix: The beginning of the keys, to its last slash.
        limit: Number of items after which to stop.
    """
    if hasattr(files, "call_s3"):
        found = _in_s3(files, bucket, prefix, limit)
    elif hasattr(files, "service_client"):  # adlfs
        return sync(files.loop, _in_azure, files, bucket, prefix, limit)  # type: ignore[no-any-return]
    elif "gs" in _protocols(files):
        found = _in_google(files, bucket, prefix, limit)
    else:
        try:
            return list(files.ls(f"{bucket}/{prefix}" if bucket else prefix, detail=True))[:limit]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return [*islice(found, limit)]


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


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
