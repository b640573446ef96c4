"""The files of JSON lines in a zip or gzip object, and their lines in blocks, within limits."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, BinaryIO, cast

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import inflate, zip_directory
from tap_braze_export.files.formats import EMPTY_ZIP_MAGIC, GZIP_MAGIC, HEAD_BYTES, ZIP_MAGIC, archive_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tap_braze_export.files.zip_directory import Entry

BLOCK_BYTES = 64 * 2**20
_MAX_LINE_BYTES = 64 * 2**20
_MAX_BLOCK_LINES = 2**19
"""Each line costs memory beside its bytes."""
_LONG_BLANK_RUN = 1_000
"""So many blank lines in a row are in no block: they are passed over, but for their numbers."""
_FEW_LINES_A_CHUNK = 2**16
"""A chunk with more lines is looked through for blank ones: sixteen bytes a line are less than a user needs."""
_BOM = b"\xef\xbb\xbf"
_ZIP_MAGICS = (ZIP_MAGIC, EMPTY_ZIP_MAGIC)
_MAX_SHOWN_NAME_CHARS = 255
_MAX_INNER_ZIP_RATIO = 32
"""An inner zip may be this many times longer than the member that holds it: its own members are compressed mostly."""


@dataclass(frozen=True)
class Member:
    """One file of JSON lines in a delivered object, with its compressed bytes and, in a zip, its entry.

    Its name is `<object name>!<index>-<member's name>` in a zip, `<object name>` for gzip. Never a path.
    """

    name: str
    size: int
    entry: Entry | None = None


@dataclass(frozen=True)
class Block:
    """Consecutive lines of one member, without line ends; `first_line` is the number of the first, from 1."""

    first_line: int
    lines: list[bytes]


def members(file: BinaryIO, object_name: str) -> list[Member]:
    """The files in a delivered object, in the order of the archive; reads only its beginning and its end.

    Raises:
        DamagedFileError: It is neither zip nor gzip, or damaged, encrypted, not compressed by deflate.
    """
    try:
        magic = file.read(4)
        if magic.startswith(GZIP_MAGIC):
            return [Member(object_name, file.seek(0, os.SEEK_END))]
        if magic not in _ZIP_MAGICS:
            raise DamagedFileError(f"{object_name} is neither zip nor gzip")
        entries = zip_directory.entries(file, object_name)
    except OSError as error:
        raise DamagedFileError(f"{object_name} cannot be read: {error.strerror}") from None
    return _members_of(entries, object_name)


def blocks(
    file: BinaryIO, member: Member, *, limit: int = BLOCK_BYTES, spool_folder: Path | None = None
) -> Iterator[Block]:
    """The lines of a member of an object, in blocks of at most `limit` inflated bytes; a longer line is its own block.

    Blank lines are kept as `b""`, so that line numbers hold, but long runs of them are between blocks. The last block
    comes only after the whole member was checked. A member that is itself a gzip stream or a zip gives the lines
    inside, member after member. A zip inside, whose directory is at its end, is kept in the private `spool_folder`, or
    that of temporary files, while it is read; a small one in memory.

    Raises:
        DamagedFileError: The member is truncated, its checksum is wrong, a line is longer than 64 MiB, or it holds
            archives in archives.
    """
    splitter = _LineSplitter(member.name, limit)
    try:
        for chunk in _content(file, member, spool_folder):
            yield from splitter.add(chunk)
    except inflate.DAMAGE_ERRORS as error:
        raise DamagedFileError(f"{member.name} is damaged: {error}") from None
    except OSError as error:
        raise DamagedFileError(f"{member.name} cannot be read: {error.strerror}") from None
    yield from splitter.end()


class _LineSplitter:
    """Cuts chunks into lines and gathers them into blocks."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._first = 1
        self._lines: list[bytes] = []
        self._bytes = 0
        self._has_carriage_returns = False
        self._tail = bytearray()

    def add(self, chunk: bytes) -> Iterator[Block]:
        """Add the next inflated bytes; yields the blocks that they fill."""
        self._has_carriage_returns = self._has_carriage_returns or b"\r" in chunk
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines:
            size = len(self._tail) + len(chunk) - len(rest)
            if self._tail:
                self._tail += lines[0]
                self._check_length()
                lines[0] = bytes(self._tail)
                self._tail.clear()
            if len(lines) > _FEW_LINES_A_CHUNK:
                yield from self._fill_without_blanks(lines)
            elif self._bytes + size <= self._limit and len(self._lines) + len(lines) <= _MAX_BLOCK_LINES:
                self._lines += lines
                self._bytes += size
            else:
                yield from self._fill(lines)
        self._tail += rest
        self._check_length()

    def end(self) -> Iterator[Block]:
        """Yield the last block; the last line may lack its line end."""
        if self._tail:
            yield from self._fill([bytes(self._tail)])
        if self._lines:
            yield self._block()

    def _fill_without_blanks(self, lines: list[bytes]) -> Iterator[Block]:
        for is_blank, several in groupby(lines, lambda line: not line.strip()):
            run = [*several]
            if not is_blank or len(run) < _LONG_BLANK_RUN:
                yield from self._fill(run)
                continue
            if self._lines:
                yield self._block()
            self._first += len(run)

    def _fill(self, lines: Iterable[bytes]) -> Iterator[Block]:
        for line in lines:
            size = len(line) + 1
            if self._lines and (self._bytes + size > self._limit or len(self._lines) >= _MAX_BLOCK_LINES):
                yield self._block()
            self._lines.append(line)
            self._bytes += size

    def _block(self) -> Block:
        lines = self._lines
        if self._has_carriage_returns:
            lines = [line.rstrip(b"\r") for line in lines]
        if self._first == 1:
            lines[0] = lines[0].removeprefix(_BOM)
        block = Block(self._first, lines)
        self._first += len(lines)
        self._lines, self._bytes = [], 0
        return block

    def _check_length(self) -> None:
        if len(self._tail) > _MAX_LINE_BYTES:
            number = self._first + len(self._lines)
            raise DamagedFileError(f"{self._name}, line {number} is longer than {_MAX_LINE_BYTES // 2**20} MiB")


