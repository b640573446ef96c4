"""Delivered objects: which files they hold, their lines, and what is refused."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from isal import isal_zlib

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive, inflate
from tap_braze_export.files.archive import BLOCK_BYTES, Block, Member
from tap_braze_export.files.zip_directory import Entry
from tests.support.archives import Pipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20


@pytest.fixture(autouse=True, params=[isal_zlib, zlib], ids=["isal", "zlib"])
def _inflating(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test once with either library."""
    monkeypatch.setattr(inflate, "fast_zlib", request.param)


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these entries."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def gzipped(path: Path, *contents: bytes) -> Path:
    """A file of one gzip member for each content."""
    path.write_bytes(b"".join(gzip.compress(content) for content in contents))
    return path


def members(path: Path, name: str) -> list[Member]:
    """The files in an object of this name."""
    with path.open("rb") as file:
        return archive.members(file, name)


def blocks(path: Path, member: Member, *, limit: int = BLOCK_BYTES) -> Iterator[Block]:
    """The lines of one of its files."""
    with path.open("rb") as file:
        yield from archive.blocks(file, member, limit=limit)


def lines(path: Path, name: str = "object") -> list[bytes]:
    """All lines in an object."""
    return [line for member in members(path, name) for block in blocks(path, member) for line in block.lines]


def noise(size: int) -> bytes:
    """Bytes that do not compress, without line ends."""
    return random.Random(7).randbytes(size).replace(b"\n", b"-").replace(b"\r", b"-")


def test_zip_members_are_named_by_object_index_and_name(tmp_path: Path) -> None:
    """The index counts all entries, also those that are skipped; any extension is read."""
    path = zipped(
        tmp_path / "a.zip",
        {
            "folder/": b"",
            "folder/1.txt": b"one\n",
            "__MACOSX/folder/._1.txt": b"x",
            "2": b"two\n",
            "3.json": b"",
        },
    )

    assert [member.name for member in members(path, "a.zip")] == [
        "a.zip!1-folder/1.txt",
        "a.zip!3-2",
        "a.zip!4-3.json",
    ]
    assert lines(path) == [b"one", b"two"]


def test_two_members_of_one_name_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.txt", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("users.txt", b"second")

    assert [member.name for member in members(path, "a")] == ["a!0-users.txt", "a!1-users.txt"]
    assert lines(path) == [b"first", b"second"]


def test_a_member_without_a_name_is_read(tmp_path: Path) -> None:
    """Nothing forbids an empty name; it is no folder."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open(zipfile.ZipInfo(""), "w") as written:
        written.write(b"one")

    assert [member.name for member in members(path, "a.zip")] == ["a.zip!0-"]
    assert lines(path) == [b"one"]


def test_size_of_a_member_is_its_compressed_bytes(tmp_path: Path) -> None:
    content = b"0" * 100_000
    (member,) = members(zipped(tmp_path / "a.zip", {"a": content}), "a")
    path = gzipped(tmp_path / "a.gz", content)
    (stream,) = members(path, "a")

    assert 0 < member.size < 1000
    assert stream.size == path.stat().st_size


def test_magic_bytes_decide_not_the_name(tmp_path: Path) -> None:
    assert lines(zipped(tmp_path / "a.gz", {"a": b"zip"})) == [b"zip"]
    assert lines(gzipped(tmp_path / "a.zip", b"gzip")) == [b"gzip"]


def test_gzip_stream_is_one_file_also_of_several_gzip_members(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a.gz", b"one\ntw", b"", b"o\nthree\n")

    assert [member.name for member in members(path, "a.gz")] == ["a.gz"]
    assert lines(path) == [b"one", b"two", b"three"]


def test_gzip_may_be_padded_with_zeros(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a.gz", b"one\n")
    path.write_bytes(path.read_bytes() + bytes(512))

    assert lines(path) == [b"one"]


def test_empty_zip_has_no_members(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {})

    assert path.stat().st_size == 22
    assert members(path, "a.zip") == []


def test_empty_member_is_a_file_without_lines(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"empty": b""})

    assert len(members(path, "a")) == 1
    assert lines(path) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip64_and_data_descriptors_are_read(tmp_path: Path, method: int) -> None:
    """A zip written to a stream that cannot be sought has its sizes after the data."""
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(name.encode() * 3 + b"\n")
    path = tmp_path / "a.zip"
    path.write_bytes(pipe.written)

    assert lines(path) == [b"aaa", b"bbb"]


def test_blank_lines_are_kept_and_line_ends_are_not(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a", b'\xef\xbb\xbf{"a":1}\r\n\n\r\n{"b":2}')
    (member,) = members(path, "a")

    assert list(blocks(path, member)) == [Block(1, [b'{"a":1}', b"", b"", b'{"b":2}'])]


def test_blocks_hold_at_most_the_limit_and_number_their_lines(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a", b"1234\n1234\n1234\nlonger than the limit\n12\n")
    (member,) = members(path, "a")

    assert list(blocks(path, member, limit=10)) == [
        Block(1, [b"1234", b"1234"]),
        Block(3, [b"1234"]),
        Block(4, [b"longer than the limit"]),
        Block(5, [b"12"]),
    ]


def test_lines_hold_across_chunks(tmp_path: Path) -> None:
    """Lines that begin in one megabyte of the file and end in another come whole, whatever the blocks."""
    rows = [noise(random.Random(seed).randrange(400_000)) for seed in range(30)]
    path = zipped(tmp_path / "a", {"a": b"\r\n".join(rows)})
    (member,) = members(path, "a")

    found = list(blocks(path, member, limit=MIB))

    assert [line for block in found for line in block.lines] == rows
    assert all(sum(len(line) + 1 for line in block.lines) <= MIB for block in found)
    assert [block.first_line for block in found] == [
        1 + sum(len(before.lines) for before in found[:index]) for index in range(len(found))
    ]


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("write", [lambda path, content: zipped(path, {"a": content}), gzipped])
def test_output_that_fills_whole_chunks_is_complete(tmp_path: Path, write: object, size: int) -> None:
    path = write(tmp_path / "a", b"x" * size)  # type: ignore[operator]

    assert [len(line) for line in lines(path)] == [size]


@pytest.mark.slow
def test_memory_stays_far_below_the_inflated_size(tmp_path: Path) -> None:
    """A member of 200 MiB, most of it one block ratio of a zip bomb, is read in a few blocks' memory."""
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a", "w") as a,
    ):
        for _ in range(200):
            a.write(b"x" * (MIB - 1) + b"\n")
    (member,) = members(path, "a")

    tracemalloc.start()
    try:
        count = sum(len(block.lines) for block in blocks(path, member, limit=8 * MIB))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 200
    assert peak < 32 * MIB


