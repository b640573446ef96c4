"""Custom attributes of any name arrive, in each way and with each loader that docs/custom-attributes.md lists."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.loaders import ROOT, SCHEMA, Project, duckdb_rows, jsonl_rows, load
from tests.support.night import at_night
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.external

# The name of each attribute, and the end of its column's name when it is flattened, where that is another one.
NAMES: dict[str, str | None] = {
    "some name": None,
    "some-name": None,
    "some.name": None,
    "ünïcode": None,
    "日本": None,
    "emoji 🎂": None,
    "Plan": "Plan_684cb2",
    "plan": "plan_516b2a",
    "UPPER": None,
    'say "hi"': "say _hi_",
    "back\\slash": None,
    "it's": None,
    "[vip]": None,
    "a*b": None,
    "100% sure": None,
    "properties": None,
    "type": None,
}
LONG = ["x" * 45, "x" * 80, "X" * 80, "日" * 15]
"""Names whose flattened columns have more than the 63 bytes that PostgreSQL keeps."""
ATTRIBUTES = {name: f"value {number}" for number, name in enumerate([*NAMES, *LONG])}
FLAT = {"flattening_enabled": True, "flattening_max_depth": 1}
SHORT = {**FLAT, "flattening_max_key_length": 63}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A Braze that lists these attributes, of a type that the tap does not know, and a user who has them all."""
    with Sandbox(users=1) as sandbox:
        sandbox.workspace.attributes[:] = [{"name": name, "data_type": "Mystery"} for name in ATTRIBUTES]
        sandbox.add_segment("mine", [{"braze_id": "u", "custom_attributes": ATTRIBUTES}])
        yield sandbox


def exported(sandbox: Sandbox, folder: Path, *, names: Mapping[str, Any] = ATTRIBUTES, **more: Any) -> Run:
    """A run over `users` alone; the attributes of these names are typed as text."""
    given = settings(sandbox, folder, segment_ids=["mine"], custom_attributes=dict.fromkeys(names, "string"), **more)
    return sync(given, catalog=selecting(["users"], config=given))


def flattened(names: Mapping[str, Any] = NAMES) -> dict[str, str]:
    """The columns expected of attributes with these names."""
    return {f"custom_attributes__{NAMES.get(name) or name}": ATTRIBUTES[name] for name in names}


def columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of flattened attributes that a row has."""
    return {name: value for name, value in row.items() if name.startswith("custom_attributes_")}


def loaded(loader: str, run: Run, folder: Path, postgres: Postgres | None = None) -> dict[str, Any]:
    """The one row of `users` after two loads of a run, the second of which finds the table there."""
    if loader == "target-jsonl":
        config: dict[str, Any] = {"destination_path": str(folder / "jsonl"), "do_timestamp_file": False}
    elif loader == "target-duckdb":
        config = {"filepath": str(folder / "w.duckdb"), "default_target_schema": SCHEMA, "flush_all_streams": True}
    else:
        assert postgres
        schema = re.sub(r"\W", "_", folder.name).lower()
        config = {**postgres.target_config, "default_target_schema": schema, "use_copy": True}
    for _ in range(2):
        done = load(loader, config, run.stdout, folder)
        assert done.returncode == 0, done.stderr
    if loader == "target-jsonl":
        return jsonl_rows(folder / "jsonl")["users"][-1]
    if loader == "target-duckdb":
        (row,) = duckdb_rows(folder / "w.duckdb", f"select * from {SCHEMA}.users")
        return row
    assert postgres
    (row,) = postgres.rows(f'select * from "{schema}".users')
    return row


@pytest.fixture(params=["target-jsonl", "target-duckdb", "target-postgres"])
def loader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(loader: str, request: pytest.FixtureRequest) -> Postgres | None:
    """PostgreSQL, for the loader that needs it."""
    return request.getfixturevalue("postgres") if loader == "target-postgres" else None


def test_one_object_keeps_every_name(loader: str, server: Postgres | None, sandbox: Sandbox, tmp_path: Path) -> None:
    """Without flattening no loader changes a name, whatever its length."""
    value = loaded(loader, exported(sandbox, tmp_path), tmp_path, server)["custom_attributes"]
    assert (json.loads(value) if isinstance(value, str) else value) == ATTRIBUTES


def test_flattened_columns_keep_their_names(
    loader: str, server: Postgres | None, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Each value has a column of its own; names that differ in case alone end in a hash, a quote becomes `_`."""
    row = columns(loaded(loader, exported(sandbox, tmp_path, names=NAMES, **FLAT), tmp_path, server))
    expected = flattened()
    if loader == "target-duckdb":  # writes every name in lower case
        expected = {name.lower(): value for name, value in expected.items()}
    assert row == expected


