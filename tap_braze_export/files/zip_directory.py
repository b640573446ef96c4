"""The directory of a zip: every count, size and position that it states is compared with the others and with the file.

Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import os
import struct
from itertools import islice, pairwise
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from tap_braze_export.errors import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOCAL_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x05\x06"
STORED, DEFLATED = 0, 8

_ENTRY_MAGIC, _DESCRIPTOR_MAGIC = b"PK\x01\x02", b"PK\x07\x08"
_ZIP64_END_MAGIC, _LOCATOR_MAGIC = b"PK\x06\x06", b"PK\x06\x07"
LOCAL_HEADER = struct.Struct("<4s2xHH4x3LHH")
_ENTRY = struct.Struct("<4s4xHH4x3L4H6xL")
_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ4x2L4Q")
_ZIP64_END_LEAD_BYTES = 12
"""Bytes of that record that its own size leaves out."""
_LOCATOR = struct.Struct("<4sLQL")
_EXTRA_HEAD = struct.Struct("<2H")
_ZIP64_EXTRA = 1
_CUT_AT = 2**32
"""Older writers, Ruby's rubyzip before version 3 among them, drop what is above 32 bits: no zip64, and no error."""
_COUNT_CUT_AT = 2**16
_IN_ZIP64_END = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2
_IN_EXTRA = 0xFFFFFFFF
"""Values that refer to the zip64 form of the same number."""
_ENCRYPTED_FLAG, _DESCRIPTOR_FLAG, _UTF8_FLAG = 0x1, 0x8, 0x800
_MAX_COMMENT_BYTES = _MAX_EXTRA_BYTES = 0xFFFF
_MAX_DESCRIPTOR_BYTES = 24
_MAX_FILES = 100_000
"""Braze puts up to 5,000 users into each file. The tap keeps a directory in memory, and more would cost too much."""
_MAX_DIRECTORY_BYTES = 32 * 2**20


class Entry(NamedTuple):
    """An entry of the directory of a zip, for one of its files.

    Attributes:
        name: Its name as bytes.
        flags: Its flags.
        method: How it is compressed.
        crc: CRC-32 of its content.
        size: Compressed bytes.
        inflated: Bytes of its content.
        offset: Position of its local header.
        end: Position where the next file begins, after the last one the directory.
        is_cut: True if the zip states only the last 32 bits of its numbers, which may have more.
    """

    name: bytes
    flags: int
    method: int
    crc: int
    size: int
    inflated: int
    offset: int
    end: int
    is_cut: bool = False

    @property
    def stated_sizes(self) -> tuple[int, int]:
        """Compressed bytes and bytes of its content, as the zip states them."""
        return (self.size % _CUT_AT, self.inflated % _CUT_AT) if self.is_cut else (self.size, self.inflated)

    def has_length(self, inflated: int) -> bool:
        """True if the zip states so many bytes of content."""
        return inflated == self.inflated or (self.is_cut and inflated % _CUT_AT == self.inflated % _CUT_AT)

    def longer_by(self, more: int) -> Entry:
        """The entry with so many more bytes of data."""
        return self._replace(size=self.size + more, inflated=self.inflated + (more if self.method == STORED else 0))

    @property
    def shown_name(self) -> str:
        """Its name as text."""
        return self.name.decode("utf-8" if self.flags & _UTF8_FLAG else "cp437", "replace")

    @property
    def is_encrypted(self) -> bool:
        """True if its content needs a password."""
        return bool(self.flags & _ENCRYPTED_FLAG)

    @property
    def is_folder(self) -> bool:
        """True if it is the name of a folder, without content."""
        return self.name.endswith(b"/") and not self.inflated


class _Directory(NamedTuple):
    """Where the directory of a zip is: number of its entries, bytes, position; and if all that is in zip64 form."""

    entries: int
    size: int
    offset: int
    is_zip64: bool

    def has_entries(self, count: int) -> bool:
        """True if the zip states so many entries."""
        return count == self.entries or (not self.is_zip64 and count % _COUNT_CUT_AT == self.entries)


_WRONG = "the zip's directory is truncated or wrong"
_TOO_MANY_FILES = f"the zip holds more than {_MAX_FILES:,} files, or very long names"


class _WrongDirectoryError(ValueError):
    """The directory is wrong; the message may say how."""

    def __init__(self, problem: str = _WRONG) -> None:
        super().__init__(problem)


def entries(file: BinaryIO, object_name: str) -> list[Entry]:
    """Read the directory of a zip, which must describe every byte of the file.

    Raises:
        DamagedFileError: It is truncated, or something that it states differs from something else.
    """
    try:
        directory = _directory(file)
        file.seek(directory.offset)
        content = _read(file, directory.size)
        listed = _listed(content, directory)
        if directory.offset >= _CUT_AT and not directory.is_zip64:
            listed = _uncut(file, listed, directory.offset)
        return _placed(listed, directory.offset)
    except _WrongDirectoryError as error:
        problem = str(error)
    except struct.error:
        problem = _WRONG
    raise DamagedFileError(f"{object_name} is damaged: {problem}")


