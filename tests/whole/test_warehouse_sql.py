"""deploy/warehouse_sql.py writes statements for warehouses that no test can reach: readers and stand-ins judge them.

By night Google's own analyzer reads those for BigQuery, sqlglot the others, and fakesnow runs those for Snowflake.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import documents
from tests.support.loaders import ROOT, TIMEOUT_SECONDS
from tests.whole.test_loading_files import Destination, Night, nights  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.external

DIALECTS = ("snowflake", "bigquery", "redshift", "databricks")
READ_BY_SQLGLOT = """
import sys, sqlglot
for statement in sqlglot.parse(sys.stdin.read(), read=sys.argv[1]):
    if statement.key == "command":  # it passes on what it does not know
        print(statement.sql())
"""
OTHERS = ROOT / ".cache" / "dialects" / "bin" / "python"


def statements(dialect: str) -> str:
    """All statements for the catalog with which users begin."""
    script = [sys.executable, str(ROOT / "deploy" / "warehouse_sql.py"), "--dialect", dialect]
    catalog = (ROOT / "catalog" / "catalog.json").read_bytes()
    done = subprocess.run(script, input=catalog, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    return done.stdout.decode()


def run_elsewhere(*arguments: str, content: str = "") -> str:
    """Standard output of a program in the environment that has other readers of SQL."""
    if not OTHERS.exists():
        pytest.fail(f"{OTHERS.relative_to(ROOT)} is missing: run `make .cache/dialects/.installed`")
    command = [str(OTHERS), *arguments]
    done = subprocess.run(
        command, input=content, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_shows_what_the_script_writes() -> None:
    """For the smallest stream, in the dialect whose statements differ most from DuckDB's."""
    made = statements("bigquery")
    (shown,) = [
        block.text for block in documents.blocks() if block.document == "fast-loading.md" and "load data" in block.text
    ]
    assert shown.strip() + "\n\n" in made


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_stream_has_its_statements(dialect: str) -> None:
    """No name is left out: every column of the catalog's streams is loaded."""
    made = statements(dialect)
    for entry in json.loads((ROOT / "catalog" / "catalog.json").read_bytes())["streams"]:
        stream = entry["tap_stream_id"]
        is_there = f"{stream}_staged" in made
        assert is_there == (stream not in {"segment_members", "invalid_user_ids"}), stream
        assert not is_there or all(made.count(column) >= 4 for column in entry["schema"]["properties"]), stream


@pytest.mark.night
def test_bigquery_by_its_own_analyzer() -> None:
    assert run_elsewhere("tests/support/check_bigquery.py", content=statements("bigquery")) == ""


@pytest.mark.night
@pytest.mark.parametrize("dialect", DIALECTS)
def test_sqlglot_reads_every_statement(dialect: str) -> None:
    assert run_elsewhere("-c", READ_BY_SQLGLOT, dialect, content=statements(dialect)) == ""


@pytest.mark.night
def test_snowflake_in_a_stand_in(nights: list[Night], tmp_path: Path) -> None:  # noqa: F811
    """Three nights leave the last row of each key."""
    script = tmp_path / "load.sql"
    script.write_text(statements("snowflake"), encoding="utf-8")
    expected = Destination("snowflake", "")
    folders = []
    for number, night in enumerate(nights):
        expected.expect(night)
        for message in night.run.of_type("BATCH"):
            folder = tmp_path / str(number) / message["stream"]
            folder.mkdir(parents=True, exist_ok=True)
            for url in message["manifest"]:
                shutil.copy(url.removeprefix("file://"), folder)
        folders.append(str(tmp_path / str(number)))
    loaded = run_elsewhere("tests/support/run_on_fakesnow.py", str(script), *folders)
    for stream, rows in map(json.loads, loaded.splitlines()):
        assert rows == sorted([*key, moment] for key, moment in expected.expected[stream].items()), stream
