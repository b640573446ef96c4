"""Deflate and gzip streams, stored bytes: inflated a mebibyte at a time, their ends and checksums verified."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from tap_braze_export.files.fast_zlib import fast_zlib as inflating

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

CHUNK_BYTES = 2**20
_SLICE_BYTES = 2**16
DAMAGE_ERRORS: tuple[type[Exception], ...] = (
    zlib.error,
    cast("type[Exception]", inflating.error),
    EOFError,
    struct.error,
)
"""Raised when a stream is truncated, wrong, or followed by other bytes."""
_RAW_DEFLATE_WBITS, _GZIP_WBITS = -15, 31
_GZIP_START = b"\x1f\x8b\x08"
"""First bytes of each gzip member: the magic number, and deflate, the only method that there is."""


def crc32(data: bytes, before: int) -> int:
    """The CRC-32 of data that follows data with the CRC-32 `before`."""
    return inflating.crc32(data, before)


def chunks_to_end(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file from here to its end."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def stored(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file."""
    while size:
        chunk = file.read(min(CHUNK_BYTES, size))
        if not chunk:
            raise EOFError("it is truncated")
        size -= len(chunk)
        yield chunk


def deflated(file: BinaryIO, size: int) -> Iterator[bytes]:
    """One raw deflate stream that takes up exactly `size` bytes."""
    inflater = _Inflater(_RAW_DEFLATE_WBITS)
    for chunk in stored(file, size):
        if inflater.eof:
            raise EOFError("bytes after the end of its data")
        yield from inflater.feed(chunk)
    if not inflater.eof:
        raise EOFError("it is truncated")
    if inflater.unused:
        raise EOFError("bytes after the end of its data")


def deflated_to_end(chunks: Iterable[bytes]) -> Generator[bytes, None, bytes]:
    """One raw deflate stream, as far as there are chunks; returns the bytes after it."""
    inflater = _Inflater(_RAW_DEFLATE_WBITS)
    for chunk in chunks:
        yield from inflater.feed(chunk)
        if inflater.eof:
            return inflater.unused
    raise EOFError("it is truncated")


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip members one after another, then nothing but zeros: tapes and some storages pad with them."""
    inflater = _Inflater(_GZIP_WBITS)
    padded = False
    start = b""
    """Of what may be the next member: bytes that are too few to tell."""
    for piece in _slices(chunks):
        rest, start = start + piece, b""
        while rest:
            if inflater.eof:
                padded = padded or rest.startswith(b"\0")
                if padded and rest.strip(b"\0"):
                    raise EOFError("bytes after the zeros that follow its end")
                if padded:
                    break
                if not rest.startswith(_GZIP_START[: len(rest)]):
                    raise EOFError("after its end stand bytes that are no gzip, so something was added to it")
                if len(rest) < len(_GZIP_START):
                    start = rest
                    break
                inflater = _Inflater(_GZIP_WBITS)
            yield from inflater.feed(rest)
            rest = inflater.unused
    if start or not inflater.eof:
        raise EOFError("it is truncated")


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut chunks into smaller ones: after each gzip member the rest is copied, and there may be a million of them."""
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE_BYTES):
            yield chunk[start : start + _SLICE_BYTES]


class _Inflater:
    """Decompresses one stream with isal or zlib, which check the CRC of gzip themselves."""

    def __init__(self, wbits: int) -> None:
        self._zlib = inflating.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        """True once the stream has ended."""
        return self._zlib.eof

    @property
    def unused(self) -> bytes:
        """Bytes that were fed after the stream's end."""
        return self._zlib.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the inflated bytes, at most 1 MiB at a time whatever the ratio."""
        chunk = b""
        # A full chunk may leave output waiting inside it though all input is consumed.
        while not self._zlib.eof and (data or len(chunk) == CHUNK_BYTES):
            chunk = self._zlib.decompress(data, CHUNK_BYTES)
            data = self._zlib.unconsumed_tail
            yield chunk