@pytest.mark.slow
def test_line_over_64_mib_is_refused_with_its_number(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"users.txt": b"{}\n{}\n" + b"x" * (64 * MIB + 1) + b"\n"})
    (member,) = members(path, "a.zip")

    with pytest.raises(DamagedFileError, match=r"^a\.zip!0-users\.txt, line 3 is longer than 64 MiB$"):
        list(blocks(path, member))


def damaged(path: Path, name: str = "a.zip") -> str:
    """The message of the error that reading an object ends in."""
    with pytest.raises(DamagedFileError) as caught:
        lines(path, name)
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"braze_id":"1"}\n', b"PK", b"<html>", b"BZh91AY&SY"])
def test_anything_but_zip_and_gzip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)

    assert damaged(path) == "a.zip is neither zip nor gzip"


@pytest.mark.parametrize("cut", [1, 10, 100, 5_000, 40_000])
def test_truncated_zip_is_refused(tmp_path: Path, cut: int) -> None:
    path = zipped(tmp_path / "a", {"a": noise(50_000)})
    path.write_bytes(path.read_bytes()[:-cut])

    assert damaged(path) == "a.zip is damaged: the zip's directory is truncated or wrong"


@pytest.mark.parametrize("cut", [1, 8, 9, 5_000, 49_990])
def test_truncated_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    path = gzipped(tmp_path / "a", noise(50_000))
    path.write_bytes(path.read_bytes()[:-cut])

    assert damaged(path, "a.gz") == "a.gz is damaged: it is truncated"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_wrong_checksum_of_a_zip_member_is_refused_before_its_last_block(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a", {"good": b"1\n", "bad": noise(50_000)}, method)
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    good, bad = members(path, "a.zip")

    assert list(blocks(path, good)) == [Block(1, [b"1"])]
    with pytest.raises(DamagedFileError, match=r"^a\.zip!1-bad is damaged: "):
        next(blocks(path, bad))


def test_wrong_checksum_of_gzip_is_refused(tmp_path: Path) -> None:
    path = gzipped(tmp_path / "a", noise(50_000))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)

    assert damaged(path, "a.gz").startswith("a.gz is damaged: Error -")


@pytest.mark.parametrize("write", [lambda path, content: zipped(path, {"a": content}), gzipped])
def test_trailing_garbage_is_refused(tmp_path: Path, write: object) -> None:
    path = write(tmp_path / "a", b"1\n")  # type: ignore[operator]
    path.write_bytes(path.read_bytes() + b"garbage")

    assert damaged(path).startswith("a.zip is damaged: ")


JUNK = {
    **dict.fromkeys(
        [b"junk", b"\n", b"\r\n", b'{"braze_id":"1"}\n', b"PK\3\4", b"\x1fj", b"\x1f\x8b\7", b"j" * 200_000],
        "after its end stand bytes that are no gzip, so something was added to it",
    ),
    b"\0junk": "bytes after the zeros that follow its end",
    bytes(70_000) + gzip.compress(b""): "bytes after the zeros that follow its end",
    b"\x1f": "it is truncated",
    b"\x1f\x8b": "it is truncated",
    b"\x1f\x8b\x08": "it is truncated",
    gzip.compress(b"2\n")[:-1]: "it is truncated",
    bytes(1): "",
    bytes(70_000): "",
    gzip.compress(b"") + bytes(3): "",
}