def seek_data(file: BinaryIO, entry: Entry) -> int:
    """Go to the data of an entry, past its local header, which must say the same as the directory.

    Returns:
        The number of bytes between the data and the next entry.

    Raises:
        EOFError: It says something else.
        struct.error: It is truncated.
    """
    file.seek(entry.offset)
    name_bytes: int
    extra_bytes: int
    magic, flags, method, crc, size, inflated, name_bytes, extra_bytes = LOCAL_HEADER.unpack(
        _read(file, LOCAL_HEADER.size)
    )
    if magic != LOCAL_MAGIC:
        raise EOFError("its header is not where the zip's directory says")
    name, extra = _read(file, name_bytes), _read(file, extra_bytes)
    inflated, size = _widened((inflated, size), extra)
    later = {0} if (flags | entry.flags) & _DESCRIPTOR_FLAG else set()  # sizes may follow the data
    if (
        (name, method) != (entry.name, entry.method)
        or crc not in {entry.crc, *later}
        or size not in {entry.stated_sizes[0], *later}
        or inflated not in {entry.stated_sizes[1], *later}
    ):
        raise EOFError("its header differs from the zip's directory")
    return entry.end - (entry.offset + LOCAL_HEADER.size + name_bytes + extra_bytes + entry.size)


def check_descriptor(file: BinaryIO, entry: Entry, size: int) -> None:
    """Read what follows the data of an entry: nothing, or its checksum and sizes once more.

    Raises:
        EOFError: It is something else.
    """
    if not size:
        return
    numbers = (entry.crc, *entry.stated_sizes)
    forms = [struct.pack("<LQQ", *numbers)]
    if max(numbers) <= _IN_EXTRA:
        forms.append(struct.pack("<LLL", *numbers))
    found = file.read(size) if 0 < size <= _MAX_DESCRIPTOR_BYTES else b""
    if found not in {magic + form for magic in (b"", _DESCRIPTOR_MAGIC) for form in forms}:
        raise EOFError("bytes after its end that the zip's directory does not name")


def _directory(file: BinaryIO) -> _Directory:
    """Find the directory by the record at the end of the file, and by the zip64 one if there is one."""
    end_at = _end_position(file)
    file.seek(end_at)
    _, *numbers, _ = _END.unpack(_read(file, _END.size))
    directory_end = end_at
    is_zip64 = False
    if end_at >= _LOCATOR.size:
        file.seek(end_at - _LOCATOR.size)
        locator = _read(file, _LOCATOR.size)
        if locator.startswith(_LOCATOR_MAGIC):
            directory_end, wide = _zip64_numbers(file, locator, end_at - _LOCATOR.size)
            for number, other, unset in zip(numbers, wide, _IN_ZIP64_END, strict=True):
                if number not in {other, unset}:
                    raise _WrongDirectoryError("the two records at the end of the zip differ")
            numbers, is_zip64 = wide, True
    disk, directory_disk, on_disk, count, size, offset = numbers
    if not is_zip64 and directory_end >= _CUT_AT and (offset + size) % _CUT_AT == directory_end % _CUT_AT:
        offset = directory_end - size
    if disk or directory_disk or on_disk != count or offset + size != directory_end:
        raise _WrongDirectoryError
    if count > _MAX_FILES or size > _MAX_DIRECTORY_BYTES:
        raise _WrongDirectoryError(_TOO_MANY_FILES)
    return _Directory(count, size, offset, is_zip64)


def _end_position(file: BinaryIO) -> int:
    """Find the record with which the zip ends, before a comment that ends where the file does."""
    length = file.seek(0, os.SEEK_END)
    followed = False
    for size in (_END.size, _END.size + _MAX_COMMENT_BYTES):
        start = max(0, length - size)
        file.seek(start)
        tail = _read(file, length - start)
        at = tail.rfind(END_MAGIC)
        while at >= 0:
            if len(tail) - at >= _END.size:
                *_, comment_bytes = _END.unpack_from(tail, at)
                end = at + _END.size + comment_bytes
                if end == len(tail):
                    return start + at
                followed = followed or end < len(tail)
            at = tail.rfind(END_MAGIC, 0, at)
    raise _WrongDirectoryError("bytes after the end of the zip" if followed else _WRONG)


def _zip64_numbers(file: BinaryIO, locator: bytes, locator_at: int) -> tuple[int, list[int]]:
    """Read the zip64 end record; returns its position, and the numbers that the other end record has, too."""
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    if disk or disks > 1 or offset + _ZIP64_END.size > locator_at:
        raise _WrongDirectoryError
    file.seek(offset)
    magic, size, *numbers = _ZIP64_END.unpack(_read(file, _ZIP64_END.size))
    if magic != _ZIP64_END_MAGIC or offset + _ZIP64_END_LEAD_BYTES + size != locator_at:
        raise _WrongDirectoryError
    return offset, numbers


