"""Zips over 4 GiB by writers without zip64: what they state is cut to 32 bits, and yet they are read."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.slow

GIB = 2**30
STORED, DEFLATED = 0, 8
DESCRIPTOR = 0x8


class Part(NamedTuple):
    """A file of a zip. Its data ends in `gap` zero bytes, which take no disk: they are a hole in the file."""

    name: str
    content: bytes = b""
    gap: int = 0
    method: int = DEFLATED
    flags: int = 0

    @property
    def data(self) -> bytes:
        if self.method == STORED:
            return self.content
        deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflater.compress(self.content) + deflater.flush()


def padding(size: int, name: str = "__MACOSX/pad") -> Part:
    """A file of zeros below a folder that is not read."""
    return Part(name, gap=size, method=STORED)


def users(number: int, **more: int) -> Part:
    return Part(f"{number}.txt", b'{"braze_id":"%d"}\n' % number * 3, **more)


def write_cut(path: Path, parts: Sequence[Part], *, in_disorder: bool = False) -> None:
    """Write a zip as rubyzip before version 3 did: each number without what is above its 32 or 16 bits."""
    entries = []
    with path.open("wb") as file:
        for part in parts:
            data, name, at = part.data, part.name.encode(), file.tell()
            sizes = ((len(data) + part.gap) % 2**32, (len(part.content) + part.gap) % 2**32)
            numbers = (zlib.crc32(part.content), *sizes)
            head = struct.pack("<4H", 20, part.flags, part.method, 0)
            in_head = (0, 0, 0) if part.flags & DESCRIPTOR else numbers
            file.write(b"PK\3\4" + head + struct.pack("<H3L2H", 33, *in_head, len(name), 0) + name + data)
            file.seek(part.gap, 1)
            if part.flags & DESCRIPTOR:
                file.write(b"PK\7\x08" + struct.pack("<3L", *numbers))
            tail = struct.pack("<H3L5HLL", 33, *numbers, len(name), 0, 0, 0, 0, 0, at % 2**32) + name
            entries.append(b"PK\1\2\x14\0" + head + tail)
        directory, start = b"".join(reversed(entries) if in_disorder else entries), file.tell()
        counts = (0, 0, len(entries) % 2**16, len(entries) % 2**16)
        file.write(directory + b"PK\5\6" + struct.pack("<4H2LH", *counts, len(directory), start % 2**32, 0))


def ids_in(path: Path) -> dict[str, int]:
    """The number of lines in each file of a zip."""
    with path.open("rb") as file:
        return {
            member.name.partition("-")[2]: sum(len(block.lines) for block in archive.blocks(file, member))
            for member in archive.members(file, "a.zip")
        }


@pytest.mark.parametrize(
    "parts",
    [
        [users(0), padding(4 * GIB - 2), users(1)],
        [padding(4 * GIB - 2), users(0), users(1)],
        [users(0), padding(3 * GIB), users(1), padding(3 * GIB), users(2), padding(3 * GIB), users(3)],
        [users(0, flags=DESCRIPTOR), padding(4 * GIB - 2), users(1, flags=DESCRIPTOR)],
        [users(0), padding(4 * GIB - 1), users(1, method=STORED)],
        [users(0), padding(4 * GIB - 200), users(1), users(2)],
        [users(0), users(1), padding(4 * GIB - 2)],
    ],
    ids=["after", "before", "twelve-gib", "descriptors", "all-bits", "across", "directory"],
)
def test_files_beyond_four_gib_are_read(tmp_path: Path, parts: list[Part]) -> None:
    write_cut(path := tmp_path / "a.zip", parts)

    assert path.stat().st_size > 4 * GIB
    assert ids_in(path) == {part.name: 3 for part in parts if part.content}


def test_more_files_than_sixteen_bits_count_are_read(tmp_path: Path) -> None:
    """The count at the end says 4 of 65,540."""
    write_cut(path := tmp_path / "a.zip", [Part(f"{number}.txt", b"{}\n") for number in range(2**16 + 4)])

    with path.open("rb") as file:
        assert len(archive.members(file, "a.zip")) == 2**16 + 4


@pytest.mark.parametrize(
    ("spoilt", "problem"),
    [
        ("disorder", "it is over 4 GiB without zip64 numbers, and its files cannot be told apart"),
        ("long", "it is over 4 GiB without zip64 numbers, and its files cannot be told apart"),
        ("junk", "bytes after the end of the zip"),
        ("cut", "the zip's directory is truncated or wrong"),
    ],
)
def test_one_that_cannot_be_told_apart_says_so(tmp_path: Path, spoilt: str, problem: str) -> None:
    size = 4 * GIB + 1 if spoilt == "long" else 4 * GIB - 2
    write_cut(path := tmp_path / "a.zip", [users(0), padding(size), users(1)], in_disorder=spoilt == "disorder")
    with path.open("r+b") as file:
        length = file.seek(0, 2)
        if spoilt == "junk":
            file.write(b"junk")
        elif spoilt == "cut":
            file.truncate(length - 30)

    with pytest.raises(DamagedFileError) as caught:
        ids_in(path)
    assert str(caught.value).partition(": set output_format")[0] == f"a.zip is damaged: {problem}"


def test_a_wrong_byte_beyond_four_gib_is_noticed(tmp_path: Path) -> None:
    write_cut(path := tmp_path / "a.zip", [users(0), padding(4 * GIB - 2), users(1, method=STORED)])
    with path.open("r+b") as file:
        start = file.seek(-400, 2)
        tail = file.read()
        file.seek(start)
        file.write(tail.replace(b'"1"', b'"2"', 1))

    with pytest.raises(DamagedFileError, match=r"a\.zip!2-1\.txt is damaged: wrong checksum"):
        ids_in(path)
