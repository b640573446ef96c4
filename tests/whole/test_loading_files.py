"""The scripts of deploy/ load Parquet files without a loader: after any history the last row of each key, then STATE.

The expected rows are those of the files as pyarrow reads them, each in place of the one before with its key.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.fakes import FakeClock
from tests.support.loaders import ROOT, TIMEOUT_SECONDS, warehouse_program
from tests.support.night import at_night
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.external

USERS, CHANGED = 60, 50
STREAMS = ("users", "devices", "apps", "user_aliases", "export_files")
FIRST = datetime(2026, 11, 24, 3, tzinfo=UTC)
KINDS = ("duckdb", "postgres", "delta", "iceberg")
_ROWS = """
import sys, duckdb
kind, where, stream, key = sys.argv[1:]
con = duckdb.connect()
con.execute("set TimeZone = 'UTC'")
if kind == "duckdb":
    con.execute(f"attach '{where}' as w (read_only)"); source = f'w.main."{stream}"'
elif kind == "delta":
    from deltalake import DeltaTable
    found = DeltaTable(f"{where}/{stream}").to_pyarrow_table(); source = "found"
elif kind == "iceberg":
    from pyiceberg.catalog.sql import SqlCatalog
    catalog = SqlCatalog("lake", uri=f"sqlite:///{where}/catalog.db", warehouse=f"file://{where}")
    found = catalog.load_table(f"braze.{stream}").scan().to_arrow(); source = "found"
else:
    import psycopg
    with psycopg.connect(where) as server:
        server.execute("set time zone 'UTC'")
        at = "to_char(exported_at, 'YYYY-MM-DD HH24:MI:SS.US')"
        rows = server.execute(f"select concat_ws('|', {key}), {at} from braze.{stream}")
        print("\\n".join(sorted("|".join(row) for row in rows)))
    sys.exit()
at = "strftime(exported_at::TIMESTAMP, '%Y-%m-%d %H:%M:%S.%f')"
rows = con.execute(f"select concat_ws('|', {key}), {at} from {source}").fetchall()
print("\\n".join(sorted("|".join(row) for row in rows)))
"""
"""Prints key and `exported_at` of each row of a table."""


@dataclass(frozen=True)
class Night:
    """The messages of a run, and a copy of its files, which a load removes."""

    run: Run
    root: Path

    @property
    def kept(self) -> Path:
        return self.root.with_suffix(".kept")

    @property
    def keys(self) -> dict[str, list[str]]:
        return {message["stream"]: message["key_properties"] for message in self.run.of_type("SCHEMA")}

    def messages(self, *, until: str = "") -> bytes:
        """The messages, or those before the first STATE after the first message of a stream."""
        lines = self.run.stdout.splitlines(keepends=True)
        if not until:
            return self.run.stdout
        first = next(number for number, line in enumerate(lines) if b'"BATCH"' in line and until.encode() in line)
        return b"".join(lines[: first + 1])


@dataclass
class Destination:
    """A database or a lake, the script that fills it, and the rows that it must have."""

    kind: str
    where: str
    expected: dict[str, dict[tuple[str, ...], str]] = field(default_factory=dict)

    def load(self, night: Night, *, until: str = "") -> subprocess.CompletedProcess[bytes]:
        """Load a night's files."""
        shutil.copytree(night.kept, night.root, dirs_exist_ok=True)
        return self.load_what_is_there(night.messages(until=until))

    def load_what_is_there(self, messages: bytes) -> subprocess.CompletedProcess[bytes]:
        script = [str(warehouse_program("python")), str(ROOT / "deploy" / f"load_{self.kind}.py"), self.where]
        return subprocess.run(script, input=messages, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)

    def expect(self, night: Night) -> None:
        """Note the rows of a night, each in place of the one with its key."""
        shutil.copytree(night.kept, night.root, dirs_exist_ok=True)
        for stream, rows in batches.parquet(night.run).items():
            for row in rows:
                key = tuple(row[name] for name in night.keys[stream])
                self.expected.setdefault(stream, {})[key] = _in_sql(row["exported_at"])

    def check(self, night: Night) -> None:
        """Compare key and `exported_at` of every row."""
        for stream, wanted in self.expected.items():
            key = ", ".join(night.keys[stream])
            query = [str(warehouse_program("python")), "-c", _ROWS, self.kind, self.where, stream, key]
            done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines() == sorted("|".join([*key, at]) for key, at in wanted.items()), stream


