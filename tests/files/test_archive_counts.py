"""All that an archive states of itself is compared with what it holds: it never gives fewer lines in silence."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tap_braze_export.errors import DamagedFileError
from tests.support.archives import Pipe, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINES = [b"%d" % number for number in range(9)]
CONTENTS = [b"0\n1\n2\n", b"3\n4\n5\n", b"6\n7\n8\n"]
LOCAL, CENTRAL, END, ZIP64_END, LOCATOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "LOCAL": {"crc": (14, "<L"), "size": (18, "<L"), "inflated": (22, "<L"), "name": (26, "<H"), "extra": (28, "<H")},
    "CENTRAL": {
        "crc": (16, "<L"),
        "size": (20, "<L"),
        "inflated": (24, "<L"),
        "name": (28, "<H"),
        "extra": (30, "<H"),
        "comment": (32, "<H"),
        "disk": (34, "<H"),
        "offset": (42, "<L"),
    },
    "END": {
        "disk": (4, "<H"),
        "directory's disk": (6, "<H"),
        "entries on this disk": (8, "<H"),
        "entries": (10, "<H"),
        "size": (12, "<L"),
        "offset": (16, "<L"),
        "comment": (20, "<H"),
    },
    "ZIP64_END": {
        "own size": (4, "<Q"),
        "disk": (16, "<L"),
        "directory's disk": (20, "<L"),
        "entries on this disk": (24, "<Q"),
        "entries": (32, "<Q"),
        "size": (40, "<Q"),
        "offset": (48, "<Q"),
    },
    "LOCATOR": {"disk": (4, "<L"), "offset": (8, "<Q"), "disks": (16, "<L")},
}
"""Where each record of a zip states what, by the zip format."""


def zipped(method: int, *, zip64: bool = False, streamed: bool = False) -> bytes:
    written = Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as opened:
        for number, content in enumerate(CONTENTS):
            with opened.open(f"{number}.txt", "w", force_zip64=zip64) as member:
                member.write(content)
    return bytes(written.written if isinstance(written, Pipe) else written.getvalue())


def with_zip64_end(content: bytes, *, unset: bool) -> bytes:
    """The zip with a zip64 end record; in the other one its numbers stand, too, or refer to it."""
    at = content.index(END)
    _, _, _, on_disk, entries, size, offset, _ = struct.unpack("<4s4H2LH", content[at:])
    wide = struct.pack("<4sQ2H2L4Q", ZIP64_END, 44, 45, 45, 0, 0, on_disk, entries, size, offset)
    locator = struct.pack("<4sLQL", LOCATOR, 0, at, 1)
    end = struct.pack("<4s4H2LH", END, 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0) if unset else content[at:]
    return content[:at] + wide + locator + end


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
ZIPS = {
    "stored": zipped(STORED),
    "deflated": zipped(DEFLATED),
    "zip64 sizes": zipped(DEFLATED, zip64=True),
    "streamed": zipped(DEFLATED, streamed=True),
    "streamed, zip64 sizes": zipped(STORED, zip64=True, streamed=True),
    "zip64 end": with_zip64_end(zipped(DEFLATED), unset=False),
    "zip64 end alone": with_zip64_end(zipped(STORED), unset=True),
}
GZIPS = {
    "gzip": gzip.compress(b"".join(CONTENTS), mtime=0),
    "gzip of three members": b"".join(gzip.compress(content, mtime=0) for content in CONTENTS),
    "padded gzip": gzip.compress(b"".join(CONTENTS), mtime=0) + bytes(32),
}
ARCHIVES = ZIPS | GZIPS


def lines_or_refusal(content: bytes) -> list[bytes]:
    """The lines; all of them if the archive is refused."""
    try:
        return lines_of(content)
    except DamagedFileError as error:
        assert "\n" not in str(error)  # noqa: PT017 - the other end is as good
        return LINES


def lines_of_whole_gzip(content: bytes) -> list[bytes]:
    """The lines of gzip members that are whole, checksums included, for the standard library; else all."""
    try:
        return gzip.decompress(content).splitlines() or LINES
    except (OSError, EOFError, zlib.error):
        return LINES


def refusal(content: bytes) -> str:
    with pytest.raises(DamagedFileError) as caught:
        lines_of(content)
    return str(caught.value)


def stated(content: bytes) -> Iterator[tuple[str, int, str]]:
    """Each number that a zip states: its name, position and form."""
    magics = {"LOCAL": LOCAL, "CENTRAL": CENTRAL, "END": END, "ZIP64_END": ZIP64_END, "LOCATOR": LOCATOR}
    for record, magic in magics.items():
        at = content.find(magic)
        while at >= 0:
            for name, (offset, form) in FIELDS[record].items():
                yield f"{record} {name}", at + offset, form
            at = content.find(magic, at + 1)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_sound_archives_are_read(kind: str) -> None:
    assert lines_of(ARCHIVES[kind]) == LINES


DECISIVE = {
    *(f"CENTRAL {name}" for name in ("crc", "size", "inflated", "offset")),
    *(f"END {name}" for name in ("entries", "size", "offset", "comment")),
    *(f"ZIP64_END {name}" for name in ("entries", "size", "offset")),
    *(f"LOCAL {name}" for name in ("name", "extra")),
}
"""Numbers on which lines depend: the other ones repeat them, count disks, or tell where a name ends."""


@pytest.mark.parametrize("kind", ZIPS)
def test_every_stated_number_must_be_true(kind: str) -> None:
    """Each one changed a little or much, alone: refused, or it is one that changes nothing and all lines are read."""
    content = ZIPS[kind]
    for name, at, form in stated(content):
        (true,) = struct.unpack_from(form, content, at)
        largest = 256 ** struct.calcsize(form) - 1
        for value in {true - 1, true + 1, 0, 1, 2, largest - 1, largest} - {true}:
            if 0 <= value <= largest:
                changed = bytearray(content)
                struct.pack_into(form, changed, at, value)
                if name in DECISIVE and not ("zip64 end" in kind and name.startswith("END ")):
                    refusal(bytes(changed))
                else:
                    assert lines_or_refusal(bytes(changed)) == LINES, (name, value)


@given(st.sampled_from([*ARCHIVES]), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
def test_changed_bytes_never_give_fewer_lines(kind: str, data: st.DataObject) -> None:
    """Any bytes replaced by any others, more or fewer; but of gzip members a whole one can be missed by nobody."""
    content = ARCHIVES[kind]
    at = data.draw(st.integers(0, len(content)))
    replaced = content[:at] + data.draw(st.binary(max_size=8)) + content[at + data.draw(st.integers(0, 40)) :]

    assert lines_or_refusal(replaced) in (LINES, lines_of_whole_gzip(replaced))


@given(st.binary(max_size=200), st.sampled_from([LOCAL, END, b"\x1f\x8b\x08", b""]))
@example(b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18), LOCAL)
@settings(max_examples=120, deadline=None)
def test_any_bytes_are_lines_or_a_damaged_file(content: bytes, magic: bytes) -> None:
    lines_or_refusal(magic + content)


def test_directory_that_leaves_a_file_out_is_refused() -> None:
    """Also one whose numbers all fit: the bytes of that file are in the archive."""
    for kind, left_out, counts in product(
        ["stored", "deflated", "streamed", "zip64 sizes"], [0, 1, 2], ["kept", "changed"]
    ):
        content = ZIPS[kind]
        starts = [at for at in range(len(content)) if content.startswith((CENTRAL, END), at)]
        entries = [content[start:end] for start, end in pairwise(starts)]
        del entries[left_out]
        directory = b"".join(entries)
        count = 3 if counts == "kept" else 2
        end = struct.pack("<4s4H2LH", END, 0, 0, count, count, len(directory), starts[0], 0)

        said = refusal(content[: starts[0]] + directory + end)

        if counts == "kept":
            assert said == "a is damaged: the zip says that it holds 3 files, but lists 2", (kind, left_out, counts)
        else:
            assert said.startswith("a!") or "before or between them" in said, (kind, left_out)


def test_two_zips_one_after_the_other_are_refused() -> None:
    """The second one alone would be read."""
    assert (
        refusal(ZIPS["stored"] * 2)
        == "a is damaged: the files of the zip overlap, or there are bytes before or between them"
    )


def test_two_entries_for_one_file_are_refused() -> None:
    """Bombs are made so: many entries that share one content."""
    content = ZIPS["stored"]
    at = content.index(CENTRAL)
    size = content.index(CENTRAL, at + 1) - at
    end = struct.pack("<4s4H2LH", END, 0, 0, 4, 4, len(content) - 22 - at + size, at, 0)

    said = refusal(content[:at] + content[at : at + size] + content[at:-22] + end)

    assert said == "a is damaged: the files of the zip overlap, or there are bytes before or between them"


def test_zip_of_too_many_files_is_refused_before_they_are_listed() -> None:
    """Their names would need more memory than all else."""
    content = with_zip64_end(ZIPS["stored"], unset=True)
    changed = bytearray(content)
    for offset, form in (FIELDS["ZIP64_END"][name] for name in ("entries", "entries on this disk")):
        struct.pack_into(form, changed, content.index(ZIP64_END) + offset, 100_001)

    assert refusal(bytes(changed)) == "a is damaged: the zip holds more than 100,000 files, or very long names"


def test_folder_with_content_is_a_file() -> None:
    """Only its name says that it is a folder: nothing is left out."""
    content = ZIPS["stored"].replace(b"1.txt", b"1.tx/")

    assert lines_of(content) == LINES


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content + b"junk", "a is damaged: "),
        (lambda content: content[:-4] + b"\x01\x00\x00\x00", "a is damaged: "),
        (lambda content: content[:-8] + bytes(4) + content[-4:], "a is damaged: "),
        (lambda content: content + content[:9], "a is damaged: it is truncated"),
        (lambda content: content + bytes(9) + content, "a is damaged: bytes after the zeros that follow its end"),
    ],
    ids=["junk", "length", "checksum", "half a member", "hole"],
)
@pytest.mark.parametrize("kind", ["gzip", "gzip of three members"])
def test_end_of_gzip_must_be_true(kind: str, change: Callable[[bytes], bytes], problem: str) -> None:
    assert refusal(change(GZIPS[kind])).startswith(problem)
