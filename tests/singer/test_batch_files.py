"""Batch files on the local disk: they hold profiles, so they are private unless their directory says otherwise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tap_braze_export.rows.rendered import Rows
from tap_braze_export.singer.batch_files import BatchFiles
from tests.support import batches
from tests.support.fakes import FakeClock

ROWS = {"users": Rows((b'{"braze_id":"b1"}\n',), 1), "apps": Rows((b'{"braze_id":"b1"}\n',), 1)}


@pytest.fixture(params=[0o000, 0o022, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> object:
    """Whatever a shell or a container sets."""
    old = os.umask(request.param)
    yield
    os.umask(old)


def modes(root: Path, prefix: str = "", file_format: str = "jsonl") -> tuple[set[int], dict[str, int]]:
    """Write files twice, as after a failure; the modes of the files, and of the folders from `root` on."""
    files = BatchFiles.of(batches.config(root, file_format, storage={"prefix": prefix}), FakeClock())
    files.schemas = {stream: {"properties": {"braze_id": {"type": ["string", "null"]}}} for stream in ROWS}
    files.write(ROWS, "1")
    written = [Path(file.url.removeprefix("file://")) for file in files.write(ROWS, "1").values()]
    folders = {folder for path in written for folder in path.parents if folder.is_relative_to(root)}
    return {mode(path) for path in written}, {str(folder.relative_to(root)): mode(folder) for folder in folders}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_files_and_folders_of_the_tap_are_private(tmp_path: Path, file_format: str) -> None:
    files, folders = modes(tmp_path / "new" / "out", "some/night-", file_format)

    assert files == {0o600}
    assert folders == {".": 0o700, "some": 0o700}
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.parametrize("given", [0o700, 0o755, 0o777])
def test_directory_of_the_user_keeps_its_mode(tmp_path: Path, given: int) -> None:
    tmp_path.chmod(given)

    assert modes(tmp_path, "some/") == ({0o600}, {".": given, "some": 0o700})


def test_group_of_a_set_group_id_directory_may_read(tmp_path: Path) -> None:
    """The way to a loader that runs as another user."""
    tmp_path.chmod(0o2750)

    assert modes(tmp_path, "some/deeper/") == ({0o640}, {".": 0o2750, "some": 0o2750, "some/deeper": 0o2750})