def _members_of(entries: Iterable[Entry], object_name: str) -> list[Member]:
    """The members of a zip but for folders and what macOS adds."""
    return [
        _member(object_name, index, entry)
        for index, entry in enumerate(entries)
        if not (entry.name.endswith("/") and not entry.inflated) and "__MACOSX" not in entry.name.split("/")
    ]


def _member(object_name: str, index: int, entry: Entry) -> Member:
    shown = "".join(char if char.isprintable() else "\ufffd" for char in entry.name[:_MAX_SHOWN_NAME_CHARS])
    name = f"{object_name}!{index}-{shown}"
    if entry.is_encrypted:
        raise DamagedFileError(f"{name} is encrypted")
    if entry.method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DamagedFileError(f"{name} is compressed in an unsupported way (method {entry.method})")
    return Member(name, entry.size, entry)


def _inflated(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The inflated bytes of a member, in chunks of at most 1 MiB."""
    entry = member.entry
    if entry is None:
        yield from inflate.gunzipped(inflate.chunks_to_end(file))
        return
    zip_directory.seek_data(file, entry)
    crc = size = 0
    read = inflate.stored if entry.method == zipfile.ZIP_STORED else inflate.deflated
    for chunk in read(file, entry.size):
        crc = inflate.fast_zlib.crc32(chunk, crc)
        size += len(chunk)
        if size > entry.inflated:
            break
        yield chunk
    if size != entry.inflated:
        raise EOFError("it has not the length that the zip declares")
    if crc != entry.crc:
        raise EOFError("wrong checksum")


# Archives inside archives


def _content(file: BinaryIO, member: Member, spool_folder: Path | None) -> Iterator[bytes]:
    """The lines of a member in chunks; if it is compressed once more, the lines inside."""
    head, chunks = _peeked(_inflated(file, member))
    if head.startswith(GZIP_MAGIC):
        chunks = inflate.gunzipped(chunks)
    elif head.startswith(_ZIP_MAGICS):
        return _unzipped(chunks, member, spool_folder)
    return _flat(chunks, member.name)


def _peeked(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The beginning of a file, and all its chunks."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head, chain((head,), chunks)


def _flat(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The chunks of a file, which must be no archive."""
    head, chunks = _peeked(chunks)
    if found := archive_format(head):
        raise DamagedFileError(
            f"{name} is {found}, which is not read there: only zip and gzip are, and one of them in another at most"
        )
    return chunks


def _unzipped(chunks: Iterable[bytes], member: Member, spool_folder: Path | None) -> Iterator[bytes]:
    """The lines of all members of a zip inside an archive."""
    with tempfile.SpooledTemporaryFile(BLOCK_BYTES, dir=str(spool_folder) if spool_folder else None) as spooled:
        left = max(BLOCK_BYTES, member.size * _MAX_INNER_ZIP_RATIO)
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise DamagedFileError(
                    f"{member.name} is a zip inside an archive, and far longer than that: it is refused"
                )
            spooled.write(chunk)
        file = cast("BinaryIO", spooled)
        for inner in _members_of(zip_directory.entries(file, member.name), member.name):
            end = b"\n"
            for number, chunk in enumerate(_flat(_inflated(file, inner), inner.name)):
                yield chunk if number else chunk.removeprefix(_BOM)
                end = chunk[-1:] or end
            if end != b"\n":
                yield b"\n"  # else the next member's first line would be joined to this one's last