@pytest.mark.parametrize("piece", [1, 2, 3, 2**16, 2**20])
def test_what_follows_a_gzip_stream_is_told_from_a_cut(piece: int) -> None:
    """However the bytes come: a person who reads "truncated" looks for a broken transfer."""
    for junk, problem in JUNK.items():
        content = gzip.compress(b"1\n") + junk
        step = max(piece, len(content) // 1_000)
        found, said = b"", ""
        try:
            for chunk in inflate.gunzipped(content[at : at + step] for at in range(0, len(content), step)):
                found += chunk
        except inflate.DAMAGE_ERRORS as error:
            said = str(error)
        assert found[:2] == b"1\n", (junk[:9], step)
        if len(junk) < 4 and step < 4 and problem:  # the first bytes of the next stream come alone: too few to tell
            assert said, (junk, step)
        else:
            assert said == problem, (junk[:9], step)


def test_garbage_after_a_zip_with_a_comment_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"a": b"1\n"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"a comment"
    assert lines(path) == [b"1"]

    path.write_bytes(path.read_bytes() + b"garbage")
    assert damaged(path) == "a.zip is damaged: bytes after the end of the zip"


def rewritten(path: Path, offset: int, form: str, value: int, *, local_offset: int | None = None) -> Path:
    """The same zip with one number of its only central directory entry changed, and of its local header."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + offset, value)
    if local_offset is not None:
        struct.pack_into(form, content, local_offset, value)
    path.write_bytes(content)
    return path


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = rewritten(zipped(tmp_path / "a", {"a": b"1\n"}), 8, "<H", 1)

    assert damaged(path) == "a.zip!0-a is encrypted"


def test_other_compression_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a", {"a": b"1\n"}, zipfile.ZIP_BZIP2)

    assert damaged(path) == "a.zip!0-a is compressed in an unsupported way (method 12)"


@pytest.mark.parametrize("declared", [0, 1, 3, 0xFFFFFFF0])
def test_declared_length_must_be_true_and_is_not_allocated(tmp_path: Path, declared: int) -> None:
    path = rewritten(zipped(tmp_path / "a", {"a": b"1\n"}), 24, "<L", declared, local_offset=22)

    tracemalloc.start()
    try:
        assert damaged(path) == "a.zip!0-a is damaged: it has not the length that the zip declares"
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", [0, 3, 5, 0xFFFFFFF0])
def test_declared_compressed_length_must_be_true(tmp_path: Path, declared: int) -> None:
    path = rewritten(zipped(tmp_path / "a", {"a": b"1\n"}), 20, "<L", declared)

    assert damaged(path).startswith(("a.zip!0-a is damaged: ", "a.zip is damaged: "))


def test_header_must_be_where_the_directory_says(tmp_path: Path) -> None:
    path = rewritten(zipped(tmp_path / "a", {"a": b"1\n"}), 42, "<L", 7)

    assert damaged(path) == "a.zip is damaged: the files of the zip overlap, or there are bytes before or between them"


@pytest.mark.slow
def test_any_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    """No damage ends in another exception, and none in other or fewer lines."""
    path = zipped(tmp_path / "a", {"a": b"1\n2\n", "b": b"3\n" * 50})
    sound_lines = lines(path)
    sound = path.read_bytes()
    refused = 0
    for bit in range(len(sound) * 8):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            assert lines(path) == sound_lines
        except DamagedFileError:
            refused += 1
    assert refused > len(sound)


def test_names_inside_an_archive_are_shown_on_one_line_and_never_used(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"../../evil\n\x1b[31m\u2028.txt": b"1\n", "/etc/passwd": b"2\n"})

    assert [member.name for member in members(path, "a")] == [
        "a!0-../../evil\ufffd\ufffd[31m\ufffd.txt",
        "a!1-/etc/passwd",
    ]
    assert lines(path) == [b"1", b"2"]
    assert [found.name for found in tmp_path.iterdir()] == ["a.zip"]


def test_deflate_data_after_the_end_is_refused(tmp_path: Path) -> None:
    """A member whose stream ends before its compressed length hides something."""
    path = tmp_path / "a"
    deflater = zlib.compressobj(wbits=-15)
    data = deflater.compress(b"1\n") + deflater.flush() + b"hidden"
    header = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, zlib.crc32(b"1\n"), len(data), 2, 1, 0)
    local = b"PK\x03\x04" + header + b"a" + data
    central = b"PK\x01\x02\x14\x00" + header + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + end)

    assert damaged(path) == "a.zip!0-a is damaged: bytes after the end of its data"


def test_member_past_the_end_of_its_object_is_refused() -> None:
    """The file may have changed since its directory was read."""
    member = Member("a!0-a", 2, Entry("a", is_encrypted=False, method=0, crc=0, size=2, inflated=2, offset=99, end=132))

    with pytest.raises(DamagedFileError, match=r"^a!0-a is damaged: its header is not where"):
        list(archive.blocks(io.BytesIO(b"PK"), member))
