"""Memory and time of hostile archives, each read by a process of its own: `python -m benchmarks.hostile`.

Time is told for a byte of what is read (inflated where the case is about lines, else as delivered), as a multiple of
such a byte's of ordinary users in the same run.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import tap_braze_export.tap  # noqa: F401 - the memory that a run has before it reads anything
from benchmarks.export import EVERY_FIELD
from tap_braze_export.errors import ExportError
from tap_braze_export.files import archive
from tap_braze_export.rows.reader import Reader
from tap_braze_export.sandbox.selection import Selection as Requested
from tap_braze_export.sandbox.users import Population
from tap_braze_export.schema.selection import Selection
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.workers.file_reader import read_blocks
from tap_braze_export.workers.worker import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MIB = 2**20
ORDINARY = "ordinary users"


@dataclass(frozen=True)
class Hostile:
    """An archive to read.

    Attributes:
        name: Its row in the table.
        pieces: Its content, before it is compressed.
        archive: The archive itself, where it is no gzip stream of `pieces`.
    """

    name: str
    pieces: Callable[[], Iterable[bytes]] = tuple
    archive: Callable[[], bytes] | None = None

    def write(self, path: Path) -> int:
        """Write the archive; returns the bytes that its reader has to read."""
        if self.archive:
            content = self.archive()
            path.write_bytes(content)
            return len(content)
        size = 0
        deflater = zlib.compressobj(1, wbits=31)
        with path.open("wb") as file:
            for piece in self.pieces():
                size += len(piece)
                file.write(deflater.compress(piece))
            file.write(deflater.flush())
        return size


def _user(member: bytes, head: bytes, item: bytes, count: int, tail: bytes) -> Iterator[bytes]:
    """A user whose only member holds an item again and again."""
    yield b'{"braze_id":"u","' + member + b'":' + head
    left = count
    while left:
        now = min(left, MIB)
        left -= now
        yield (item * now) if left else (item * now).removesuffix(b",")
    yield tail + b"}\n"


def _list(member: bytes, item: bytes, size: int) -> Callable[[], Iterator[bytes]]:
    return lambda: _user(member, b"[", item + b",", size // (len(item) + 1), b"]")


def _text(item: str, size: int, end: str = "") -> Callable[[], Iterator[bytes]]:
    raw = item.encode()
    return lambda: _user(b"first_name", b'"', raw, size // len(raw), end.encode() + b'"')


def _lines(line: bytes, size: int) -> Callable[[], Iterator[bytes]]:
    many = line * max(1, MIB // len(line))
    return lambda: repeat(many, size // len(many))


def _ordinary() -> Iterator[bytes]:
    population, every = Population(1), Requested.of(EVERY_FIELD)
    for index in range(13_000):
        yield population.line(index, every) + b"\n"


def _short_users(member: bytes, item: bytes, items: int, size: int) -> Callable[[], Iterator[bytes]]:
    """Different users of some items each, as many as make the size."""
    tail = b'","' + member + b'":[' + b",".join([item] * items) + b"]}\n"
    return lambda: (b'{"braze_id":"u%d' % number + tail for number in range(size // (len(tail) + 20)))


def _zip_of_empty_members() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for number in range(60_000):
            opened.writestr(str(number), b"")
    return written.getvalue()


SIZE = 60 * MIB
CASES = [
    Hostile(ORDINARY, _ordinary),
    Hostile("one line, text", _text("x", SIZE)),
    Hostile("one line, text and one emoji", _text("x", SIZE, "😀")),
    Hostile("one line, NUL escapes", _text("\\u0000", SIZE)),
    Hostile("one line, lone surrogates", _text("\\ud800", SIZE)),
    Hostile("one line, escaped quotes", _text('\\"', SIZE)),
    Hostile("one line, lists in an attribute", _list(b"custom_attributes", b"[]", SIZE)),
    Hostile("one line, numbers in an unknown member", _list(b"new", b"1", SIZE)),
    Hostile("one line, numbers as coordinates", _list(b"last_coordinates", b"1", SIZE)),
    Hostile("one line, empty devices", _list(b"devices", b"{}", 8 * MIB)),
    Hostile("one line, nulls as devices", _list(b"devices", b"null", SIZE)),
    Hostile("one line, empty campaigns", _list(b"campaigns_received", b"{}", SIZE)),
    Hostile("15 MiB lines, text", lambda: chain.from_iterable(_text("x", 15 * MIB)() for _ in range(8))),
    Hostile("15 MiB lines, emojis", lambda: chain.from_iterable(_text("x", 15 * MIB, "😀")() for _ in range(8))),
    Hostile("15 MiB lines, NUL escapes", lambda: chain.from_iterable(_text("\\u0000", 15 * MIB)() for _ in range(4))),
    Hostile("5 MiB lines, NUL escapes", lambda: chain.from_iterable(_text("\\u0000", 5 * MIB)() for _ in range(4))),
    Hostile(
        "lines of 490,000 coordinates",
        lambda: chain.from_iterable(repeat([*_list(b"last_coordinates", b"12", 3 * 490_000)()], 20)),
    ),
    Hostile(
        "lines of 490,000 odd coordinates",
        lambda: chain.from_iterable(repeat([*_list(b"last_coordinates", b'"a"', 4 * 490_000)()], 20)),
    ),
    Hostile("lines of 490,000 lists", lambda: chain.from_iterable(repeat([*_list(b"new", b"[]", 3 * 490_000)()], 20))),
    Hostile(
        "lines of 29,000 objects", lambda: chain.from_iterable(repeat([*_list(b"new", b'{"ab":1}', 9 * 29_000)()], 60))
    ),
    Hostile("users of 29,000 empty devices", _short_users(b"devices", b"{}", 29_000, SIZE)),
    Hostile("users of 1,000 empty devices", _short_users(b"devices", b"{}", 1_000, SIZE)),
    Hostile("users of 20 empty devices", _short_users(b"devices", b"{}", 20, SIZE)),
    Hostile("users of 1,000 odd devices", _short_users(b"devices", b'{"a":1}', 1_000, SIZE)),
    Hostile("users of 1,000 odd apps", _short_users(b"apps", b'{"a":1}', 1_000, SIZE)),
    Hostile("users of 1,000 odd campaigns", _short_users(b"campaigns_received", b'{"a":1}', 1_000, SIZE)),
    Hostile("users without members", lambda: (b'{"braze_id":"%d"}\n' % number for number in range(SIZE // 22))),
    Hostile("blank lines", _lines(b"\n", 200 * MIB)),
    Hostile("blank lines of Windows", _lines(b"\r\n", 200 * MIB)),
    Hostile("lines of a blank", _lines(b" \n", 200 * MIB)),
    Hostile("lines of {}", _lines(b"{}\n", 30 * MIB)),
    Hostile("lines of {} and blank ones", _lines(b"{}\n\n", 30 * MIB)),
    Hostile("lines without a braze_id", _lines(b'{"braze_i":"1234"}\n', 60 * MIB)),
    Hostile("lines cut off", _lines(b'{"braze_id":"1234","first_name":"a\n', 60 * MIB)),
    Hostile("one user again and again", _lines(b'{"braze_id":"1"}\n', 60 * MIB)),
    Hostile("a million empty gzip members", archive=lambda: gzip.compress(b"") * 1_000_000),
    Hostile("a million gzip members of a byte", archive=lambda: gzip.compress(b"x") * 1_000_000),
    Hostile("60,000 empty zip members", archive=_zip_of_empty_members),
]


@dataclass
class Read:
    """How an archive was read."""

    seconds: float = 0
    peak_mib: float = 0
    rows: int = 0
    rejected: int = 0
    refused: str = ""
    size: int = 0
    delivered: int = 0


def _blocks(path: Path, member: archive.Member) -> Iterator[archive.Block]:
    with path.open("rb") as file:
        yield from archive.blocks(file, member)


def _read(path: Path) -> Read:
    keep_freed_memory()
    found = Read()
    selections = {table.stream: Selection.of(table, defaultdict(lambda: True), table.json_schema) for table in TABLES}
    reader = Reader(selections, exported_at="2026-11-20T03:00:00.000000Z", segment_id="s")
    began = time.process_time()
    try:
        with path.open("rb") as file:
            members = archive.members(file, "a")
        with Path("/dev/null").open("wb") as nowhere:
            for member in members:
                for read in read_blocks(reader, _blocks(path, member), member.name):
                    found.rejected += len(read.rejected)
                    for rows in read.rows.values():
                        found.rows += rows.count
                        nowhere.writelines(rows.pieces())
    except ExportError as error:
        found.refused = str(error)
    found.seconds = time.process_time() - began
    found.peak_mib = getrusage(RUSAGE_SELF).ru_maxrss / 1024
    return found


def _measured(case: Hostile, folder: Path) -> Read:
    path = folder / "archive"
    size = case.write(path)
    command = [sys.executable, "-m", "benchmarks.hostile", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=900, check=True, cwd=Path(__file__).parents[1])
    return Read(**(json.loads(done.stdout) | {"size": size, "delivered": path.stat().st_size}))


def _main(wanted: str) -> None:
    ordinary = Read()
    sys.stdout.write(
        f"{'case':42} {'MB':>6} {'s':>6} {'ns/byte':>8} {'times':>6} {'MiB':>5} {'rows':>9} {'rejected':>9}\n"
    )
    for case in CASES:
        if case.name == ORDINARY or wanted in case.name:
            with TemporaryDirectory(prefix="bench-") as folder:
                found = _measured(case, Path(folder))
            ordinary = found if case.name == ORDINARY else ordinary
            a_byte = found.seconds / found.size * 1e9
            an_ordinary_byte = ordinary.seconds / (ordinary.delivered if case.archive else ordinary.size) * 1e9
            sys.stdout.write(
                f"{case.name:42} {found.size / 1e6:6.1f} {found.seconds:6.2f} {a_byte:8.1f}"
                f" {a_byte / an_ordinary_byte:6.1f} {found.peak_mib:5.0f} {found.rows:9,} {found.rejected:9,}"
                f"{'  refused' if found.refused else ''}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if Path(given).is_file():
        sys.stdout.write(json.dumps(vars(_read(Path(given)))))
    else:
        _main(given)
