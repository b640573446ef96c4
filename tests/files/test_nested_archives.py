"""Archives inside archives: their lines are those inside, or they are refused; they are never taken for lines."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive
from tests.support.archives import lines_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

MIB = 2**20
REFUSED = ", which is not read there: only zip and gzip are, and one of them in another at most"


def zipped(*contents: bytes, method: int = zipfile.ZIP_DEFLATED, extra: str = "") -> bytes:
    """A zip with a member for each content, and one more that is nobody's file."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as opened:
        if extra:
            opened.writestr(extra, b"")
        for number, content in enumerate(contents):
            opened.writestr(f"member{number}", content)
    return written.getvalue()


def stored(*contents: bytes) -> bytes:
    return zipped(*contents, method=zipfile.ZIP_STORED)


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, zipped, stored]


def tarred(content: bytes) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as opened:
        entry = tarfile.TarInfo("users.txt")
        entry.size = len(content)
        opened.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def names(content: bytes) -> list[str]:
    return [member.name for member in archive.members(io.BytesIO(content), "a")]


def refusal(content: bytes) -> str:
    """The line that an object is refused with."""
    with pytest.raises(DamagedFileError) as caught:
        lines_of(content)
    return str(caught.value)


@pytest.mark.parametrize("inner", [gzip.compress, zipped, stored])
@pytest.mark.parametrize("outer", [gzip.compress, zipped, stored])
def test_file_that_is_compressed_once_more_gives_the_lines_inside(
    outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]
) -> None:
    """It stays one file of the export, under the name that it has in the outer archive."""
    content = outer(inner(b'{"braze_id":"1"}\n{"braze_id":"2"}'))

    assert lines_of(content) == [b'{"braze_id":"1"}', b'{"braze_id":"2"}']
    assert names(content) == (["a"] if outer is gzip.compress else ["a!0-member0"])


def test_members_of_an_inner_zip_follow_one_another() -> None:
    """A line never crosses from one into the next; a byte order mark is no part of a line; empty members are none."""
    inner = zipped(b"\xef\xbb\xbf1\n2", b"", b"\xef\xbb\xbf3\r\n", b"4", extra="__MACOSX/._1")

    assert lines_of(zipped(inner, b"5\n")) == [b"1", b"2", b"3", b"4", b"5"]
    assert lines_of(gzip.compress(zipped())) == []


def test_inner_gzip_may_be_of_several_members_and_padded() -> None:
    assert lines_of(zipped(gzip.compress(b"1\n2") + gzip.compress(b"3\n") + bytes(512))) == [b"1", b"23"]


@pytest.mark.parametrize("layers", [3, 4])
def test_deeper_nesting_is_refused(layers: int) -> None:
    for seed in range(20):
        content = b"1\n"
        for _ in range(layers):
            content = random.Random(seed).choice(PACKERS)(content)
        assert refusal(content).endswith(REFUSED)


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (bz2.compress, "compressed with bzip2"),
        (lzma.compress, "compressed with xz"),
        (tarred, "a tar archive"),
        (lambda _: b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    ],
)
def test_other_archives_inside_are_refused_by_name(pack: Callable[[bytes], bytes], name: str) -> None:
    """A `tar.gz` of users would else be read, but for the user beside the tar's header."""
    said = f"is {name}{REFUSED}"

    assert refusal(gzip.compress(pack(b'{"braze_id":"1"}\n' * 100))) == f"a {said}"
    assert refusal(zipped(b"1\n", pack(b"1\n"))) == f"a!1-member1 {said}"
    assert refusal(zipped(zipped(pack(b"1\n")))) == f"a!0-member0!0-member0 {said}"


