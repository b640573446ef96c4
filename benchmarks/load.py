"""All streams of the sandbox's users into DuckDB: Parquet by SQL beside target-duckdb; rows counted independently.

The rows that have to arrive are counted from the lines of the export, by code that knows nothing of the tap.

Usage: .venv/bin/python -m benchmarks.load [--users 100000]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb
import msgspec

from benchmarks.cases import LOADERS, ROOT, tap_command
from benchmarks.export import braze, make, path_of
from benchmarks.measure import MIB

KEYS = {
    "devices": ("device_id",),
    "custom_events": ("name",),
    "apps": ("name", "platform"),
}
"""The list of each stream, and the members that name an item within its user."""
BATCHES = {"batch_config": {"encoding": {"format": "parquet"}, "batch_size": 200_000}}
TARGET = LOADERS / "target-duckdb" / "venv" / "bin"
TARGET_CONFIG = {
    "default_target_schema": "braze",
    "batch_size_rows": 150_000,
    "flush_all_streams": True,
    "settings": {"threads": 1},
}
COUNTS = """
import duckdb, json, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
tables = connection.execute("select schema_name, table_name from duckdb_tables").fetchall()
print(json.dumps({t: connection.execute(f'select count(*) from {s}."{t}"').fetchall()[0][0] for s, t in tables}))
"""


def count_rows(users: int) -> dict[str, int]:
    """Count the rows in the lines of an export: items of a user with one key are one, those without one each."""
    counts = dict.fromkeys(("users", *KEYS), 0)
    with zipfile.ZipFile(path_of(users)) as archive:
        for member in archive.namelist():
            for line in archive.read(member).splitlines():
                user = msgspec.json.decode(line)
                counts["users"] += 1
                for stream, keys in KEYS.items():
                    named = [tuple(item.get(key) for key in keys) for item in user.get(stream) or ()]
                    counts[stream] += len({key for key in named if None not in key}) + sum(None in key for key in named)
    return counts


class Taken(NamedTuple):
    """What a command took: seconds on the clock, and the most memory in MiB."""

    seconds: float
    peak_mib: float


def take(words: list[str], stdin: IO[bytes] | int, stdout: IO[bytes] | int) -> Taken:
    """Run a command that succeeds."""
    began = time.monotonic()
    process = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    taken = Taken(time.monotonic() - began, used.ru_maxrss * 1024 / MIB)
    sys.stderr.write(f"{Path(words[0]).name}: {taken.seconds:.1f} s, {taken.peak_mib:.0f} MiB\n")
    return taken


def run(users: int, config: dict[str, Any], loader: list[str], folder: Path) -> tuple[Taken, Taken]:
    """Run the tap, then the loader with its messages."""
    with braze(users) as url, (folder / "messages").open("wb") as messages:
        tap = take(tap_command(folder, url, None, config), subprocess.DEVNULL, messages)
    with (folder / "messages").open("rb") as messages:
        return tap, take(loader, messages, subprocess.DEVNULL)


def tables(python: Path, database: Path) -> dict[str, int]:
    """The rows of each table, counted by the DuckDB that wrote it."""
    counts: dict[str, int] = json.loads(subprocess.check_output([str(python), "-c", COUNTS, str(database)]))
    return counts


def main() -> None:
    """Load in both ways and compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=100_000)
    users = options.parse_args().users
    if not path_of(users).exists():
        make(users)
    with tempfile.TemporaryDirectory() as name:
        by_sql, by_target = Path(name, "sql"), Path(name, "target")
        by_sql.mkdir()
        by_target.mkdir()
        script = ROOT / "deploy" / "load_duckdb.py"
        fast = run(users, BATCHES, [sys.executable, str(script), str(by_sql / "tables.duckdb")], by_sql)
        config = by_target / "target.json"
        config.write_text(json.dumps({"filepath": str(by_target / "tables.duckdb"), **TARGET_CONFIG}))
        slow = run(users, {}, [str(TARGET / "target-duckdb"), "--config", str(config)], by_target)
        rows = tables(Path(sys.executable), by_sql / "tables.duckdb")
        others = tables(TARGET / "python", by_target / "tables.duckdb")
    counted = count_rows(users)
    for stream, number in rows.items():
        print(
            f"{stream}: {counted.get(stream, 'not counted')} in, {number} by SQL, {others.get(stream)} by target-duckdb"
        )
    for way, took in {"Parquet and SQL": fast, "target-duckdb": slow}.items():
        tap, loader = (f"{each.seconds:.1f} s and {each.peak_mib:.0f} MiB" for each in took)
        print(f"{way}: tap {tap}, loading {loader}")
    loading, together = (slow[1].seconds / fast[1].seconds, sum(t.seconds for t in slow) / sum(t.seconds for t in fast))
    print(f"DuckDB {duckdb.__version__}: loading {loading:.1f} times as fast, with the tap {together:.1f} times")
    sys.exit(0 if all(rows[stream] == counted[stream] for stream in counted) and rows == others else 1)


if __name__ == "__main__":
    main()
