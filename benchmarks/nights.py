"""The cases of the night after a first one: all users have changed since, some or none."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchmarks.cases import CORE, LOADERS, tap_command
from benchmarks.export import CACHE, braze
from benchmarks.fingerprints import version_of
from benchmarks.measure import Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UNCHANGED = "this tap, fingerprints, no user changed"
ALL_CHANGED = "this tap, fingerprints, all users changed"
WITHOUT = "this tap, no fingerprints, all users changed"
FULL_LOAD = "into target-duckdb, no fingerprints, 5 % changed"
SMALL_LOAD = "into target-duckdb, fingerprints, 5 % changed"
UPDATED_LOAD = "into target-duckdb, incremental, 5 % changed"
SMALLEST_LOAD = "into target-duckdb, incremental and fingerprints, 5 % changed"
UPDATED = "this tap, incremental, 5 % changed"
VERSION = "a version "
_STREAMS = (*CORE, "apps")
"""With a stream in which all changed users differ."""
_SOME, _ALL = 5, 100
"""Percentages of changed users."""
_DUCKDB = LOADERS / "target-duckdb" / "venv" / "bin" / "target-duckdb"
_DUCKDB_CONFIG = {
    "default_target_schema": "braze",
    "batch_size_rows": 150_000,
    "flush_all_streams": True,
    "settings": {"threads": 1},
}
_STATE = b'{"type":"STATE"'


def exports(users: int, loaded: int) -> Iterator[tuple[int, int]]:
    """The exports that the cases need: users, and the percentage of them that has changed."""
    yield users, 0
    yield users, _SOME
    yield users, _ALL
    yield loaded, 0
    yield loaded, _SOME


def night_cases(users: int) -> Iterator[Case]:
    """The tap alone, on nights on which every user has changed, some have, or none."""
    yield _night(UPDATED, users, changed=_SOME, fingerprints=False, incremental=True, says="; incremental since ")
    yield _night(UNCHANGED, users, says=f"{users:,} of {users:,} users were skipped")
    yield _night(WITHOUT, users, changed=_ALL, fingerprints=False)
    yield _night(ALL_CHANGED, users, changed=_ALL, says=f"unchanged: 0 of {users:,} users were skipped")


def load_cases(users: int) -> Iterator[Case]:
    """The night after from Braze to the tables of DuckDB, which have the users; nothing where it is not set up."""
    if _DUCKDB.exists():
        yield _night(FULL_LOAD, users, changed=_SOME, fingerprints=False, loads=True)
        yield _night(SMALL_LOAD, users, changed=_SOME, loads=True, says=f" of {users:,} users were skipped")
        since = "; incremental since "
        yield _night(UPDATED_LOAD, users, changed=_SOME, fingerprints=False, incremental=True, loads=True, says=since)
        yield _night(SMALLEST_LOAD, users, changed=_SOME, incremental=True, loads=True, says=since)


def version_cases(users: int) -> Iterator[Case]:
    """Fingerprints alone, with made-up ids; `VERSION` begins the names."""

    def words(what: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.fingerprints", what, str(users)]

    if not version_of(users).exists():
        subprocess.run(words("make"), check=True)
    yield Case(f"{VERSION}of {users:,} ids is built", users, lambda _folder, _given: words("build"))
    yield Case(f"{VERSION}of {users:,} ids is used", users, lambda _folder, _given: words("use"))


def _night(
    name: str,
    users: int,
    *,
    changed: int = 0,
    fingerprints: bool = True,
    incremental: bool = False,
    loads: bool = False,
    says: str = "",
) -> Case:
    """A night after a first one.

    Args:
        name: Its row.
        users: Users of the export.
        changed: Percentage of them that has changed since the first night.
        fingerprints: True if users that did not change are skipped.
        incremental: True if Braze is asked only for users that were updated since.
        loads: True if target-duckdb loads all streams; else those of the other cases are written.
        says: What the log of the tap says.
    """

    def of(size: int) -> Callable[[Path, str], list[str]]:
        def command(folder: Path, url: str) -> list[str]:
            shutil.copytree(_first_night(size, loads=loads), folder, dirs_exist_ok=True)
            return _words(folder, url, fingerprints=fingerprints, incremental=incremental, loads=loads)

        return command

    empty = None if loads else Case(name, 0, of(0), beside=partial(braze, 0))
    return Case(name, users, of(users), beside=partial(braze, users, changed if users else 0), empty=empty, says=says)


@cache
def _first_night(users: int, *, loads: bool) -> Path:
    """The directory that a first night leaves, made anew by each run of the benchmarks: fingerprints, STATE, tables."""
    folder = CACHE / f"{users}.{'loaded' if loads else 'night'}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (
        braze(users) as url,
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            _words(folder, url, fingerprints=True, loads=loads), stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        # A target writes the value of STATE alone.
        states = [line for line in process.stdout or () if loads or line.startswith(_STATE)]
    if process.returncode:
        raise SystemExit(f"the first night failed: {(folder / 'log').read_text()[-2000:]}")
    last: dict[str, Any] = json.loads(states[-1])
    (folder / "state.json").write_text(json.dumps(last if loads else last["value"]))
    return folder


def _words(folder: Path, url: str, *, fingerprints: bool, incremental: bool = False, loads: bool = False) -> list[str]:
    """The command of a night, in a directory that may have what an earlier one has left."""
    streams = None if loads else _STREAMS
    config: dict[str, Any] = {"incremental": True} if incremental else {}
    if fingerprints:
        config["fingerprints_url"] = str(folder / "fingerprints")
    words = tap_command(folder, url, streams, config)
    if (state := folder / "state.json").exists():
        words += ["--state", str(state)]
    if not loads:
        return words
    target = folder / "target.json"
    target.write_text(json.dumps({"filepath": str(folder / "tables.duckdb"), **_DUCKDB_CONFIG}))
    return [
        "bash",
        "-c",
        f"set -o pipefail; {shlex.join(words)} | {shlex.join([str(_DUCKDB), '--config', str(target)])}",
    ]