@pytest.mark.parametrize("inner", [gzip.compress, zipped, stored])
@pytest.mark.parametrize("outer", [gzip.compress, stored])
def test_damage_inside_is_noticed(outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]) -> None:
    """Flipped bits and cuts end as a damaged file, or change no line."""
    sound = inner(b"1\n2\n3\n" * 9)
    lines, refused = {b"1", b"2", b"3"}, 0
    for bit in range(len(sound) * 8):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        if not content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
            continue  # no archive inside, as far as anybody can tell
        try:
            assert set(lines_of(outer(bytes(content)))) <= lines
        except DamagedFileError:
            refused += 1
    assert refused > len(sound)
    for cut in range(1, len(sound) - 4):
        assert "damaged" in refusal(outer(sound[:-cut]))


def test_outer_checksum_counts_as_well() -> None:
    content = bytearray(stored(gzip.compress(b"1\n", mtime=1)))
    content[content.index(b"\x1f\x8b") + 4] ^= 1  # the time in the inner gzip's header: nothing that it checks

    assert refusal(bytes(content)) == "a!0-member0 is damaged: wrong checksum"


@pytest.mark.parametrize("inner", [gzip.compress, zipped])
def test_line_over_64_mib_inside_is_refused(inner: Callable[[bytes], bytes]) -> None:
    said = refusal(zipped(inner(b"1\n" + b"x" * (64 * MIB + 1))))

    assert said == "a!0-member0, line 2 is longer than 64 MiB"


@pytest.mark.parametrize("inner", [gzip.compress, zipped])
def test_memory_stays_far_below_the_inflated_size(inner: Callable[[bytes], bytes]) -> None:
    content = zipped(inner((b"x" * (MIB - 1) + b"\n") * 100))
    (member,) = archive.members(io.BytesIO(content), "a")

    tracemalloc.start()
    try:
        count = sum(len(block.lines) for block in archive.blocks(io.BytesIO(content), member, limit=8 * MIB))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 100
    assert peak < 32 * MIB


def test_inner_zip_that_is_far_longer_than_its_member_is_refused() -> None:
    """It would fill the disk."""
    bomb = zlib.compressobj(wbits=31)
    content = bomb.compress(b"PK\x03\x04")
    content += b"".join(bomb.compress(bytes(MIB)) for _ in range(70)) + bomb.flush()

    assert refusal(content) == "a is a zip inside an archive, and far longer than that: it is refused"


def test_big_inner_zip_needs_no_memory_and_leaves_nothing(tmp_path: Path) -> None:
    """It is kept in the private folder without a name, for the time that it is read."""
    line = random.Random(7).randbytes(MIB).replace(b"\n", b"-").replace(b"\r", b"-")
    content = gzip.compress(stored(*[line] * 70), compresslevel=0)
    (member,) = archive.members(io.BytesIO(content), "a")

    blocks = archive.blocks(io.BytesIO(content), member, limit=8 * MIB, spool_folder=tmp_path)
    tracemalloc.start()
    try:
        found = sum(line == read_line for block in blocks for read_line in block.lines)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found == 70
    assert peak < 2 * 64 * MIB + 32 * MIB
    assert [*tmp_path.iterdir()] == []


def test_inner_zip_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(stored(bytes(70 * MIB)), compresslevel=0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))

    assert refusal(content) == "a cannot be read: No such file or directory"


LINES = st.lists(
    st.binary(max_size=30).map(lambda line: b"{" + line.replace(b"\n", b"").replace(b"\r", b"")), max_size=5
)
FILES = LINES.map(lambda lines: (lines, b"".join(line + b"\n" for line in lines)))
PACKED = st.recursive(
    FILES,
    lambda inner: st.one_of(
        inner.map(lambda item: (item[0], gzip.compress(item[1]))),
        st.lists(inner, max_size=3).map(
            lambda items: ([line for item in items for line in item[0]], zipped(*(item[1] for item in items)))
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[*HealthCheck], database=None)
@given(PACKED)
def test_any_nesting_gives_its_lines_or_is_refused(packed: tuple[list[bytes], bytes]) -> None:
    lines, content = packed
    try:
        assert lines_of(content) == lines
    except DamagedFileError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the other end is as good
