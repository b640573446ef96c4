"""A whole file is read by a worker: its rows wait in a private file, in memory or in batch files."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.workers.file_reader import FileReader, FileRows
from tests.support import batches
from tests.support.deliveries import gzip_file
from tests.support.fakes import FakeClock
from tests.support.rows import parse, selected

if TYPE_CHECKING:
    from pathlib import Path

LONG_TEXT = "x" * 100_000
MANY = [f"b{number}" for number in range(800)]
"""With the long text they make a file of two blocks."""


def test_rows_of_a_huge_file_do_not_come_back(tmp_path: Path) -> None:
    """Whoever would have to send them says that the run has to read it."""
    reader = FileReader(selected(only=["users"]))
    assert reader.read(gzip_file(tmp_path, "huge.gz", *MANY, text=LONG_TEXT)) is None
    assert reader.read(gzip_file(tmp_path, "small.gz", "b", text=LONG_TEXT))


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
    """It is gone as soon as it is opened, so nothing is left of a run that is killed then."""
    reader = FileReader(selected(only=["users", "devices"]), rows_folder=tmp_path)
    blocks = reader.read(gzip_file(tmp_path, "a.gz", "one", "two"))
    assert blocks
    (rows,) = (block.rows for block in blocks)
    assert isinstance(rows, FileRows)
    assert stat.S_IMODE(rows.path.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="not opened"):
        rows["users"]
    with rows.opened():
        assert not rows.path.exists()
        assert [*rows] == ["users"]
        assert rows["users"].count == len(rows) + 1 == 2
        assert [parse(row)["braze_id"] for row in rows["users"].jsonl.splitlines()] == ["one", "two"]


def test_file_that_is_not_there_is_damaged(tmp_path: Path) -> None:
    file = gzip_file(tmp_path, "a.gz", "one")
    (tmp_path / "copy-of-a.gz").unlink()
    with pytest.raises(DamagedFileError, match=r"a\.gz cannot be read: No such file"):
        FileReader(selected()).read(file)
