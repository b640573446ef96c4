"""All streams of the sandbox's users into DuckDB: Parquet by SQL beside target-duckdb; rows counted independently.

The rows that have to arrive are counted from the lines of the export, by code that knows nothing of the tap.

Usage: .venv/bin/python -m benchmarks.load [--users 100000]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from benchmarks.cases import LOADERS, ROOT, tap_command
from benchmarks.export import braze, make, path_of

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


def run(users: int, config: dict[str, Any], loader: list[str], folder: Path) -> tuple[float, float]:
    """Run the tap, then the loader with its messages; returns the seconds of each."""
    with braze(users) as url, (folder / "messages").open("wb") as messages:
        words = tap_command(folder, url, None, config)
        began = time.monotonic()
        subprocess.run(words, check=True, stdout=messages, stderr=subprocess.DEVNULL)
    read = time.monotonic()
    with (folder / "messages").open("rb") as messages:
        subprocess.run(loader, check=True, stdin=messages, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return read - began, time.monotonic() - read


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
    for way, (tap, loader) in {"Parquet and SQL": fast, "target-duckdb": slow}.items():
        print(f"{way}: tap {tap:.1f} s, loading {loader:.1f} s")
    print(
        f"DuckDB {duckdb.__version__}: loading {slow[1] / fast[1]:.1f} times as fast,"
        f" with the tap {sum(slow) / sum(fast):.1f} times"
    )
    sys.exit(0 if all(rows[stream] == counted[stream] for stream in counted) and rows == others else 1)


if __name__ == "__main__":
    main()
