"""One demo after the other, as `make demo` runs them: only what changed is loaded, and the database is never empty."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.loaders import ROOT, TIMEOUT_SECONDS, duckdb_counts, duckdb_rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.external]

USERS = 300
CHANGED_USERS = 30
"""Of the 292 that the sandbox makes up, with ten per cent."""


def demo(folder: Path, *options: str) -> str:
    """Run a demo; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py"), "--users", str(USERS), "--folder", str(folder), *options],
        env={**os.environ, "MELTANO_AUTO_INSTALL": "false", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def skipped(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if "so they were skipped" in line]


def loads(database: Path) -> list[int]:
    """How many users each load has left there, the oldest first."""
    query = "select count(*) as users from braze.users group by exported_at order by exported_at"
    return [row["users"] for row in duckdb_rows(database, query)]


def test_one_demo_after_the_other(tmp_path: Path) -> None:
    folder, database = tmp_path / "demo", tmp_path / "demo" / "demo.duckdb"
    everybody = USERS - 1  # one of the odd users comes twice

    first = demo(folder)
    assert "Try `make demo` again" in first
    assert not skipped(first)
    assert loads(database) == [everybody]
    counts = duckdb_counts(database)

    assert skipped(demo(folder)) == [
        f"{everybody} of {everybody} users had not changed since the last demo, so they were skipped."
    ]
    assert loads(database) == [everybody]
    assert duckdb_counts(database) == {**counts, "export_files": 2}

    unchanged = everybody - CHANGED_USERS
    third = demo(folder, "--changed", "10")
    assert skipped(third) == [
        f"{unchanged} of {everybody} users had not changed since the last demo, so they were skipped."
    ]
    assert "Which devices do people use now?" in third
    assert loads(database) == [unchanged, CHANGED_USERS]

    database.unlink()
    assert not skipped(demo(folder))
    assert loads(database) == [everybody]
