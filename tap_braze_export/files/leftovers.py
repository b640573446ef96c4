"""Recognizes a truncated object that was written anew under another name: it begins as one of the others does."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import inflate, zip_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.files.objects import BucketObject

_HEAD_BYTES = 64 * 2**10
_FEWEST_EQUAL_BYTES = 256
"""Stored bytes that show the same content: fewer may be what all archives begin with."""
_USER = re.compile(rb'"braze_id"\s*:\s*"[^"]+"')
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_DESCRIPTOR_BYTES = 24


class Opener(Protocol):
    """Opens objects; `files/bucket` has one."""

    def open(self, stored: BucketObject, *, end_bytes: int = 0) -> BinaryIO:
        """The object as a file, of which so many bytes at both ends are fetched at once."""


def twin(opener: Opener, leftover: BucketObject, others: Iterable[BucketObject]) -> BucketObject | None:
    """The object that begins with all that can be read of a truncated one, a user at least; None if there is none.

    Raises:
        ExportError: One of them cannot be read.
    """
    with opener.open(leftover, end_bytes=_HEAD_BYTES) as file:
        head = file.read(_HEAD_BYTES)
    for other in others:
        with suppress(DamagedFileError), opener.open(other, end_bytes=_HEAD_BYTES) as file:
            if _begin_alike(head, file.read(_HEAD_BYTES)) and _holds_all_of(opener, leftover, other):
                return other
    return None


def _begin_alike(head: bytes, other: bytes) -> bool:
    """True if two archives may begin with the same content, for all that their first bytes show."""
    length = min(len(head), len(other))
    if head[:length] == other[:length]:
        return True
    start, other_start = (b"".join(_readable(_Pieces([content]))) for content in (head, other))
    length = min(len(start), len(other_start))
    return length > 0 and start[:length] == other_start[:length]


def _holds_all_of(opener: Opener, leftover: BucketObject, other: BucketObject) -> bool:
    with opener.open(leftover) as short, opener.open(other) as long:
        if leftover.size >= _FEWEST_EQUAL_BYTES and _is_beginning(
            inflate.chunks_to_end(short), inflate.chunks_to_end(long)
        ):
            return True
        short.seek(0)
        long.seek(0)
        chunks = _readable(_Pieces(inflate.chunks_to_end(short)))
        start = b""
        for chunk in chunks:
            start += chunk
            if len(start) >= _HEAD_BYTES:
                break
        whole = _readable(_Pieces(inflate.chunks_to_end(long)))
        return bool(_USER.search(start)) and _is_beginning(chain((start,), chunks), whole)


def _is_beginning(short: Iterable[bytes], long: Iterator[bytes]) -> bool:
    """True if the bytes of one begin with all bytes of the other; whatever their pieces are."""
    left = b""
    for chunk in short:
        while len(left) < len(chunk):
            if not (more := next(long, b"")):
                return False
            left += more
        if not left.startswith(chunk):
            return False
        left = left[len(chunk) :]
    return True


class _Pieces:
    """Chunks of which some bytes can be given back."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = b""

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._left or next(self._chunks, b""):
            self._left = b""
            yield chunk

    def read(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._left) < size and (more := next(self._chunks, b"")):
            self._left += more
        content, self._left = self._left[:size], self._left[size:]
        return content

    def give_back(self, content: bytes) -> None:
        self._left = content + self._left


def _readable(pieces: _Pieces) -> Iterator[bytes]:
    """The inflated bytes of an archive's files up to where it is damaged, or at its end."""
    magic = pieces.read(len(zip_directory.LOCAL_MAGIC))
    pieces.give_back(magic)
    try:
        if magic.startswith(_GZIP_MAGIC):
            yield from inflate.gunzipped(pieces)
        while magic == zip_directory.LOCAL_MAGIC:
            yield from _member(pieces)
            magic = _next_magic(pieces)
    except inflate.DAMAGE_ERRORS:
        return


def _member(pieces: _Pieces) -> Iterator[bytes]:
    """The content of the next file of a zip, found by its own header: the directory is at the end."""
    header = zip_directory.LOCAL_HEADER.unpack(pieces.read(zip_directory.LOCAL_HEADER.size))
    _, _, method, _, size, _, name_bytes, extra_bytes = header
    pieces.read(name_bytes + extra_bytes)
    if method == zip_directory.DEFLATED:
        pieces.give_back((yield from inflate.deflated_to_end(pieces)))
    elif method == zip_directory.STORED and size:
        while size and (chunk := pieces.read(min(size, inflate.CHUNK_BYTES))):
            size -= len(chunk)
            yield chunk
    else:
        raise struct.error("its length is not in its header")


def _next_magic(pieces: _Pieces) -> bytes:
    """Skip the checksum and sizes that may follow a file's data; the magic number of what is next."""
    found = pieces.read(_MAX_DESCRIPTOR_BYTES + len(zip_directory.LOCAL_MAGIC))
    at = found.find(zip_directory.LOCAL_MAGIC)
    pieces.give_back(found[max(at, 0) :])
    return found[at : at + len(zip_directory.LOCAL_MAGIC)] if at >= 0 else b""
