"""An object in a bucket as a file whose pieces are fetched as they are read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from typing_extensions import override

from tap_braze_export.errors import DamagedFileError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from tap_braze_export.files.objects import BucketObject
    from tap_braze_export.files.storage import Storage


class RangedFile(io.RawIOBase):
    """A file of a storage; each piece of it is fetched by a call of its own, which is repeated like any other."""

    def __init__(self, storage: Storage, stored: BucketObject, fetched_first: list[tuple[int, int]]) -> None:
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

    def _fetched(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Pieces of the file from a byte to another, all at once where the library can."""

        def fetch() -> list[bytes]:
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            try:
                if self._stored.is_encoded:
                    return self._storage.stored_bytes.pieces(self._stored.path, starts, ends)
                pieces = self._storage.files.cat_ranges([self._stored.path] * len(ranges), starts, ends)
                for piece in pieces:
                    if isinstance(piece, Exception):
                        raise piece
            except FileNotFoundError:
                raise deleted_error(self._stored) from None
            return list(pieces)

        return self._storage.retrying("read", fetch) if ranges else []


def deleted_error(stored: BucketObject) -> DamagedFileError:
    """The error of a file that is gone: renamed or repaired, as the next listing will show, or lost."""
    return DamagedFileError(f"{stored.name} was deleted from the bucket before it was read")