def test_long_names_are_shortened_for_postgres(
    loader: str, server: Postgres | None, sandbox: Sandbox, tmp_path: Path
) -> None:
    """With a `flattening_max_key_length` of 63 every column is shorter than that, in bytes, and none is lost."""
    run = exported(sandbox, tmp_path, names=dict.fromkeys(LONG), **SHORT)
    assert max(len(name.encode()) for name in run.columns("users")) < 63
    row = loaded(loader, run, tmp_path, server)
    assert {ATTRIBUTES[name] for name in LONG} <= {str(value) for value in row.values()}


@pytest.mark.parametrize("name", [LONG[0], LONG[-1]])
def test_postgres_refuses_a_longer_name_aloud(sandbox: Sandbox, tmp_path: Path, postgres: Postgres, name: str) -> None:
    """PostgreSQL cuts names after 63 bytes: the load fails, it loses nothing quietly."""
    run = exported(sandbox, tmp_path, names={name: None}, **FLAT)
    config = {**postgres.target_config, "default_target_schema": f"long_{len(name)}", "use_copy": True}
    done = load("target-postgres", config, run.stdout, tmp_path)
    assert done.returncode != 0
    assert "DuplicateColumn" in done.stderr


def test_flattening_in_duckdb_loses_members(sandbox: Sandbox, tmp_path: Path) -> None:
    """`data_flattening_max_level` of target-duckdb drops members that have no type: the tap's flattening does not."""
    run = exported(sandbox, tmp_path, names={"some name": None})
    path = tmp_path / "w.duckdb"
    config = {"filepath": str(path), "default_target_schema": SCHEMA, "data_flattening_max_level": 1}
    assert load("target-duckdb", config, run.stdout, tmp_path).returncode == 0
    (row,) = duckdb_rows(path, f"select * from {SCHEMA}.users")
    kept = {name: value for name, value in row.items() if name.startswith("custom_attributes")}
    assert kept == {"custom_attributes__some name": ATTRIBUTES["some name"]}


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_batch_files_keep_every_name(sandbox: Sandbox, tmp_path: Path, file_format: str) -> None:
    """As one object and flattened; Parquet holds the object as JSON text."""
    read = {"jsonl": batches.jsonl, "parquet": batches.parquet}[file_format]
    batch = batches.config(tmp_path / "out", file_format)
    (row,) = read(exported(sandbox, tmp_path, batch_config=batch))["users"]
    value = row["custom_attributes"]
    assert (json.loads(value) if file_format == "parquet" else value) == ATTRIBUTES
    (row,) = read(exported(sandbox, tmp_path, names=NAMES, batch_config=batch, **FLAT))["users"]
    assert columns(row) == flattened()


def test_postgres_loads_batch_files(sandbox: Sandbox, tmp_path: Path, postgres: Postgres) -> None:
    """Flattened columns arrive from batch files as from RECORD messages."""
    batch = batches.config(tmp_path / "out")
    run = exported(sandbox, tmp_path, names=NAMES, batch_config=batch, **FLAT)
    assert columns(loaded("target-postgres", run, tmp_path, postgres)) == flattened()


def test_stream_maps_reach_every_name(sandbox: Sandbox, tmp_path: Path) -> None:
    """By subscript, as Python writes the name; the map's own column may have any name, too."""
    maps = {f"of {name}": f"custom_attributes[{name!r}]" for name in ATTRIBUTES}
    run = exported(sandbox, tmp_path, stream_maps={"users": {**maps, "none": "(custom_attributes or {}).get('x')"}})
    (row,) = run.rows("users")
    assert {f"of {name}": value for name, value in ATTRIBUTES.items()}.items() <= row.items()
    assert row["none"] is None


