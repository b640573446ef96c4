"""Memory does not grow with the number of users."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.runs import COMMAND, environment, settings, written

if TYPE_CHECKING:
    from pathlib import Path

FEW, MANY = 5_000, 25_000


def peak(folder: Path, users: int) -> int:
    """The peak memory of the command, in KiB, for a number of users."""
    with Sandbox(users=users) as sandbox:
        path = written(folder, settings(sandbox, folder))
        with (folder / "stderr.txt").open("wb") as log:
            process = subprocess.Popen(
                [COMMAND, "--config", path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
            )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "stderr.txt").read_text("utf-8")
    return usage.ru_maxrss


@pytest.mark.slow
def test_memory_is_constant(tmp_path: Path) -> None:
    """Five times the users, in five files instead of one, need at most a fifth more memory."""
    few, many = (peak(tmp_path / str(users), users) for users in (FEW, MANY))
    assert few > 20_000
    assert many < few * 1.2
