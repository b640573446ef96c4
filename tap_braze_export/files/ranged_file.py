"""An object in a bucket as a file whose pieces are fetched as they are read, byte for byte as they are stored."""

from __future__ import annotations

import io
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import sync
from typing_extensions import override

from tap_braze_export.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from _typeshed import WriteableBuffer

    from tap_braze_export.files.objects import BucketObject
    from tap_braze_export.files.storage import Storage


class RangedFile(io.RawIOBase):
    """A file of a storage; each piece of it is fetched by a call of its own, which is repeated like any other."""

    def __init__(self, storage: Storage, stored: BucketObject, fetched_first: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self._storage = storage
        self._stored = stored
        self._position = 0
        starts = [start for start, _ in fetched_first]
        self._pieces = dict(zip(starts, self._fetched(fetched_first), strict=True))

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}[whence]
        if position < 0:
            raise ValueError("before the start of the file")
        self._position = position
        return position

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer)
        begin, end = self._position, min(self._position + len(into), self._stored.size)
        for start, piece in self._pieces.items():
            if start <= begin < start + len(piece):
                content = piece[begin - start : end - start]
                break
        else:
            (content,) = self._fetched([(begin, end)]) if begin < end else [b""]
        into[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _fetched(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Pieces of the file from a byte to another, all at once where the library can."""
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]

        def fetch() -> list[bytes]:
            try:
                if self._stored.is_encoded:
                    return self._storage.stored_bytes.pieces(self._stored.path, starts, ends)
                return _pieces(self._storage.files, self._stored.path, starts, ends)
            except FileNotFoundError:
                raise deleted_error(self._stored) from None

        return self._storage.retrying("read", fetch) if ranges else []


def deleted_error(stored: BucketObject) -> DamagedFileError:
    """The error of a file that is gone: renamed or repaired, as the next listing will show, or lost."""
    return DamagedFileError(f"{stored.name} was deleted from the bucket before it was read")


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
        return _pieces(self._undecoded, path, starts, ends)


def _pieces(files: Any, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
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
