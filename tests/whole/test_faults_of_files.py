"""The fault matrix, archives and lines: a whole run over HTTP gives the rows that are there, or says what is not."""

from __future__ import annotations

import gzip
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import GOOD_GZIP, GOOD_ZIP, LINES, Trial, delivers, first_download, night_row, row, zipped
from tests.support.night import NIGHT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.faults import Exchange

pytestmark = pytest.mark.slow

ARCHIVE = "Archive"
LINE_DOOR = "Lines"
SAME = "the same rows"
LINE = "fetched once more, then one line; the next run gives the same rows"
KEPT = "the other rows; the line is kept, counted and named by its number, and the run fails at its end"
FIRST, SECOND = b"\n".join(LINES[:3]), b"\n".join(LINES[3:])


def changed(content: bytes, at: int, value: bytes) -> bytes:
    """The content with other bytes at a position, which counts from the end if it is negative."""
    at %= len(content)
    return content[:at] + value + content[at + len(value) :]


def in_both_headers(content: bytes, at: int, value: bytes) -> bytes:
    """A zip whose first member has another value in its own header, at a position, and in the directory."""
    return changed(changed(content, at, value), content.index(b"PK\x01\x02") + at + 2, value)


def doubled() -> bytes:
    """A zip with two members of one name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped(FIRST, SECOND, names=["users.txt", "users.txt"])


def directory_of_one() -> bytes:
    """A zip whose directory lists one member, and whose end record counts two."""
    second = GOOD_ZIP.index(b"PK\x01\x02", GOOD_ZIP.index(b"PK\x01\x02") + 4)
    end = GOOD_ZIP.index(b"PK\x05\x06")
    size = second - GOOD_ZIP.index(b"PK\x01\x02")
    return changed(GOOD_ZIP[:second] + GOOD_ZIP[end:], -10, struct.pack("<I", size))


def bomb() -> bytes:
    """A zip member that declares six lines and inflates to far more."""
    content = zipped(FIRST + b"\n" + SECOND + bytes(50_000_000))
    return in_both_headers(content, 22, struct.pack("<I", len(FIRST) + len(SECOND) + 1))


def huge_line() -> bytes:
    """A zip with a line of more than 64 MiB."""
    return zipped(FIRST, b'{"braze_id":"' + b"x" * 2**26 + b'"}')


@pytest.mark.parametrize(
    "content",
    [
        row(ARCHIVE, "gzip in place of zip", SAME, GOOD_GZIP),
        night_row(
            ARCHIVE,
            "gzip of several members, and padded",
            SAME,
            gzip.compress(FIRST) + gzip.compress(b"\n" + SECOND) + bytes(9),
        ),
        night_row(ARCHIVE, "zip without compression", SAME, zipped(FIRST, SECOND, method=zipfile.ZIP_STORED)),
        night_row(ARCHIVE, "zip inside a zip", SAME, zipped(GOOD_ZIP)),
        night_row(ARCHIVE, "gzip inside a zip", SAME, zipped(gzip.compress(FIRST), SECOND)),
        row(ARCHIVE, "zip inside gzip", SAME, gzip.compress(GOOD_ZIP)),
        night_row(ARCHIVE, "zero-length members", SAME, zipped(b"", FIRST, b"", SECOND, b"")),
        row(ARCHIVE, "two members of one name", SAME, doubled()),
        row(
            ARCHIVE,
            "names of members that are paths",
            "the same rows; no file outside of spool_dir",
            zipped(FIRST, SECOND, names=["../../../etc/passwd", "/tmp/planted\r\n\x1b[31m"]),
        ),
        night_row(
            ARCHIVE,
            "directories and what macOS adds",
            SAME,
            zipped(b"", FIRST, b"{", SECOND, names=["a/", "a/1.txt", "__MACOSX/._1.txt", "a/2"]),
        ),
    ],
)
def test_archive_that_is_read(tmp_path: Path, content: bytes) -> None:
    """However it is packed."""
    with Trial(tmp_path, delivers(content)) as trial:
        trial.delivers()
    assert {path.name for path in tmp_path.iterdir()} == {"spool"}


@pytest.mark.parametrize(
    "content",
    [
        night_row(ARCHIVE, "zip cut off within a member", LINE, GOOD_ZIP[:90]),
        row(ARCHIVE, "zip cut off before its directory", LINE, GOOD_ZIP[: GOOD_ZIP.index(b"PK\x01\x02")]),
        night_row(ARCHIVE, "zip cut off within its end record", LINE, GOOD_ZIP[:-5]),
        night_row(ARCHIVE, "zip with bytes after its end", LINE, GOOD_ZIP + b"x"),
        night_row(
            ARCHIVE, "zip whose directory lists fewer members than its end record counts", LINE, directory_of_one()
        ),
        night_row(
            ARCHIVE,
            "zip whose end record counts fewer members than its directory lists",
            LINE,
            changed(GOOD_ZIP, -14, b"\1\0\1\0"),
        ),
        night_row(
            ARCHIVE, "zip with a flipped bit in the data", LINE, changed(GOOD_ZIP, 70, bytes([GOOD_ZIP[70] ^ 4]))
        ),
        row(ARCHIVE, "zip with a wrong checksum", LINE, in_both_headers(GOOD_ZIP, 14, b"abcd")),
        night_row(ARCHIVE, "zip with an encrypted member", LINE, in_both_headers(GOOD_ZIP, 6, b"\1\0")),
        night_row(ARCHIVE, "zip of another compression", LINE, zipped(FIRST, SECOND, method=zipfile.ZIP_BZIP2)),
        row(ARCHIVE, "zip member that is longer than declared (a bomb of 50 MB)", LINE, bomb),
        night_row(ARCHIVE, "zip in a zip in a zip", LINE, zipped(zipped(GOOD_ZIP))),
        night_row(ARCHIVE, "tar, bzip2, xz or zstd inside the zip", LINE, zipped(b"BZh91AY&SY" + FIRST)),
        row(ARCHIVE, "gzip cut off", LINE, GOOD_GZIP[:-9]),
        night_row(ARCHIVE, "gzip without its length", LINE, GOOD_GZIP[:-4]),
        night_row(ARCHIVE, "gzip with trailing junk", LINE, GOOD_GZIP + b"junk"),
        night_row(ARCHIVE, "gzip with a wrong checksum", LINE, changed(GOOD_GZIP, -8, b"abcd")),
        night_row(ARCHIVE, "gzip with a wrong length", LINE, changed(GOOD_GZIP, -4, b"abcd")),
        night_row(ARCHIVE, "a line of more than 64 MiB", LINE, huge_line),
    ],
)
def test_archive_that_is_refused(tmp_path: Path, content: bytes | Callable[[], bytes]) -> None:
    """No user is lost in silence. Big ones are made when they are needed."""
    with Trial(tmp_path, delivers(content if isinstance(content, bytes) else content())) as trial:
        failed = trial.recovers(".zip")
        downloads = [request for request in trial.requests if ".zip" in request.path]
    assert len(downloads) == 3
    assert "planted" not in failed.error


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
@pytest.mark.fault(ARCHIVE, "another byte at any place, once", SAME)
def test_archive_that_is_damaged_once(tmp_path: Path, output_format: str) -> None:
    """A byte of each 15th part in its turn, by day of some; what is fetched again is good."""
    for part in range(0, 15, 1 if NIGHT else 6):

        def damage(exchange: Exchange, part: int = part) -> None:
            at = len(exchange.body) * part // 15
            exchange.body = changed(exchange.body, at, bytes([exchange.body[at] ^ 0x55]))

        with Trial(tmp_path / str(part), first_download(damage), output_format=output_format) as trial:
            trial.delivers()


@pytest.mark.parametrize(
    "content",
    [
        row(
            LINE_DOOR,
            "byte order mark, CRLF, blank lines, no last line end",
            SAME,
            b"\xef\xbb\xbf" + b"\r\n\r\n".join(LINES),
        ),
        night_row(
            LINE_DOOR, "blanks and tabs around the object", SAME, b"\n".join(b" \t" + line + b" \t" for line in LINES)
        ),
        night_row(LINE_DOOR, "a user twice in a file", SAME, b"\n".join([LINES[2], *LINES])),
        row(
            LINE_DOOR,
            "duplicate keys in an object",
            "the same rows: the later member wins",
            b"\n".join([b'{"first_name":"Another",' + line[1:] for line in LINES]),
        ),
        night_row(
            LINE_DOOR,
            "members that nobody knows, of any type and 400 levels deep",
            SAME,
            b"\n".join(line[:-1] + b',"new":' + b"[" * 400 + b"1e400" + b"]" * 400 + b"}" for line in LINES),
        ),
        row(
            LINE_DOOR,
            "values that do not fit their column",
            "the same rows; the values are rescued",
            b"\n".join(line[:-1] + b',"random_bucket":' + b"1" * 5000 + b',"dob":"soon"}' for line in LINES),
        ),
    ],
)
def test_lines_that_are_read(tmp_path: Path, content: bytes) -> None:
    with Trial(tmp_path, delivers(gzip.compress(content))) as trial:
        trial.delivers()


@pytest.mark.parametrize(
    "bad",
    [
        row(LINE_DOOR, "no JSON", KEPT, b"{"),
        night_row(LINE_DOOR, "JSON that is no object", KEPT, b'["Plantedname0"]'),
        night_row(LINE_DOOR, "two objects in a line", KEPT, LINES[0] + LINES[1]),
        row(LINE_DOOR, "no braze_id", KEPT, b'{"first_name":"Plantedname0"}'),
        night_row(LINE_DOOR, "braze_id that is null", KEPT, b'{"braze_id":null}'),
        night_row(LINE_DOOR, "braze_id that is an object", KEPT, b'{"braze_id":{"a":"Plantedname0"}}'),
        night_row(LINE_DOOR, "NUL bytes", KEPT, bytes(40)),
        night_row(LINE_DOOR, "NaN and Infinity", KEPT, b'{"braze_id":"b0","total_revenue":NaN}'),
        night_row(LINE_DOOR, "10,000 levels", KEPT, b'{"braze_id":"b0","new":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
        night_row(LINE_DOOR, "UTF-16", KEPT, '{"braze_id":"b0"}'.encode("utf-16-be")),
        row(LINE_DOOR, "invalid UTF-8", KEPT, b'{"braze_id":"b0","first_name":"\xff"}'),
        night_row(LINE_DOOR, "half a line", KEPT, LINES[0][:60]),
    ],
)
def test_line_that_is_kept(tmp_path: Path, bad: bytes) -> None:
    """It takes no other row away, neither before nor after it."""
    content = b"\n".join([*LINES[:3], bad, *LINES[3:]])
    with Trial(tmp_path, delivers(gzip.compress(content))) as trial:
        run = trial.fails("max_rejected_lines")
        (kept,) = (tmp_path / "spool" / "rejected").iterdir()
        assert kept.read_bytes() == bad + b"\n"
        trial.heal()
        trial.delivers()
    assert sorted(run.ids()) == [f"b{number}" for number in range(6)]
    assert [(entry["lines"], entry["rejected"]) for entry in run.rows("export_files")] == [(7, 1)]
    assert [line for line in run.warnings if "line 4" in line]


@pytest.mark.parametrize(
    ("text", "emitted"),
    [
        row(LINE_DOOR, "lone surrogates", "the row, with U+FFFD in their place", b'"x\\ud800"', "x\ufffd"),
        night_row(LINE_DOOR, "NUL in text", "the row, with U+FFFD in its place", b'"x\\u0000"', "x\ufffd"),
        night_row(
            LINE_DOOR,
            "U+2028 and other line ends of Unicode in text",
            "the row as it is",
            '"x\u2028\x85"'.encode(),
            "x\u2028\x85",
        ),
    ],
)
def test_text_that_no_loader_takes(tmp_path: Path, text: bytes, emitted: str) -> None:
    line = b'{"braze_id":"b9","home_city":%s}' % text
    with Trial(tmp_path, lines=[LINES[:3], [line]], invented=["b9"]) as trial:
        run = trial.run()
    assert [user["home_city"] for user in run.rows("users") if user["braze_id"] == "b9"] == [emitted]
    assert len(run.ids()) == 4
