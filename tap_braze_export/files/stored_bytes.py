"""Pieces of objects in a bucket, byte for byte as they are stored."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def is_encoded(info: Mapping[str, Any]) -> bool:
    """True if the listing of an object names a Content-Encoding, as those of Google and Azure do."""
    settings = info.get("content_settings") or {}
    return (info.get("contentEncoding") or settings.get("content_encoding") or "identity") != "identity"


class StoredBytes:
    """Objects with a Content-Encoding: libraries would inflate each piece by itself, or cut them.

    Amazon's library inflates nothing, so its objects need no other way.
    """

    def __init__(self, files: Any, url: str, options: Mapping[str, Any]) -> None:
        self._files = files
        self._url = url
        self._options = options
        self._undecoded: Any = None

    def pieces(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Pieces of an object from a byte to another; raises what its library does."""
        if hasattr(self._files, "service_client"):  # adlfs
            return [_piece_of_blob(self._files, path, start, end) for start, end in zip(starts, ends, strict=True)]
        if self._undecoded is None:
            # Of its own for these objects: listings may come compressed, and have to be inflated.
            session = {**self._options.get("session_kwargs", {}), "auto_decompress": False}
            options = {**self._options, "session_kwargs": session, "skip_instance_cache": True}
            self._undecoded, _ = fsspec.url_to_fs(self._url, **options)
        # Google inflates for clients that do not accept gzip; aiohttp, which gcsfs uses, says that it does.
        return pieces_of(self._undecoded, path, starts, ends)


def pieces_of(files: Any, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Pieces of an object from a byte to another; raises what its library does."""
    pieces = files.cat_ranges([path] * len(starts), [*starts], [*ends])
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
    return [*pieces]


def _piece_of_blob(files: Any, path: str, start: int, end: int) -> bytes:
    container, blob, version_id = files.split_path(path)

    async def download() -> bytes:
        async with files.service_client.get_blob_client(container=container, blob=blob) as client:
            options = {"version_id": version_id, "decompress": False}
            stream = await client.download_blob(offset=start, length=end - start, **options)
            content: bytes = await stream.readall()
            return content

    try:
        return sync(files.loop, download)  # type: ignore[no-any-return]
    except Exception as error:
        if getattr(error, "status_code", None) == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path) from error
        raise
