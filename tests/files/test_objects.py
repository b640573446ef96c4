"""Objects on the local disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files.objects import LocalObject, open_local

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"^a\.zip cannot be read: No such file or directory$"):
        open_local(LocalObject("a.zip", tmp_path / "none"))
