"""The pinned loaders load the tap's messages row for row, and a second time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox.braze import Sandbox
from tests.support.loaders import (
    SCHEMA,
    Project,
    duckdb_counts,
    duckdb_rows,
    jsonl_rows,
    load,
    render,
)
from tests.support.night import at_night
from tests.support.runs import command, written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = [pytest.mark.external, pytest.mark.sandbox(users=300, delay=0)]

AT = "2026-11-20T03:00:00.000000Z"
TEXT = {"type": ["string", "null"]}
KEY = {"type": "string"}
TIMESTAMP = {"type": ["string", "null"], "format": "date-time"}
OBJECT = {"type": ["object", "null"], "additionalProperties": True}
ODD_TEXT = (
    "plain",
    'say "hi"',
    "a,b;c\td|e",
    "two\nlines",
    "two\r\nlines",
    "back\\slash \\N",
    "ünïcödé 日本 😀 \u2028",
    "NULL",
    "'single'",
    " padded ",
    "",
    None,
)

# Three shapes that the tap's streams have: many types; a text key of two parts; all text but for exported_at.
STREAMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "users": (
        {
            "braze_id": KEY,
            "email": TEXT,
            "total_sessions": {"type": ["integer", "null"]},
            "total_revenue": {"type": ["number", "null"]},
            "is_subscribed": {"type": ["boolean", "null"]},
            "created_at": TIMESTAMP,
            "custom_attributes": OBJECT,
            "exported_at": TIMESTAMP,
        },
        ["braze_id"],
    ),
    "purchases": (
        {"braze_id": KEY, "name": KEY, "count": {"type": ["integer", "null"]}, "exported_at": TIMESTAMP},
        ["braze_id", "name"],
    ),
    "segment_members": (
        {"segment_id": KEY, "braze_id": KEY, "segment_name": TEXT, "exported_at": TIMESTAMP},
        ["segment_id", "braze_id"],
    ),
}


def _row(stream: str, number: int) -> dict[str, Any]:
    braze_id = f"{number:024x}"
    text = ODD_TEXT[number % len(ODD_TEXT)]
    if stream == "users":
        attributes = {"n": number, "text": text, "list": [1, '"', ",\n"], "nested": {"": None}}
        return {
            "braze_id": braze_id,
            "email": text,
            "total_sessions": None if number % 5 == 4 else number - 2,
            "total_revenue": None if number % 7 == 6 else number / 4,
            "is_subscribed": (True, False, None)[number % 3],
            "created_at": None if number % 4 == 3 else "2020-07-10T15:00:00.000Z",
            "custom_attributes": attributes if number % 6 else {},
            "exported_at": AT,
        }
    if stream == "purchases":
        return {"braze_id": braze_id, "name": text or "-", "count": number, "exported_at": AT}
    return {"segment_id": "a-segment", "braze_id": braze_id, "segment_name": text, "exported_at": AT}


def _sent(rows: int) -> dict[str, list[dict[str, Any]]]:
    """`rows` rows a stream; the first looks like the header of a CSV file."""
    made = {stream: [_row(stream, number) for number in range(rows)] for stream in STREAMS}
    for stream, (schema, _) in STREAMS.items():
        made[stream][0].update({name: name for name, spec in schema.items() if spec in (KEY, TEXT)})
    return made


def _schema(stream: str) -> dict[str, Any]:
    properties, keys = STREAMS[stream]
    schema = {"type": "object", "properties": properties}
    return {"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": keys}


def _messages(sent: Mapping[str, Sequence[dict[str, Any]]]) -> bytes:
    records = (
        {"type": "RECORD", "stream": stream, "record": row, "time_extracted": AT}
        for stream, rows in sent.items()
        for row in rows
    )
    return render([*map(_schema, sent), *records, {"type": "STATE", "value": {"bookmarks": {}}}])


def _sorted(stream: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [row[name] for name in STREAMS[stream][1]])


@dataclass(frozen=True)
class Destination:
    """A loader with its settings, and how to read what it has loaded."""

    loader: str
    config: dict[str, Any]
    counts: Callable[[], dict[str, int]]
    rows: Callable[[str], list[dict[str, Any]]]
    # How a value that was sent is shown by a query: column's schema, value.
    shown: Callable[[dict[str, Any], Any], Any]

    @property
    def environment(self) -> dict[str, str]:
        """The settings as environment variables for Meltano."""
        prefix = self.loader.upper().replace("-", "_")
        return {
            f"{prefix}_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self.config.items()
        }


def _in_jsonl(_: dict[str, Any], value: Any) -> Any:
    return value


def _in_duckdb(spec: dict[str, Any], value: Any) -> Any:
    if value is None or value == "":
        return None  # target-duckdb makes no difference between the two
    if spec is TIMESTAMP:
        return value[:19].replace("T", " ")
    return json.dumps(value) if spec is OBJECT else value


def _in_postgres(spec: dict[str, Any], value: Any) -> Any:
    return value[:19] if spec is TIMESTAMP and value else value


def _to_jsonl(folder: Path) -> Destination:
    files = folder / "jsonl"
    return Destination(
        loader="target-jsonl",
        config={"destination_path": str(files), "do_timestamp_file": False},
        counts=lambda: {stream: len(rows) for stream, rows in jsonl_rows(files).items()},
        rows=lambda stream: jsonl_rows(files).get(stream, []),
        shown=_in_jsonl,
    )


def _to_duckdb(folder: Path) -> Destination:
    path = folder / "warehouse.duckdb"
    return Destination(
        loader="target-duckdb",
        config={"filepath": str(path), "default_target_schema": SCHEMA, "flush_all_streams": True},
        counts=lambda: duckdb_counts(path),
        rows=lambda stream: duckdb_rows(path, f'select * from {SCHEMA}."{stream}"'),
        shown=_in_duckdb,
    )


def _to_postgres(folder: Path, server: Postgres) -> Destination:
    schema = f"{SCHEMA}_{folder.name}".lower()
    return Destination(
        loader="target-postgres",
        config={**server.target_config, "default_target_schema": schema, "use_copy": True},
        counts=lambda: server.counts(schema),
        rows=lambda stream: server.rows(f'select * from "{schema}"."{stream}"'),
        shown=_in_postgres,
    )


LOADERS = ["target-jsonl", "target-duckdb", "target-postgres"]


@pytest.fixture(params=LOADERS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """Each loader in turn, with an empty place to load to."""
    if request.param == "target-postgres":
        return _to_postgres(tmp_path, request.getfixturevalue("postgres"))
    return {"target-jsonl": _to_jsonl, "target-duckdb": _to_duckdb}[request.param](tmp_path)


@pytest.mark.parametrize("rows", [1, 2, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.night])])
def test_every_row_arrives_as_it_was_sent(destination: Destination, rows: int, tmp_path: Path) -> None:
    """No row is mistaken for a header or split; text, numbers and objects are unchanged."""
    sent = _sent(rows)
    done = load(destination.loader, destination.config, _messages(sent), tmp_path)
    assert done.returncode == 0, done.stderr
    assert destination.counts() == dict.fromkeys(STREAMS, rows)
    for stream, rows_sent in sent.items():
        specs = STREAMS[stream][0]
        expected = [{name: destination.shown(specs[name], value) for name, value in row.items()} for row in rows_sent]
        loaded = [{name: row[name] for name in specs} for row in destination.rows(stream)]
        assert _sorted(stream, loaded) == _sorted(stream, expected)


def test_duckdb_refuses_an_empty_key_aloud(tmp_path: Path) -> None:
    """target-duckdb turns "" into null, which a key must not be: the load fails, it loses nothing quietly."""
    destination = _to_duckdb(tmp_path)
    sent = {"purchases": [{**_row("purchases", 1), "name": ""}]}
    done = load(destination.loader, destination.config, _messages(sent), tmp_path)
    assert done.returncode != 0
    assert "NOT NULL constraint failed" in done.stderr
    assert done.stdout == "", "no STATE for rows that were not loaded"


def _tap_settings(sandbox: Sandbox, spool: Path) -> dict[str, Any]:
    return {**sandbox.config, "spool_dir": str(spool), "poll_interval_seconds": 1}


def _as_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"TAP_BRAZE_EXPORT_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """RECORD messages per stream of one run, with a sandbox of the same users as the tests'."""
    folder = tmp_path_factory.mktemp("tap")
    with Sandbox(users=300) as sandbox:
        done = command("--config", written(folder, _tap_settings(sandbox, folder / "spool")))
    assert done.code == 0, done.stderr
    return done.counts


