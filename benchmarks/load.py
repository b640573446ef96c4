"""Users of the sandbox through the tap into DuckDB, as Parquet by BATCH messages: rows in and rows out, time, memory.

The rows that have to arrive are counted from the lines of the sandbox, by code that knows nothing of the tap.

Usage: .venv/bin/python -m benchmarks.load [--users 1000000]
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
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from tap_braze_export.sandbox import Sandbox

TAP = str(Path(sys.executable).with_name("tap-braze-export"))
KEYS = {
    "devices": ("device_id",),
    "custom_events": ("name",),
    "apps": ("name", "platform"),
}
"""The list of each stream, and the members that name an item within its user."""
STREAMS = ("users", *KEYS)
FIELDS = ("braze_id", "email", "country", "created_at", *KEYS)
BATCH_SIZE = 200_000


def count_rows(sandbox: Sandbox) -> dict[str, int]:
    """Count the rows in the lines of an export: items of a user with one key are one, those without one each."""
    counts = dict.fromkeys(STREAMS, 0)
    for line in sandbox.lines("all-users", FIELDS):
        user = msgspec.json.decode(line)
        counts["users"] += 1
        for stream, keys in KEYS.items():
            named = [tuple(item.get(key) for key in keys) for item in user.get(stream) or ()]
            counts[stream] += len({key for key in named if None not in key}) + sum(None in key for key in named)
    return counts


def catalog(config: str) -> dict[str, Any]:
    """The catalog of discovery with these streams and columns only."""
    found: dict[str, Any] = json.loads(subprocess.check_output([TAP, "--config", config, "--discover"]))
    for stream in found["streams"]:
        for item in stream["metadata"]:
            crumb, name = item["breadcrumb"], stream["tap_stream_id"]
            if not crumb:
                item["metadata"]["selected"] = name in STREAMS
            elif name == "users" and len(crumb) == 2:  # noqa: PLR2004 - "properties" and a column
                item["metadata"]["selected"] = crumb[1] in FIELDS
    return found


def load(messages: Any, database: Path) -> int:
    """Insert the files of each BATCH message as it comes, then remove them; returns the number of STATE messages."""
    states = 0
    with duckdb.connect(str(database)) as connection:
        connection.execute("set threads = 1")
        for line in messages:
            message = json.loads(line)
            states += message["type"] == "STATE"
            if message["type"] != "BATCH":
                continue
            table, paths = message["stream"], [url.removeprefix("file://") for url in message["manifest"]]
            is_new = connection.execute("select count(*) = 0 from duckdb_tables where table_name = ?", [table])
            verb = f"create table {table} as" if is_new.fetchall()[0][0] else f"insert into {table} by name"
            connection.execute(f"{verb} select * from read_parquet(?)", [paths])
            for path in paths:
                os.unlink(path)  # noqa: PTH108
    return states


def main() -> None:
    """Export, load and compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=1_000_000)
    users = options.parse_args().users
    with tempfile.TemporaryDirectory() as name, Sandbox(users=users, odd_users=False) as sandbox:
        folder = Path(name)
        batches = {"encoding": {"format": "parquet"}, "storage": {"root": str(folder / "batches")}}
        config = {
            **sandbox.config,
            "spool_dir": str(folder / "spool"),
            "batch_config": {**batches, "batch_size": BATCH_SIZE},
        }
        settings, selection, database = folder / "config.json", folder / "catalog.json", folder / "loaded.duckdb"
        settings.write_text(json.dumps(config))
        selection.write_text(json.dumps(catalog(str(settings))))
        began = time.monotonic()
        with (folder / "log").open("wb") as log:
            tap = subprocess.Popen(
                [TAP, "--config", str(settings), "--catalog", str(selection)], stdout=subprocess.PIPE, stderr=log
            )
            states = load(tap.stdout, database)
            _, status, usage = os.wait4(tap.pid, 0)
            tap.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - began
        print((folder / "log").read_text()[-1_500:])
        print(
            f"exit code {tap.returncode}, {states} STATE messages, {took:.0f} s, tap {usage.ru_maxrss / 1024:.0f} MiB"
        )
        with duckdb.connect(str(database), read_only=True) as connection:
            rows = {table: connection.execute(f"select count(*) from {table}").fetchall()[0][0] for table in STREAMS}
        counted = count_rows(sandbox)
        for stream in STREAMS:
            print(f"{stream}: {counted[stream]:,} in, {rows[stream]:,} out")
        sys.exit(0 if rows == counted and tap.returncode == 0 else 1)


if __name__ == "__main__":
    main()
