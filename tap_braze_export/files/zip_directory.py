"""The directory of a zip: `zipfile` reads it; here every byte of the file must belong to a file that is listed."""

from __future__ import annotations

import os
import struct
import zipfile
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files.formats import EMPTY_ZIP_MAGIC, ZIP_MAGIC

LOCAL_HEADER = struct.Struct("<4s2xHH4x3LHH")
_END = struct.Struct("<4s6xHL4xH")
_ZIP64_END = struct.Struct("<4s28x2Q8x4s16x")
"""The zip64 record and the magic number of its locator, which stand before the other record."""
_ZIP64_MAGICS = (b"PK\x06\x06", b"PK\x06\x07")
_CUT_AT = 2**32
"""Older writers, Ruby's rubyzip before version 3 among them, drop what is above 32 bits: no zip64, and no error."""
_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800
_MAX_COMMENT_BYTES = _MAX_EXTRA_BYTES = 0xFFFF
MAX_DESCRIPTOR_BYTES = 24
"""Checksum and sizes may stand once more after the data; no file of a zip is so short."""
_MAX_FILES = 100_000
"""Braze puts up to 5,000 users into each file. The tap keeps a directory in memory, and more would cost too much."""
_MAX_DIRECTORY_BYTES = 16 * 2**20
_APART = "the files of the zip overlap, or there are bytes before or between them"
_CUT = "it is over 4 GiB without zip64 numbers, and its files cannot be told apart: set output_format to gzip"
_TOO_MANY_FILES = f"the zip holds more than {_MAX_FILES:,} files, or very long names"


class _WrongDirectoryError(Exception):
    """The directory states something that is not so."""


class Entry(NamedTuple):
    """A file of a zip: the CRC and number of its bytes, and where they are from its local header to the next one."""

    name: str
    is_encrypted: bool
    method: int
    crc: int
    size: int
    inflated: int
    offset: int
    end: int


def entries(file: BinaryIO, object_name: str) -> list[Entry]:
    """Read the directory of a zip, which must describe every byte of the file.

    Raises:
        DamagedFileError: It is truncated, or something that it states differs from what is there.
    """
    try:
        return _placed(*_read(file))
    except _WrongDirectoryError as error:
        problem = str(error)
    except (zipfile.BadZipFile, NotImplementedError, OverflowError, ValueError, struct.error):
        problem = "the zip's directory is truncated or wrong"
    raise DamagedFileError(f"{object_name} is damaged: {problem}")


def seek_data(file: BinaryIO, entry: Entry) -> None:
    """Go to the data of an entry, past its local header.

    Raises:
        EOFError: The header is not there, or more follows the data than its checksum and sizes once more.
    """
    file.seek(entry.offset)
    header = file.read(LOCAL_HEADER.size)
    if not header.startswith(ZIP_MAGIC) or len(header) < LOCAL_HEADER.size:
        raise EOFError("its header is not where the zip's directory says")
    *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    start = entry.offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    if not 0 <= entry.end - (start + entry.size) <= MAX_DESCRIPTOR_BYTES:
        raise EOFError("bytes after its end that the zip's directory does not name")
    file.seek(start)


def _read(file: BinaryIO) -> tuple[list[zipfile.ZipInfo], int, bool]:
    """The entries of the directory, its position, and if it is beyond 4 GiB without the numbers of zip64."""
    count, is_zip64 = _stated_count(file)
    with zipfile.ZipFile(file) as opened:
        listed, position = opened.infolist(), opened.start_dir
    if count != (len(listed) if is_zip64 else len(listed) % 2**16):
        raise _WrongDirectoryError(f"the zip says that it holds {count:,} files, but lists {len(listed):,}")
    if len(listed) > _MAX_FILES:
        raise _WrongDirectoryError(_TOO_MANY_FILES)
    return listed, position, position >= _CUT_AT and not is_zip64


def _stated_count(file: BinaryIO) -> tuple[int, bool]:
    """The number of files that the records at the end state, and if the wide record of zip64 is one of them."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _ZIP64_END.size - _END.size - _MAX_COMMENT_BYTES))
    tail = file.read()
    at = tail.rfind(EMPTY_ZIP_MAGIC)
    _, count, directory_bytes, comment_bytes = _END.unpack_from(tail, max(at, 0))
    end = at + _END.size + comment_bytes
    if at < 0 or end > len(tail):
        raise zipfile.BadZipFile
    if end < len(tail):
        raise _WrongDirectoryError("bytes after the end of the zip")
    is_zip64 = False
    if at >= _ZIP64_END.size:
        magic, wide_count, wide_directory_bytes, locator_magic = _ZIP64_END.unpack_from(tail, at - _ZIP64_END.size)
        if is_zip64 := (magic, locator_magic) == _ZIP64_MAGICS:
            count, directory_bytes = wide_count, wide_directory_bytes
    if count > _MAX_FILES or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise _WrongDirectoryError(_TOO_MANY_FILES)
    return count, is_zip64


def _placed(listed: list[zipfile.ZipInfo], directory_offset: int, is_cut: bool) -> list[Entry]:  # noqa: FBT001
    """Tell each entry where the next one begins; they must follow each other from the first byte of the file."""
    at = 0
    for info in listed if is_cut else ():  # of each position the last 32 bits are stated, and they ascend
        info.header_offset = at + (info.header_offset - at) % _CUT_AT
        at = info.header_offset + LOCAL_HEADER.size + info.compress_size
    in_place = sorted(listed, key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in in_place), directory_offset]
    ends: dict[int, int] = {}
    for info, (start, end) in zip(in_place, pairwise(starts), strict=True):
        name_bytes = len(info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_FLAG else "cp437"))
        rest = end - (start + LOCAL_HEADER.size + name_bytes + info.compress_size)
        if starts[0] or not 0 <= rest <= _MAX_EXTRA_BYTES + MAX_DESCRIPTOR_BYTES:
            raise _WrongDirectoryError(_CUT if is_cut else _APART)
        ends[start] = end
    return [
        Entry(
            info.orig_filename,
            bool(info.flag_bits & _ENCRYPTED_FLAG),
            info.compress_type,
            info.CRC,
            info.compress_size,
            info.file_size,
            info.header_offset,
            ends[info.header_offset],
        )
        for info in listed
    ]
