"""Recognizes a truncated object that was written anew under another name: it begins as one of the others does."""

from __future__ import annotations

import os
import re
import struct
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import inflate
from tap_braze_export.files.formats import GZIP_MAGIC, ZIP_MAGIC
from tap_braze_export.files.zip_directory import LOCAL_HEADER, MAX_DESCRIPTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.files.objects import BucketObject

_HEAD_BYTES = 64 * 2**10
_USER = re.compile(rb'"braze_id"\s*:\s*"[^"]+"')


class Opener(Protocol):
    """Opens objects; `files/bucket` has one."""

    def open(self, stored: BucketObject, *, end_bytes: int = 0) -> BinaryIO:
        """The object as a file, of which so many bytes at both ends are fetched at once."""


def twin(opener: Opener, leftover: BucketObject, others: Iterable[BucketObject]) -> BucketObject | None:
    """The object that begins with all that can be read of a truncated one, a user at least; None if there is none.

    Raises:
        ExportError: One of them cannot be read.
    """
    for other in others:
        with (
            suppress(DamagedFileError),
            opener.open(leftover, end_bytes=_HEAD_BYTES) as short,
            opener.open(other, end_bytes=_HEAD_BYTES) as long,
        ):
            if _is_beginning(_readable(short), _readable(long)):
                return other
    return None


def _is_beginning(short: Iterator[bytes], long: Iterator[bytes]) -> bool:
    """True if one begins with all bytes of the other, and with a user at least; read no further than they are equal."""
    start = left = b""
    for chunk in short:
        if len(start) < _HEAD_BYTES:
            start += chunk
        while len(left) < len(chunk):
            if not (more := next(long, b"")):
                return False
            left += more
            if not (left.startswith(chunk) or chunk.startswith(left)):
                return False
        if not left.startswith(chunk):
            return False
        left = left[len(chunk) :]
    return bool(_USER.search(start))


def _readable(file: BinaryIO) -> Iterator[bytes]:
    """The inflated bytes of an archive's files up to where it is damaged, or at its end."""
    magic = file.read(len(ZIP_MAGIC))
    file.seek(0)
    with suppress(*inflate.DAMAGE_ERRORS):
        if magic.startswith(GZIP_MAGIC):
            yield from inflate.gunzipped(inflate.chunks_to_end(file))
        while magic == ZIP_MAGIC:
            yield from _member(file)
            magic = _next_magic(file)


def _member(file: BinaryIO) -> Iterator[bytes]:
    """The content of the next file of a zip, found by its own header: the directory is at the end."""
    header = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    _, _, method, _, size, _, name_bytes, extra_bytes = header
    file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
    if method == zipfile.ZIP_DEFLATED:
        yield from inflate.deflated(file)
    elif method == zipfile.ZIP_STORED and size:
        yield from inflate.stored(file, size)
    else:
        raise struct.error("its length is not in its header")


def _next_magic(file: BinaryIO) -> bytes:
    """Skip the checksum and sizes that may follow a file's data; the magic number of what is next."""
    found = file.read(MAX_DESCRIPTOR_BYTES + len(ZIP_MAGIC))
    at = max(found.find(ZIP_MAGIC), 0)
    file.seek(at - len(found), os.SEEK_CUR)
    return found[at : at + len(ZIP_MAGIC)]
