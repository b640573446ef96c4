"""The private directory on the local disk."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import ExportError
from tap_braze_export.files.spool import private_file

if TYPE_CHECKING:
    from pathlib import Path


def test_full_disk_names_the_directory_and_frees_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "object.part"

    with pytest.raises(ExportError, match=r"^the disk of .* is full: free some space there"):
        fill(path)
    assert not path.exists()


def fill(path: Path) -> None:
    with private_file(path) as file:
        file.write(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