def _in_sql(moment: str | datetime) -> str:
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found.strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Night]:
    """A full night, an incremental one, and a full one with other users."""
    folder = tmp_path_factory.mktemp("nights")
    made: list[Night] = []
    for number, (changed, incremental) in enumerate([(0, False), (CHANGED, True), (CHANGED, False)]):
        clock = FakeClock((FIRST + timedelta(days=number)).timestamp())
        root = folder / f"batches-{number}"
        with Sandbox(users=USERS, changed=changed, clock=lambda clock=clock: clock.time) as sandbox:
            config = settings(
                sandbox, folder, incremental=incremental, batch_config=batches.config(root, "parquet", None)
            )
            state = made[-1].run.states[-1] if made else None
            made.append(Night(sync(config, catalog=selecting(STREAMS), state=state, clock=clock), root))
        root.rename(made[-1].kept)
    return made


ONE_BY_DAY = at_night(KINDS, but=["duckdb"])
"""The scripts share what these tests look at; by night each has its turn."""


@pytest.fixture(params=KINDS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """An empty destination of each kind."""
    if request.param != "postgres":
        return Destination(request.param, str(tmp_path / "destination"))
    server: Postgres = request.getfixturevalue("postgres")
    return Destination("postgres", server.new_database(tmp_path.name))


def test_three_nights(destination: Destination, nights: list[Night]) -> None:
    """STATE comes through, files go, and each key has its last row; the last night again changes nothing."""
    for night in [*nights, nights[-1]]:
        destination.expect(night)
        done = destination.load(night)
        assert done.returncode == 0, done.stderr.decode()
        assert [json.loads(line) for line in done.stdout.splitlines()] == night.run.states
        assert not list(night.root.iterdir())
    destination.check(nights[-1])


@pytest.mark.parametrize("destination", ONE_BY_DAY, indirect=True)
def test_a_run_that_ends_early_hands_no_state_on(destination: Destination, nights: list[Night]) -> None:
    """Files that no STATE covers stay where they are, and what comes later is as if the run had not been."""
    first, second, _ = nights
    destination.expect(first)
    assert destination.load(first).returncode == 0
    done = destination.load(second, until="devices")
    assert done.returncode == 0, done.stderr.decode()
    assert second.run.states[-1] not in [json.loads(line) for line in done.stdout.splitlines()]
    assert {path.name for path in second.root.iterdir()} == {path.name for path in second.kept.iterdir()}
    destination.check(first)
    destination.expect(second)
    assert destination.load(second).returncode == 0
    destination.check(second)


@pytest.mark.parametrize("destination", ONE_BY_DAY, indirect=True)
def test_a_file_that_is_missing_fails_the_load(destination: Destination, nights: list[Night]) -> None:
    """Its STATE is not handed on; a load of the whole night brings what was missing."""
    first = nights[0]
    shutil.copytree(first.kept, first.root, dirs_exist_ok=True)
    missing = next(first.root.glob("*apps*"))
    missing.unlink()
    done = destination.load_what_is_there(first.messages())
    assert done.returncode not in {0, -6}
    assert first.run.states[-1] not in [json.loads(line) for line in done.stdout.splitlines()]
    destination.expect(first)
    assert destination.load(first).returncode == 0
    destination.check(first)


@pytest.mark.parametrize("destination", ONE_BY_DAY, indirect=True)
def test_a_schema_that_grew(destination: Destination, nights: list[Night]) -> None:
    """A table made of fewer columns gets the others; its rows have nulls there."""
    first, second, _ = nights
    narrow = [
        {**message, "schema": {**message["schema"], "properties": _fewer(message["schema"]["properties"])}}
        if message["type"] == "SCHEMA"
        else message
        for message in first.run.messages
    ]
    shutil.copytree(first.kept, first.root, dirs_exist_ok=True)
    done = destination.load_what_is_there(b"".join(json.dumps(each).encode() + b"\n" for each in narrow))
    assert done.returncode == 0, done.stderr.decode()
    destination.expect(first)
    destination.expect(second)
    assert destination.load(second).returncode == 0
    destination.check(second)


def _fewer(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: spec for name, spec in properties.items() if name not in {"email", "country", "model", "sessions"}}