def _listed(content: bytes, directory: _Directory) -> list[Entry]:
    """The entries of a directory, as many as the zip says."""
    listed = [*islice(_entries(content), _MAX_FILES + 1)]
    if len(listed) > _MAX_FILES:
        raise _WrongDirectoryError(_TOO_MANY_FILES)
    if not directory.has_entries(len(listed)):
        raise _WrongDirectoryError(f"the zip says that it holds {directory.entries:,} files, but lists {len(listed):,}")
    return listed


def _entries(content: bytes) -> Iterator[Entry]:
    """Yield the entries of a directory, which must fill it; `end` is still missing."""
    at = 0
    while at < len(content):
        magic, flags, method, crc, size, inflated, name_bytes, extra_bytes, comment_bytes, disk, offset = (
            _ENTRY.unpack_from(content, at)
        )
        name_at = at + _ENTRY.size
        extra_at = name_at + name_bytes
        at = extra_at + extra_bytes + comment_bytes
        if magic != _ENTRY_MAGIC or at > len(content) or disk not in {0, _IN_ZIP64_END[0]}:
            raise _WrongDirectoryError
        extra = content[extra_at : extra_at + extra_bytes]
        inflated, size, offset = _widened((inflated, size, offset), extra)
        yield Entry(content[name_at:extra_at], flags, method, crc, size, inflated, offset, end=0)


def _widened(numbers: Sequence[int], extra: bytes) -> list[int]:
    """Replace numbers that do not fit 32 bits by those of the zip64 extra field."""
    if _IN_EXTRA not in numbers:
        return [*numbers]
    at, wide = 0, b""
    while at + _EXTRA_HEAD.size <= len(extra):
        kind, size = _EXTRA_HEAD.unpack_from(extra, at)
        at += _EXTRA_HEAD.size
        if kind == _ZIP64_EXTRA:
            wide = extra[at : at + size]
            break
        at += size
    given = iter(value for (value,) in struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8]))
    return [next(given, number) if number == _IN_EXTRA else number for number in numbers]


def _uncut(file: BinaryIO, listed: Sequence[Entry], directory_offset: int) -> list[Entry]:
    """Restore positions and sizes of which a zip over 4 GiB states the last 32 bits only.

    Its files follow each other in the order of its directory, so the next position is the first one with these bits.
    Only if that leaves gibibytes over, a file is itself longer: then the headers are looked for.
    """
    placed: list[Entry] = []
    at = 0
    for entry in listed:
        at += (entry.offset - at) % _CUT_AT
        placed.append(entry._replace(offset=at, is_cut=True))
        at += LOCAL_HEADER.size + len(entry.name) + entry.size
    left = (directory_offset - at) // _CUT_AT * _CUT_AT
    if left < 0:
        raise _WrongDirectoryError(
            "it is over 4 GiB without zip64 numbers, and lists its files in another order than they stand in: set"
            " output_format to gzip"
        )
    for index in range(len(placed) - 1 if left else 0):
        following, longer = placed[index + 1], 0
        while longer < left and not _begins(file, following.offset + longer, following):
            longer += _CUT_AT
        if longer:
            placed[index] = placed[index].longer_by(longer)
            placed[index + 1 :] = [entry._replace(offset=entry.offset + longer) for entry in placed[index + 1 :]]
            left -= longer
    if left and placed:
        placed[-1] = placed[-1].longer_by(left)
    return placed


def _begins(file: BinaryIO, position: int, entry: Entry) -> bool:
    """True if the header of a file of the zip is at this position."""
    file.seek(position)
    head = file.read(LOCAL_HEADER.size + len(entry.name))
    return head.startswith(LOCAL_MAGIC) and head[LOCAL_HEADER.size :] == entry.name


def _placed(listed: Sequence[Entry], directory_offset: int) -> list[Entry]:
    """Tell each entry where the next one begins; they must follow each other from the first byte of the file."""
    by_place = sorted(range(len(listed)), key=lambda index: listed[index].offset)
    starts = [*(listed[index].offset for index in by_place), directory_offset]
    if starts[0] != 0:
        raise _WrongDirectoryError("bytes before the first file of the zip")
    placed = [*listed]
    for index, (start, end) in zip(by_place, pairwise(starts), strict=True):
        entry = listed[index]
        rest = end - (start + LOCAL_HEADER.size + len(entry.name) + entry.size)
        if not 0 <= rest <= _MAX_EXTRA_BYTES + _MAX_DESCRIPTOR_BYTES:
            raise _WrongDirectoryError("the files of the zip overlap, or there are bytes between them")
        placed[index] = entry._replace(end=end)
    return placed


def _read(file: BinaryIO, size: int) -> bytes:
    """Read exactly so many bytes."""
    content = file.read(size)
    if len(content) != size:
        raise struct.error("it is truncated")
    return content
