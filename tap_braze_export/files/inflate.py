"""Deflate and gzip streams, stored bytes: inflated a mebibyte at a time, their ends and checksums verified."""

from __future__ import annotations

import struct
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

from tap_braze_export.files.formats import GZIP_MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

try:
    fast_zlib: Any = import_module("isal.isal_zlib")
except ImportError:
    fast_zlib = zlib
"""The functions of zlib from isal, at least twice as fast, or from Python where isal has no wheel."""
CHUNK_BYTES = 2**20
_FIRST_CHUNK_BYTES = 2**15
"""Who compares only the beginnings of objects fetches no more of them."""
_SLICE_BYTES = 2**16
DAMAGE_ERRORS: tuple[type[Exception], ...] = (zlib.error, fast_zlib.error, EOFError, struct.error)
"""Raised when a stream is truncated, wrong, or followed by other bytes."""
_RAW_DEFLATE_WBITS, _GZIP_WBITS = -15, 31
_GZIP_START = GZIP_MAGIC + b"\x08"
"""First bytes of each gzip member: the magic number, and deflate, the only method that there is."""


def chunks_to_end(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file from here to its end."""
    size = _FIRST_CHUNK_BYTES
    while chunk := file.read(size):
        yield chunk
        size = CHUNK_BYTES


def stored(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file."""
    while size:
        chunk = file.read(min(CHUNK_BYTES, size))
        if not chunk:
            raise EOFError("it is truncated")
        size -= len(chunk)
        yield chunk


def deflated(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """One raw deflate stream: of exactly `size` bytes, or of unknown length; then the file is left at its end."""
    stream = fast_zlib.decompressobj(_RAW_DEFLATE_WBITS)
    for chunk in chunks_to_end(file) if size is None else stored(file, size):
        if stream.eof:
            raise EOFError("bytes after the end of its data")
        yield from _fed(stream, chunk)
        if stream.eof and size is None:
            file.seek(-len(stream.unused_data), 1)
            return
    if not stream.eof:
        raise EOFError("it is truncated")
    if stream.unused_data:
        raise EOFError("bytes after the end of its data")


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip members one after another, then nothing but zeros: tapes and some storages pad with them."""
    stream = fast_zlib.decompressobj(_GZIP_WBITS)
    padded = False
    for rest in _slices(chunks):
        while rest:
            if stream.eof:
                padded = padded or rest.startswith(b"\0")
                if padded and rest.strip(b"\0"):
                    raise EOFError("bytes after the zeros that follow its end")
                if padded:
                    break
                if not rest.startswith(_GZIP_START[: len(rest)]):
                    raise EOFError("after its end stand bytes that are no gzip, so something was added to it")
                stream = fast_zlib.decompressobj(_GZIP_WBITS)
            yield from _fed(stream, rest)
            rest = stream.unused_data if stream.eof else b""  # noqa: PLW2901
    if not stream.eof:
        raise EOFError("it is truncated")


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut chunks into smaller ones: after each gzip member the rest is copied, and there may be a million of them."""
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE_BYTES):
            yield chunk[start : start + _SLICE_BYTES]


def _fed(stream: Any, data: bytes) -> Iterator[bytes]:
    """The bytes that a stream inflates, at most 1 MiB at a time whatever the ratio."""
    chunk = b""
    # A full chunk may leave output waiting inside it though all input is consumed.
    while not stream.eof and (data or len(chunk) == CHUNK_BYTES):
        chunk = stream.decompress(data, CHUNK_BYTES)
        data = stream.unconsumed_tail
        if chunk:
            yield chunk
