"""One demo after the other, as `make demo` runs them: only what changed is loaded, and the database is never empty."""

from __future__ import annotations

import os
import re
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


def exported(printed: str) -> list[str]:
    """The line about the users that came, without the time."""
    return re.findall(r"^The tap asked only for users updated since 20\S+Z: (.*)$", printed, re.MULTILINE)


def log(folder: Path) -> str:
    """The log of the last demo's sandbox."""
    return (folder / "sandbox.log").read_text("utf-8")


def loads(database: Path) -> list[int]:
    """How many users each load has left there, the oldest first."""
    query = "select count(*) as users from braze.users group by exported_at order by exported_at"
    return [row["users"] for row in duckdb_rows(database, query)]


def test_a_demo_and_the_night_after(tmp_path: Path) -> None:
    folder, database = tmp_path / "demo", tmp_path / "demo" / "demo.duckdb"
    everybody = USERS - 1  # one of the odd users comes twice

    first = demo(folder)
    assert "Try `make demo` again" in first
    assert not exported(first)
    assert loads(database) == [everybody]

    second = demo(folder, "--changed", "10")
    assert exported(second) == [f"{CHANGED_USERS} of {USERS} came."]
    assert re.search(f"all-users: {CHANGED_USERS} of {USERS} users, asked for those updated since", log(folder))
    assert "Which devices do people use now?" in second
    assert loads(database) == [everybody - CHANGED_USERS, CHANGED_USERS]


@pytest.mark.night
def test_demos_that_change_nothing_or_all(tmp_path: Path) -> None:
    folder, database = tmp_path / "demo", tmp_path / "demo" / "demo.duckdb"
    everybody = USERS - 1
    demo(folder)
    counts = duckdb_counts(database)

    assert exported(demo(folder)) == [f"0 of {USERS} came."]
    assert loads(database) == [everybody]
    assert duckdb_counts(database) == {**counts, "export_files": 2}

    assert not exported(demo(folder, "--changed", "10", "--full-refresh"))
    assert log(folder).endswith(f"all-users: {USERS} of {USERS} users\n")
    assert loads(database) == [everybody]

    database.unlink()
    assert not exported(demo(folder))
    assert loads(database) == [everybody]