# The log of exports, and when each row was exported, differ from run to run.
VOLATILE = {"exported_at"}


def _content(destination: Destination, stream: str) -> set[str]:
    """The rows of a table as a set, without the columns that differ from run to run."""
    return {
        json.dumps({name: value for name, value in row.items() if name not in VOLATILE and name[:5] != "_sdc_"})
        for row in destination.rows(stream)
    }


@pytest.mark.slow
@pytest.mark.parametrize("destination", at_night(LOADERS, but=["target-postgres"]), indirect=True)
def test_meltano_runs_twice_and_the_tables_stay(
    destination: Destination, sandbox: Sandbox, records: Mapping[str, int], tmp_path: Path
) -> None:
    """Tables count the RECORD messages of each stream; a second run with the first one's STATE adds none."""
    settings = _as_environment(_tap_settings(sandbox, tmp_path / "spool"))
    project = Project.copy_to(tmp_path / "project", {**settings, **destination.environment})
    assert {"users", "devices", "purchases", "custom_events", "campaigns_received"} <= set(records)

    project.meltano("run", "tap-braze-export", destination.loader)
    first = destination.counts()
    before = {stream: _content(destination, stream) for stream in first}
    assert {stream: count for stream, count in first.items() if count} == records

    project.meltano("run", "tap-braze-export", destination.loader)
    # target-jsonl appends; and the log of exports has a line for each.
    growth = {stream: 2 for stream in first if stream == "export_files" or destination.loader == "target-jsonl"}
    assert destination.counts() == {stream: count * growth.get(stream, 1) for stream, count in first.items()}
    before.pop("export_files")
    assert {stream: _content(destination, stream) for stream in before} == before


@pytest.mark.slow
@pytest.mark.night
def test_a_resync_is_one_variable(sandbox: Sandbox, tmp_path: Path) -> None:
    """Besides the settings of the nightly run, the README's variable names the people; its job loads them."""
    database = tmp_path / "resync.duckdb"
    names = {
        "TAP_BRAZE_EXPORT__RESYNC_EXTERNAL_IDS": '["A8i3mkd99", "100194", "nobody"]',
        "TARGET_DUCKDB_FILEPATH": str(database),
    }
    settings = _as_environment(_tap_settings(sandbox, tmp_path / "spool"))
    project = Project.copy_to(tmp_path / "project", {**settings, **names})
    project.meltano("run", "resync")
    users = duckdb_rows(database, "select external_id from braze.users order by 1")
    assert [row["external_id"] for row in users] == ["100194", "A8i3mkd99"]
