"""Run the loaders that meltano.yml pins, alone or under Meltano, and read what they have loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import preloaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / ".meltano"
MELTANO = ROOT / ".cache" / "meltano" / "bin" / "meltano"
TIMEOUT_SECONDS = 300
SCHEMA = "braze"
_WITH_THREADS = {"target-duckdb"}
"""Loaders that start threads when they are imported, which no copy of a process has."""

_DUCKDB_ROWS = """
import duckdb, json, sys
result = duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2])
names = [column[0] for column in result.description]
for row in result.fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
"""


def _installed(path: Path) -> Path:
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing: run `make setup`")
    return path


def warehouse_program(name: str) -> Path:
    """A program of the environment that has what the loaders of deploy/ and the dbt package need."""
    path = ROOT / ".cache" / "warehouses" / "bin" / name
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is missing: run `make .cache/warehouses/.installed`")
    return path


def loader(name: str, program: str | None = None) -> Path:
    """A program of the environment in which Meltano keeps a loader; by default the loader itself."""
    return _installed(PLUGINS / "loaders" / name / "venv" / "bin" / (program or name))


def load(name: str, config: Mapping[str, Any], messages: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a loader on Singer messages; the caller checks the exit code and standard error."""
    path = folder / f"{name}.config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    arguments = ["--config", str(path)]
    if name in _WITH_THREADS:
        command = [str(loader(name)), *arguments]
        done = subprocess.run(
            command, input=messages, capture_output=True, timeout=TIMEOUT_SECONDS, cwd=folder, check=False
        )
    else:
        program = preloaded.program(str(loader(name, "python")), name)
        done = program.run(arguments, content=messages, env=os.environ, timeout=TIMEOUT_SECONDS, cwd=folder)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def meltano(arguments: Sequence[str], *, env: Mapping[str, str], cwd: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Meltano, which has been imported before; the caller checks the exit code."""
    program = preloaded.program(str(_installed(MELTANO).with_name("python")), "meltano")
    done = program.run(arguments, env=env, timeout=TIMEOUT_SECONDS, cwd=Path(cwd))
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def duckdb_rows(path: Path, query: str) -> list[dict[str, Any]]:
    """The rows of a query, run by the DuckDB that wrote the file."""
    command = [str(loader("target-duckdb", "python")), "-c", _DUCKDB_ROWS, str(path), query]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def duckdb_counts(path: Path, schema: str = SCHEMA) -> dict[str, int]:
    """Rows per table."""
    query = f"select table_name from information_schema.tables where table_schema = '{schema}'"
    tables = sorted(row["table_name"] for row in duckdb_rows(path, query))
    union = " union all ".join(f'select \'{name}\' as name, count(*) as n from "{schema}"."{name}"' for name in tables)
    return {row["name"]: row["n"] for row in duckdb_rows(path, union)} if tables else {}


def jsonl_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each stream that target-jsonl wrote."""
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        for path in sorted(folder.glob("*.jsonl"))
    }


def render(messages: Iterable[Mapping[str, Any]]) -> bytes:
    """Messages as a tap prints them."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@dataclass(frozen=True)
class Project:
    """A copy of the checkout's Meltano project: the same plugins, its own state and outputs."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def copy_to(cls, folder: Path, environment: Mapping[str, str]) -> Project:
        """Copy meltano.yml and link to the installed plugins."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "meltano.yml", folder)
        (folder / ".meltano").mkdir()
        (folder / "output").mkdir()
        for kind in ("extractors", "loaders"):
            (folder / ".meltano" / kind).symlink_to(_installed(PLUGINS / kind), target_is_directory=True)
        return cls(folder, environment)

    def meltano(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Meltano without the settings of this process; a failing run fails the test."""
        inherited = {key: value for key, value in os.environ.items() if key in {"HOME", "LANG", "PATH", "TMPDIR"}}
        ours = {"MELTANO_CLI_LOG_COLORS": "false", "NO_COLOR": "1", "MELTANO_AUTO_INSTALL": "false"}
        done = meltano(arguments, env={**inherited, **ours, **self.environment}, cwd=self.folder)
        assert done.returncode == 0, done.stderr[-5000:]
        return done
