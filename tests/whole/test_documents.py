"""Every command and every settings block of README and the documents works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb
import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.tap import TapBrazeExport
from tests.support import documents
from tests.support.loaders import (
    MELTANO,
    PLUGINS,
    ROOT,
    TIMEOUT_SECONDS,
    duckdb_counts,
    duckdb_rows,
    loader,
    meltano,
)
from tests.support.night import NIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_RUN = {
    "CRASH_FIRST=": "takes many minutes; the tests with its histories run by themselves",
    "NIGHT=": "takes many minutes; the tests with its steps run by themselves",
    "git clone ADDRESS tap-braze-export": "a link to the checkout stands in for it, with changes not yet committed",
    "gcloud storage buckets add-iam-policy-binding": "needs an account at Google and its command line",
    "dbt ": "tests/whole/test_dbt.py builds the package in a project as the document shows it",
    "docker ": "needs a container engine",
    "kubectl ": "needs a cluster",
    "systemctl ": "needs a service manager",
    "systemd-analyze ": "tests/whole/test_deploy.py does so, where there is systemd",
}
"""Beginnings of the commands that no test runs, each with the reason."""
MAKE = re.compile(r"make (\w+)(?: ([A-Z_]+)=\S+)?")
"""A target, and a variable of it."""
VALID_URL = "https://rest.iad-01.braze.com"
VALID = {"api_url": VALID_URL, "api_key": "a-key", "segment_ids": ["one"]}
SCHEMA = "braze"


def is_run(command: str) -> bool:
    """True if no reason is listed not to run it."""
    return not command.startswith(tuple(NOT_RUN))


def of_meltano() -> list[str]:
    """The commands of the blocks that use Meltano."""
    return [command for block in documents.shell_blocks() if "meltano " in block.text for command in block.commands]


def without_meltano() -> list[str]:
    """The commands of the other blocks, but for those of make."""
    others = [block for block in documents.shell_blocks() if "meltano " not in block.text]
    others.sort(key=lambda block: block.document != "install.md")  # what others need is installed there
    return [command for block in others for command in block.commands if not MAKE.fullmatch(command)]


@dataclass
class Shell:
    """Runs commands one by one, as if they were typed in one terminal.

    Attributes:
        folder: Where it begins.
        path: Folders of programs before the usual ones.
        given: Texts of the documents, and what a reader puts in their place.
        variables: Environment variables.
        typed: What later commands need of earlier ones: `cd` and `export`.
    """

    folder: Path
    path: list[Path]
    given: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)

    def script(self, command: str) -> str:
        for text, value in self.given.items():
            command = command.replace(text, value)
        return command

    @property
    def environment(self) -> dict[str, str]:
        """This process's, without settings of the tap, of loaders and of Meltano."""
        settings = ("TAP_", "TARGET_", "MELTANO_", "VIRTUAL_ENV", "PYTEST_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
        return {**kept, **self.variables, "PATH": os.pathsep.join([*map(str, self.path), os.environ["PATH"]])}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command; its failure fails the test."""
        script = self.script(command)
        done = self._meltano(script) if command.startswith("meltano ") else self._bash(script)
        if command.startswith(("cd ", "export ")):
            self.typed.append(script)
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def _bash(self, *scripts: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join([*self.typed, *scripts])],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def _meltano(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run Meltano, which needs a second for its imports, as a copy of a process that has them."""
        typed = self._bash('meltano() { pwd; printf "%s\\0" "$@"; printf "\\0"; env -0; }', script).stdout
        folder, _, words = typed.partition("\n")
        arguments, _, variables = words.partition("\0\0")
        env = dict(variable.split("=", 1) for variable in variables.split("\0") if variable)
        return meltano(arguments.split("\0"), env=env, cwd=folder)


# What the documents hold


def test_every_command_is_run_or_has_a_reason() -> None:
    """A new command is run with the others of its kind; a reason that no command needs any more goes."""
    commands = documents.commands()
    assert len(commands) > 20
    assert set(commands) == {*of_meltano(), *without_meltano(), *(c for c in commands if MAKE.fullmatch(c))}
    for beginning in NOT_RUN:
        assert [command for command in commands if command.startswith(beginning)], beginning


def test_blocks_name_their_language() -> None:
    """So that none escapes these tests."""
    known = {*documents.SHELLS, "json", "yaml", "sql", "mermaid", "text"}
    assert {block.language for block in documents.blocks()} <= known


def test_extras_are_explained() -> None:
    """A table has every extra, since errors name them in a command that no index answers yet."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| extra | for |\n")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == project["optional-dependencies"].keys()


LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")


@pytest.mark.parametrize("path", documents.paths(), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the repository, and to a heading in it."""
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{target}#{anchor}"


@pytest.mark.parametrize("command", [command for command in documents.commands() if MAKE.fullmatch(command)])
def test_make_has_the_target(command: str) -> None:
    """Each target of make that a document names exists, and its variable; other tests run what the targets do."""
    match = MAKE.fullmatch(command)
    assert match
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{match[1]}:" in makefile
    assert match[2] is None or f"$({match[2]})" in makefile


def test_settings_blocks_are_accepted() -> None:
    """Each names known settings with possible values, together with what the text around it says to set."""
    settings = [block for block in documents.json_blocks() if not {"Version", "bookmarks"} & block.keys()]
    assert len(settings) >= 7
    whole = {name: value for block in settings for name, value in block.items()}
    for block in settings:
        assert block.keys() <= TapBrazeExport.config_jsonschema["properties"].keys() | {"batch_config"}
        needed = {name: whole[name] for name in ("bucket_url", "batch_config") if "dask_scheduler" in block}
        TapBrazeExport(config={**VALID, **needed, **block}, parse_env_config=False)


def test_queries_of_the_page_on_privacy() -> None:
    """They find an address wherever it may stand, and what a column that is deselected still holds."""
    with duckdb.connect() as database:
        database.execute(
            "create table users (braze_id text, external_id text, phone text, exported_at timestamp,"
            " custom_attributes json, _rescued_data json);"
            "create table user_aliases (braze_id text, alias_name text);"
            "insert into users values ('1', 'a@b.c', '+49', '2026-01-02', null, null),"
            """ ('2', '2', null, '2026-01-03', '{"mail": "a@b.c"}', '{"x": ["d@e.f"]}');"""
            "insert into user_aliases values ('1', 'a@b.c'), ('1', 'd@e.f'), ('2', 'x')"
        )
        places, left = (database.execute(query).fetchall() for query in documents.queries("privacy.md"))
    assert places == [("custom_attributes", 1), ("_rescued_data", 1), ("external_id", 1), ("user_aliases", 2)]
    assert [(phones, str(last)) for phones, last in left] == [(1, "2026-01-02 00:00:00")]


def test_query_of_the_measured_exports() -> None:
    """A row for each export, in the order of their requests: its changed users, and those that the filter missed."""
    (query,) = documents.queries("incremental.md")
    files = [
        ("one", "2026-12-08 02:00", "2026-12-07 01:00", 60, 10, None),
        ("one", "2026-12-08 02:00", "2026-12-07 01:00", 40, 7, None),
        ("one", "2026-12-08 02:15", None, 1000, 900, 20),
        ("one", "2026-12-08 02:15", None, 1000, 990, 4),
    ]
    with duckdb.connect() as database:
        database.execute(
            "create table export_files (source text, segment_id text, exported_at timestamp, updated_since timestamp,"
            " users bigint, unchanged bigint, missed bigint)"
        )
        database.executemany("insert into export_files values ('segment', ?, ?, ?, ?, ?, ?)", files)
        rows = database.execute(query).fetchall()
    assert [(str(at), changed, missed) for _segment, at, _since, changed, missed in rows] == [
        ("2026-12-08 02:00:00", 83, None),
        ("2026-12-08 02:15:00", 110, 24),
    ]


def test_other_json_blocks() -> None:
    """The policy for a bucket allows listing and reading only."""
    (policy,) = [block for block in documents.json_blocks() if "Version" in block]
    assert {statement["Action"] for statement in policy["Statement"]} == {"s3:ListBucket", "s3:GetObject"}


# Meltano


@pytest.fixture
def sandbox_of_readme() -> Iterator[Sandbox]:
    """A local Braze in the place of Braze."""
    with Sandbox(users=300, odd_users=False) as sandbox:
        yield sandbox


def given_by(sandbox: Sandbox) -> dict[str, str]:
    """Placeholders of the documents for a reader's own values, and the values in this test."""
    config = sandbox.config
    return {
        VALID_URL: config["api_url"],
        "your-segment-api-identifier": "all-users",
        "…": config["api_key"],
        "target-duckdb.yaml": "target-duckdb.yaml --no-install",  # `with_loaders` has installed it
    }


def with_loaders(project: Path) -> None:
    """Let a project find the loaders that this repository's own project has installed."""
    own = project / ".meltano" / "loaders"
    own.mkdir(parents=True, exist_ok=True)
    for each in (PLUGINS / "loaders").iterdir():
        (own / each.name).symlink_to(each, target_is_directory=True)


def with_extras(project: Path) -> None:
    """Add to the tap of a project the extras that the documents name before `meltano install`."""
    path = project / "meltano.yml"
    content = path.read_text(encoding="utf-8")
    path.write_text(
        content.replace("./tap-braze-export\n", "./tap-braze-export[fingerprints,parquet]\n"), encoding="utf-8"
    )
    assert "[fingerprints,parquet]" in path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.external
def test_meltano_commands(tmp_path: Path, sandbox_of_readme: Sandbox) -> None:
    """A new project from `meltano init` on, in the order of the documents: the rows are in DuckDB at the end."""
    sandbox, project = sandbox_of_readme, tmp_path / "my-project"
    database = project / "output" / "warehouse.duckdb"
    shell = Shell(
        tmp_path,
        [MELTANO.parent],
        given_by(sandbox),
        {
            "NO_COLOR": "1",
            "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
            "MELTANO_AUTO_INSTALL": "false",
            "TAP_BRAZE_EXPORT_SPOOL_DIR": str(tmp_path / "spool"),
        },
    )
    logs: dict[str, str] = {}
    for command in of_meltano():
        if not is_run(command):
            (project / "tap-braze-export").symlink_to(ROOT, target_is_directory=True)
            continue
        if command.startswith("meltano install"):
            with_extras(project)
        logs[command] = logs.get(command, "") + (done := shell.run(command)).stdout + done.stderr
        if command.startswith("meltano init"):
            with_loaders(project)
        if command.endswith("--test"):
            assert "Segment all-users: works" in logs[command]
            assert not sandbox.workspace.exports
            if NIGHT:  # by day, tests/singer/test_meltano_test.py has a stand-in for Meltano
                tested = shell.run("meltano config test tap-braze-export")
                assert "is valid" in tested.stdout + tested.stderr
                assert not sandbox.workspace.exports  # it costs no export either
    counts = duckdb_counts(database, SCHEMA)
    assert counts["users"] == 300
    assert "segment_members" not in counts
    assert counts["invalid_user_ids"] == 2  # the resync selects them: nobody has its two ids
    assert "generated" not in (project / "meltano.yml").read_text(encoding="utf-8")  # no comment of the definitions
    assert "Done in " in logs["meltano run tap-braze-export target-duckdb"]
    assert "300 of 300 users were skipped" in logs["meltano run tap-braze-export target-duckdb"]
    assert "; incremental since " in logs["meltano run tap-braze-export target-duckdb"]
    assert "Resync ids-" in logs["meltano run tap-braze-export--resync target-duckdb"]
    assert '"all-users"' in logs["meltano state get dev:tap-braze-export-to-target-duckdb"]
    # By another way, and by the DuckDB of another loader: the file has a format that both read.
    assert duckdb_counts(project / "output" / "tables.duckdb", SCHEMA)["users"] == 300
    (query,) = documents.queries("rows.md")
    assert len(duckdb_rows(database, f"set schema = '{SCHEMA}'; {query}")) == counts["devices"]


# Without Meltano


@pytest.mark.slow
@pytest.mark.external
def test_commands_without_meltano(tmp_path: Path, sandbox_of_readme: Sandbox) -> None:
    """An environment of its own, into which pip installs the checkout; uv does pip's work, with its cache."""
    environment, tools = tmp_path / "venv", tmp_path / "tools"
    uv = str(MELTANO.parent / "uv")
    subprocess.run([uv, "venv", "--quiet", str(environment)], check=True)
    tools.mkdir()
    (tools / "pip").write_text(f'#!/bin/sh\nexec {shlex.quote(uv)} pip "$@"\n')
    (tools / "pip").chmod(0o755)
    (tools / "target-jsonl").symlink_to(loader("target-jsonl"))
    (tmp_path / "tap-braze-export").symlink_to(ROOT, target_is_directory=True)
    settings = next(
        block.text for block in documents.blocks() if (block.document, block.language) == ("install.md", "json")
    )
    shell = Shell(tmp_path, [environment / "bin", tools], given_by(sandbox_of_readme))
    shell.variables = {"VIRTUAL_ENV": str(environment), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    shell.variables["UV_CACHE_DIR"] = subprocess.check_output([uv, "cache", "dir"], text=True).strip()
    (tmp_path / "config.json").write_text(shell.script(settings), encoding="utf-8")
    batches = next(block for block in documents.json_blocks() if "batch_size" in block.get("batch_config", ()))
    (tmp_path / "fast.json").write_text(json.dumps(json.loads(shell.script(settings)) | batches), encoding="utf-8")
    skipped, asked = [], []
    for command in filter(is_run, without_meltano()):
        if command.startswith("braze-sandbox"):
            _start_and_stop(shell, command)
            continue
        done = shell.run(command)
        if command.endswith("--test"):
            assert "Segment all-users: works" in done.stderr
            assert not sandbox_of_readme.workspace.exports
        if command == "rm -r fingerprints":
            assert not (tmp_path / "fingerprints").exists()
        skipped += re.findall(r"\d+ of \d+ users were skipped", done.stderr)
        asked += re.findall(r" fields; (\w+)", done.stderr)
    loaded = [path.read_text(encoding="utf-8").splitlines() for path in sorted(tmp_path.glob("users-*.jsonl"))]
    assert [len(lines) for lines in loaded if lines] == [300, 300, 300]
    assert skipped == [f"{each} users were skipped" for each in ("0 of 300", "300 of 300", "0 of 300", "0 of 0")]
    assert asked[-2:] == ["full", "incremental"]
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from users").fetchall() == [(300,)]


def _start_and_stop(shell: Shell, command: str) -> None:
    """Start a server, read its address, and stop it."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=shell.folder,
        env=shell.environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stderr is not None
        try:
            assert "listens on http://127.0.0.1:" in process.stderr.readline()
        finally:
            process.terminate()
