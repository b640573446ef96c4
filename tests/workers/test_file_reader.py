"""A whole file is read by a worker: its rows wait in a private file, in memory or in batch files."""

from __future__ import annotations

import gzip
import stat
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files.archive import Block, Member
from tap_braze_export.files.objects import DeliveredFile, LocalObject
from tap_braze_export.rows.reader import Reader
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.workers.file_reader import FileReader, FileRows, read_blocks
from tests.support import batches
from tests.support.deliveries import gzip_file
from tests.support.fakes import FakeClock
from tests.support.rows import AT, EXPORT, parse, selected

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LONG_TEXT = "x" * 100_000
MANY = [f"b{number}" for number in range(800)]
"""With the long text they make a file of two blocks."""


def test_rows_of_a_huge_file_do_not_come_back(tmp_path: Path) -> None:
    """Whoever would have to send them says that the run has to read it."""
    reader = FileReader(selected(only=["users"]))
    assert reader.read(gzip_file(tmp_path, "huge.gz", *MANY, text=LONG_TEXT)) is None
    assert reader.read(gzip_file(tmp_path, "small.gz", "b", text=LONG_TEXT))


@pytest.mark.slow
def test_huge_file_becomes_batch_files_block_by_block(tmp_path: Path) -> None:
    """Their rows need neither memory nor disk here."""
    selections = selected(only=["users"])
    files = BatchFiles.of(batches.config(tmp_path / "out"), FakeClock())
    reader = FileReader(selections, batch_files=files, plain_streams=frozenset(selections))
    blocks = reader.read(gzip_file(tmp_path, "huge.gz", *MANY, text=LONG_TEXT))
    assert blocks
    assert len(blocks) == 2
    assert [block.rows for block in blocks] == [{}, {}]
    assert sum(block.batch_files["users"].count for block in blocks) == 800
    assert len([*(tmp_path / "out").iterdir()]) == 2


def test_rows_wait_in_a_private_file_until_they_are_emitted(tmp_path: Path) -> None:
    reader = FileReader(selected(only=["users", "devices"]), rows_folder=tmp_path)
    blocks = reader.read(gzip_file(tmp_path, "a.gz", "one", "two"))
    assert blocks
    (rows,) = (block.rows for block in blocks)
    assert isinstance(rows, FileRows)
    assert stat.S_IMODE(rows.path.stat().st_mode) == 0o600
    assert [*rows] == ["users"]
    assert rows["users"].count == len(rows) + 1 == 2
    assert [parse(row)["braze_id"] for row in rows["users"].jsonl.splitlines()] == ["one", "two"]
    blocks[0].discard()
    assert not rows.path.exists()


def test_file_that_is_not_there_is_damaged(tmp_path: Path) -> None:
    file = gzip_file(tmp_path, "a.gz", "one")
    (tmp_path / "copy-of-a.gz").unlink()
    with pytest.raises(DamagedFileError, match=r"a\.gz cannot be read: No such file"):
        FileReader(selected()).read(file)


# Files that are no export of Braze


DENSE = b'{"braze_id":"u%d","devices":[' + b",".join([b"{}"] * 9_000) + b"]}"


def dense_file(folder: Path, lines: Iterable[bytes]) -> DeliveredFile:
    """A file of these lines."""
    path = folder / "dense.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines), 1))
    member = Member("dense.gz", path.stat().st_size)
    return DeliveredFile(LocalObject("dense.gz", path), member, EXPORT)


def refusal(lines: Iterable[bytes], stream: str) -> str:
    """The error that the file of a block of lines ends in, for whoever reads it: a worker or the run."""
    reader = Reader(selected(only=[stream]), exported_at=AT, segment_id="")
    with pytest.raises(DamagedFileError) as caught:
        for _ in read_blocks(reader, [Block(1, [*lines])], "a.gz"):
            pass
    return str(caught.value)


@pytest.mark.slow
def test_file_of_far_too_many_rows_is_refused() -> None:
    """Three bytes make a row: after a million of them it is enough."""
    error = refusal((DENSE % number for number in range(150)), "devices")
    assert error.startswith("a.gz holds 1,")
    assert error.endswith(" bytes: no export of Braze is so dense, it is refused")


@pytest.mark.slow
def test_file_of_far_too_many_unreadable_lines_is_refused() -> None:
    error = refusal(repeat(b"{}", 2_000_000), "users")
    assert error.startswith("a.gz holds 1,")


@pytest.mark.slow
def test_users_with_nothing_but_an_id_are_not_too_dense() -> None:
    """They are the densest that Braze exports."""
    selections = selected(only=["users", "segment_members"])
    reader = Reader(selections, exported_at=AT, segment_id="s")
    lines = [b'{"braze_id":"%024x"}' % number for number in range(600_000)]
    read = read_blocks(reader, [Block(1, lines)], "a.gz")
    assert sum(each.count for block in read for each in block.rows.values()) == 1_200_000


@pytest.mark.slow
def test_dense_file_below_a_million_rows_is_read(tmp_path: Path) -> None:
    file = dense_file(tmp_path, (DENSE % number for number in range(20)))
    blocks = FileReader(selected(only=["devices"])).read(file)
    assert blocks
    assert sum(block.rows["devices"].count for block in blocks) == 180_000


def test_file_whose_rejected_lines_are_many_is_read_by_the_run(tmp_path: Path) -> None:
    """They would have to wait in memory; no row is left behind."""
    user = b'{"braze_id":"%s"}' % (b"u" * 1_000)
    file = dense_file(tmp_path, [*repeat(b"x" * 100_000, 200), user])
    reader = FileReader(selected(only=["users"]), rows_folder=tmp_path / "rows")
    (tmp_path / "rows").mkdir()
    assert reader.read(file) is None
    assert [*(tmp_path / "rows").iterdir()] == []