# Patterns of Meltano's `select`, and the attributes that they match.
PATTERNS = {
    "some name": ["some name"],
    "ünïcode": ["ünïcode"],
    "emoji 🎂": ["emoji 🎂"],
    "plan": ["plan"],
    'say "hi"': ['say "hi"'],
    "properties": ["properties"],
    "[[]vip]": ["[vip]"],
    "a[*]b": ["a*b"],
    "x" * 80: ["x" * 80],
    "some[! -]name": ["some.name"],
    "UPP.ER": [],
}


def dumped_catalog(sandbox: Sandbox, folder: Path, rules: list[str]) -> dict[str, Any]:
    """The catalog that Meltano discovers, with these rules of `select` applied."""
    variables = {
        "TAP_BRAZE_EXPORT_API_URL": sandbox.api_url,
        "TAP_BRAZE_EXPORT_API_KEY": sandbox.api_key,
        "TAP_BRAZE_EXPORT_DISCOVER_CUSTOM_ATTRIBUTES": "true",
        "TAP_BRAZE_EXPORT__SELECT": json.dumps(rules),
    }
    project = Project.copy_to(folder / "project", variables)
    catalog: dict[str, Any] = json.loads(project.meltano("invoke", "--dump=catalog", "tap-braze-export").stdout)
    return catalog


@pytest.mark.slow
@pytest.mark.parametrize("mark", at_night(["", "!"], but=["!"]))
def test_meltano_selects_every_name(sandbox: Sandbox, tmp_path: Path, mark: str) -> None:
    """Also one whose type is unknown; a name with a dot needs a pattern that has none."""
    rules = [f"{mark}users.custom_attributes.{pattern}" for pattern in PATTERNS]
    catalog = dumped_catalog(sandbox, tmp_path, ["users.*", *rules] if mark else rules)
    (row,) = sync(settings(sandbox, tmp_path, segment_ids=["mine"]), catalog=catalog).rows("users")
    named = {name for names in PATTERNS.values() for name in names}
    assert row["custom_attributes"].keys() == (ATTRIBUTES.keys() - named if mark else named)
    assert row.get("_rescued_data") is None


@pytest.mark.slow
def test_meltano_hands_over_a_rule_that_matches_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """In its environment alone: the catalog that it makes shows no trace of the rule, and the tap refuses to run."""
    variables = {
        "TAP_BRAZE_EXPORT_API_URL": sandbox.api_url,
        "TAP_BRAZE_EXPORT_API_KEY": sandbox.api_key,
        "TAP_BRAZE_EXPORT_SEGMENT_IDS": '["mine"]',
        "TAP_BRAZE_EXPORT__SELECT": json.dumps(["users.*", "!users.custom_attributes.address"]),
    }
    project, calls = Project.copy_to(tmp_path / "project", variables), len(sandbox.calls)
    with pytest.raises(AssertionError, match=r"!users\.custom_attributes\.address names the custom attribute address"):
        project.meltano("invoke", "tap-braze-export")
    assert len(sandbox.calls) == calls


@pytest.mark.slow
@pytest.mark.night
def test_a_dot_in_a_pattern_of_meltano_matches_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Meltano takes the part after it for a member inside: such a rule does nothing, and the tap refuses it."""
    catalog = dumped_catalog(sandbox, tmp_path, ["users.*", "!users.custom_attributes.some.name"])
    (users,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "users"]
    (chosen,) = [item["metadata"] for item in users["metadata"] if item["breadcrumb"][-1:] == ["some.name"]]
    assert chosen["selected"] is True


def test_the_document_lists_what_is_tested() -> None:
    """Each name in the table of docs/custom-attributes.md is one of those above."""
    table = re.findall(
        r"^\| [^|`]*: (.*?) \|", (ROOT / "docs" / "custom-attributes.md").read_text("utf-8"), re.MULTILINE
    )
    listed = {name for cell in table for name in re.findall(r"`([^`]+)`", cell)}
    assert listed == NAMES.keys()
