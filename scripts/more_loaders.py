"""Loads the sandbox's users with three more loaders and compares rows sent with rows loaded.

`make loaders` installs the loaders, each into an environment of its own, and runs this.
"""  # noqa: INP001

# ruff: noqa: T201, S603
from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the throw-away server of the tests

from tests.support.postgres import running_postgres  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TAP = str(Path(sys.executable).with_name("tap-braze-export"))
LOADERS = ROOT / ".cache" / "loaders"
USERS = 2_000
SECONDS = 300
FAILS = {"target-universal-file": "unhashable type: 'list'"}
"""Loaders that cannot load the rows of this tap, and why: this one has no type for columns that may be null."""


def messages(folder: Path) -> bytes:
    """The messages of one run with every stream of the default catalog."""
    with Sandbox(users=USERS, odd_users=False) as sandbox:
        config = folder / "config.json"
        config.write_text(json.dumps({**sandbox.config, "spool_dir": str(folder / "spool")}))
        return subprocess.run([TAP, "--config", str(config)], check=True, capture_output=True).stdout


def sent_by(stdout: bytes) -> dict[str, int]:
    """Different keys per stream, counted from the RECORD messages."""
    keys: dict[str, list[str]] = {}
    found: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for line in stdout.splitlines():
        message = json.loads(line)
        if message["type"] == "SCHEMA":
            keys[message["stream"]] = message["key_properties"]
        elif message["type"] == "RECORD":
            found[message["stream"]].add(tuple(message["record"][key] for key in keys[message["stream"]]))
    return {stream: len(rows) for stream, rows in found.items()}


def load(program: Path, config: dict[str, Any], stdout: bytes, folder: Path) -> str:
    """Run a loader; returns the last line of its log if it fails."""
    settings = folder / f"{program.parts[-3]}.json"
    settings.write_text(json.dumps(config))
    words = [str(program), "--config", str(settings)]
    done = subprocess.run(words, input=stdout, capture_output=True, timeout=SECONDS, cwd=folder, check=False)
    return "" if done.returncode == 0 else done.stderr.decode()[-2_000:]


def in_csv(folder: Path) -> dict[str, int]:
    """Rows of each CSV file."""
    counts = {}
    for path in folder.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            counts[path.stem] = sum(1 for _ in csv.DictReader(file))
    return counts


def main() -> int:
    """Load with each, and print what differs."""
    csv.field_size_limit(2**30)
    failed = False
    with tempfile.TemporaryDirectory() as name, running_postgres() as server:
        folder = Path(name)
        stdout = messages(folder)
        sent = sent_by(stdout)
        address = {"host": server.host, "port": server.port, "user": server.user, "password": "not-asked"}
        cases: list[tuple[str, str, dict[str, Any], Callable[[], dict[str, int]]]] = [
            (
                "meltanolabs-target-csv",
                "target-csv",
                {"output_path": str(folder / "csv")},
                lambda: in_csv(folder / "csv"),
            ),
            (
                "target-universal-file",
                "target-universal-file",
                {"file_type": "parquet", "protocol": "local", "path": str(folder / "parquet")},
                dict,
            ),
            (
                "pipelinewise-target-postgres",
                "target-postgres",
                {**address, "dbname": server.database, "default_target_schema": "pipelinewise"},
                lambda: server.counts("pipelinewise"),
            ),
        ]
        for loader, program, config, counts in cases:
            problem = load(LOADERS / loader / "bin" / program, config, stdout, folder)
            if reason := FAILS.get(loader):
                failed |= reason not in problem
                print(
                    f"{loader}: fails with {reason}"
                    if reason in problem
                    else f"{loader}: works now, or fails otherwise"
                )
                continue
            loaded = {} if problem else counts()
            failed |= loaded != sent
            print(f"{loader}: {sum(sent.values()):,} rows sent, {sum(loaded.values()):,} loaded {problem}")
            for stream in sorted({*sent, *loaded}):
                if sent.get(stream) != loaded.get(stream):
                    print(f"  {stream}: {sent.get(stream)} sent, {loaded.get(stream)} loaded")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
