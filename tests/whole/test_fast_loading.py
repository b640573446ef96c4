"""The script of docs/fast-loading.md loads Parquet files by SQL: the last row of each key, then STATE."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.user_object import CARDS_CLICKED
from tests.support import documents
from tests.support.loaders import ROOT
from tests.support.runs import command, written

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = ROOT / "deploy" / "load_duckdb.py"

pytestmark = pytest.mark.external


def test_the_page_shows_what_the_script_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as for a script that is run
    script = runpy.run_path(str(SCRIPT))
    columns = CARDS_CLICKED.json_schema
    message = {"stream": CARDS_CLICKED.stream, "schema": columns, "key_properties": list(CARDS_CLICKED.keys)}
    made = script["statements"](script["Table"].of(message))
    (shown,) = documents.queries("fast-loading.md")
    assert shown == ";\n".join(made) + ";\n"


def _night(folder: Path, *, changed: int) -> tuple[bytes, bytes]:
    """The messages of the tap with Parquet files, and without."""
    batches = {"encoding": {"format": "parquet"}, "storage": {"root": str(folder / "batches")}}
    done = []
    for name, more in (("batches", {"batch_config": batches}), ("records", {})):
        with Sandbox(users=300, changed=changed) as sandbox:
            config = {**sandbox.config, "spool_dir": str(folder / f"spool-{name}-{changed}"), **more}
            done.append(command("--config", written(folder, config)))
    assert all(each.code == 0 for each in done)
    return done[0].stdout, done[1].stdout


def _load(messages: bytes, database: Path) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, str(SCRIPT), str(database)]
    return subprocess.run(words, input=messages, capture_output=True, timeout=60, check=False)


def test_two_nights_leave_the_last_row_of_each_key(tmp_path: Path) -> None:
    """As many rows as there are keys in the RECORD messages of both nights; STATE comes last and files go."""
    database = tmp_path / "warehouse.duckdb"
    keys: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for changed in (0, 30):
        messages, records = _night(tmp_path, changed=changed)
        done = _load(messages, database)
        assert done.returncode == 0, done.stderr
        states = [json.loads(line) for line in messages.splitlines() if b'"STATE"' in line[:20]]
        assert json.loads(done.stdout.splitlines()[-1]) == states[-1]["value"]
        lines = [json.loads(line) for line in records.splitlines()]
        names = {line["stream"]: line["key_properties"] for line in lines if line["type"] == "SCHEMA"}
        for line in lines:
            if line["type"] == "RECORD" and line["stream"] != "export_files":
                row = line["record"]
                key = tuple(row[name] for name in names[line["stream"]])
                keys.setdefault(line["stream"], {})[key] = row
    with duckdb.connect(str(database), read_only=True) as connection:
        for stream, rows in keys.items():
            counted = connection.execute(f'select count(*), count(distinct exported_at) from "{stream}"').fetchall()
            assert counted[0][0] == len(rows), stream
        emails = dict(connection.execute("select braze_id, email from users").fetchall())
    assert emails == {braze_id: row.get("email") for (braze_id,), row in keys["users"].items()}
    assert not list((tmp_path / "batches").iterdir())


@pytest.mark.parametrize(
    ("maps", "wanted"),
    [
        ({"users": {"__key_properties__": []}}, {"users": 80}),
        ({"users": {"exported_at": None}}, {"users": 40}),
        (
            {
                "users": {"email": None},
                "users_pii": {
                    "__source__": "users",
                    "braze_id": "braze_id",
                    "email": "email",
                    "first_name": "first_name",
                    "__else__": None,
                },
            },
            {"users": 40, "users_pii": 40},
        ),
    ],
)
def test_settings_that_leave_no_key_or_time_and_odd_paths(
    tmp_path: Path, maps: dict[str, Any], wanted: dict[str, int]
) -> None:
    """Two nights: rows with a key are replaced by those sent last, rows without one are appended."""
    folder = tmp_path / "Ada's [batches]"
    batches = {"encoding": {"format": "parquet"}, "storage": {"root": str(folder)}}
    database = tmp_path / "warehouse.duckdb"
    for night, changed in enumerate((0, 60)):
        with Sandbox(users=40, changed=changed, odd_users=False) as sandbox:
            spool = str(tmp_path / f"spool-{night}")
            config = {**sandbox.config, "spool_dir": spool, "batch_config": batches, "stream_maps": maps}
            messages = command("--config", written(tmp_path, config))
            records = command("--config", written(tmp_path, {**config, "batch_config": None, "spool_dir": spool + "r"}))
        assert (messages.code, records.code) == (0, 0), messages.stderr + records.stderr
        done = _load(messages.stdout, database)
        assert done.returncode == 0, done.stderr.decode()
    with duckdb.connect(str(database), read_only=True) as connection:
        for table, count in wanted.items():
            assert connection.execute(f"select count(*) from {table}").fetchall() == [(count,)], table
            last = {row["braze_id"]: row.get("first_name") for row in records.rows(table)}
            found = connection.execute(f"select braze_id, first_name from {table}").fetchall()
            assert {*found} >= {*last.items()}
            assert count > 40 or dict(found) == last
    assert not list(folder.iterdir())


def test_a_file_that_is_missing_leaves_the_tables_and_state_as_they_were(tmp_path: Path) -> None:
    """Nothing of a failed load is kept, and no STATE says that it is there."""
    messages, _ = _night(tmp_path, changed=0)
    (missing,) = (tmp_path / "batches").glob("*--apps-*")
    missing.unlink()
    database = tmp_path / "warehouse.duckdb"
    done = _load(messages, database)
    assert done.returncode != 0
    ended = json.loads(messages.splitlines()[-1])["value"]
    assert ended not in [json.loads(line) for line in done.stdout.splitlines()]
    with duckdb.connect(str(database), read_only=True) as connection:
        assert connection.execute("select count(*) from duckdb_tables()").fetchall() == [(0,)]
