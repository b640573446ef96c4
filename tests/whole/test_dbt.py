"""The dbt package, built after three nights of the sandbox: its rows are those that docs/dbt.md shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support import documents
from tests.support.loaders import ROOT, TIMEOUT_SECONDS, warehouse_program
from tests.whole.test_warehouse import CHANGED, NIGHTS, Warehouse, duckdb_warehouse, postgres_warehouse, some_nights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres
    from tests.support.runs import Run

pytestmark = pytest.mark.external

MORNINGS = {
    "braze_segment_members": "select braze_id, external_id from {} where segment_id = 'vip-users'",
    "braze_leavers": "select segment_id, braze_id, external_id, left_after, left_before from {}",
    "braze_changed_users": "select braze_id, external_id from {}",
    "braze_recent_events": "select braze_id, name, count, last from {}",
    "braze_users_snapshot": """
        select braze_id, dbt_valid_from as last, dbt_valid_to as exported_at from {}
        where braze_id like '%5' or braze_id like '%6' order by 1, 2""",
}
"""A query to each model of which the document shows rows."""


def shown_in_document() -> dict[str, list[list[str]]]:
    """The rows that docs/dbt.md shows, by model."""
    text = (ROOT / "docs" / "dbt.md").read_text(encoding="utf-8")
    found = re.findall(r"^`(braze_\w+)`[^\n]*:\n\n```text\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return {model: [[cell.strip() for cell in line.split("|")] for line in rows.splitlines()] for model, rows in found}


@dataclass(frozen=True)
class Project:
    """A dbt project that has installed the package."""

    folder: Path

    @classmethod
    def made(cls, folder: Path, output: dict[str, Any], schema: str) -> Project:
        """A project with the settings that docs/dbt.md shows, for the tables in a schema of this database."""
        folder.mkdir()
        _git, variables, _profile = (
            yaml.safe_load(block.text)
            for block in documents.blocks()
            if (block.document, block.language) == ("dbt.md", "yaml")
        )
        given = variables["vars"] | {"braze_schema": schema, "braze_event_days": 90}
        project = {"name": "shop", "version": "1.0.0", "profile": "shop", "vars": given}
        shutil.copytree(ROOT / "dbt", folder / "package")
        files = {
            "dbt_project.yml": project | {"flags": {"send_anonymous_usage_stats": False}},
            "packages.yml": {"packages": [{"local": "package"}]},
            "profiles.yml": {"shop": {"target": "dev", "outputs": {"dev": output}}},
        }
        for name, content in files.items():
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        made = cls(folder)
        made.dbt("deps")
        return made

    def dbt(self, *arguments: str) -> None:
        command, seconds = [str(warehouse_program("dbt")), *arguments], TIMEOUT_SECONDS
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A full night, an incremental one without changes, and a full one with some."""
    folder = tmp_path_factory.mktemp("nights")
    before, last = NIGHTS
    plan = [(before - timedelta(days=1), 0, False), (before, 0, True), (last, CHANGED, False)]
    return some_nights(folder, *plan, fingerprints_url=str(folder / "fingerprints"))


def build_and_compare(warehouse: Warehouse, output: dict[str, Any], nights: list[Run], folder: Path) -> None:
    """Load night after night, build in between, and compare what the models have in the end."""
    project = Project.made(folder / "project", output, warehouse.schema)
    first, *others = nights
    warehouse.load([first], folder)
    project.dbt("snapshot")
    warehouse.load(others, folder)
    project.dbt("build")
    shown = {
        model: sorted(warehouse.shown(query.format(f"{output['schema']}.{model}"))) for model, query in MORNINGS.items()
    }
    assert shown == {model: sorted(rows) for model, rows in shown_in_document().items()}


def test_the_package_after_three_nights(nights: list[Run], tmp_path: Path) -> None:
    """Models, their tests, and the snapshot of two mornings."""
    output = {"type": "duckdb", "path": str(tmp_path / "warehouse.duckdb"), "schema": "analytics"}
    build_and_compare(duckdb_warehouse(tmp_path), output, nights, tmp_path)


@pytest.mark.night
def test_the_package_on_postgres(nights: list[Run], tmp_path: Path, postgres: Postgres) -> None:
    warehouse = postgres_warehouse(tmp_path, postgres)
    target = postgres.target_config
    output = {
        "type": "postgres",
        "host": target["host"],
        "port": target["port"],
        "user": target["user"],
        "password": target["password"],
        "dbname": target["database"],
        "schema": f"analytics_{tmp_path.name}".lower(),
        "threads": 1,
    }
    build_and_compare(warehouse, output, nights, tmp_path)
