"""BATCH: files with exactly the records of the RECORD path, announced in groups that a STATE covers."""

from __future__ import annotations

import errno
import gzip
import json
import pickle
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from tap_braze_export.clock import Clock
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.singer.batch_files import BatchFiles
from tests.support import batches, clouds
from tests.support.batches import comparable, config, manifests, records
from tests.support.fakes import FakeClock
from tests.support.loaders import load
from tests.support.night import at_night
from tests.support.runs import Run, command, refusal, selecting, settings, sync, written

if TYPE_CHECKING:
    from tests.support.postgres import Postgres

DEFAULT_STREAMS = [table.stream for table in TABLES if table.selected_by_default]
HUGE = 10**40
PERSON = {
    "braze_id": "b1",
    "email": "a@example.com",
    "random_bucket": 7,
    "total_revenue": 12.50,
    "last_coordinates": [1.5, 2],
    "custom_attributes": {"huge": HUGE, "exact": 0.1000, "nested": {"list": [1, "é"]}},
    "campaigns_received": [{"api_campaign_id": "c1", "engaged": {"opened_email": True, "a new kind": False}}],
    "devices": [{"device_id": "d1", "brand_new": {"x": 1}}],
    "custom_events": [{"name": "bought", "count": 2**63 - 1, "first": "2020-07-10 15:00:00.000 UTC"}],
}


# 40 users, of whom the first eight are odd, in four files.
pytestmark = [pytest.mark.slow, pytest.mark.sandbox(users=40, users_per_file=10, segments={"one": [PERSON]})]


MAPS = {
    "users": {"mail": "email", "email": None, "__filter__": "random_bucket is None or random_bucket < 5000"},
    "apps": {"__alias__": "'installed apps'"},
    "people": {"__source__": "users", "braze_id": "braze_id", "__else__": None},
    "purchases": None,
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "maps": {"stream_maps": MAPS},
    "else": {"stream_maps": {"devices": {}, "__else__": None}},
    "flattening": {"flattening_enabled": True, "flattening_max_depth": 2},
    "both": {"stream_maps": MAPS, "flattening_enabled": True, "flattening_max_depth": 1},
}
FIELDS = {
    "users": ["email", "random_bucket", "custom_attributes", "_rescued_data"],
    "campaigns_received": ["engaged", "name"],
}


@pytest.mark.parametrize("some", [False, True], ids=["everything", "deselected"])
@pytest.mark.parametrize("shape", at_night(SHAPES, but=[*SHAPES][::2]))
def test_files_hold_the_records(sandbox: Sandbox, tmp_path: Path, shape: str, some: bool) -> None:  # noqa: FBT001
    """Files hold every row as a RECORD message would, to the digit: selected, mapped, filtered, renamed, flattened."""
    catalog = selecting([stream for stream in DEFAULT_STREAMS if stream != "apps"], FIELDS) if some else None
    if catalog:
        (campaigns,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "campaigns_received"]
        for item in campaigns["metadata"]:
            if item["breadcrumb"][-1:] == ["opened_email"]:
                item["metadata"]["selected"] = False
    segments = {"segment_ids": ["all-users", "one"], "concurrent_exports": 1}
    expected = sync(settings(sandbox, tmp_path, **SHAPES[shape], **segments), catalog=catalog)
    batch = config(tmp_path / "out", batch_size=25)
    run = sync(settings(sandbox, tmp_path, **SHAPES[shape], **segments, batch_config=batch), catalog=catalog)
    assert not run.of_type("RECORD")
    assert run.of_type("SCHEMA") == expected.of_type("SCHEMA")
    assert comparable(batches.jsonl(run)) == comparable(records(expected))
    assert run.metrics == expected.metrics


@pytest.mark.parametrize("limit", [1, 5])
def test_files_of_a_dry_run_hold_its_records(sandbox: Sandbox, tmp_path: Path, limit: int) -> None:
    expected = sync(settings(sandbox, tmp_path), limit=limit)
    run = sync(settings(sandbox, tmp_path, batch_config=config(tmp_path / "out")), limit=limit)
    assert comparable(batches.jsonl(run)) == comparable(records(expected))


def test_resync(sandbox: Sandbox, tmp_path: Path) -> None:
    """The files of an ids export hold its profiles and the identifiers that matched nobody."""
    one = settings(sandbox, tmp_path, braze_ids=["b1", "nobody"])
    del one["segment_ids"]
    catalog = selecting(["users", "devices", "invalid_user_ids", "export_files"])
    expected = sync(one, catalog=catalog, clock=Clock())
    run = sync({**one, "batch_config": config(tmp_path / "out")}, catalog=catalog, clock=Clock())
    moments = {"exported_at", "read_at"}
    found, wanted = (
        {name: [{k: v for k, v in row.items() if k not in moments} for row in of[name]] for name in of}
        for of in (comparable(batches.jsonl(run)), comparable(records(expected)))
    )
    assert found == wanted
    assert len(wanted["invalid_user_ids"]) == 1
    assert run.states[-1] == expected.states[-1]


# Groups


def groups(run: Run) -> list[list[dict[str, Any]]]:
    """The BATCH messages, grouped by the STATE that follows them."""
    found: list[list[dict[str, Any]]] = [[]]
    for message in run.messages:
        if message["type"] == "BATCH":
            found[-1].append(message)
        elif message["type"] == "STATE" and found[-1]:
            found.append([])
    assert not found.pop()  # the last STATE covers everything
    return found


def test_group_closes_when_its_largest_stream_is_full(sandbox: Sandbox, tmp_path: Path) -> None:
    """Every stream has at most one BATCH in a group; before the largest has reached the size there is no STATE."""
    few, many = (
        groups(sync(settings(sandbox, tmp_path, batch_config=config(tmp_path / f"{size}", batch_size=size))))
        for size in (1, 10_000)
    )
    assert len(few) == 4  # one for each file
    assert len(many) == 1
    for group in [*few, *many]:
        streams = [message["stream"] for message in group]
        assert len(set(streams)) == len(streams)
        assert {"users", "export_files"} <= set(streams)
        assert {message["encoding"]["format"] for message in group} == {"jsonl"}
        assert {message["encoding"]["compression"] for message in group} == {"gzip"}
        assert [len(message["manifest"]) for message in group] == [1] * len(group)


def test_default_batch_size(sandbox: Sandbox, tmp_path: Path) -> None:
    """The SDK's 10,000."""
    batch = config(tmp_path / "out") | {"batch_size": None}
    assert len(groups(sync(settings(sandbox, tmp_path, batch_config=batch)))) == 1


class Filling(LocalFileSystem):  # type: ignore[misc]
    """A storage with room for `room` files of users; its options are secrets."""

    protocol = "filling"

    def __init__(self, room: int = 1, token: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.room = room

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        self.room -= "--users-" in path
        if self.room < 0:
            raise OSError(errno.ENOSPC, "no room for topsecret")
        super().pipe_file(path, value, mode, **options)


fsspec.register_implementation("filling", Filling, clobber=True)


def named(state: dict[str, Any]) -> int:
    """The number of files that a STATE counts as loaded."""
    return sum(export["files"] for export in state["bookmarks"]["export_files"]["exports"])


@pytest.mark.parametrize("room", [0, 1, 3])
@pytest.mark.fault(
    "Local disk", "the storage of batch files is full", "one line; the next run writes exactly the missing files"
)
def test_state_names_no_file_that_was_not_announced(sandbox: Sandbox, tmp_path: Path, room: int) -> None:
    """If the storage is full, STATE counts only announced files, and the next run writes exactly the missing ones."""
    storage = {"root": f"filling://{tmp_path}/out", "params": {"room": room, "token": "topsecret"}}
    batch = config(tmp_path, batch_size=15, storage=storage)
    first = sync(settings(sandbox, tmp_path, batch_config=batch), fails=True)
    assert first.error == "the storage of batch files could not be written 5 times: OSError"
    announced = 0
    for message in first.messages:
        if message["type"] == "BATCH" and message["stream"] == "export_files":
            announced += sum(len(gzip.decompress(read(url)).splitlines()) for url in message["manifest"])
        elif message["type"] == "STATE":
            assert named(message["value"]) == announced
    rest = config(tmp_path / "out", batch_size=15)
    second = sync(settings(sandbox, tmp_path, batch_config=rest), state=first.states[-1])
    users = [json.loads(gzip.decompress(read(url)).splitlines()[0]) for url in manifests(first).get("users", [])]
    assert len(users) == announced
    assert len(batches.jsonl(second)["export_files"]) == 4 - announced


def read(url: str) -> bytes:
    return Path(url.partition("://")[2]).read_bytes()


# Formats and storages


def test_without_compression(sandbox: Sandbox, tmp_path: Path) -> None:
    """Files hold plain JSON lines; a path may contain a blank."""
    for compression in (None, "none"):
        batch = config(tmp_path / "a b", compression=compression, storage={"prefix": "night-"})
        run = sync(settings(sandbox, tmp_path, batch_config=batch))
        (url,) = manifests(run)["users"]
        assert url.startswith(f"file://{tmp_path}/a b/night-tap-braze-export--users-")
        assert url.endswith(".json")
        assert len(batches.jsonl(run)["users"]) == 39


PARQUET_TYPES = {
    "braze_id": "string",
    "created_at": "timestamp[us, tz=UTC]",
    "dob": "date32[day]",
    "random_bucket": "int64",
    "total_revenue": "double",
    "last_coordinates": "list<element: double>",
    "custom_attributes": "string",
    "_rescued_data": "string",
}


@pytest.mark.parametrize("compression", [None, "none", "gzip"])
def test_parquet(sandbox: Sandbox, tmp_path: Path, compression: str | None) -> None:
    """Columns have the schema's types even if all values are null; objects are JSON text, to the last digit."""
    batch = config(tmp_path / "out", "parquet", compression)
    expected = sync(settings(sandbox, tmp_path, segment_ids=["one"]))
    run = sync(settings(sandbox, tmp_path, segment_ids=["one"], batch_config=batch))
    found = batches.parquet(run)
    assert set(found) == {record["stream"] for record in expected.of_type("RECORD")}
    for stream, rows in comparable(records(expected)).items():
        for row, got in zip(rows, comparable(found)[stream], strict=True):
            assert list(row) == list(got)
            assert {name: plain(value) for name, value in row.items()} == {
                name: batches.exact(value) if isinstance(row[name], dict) else as_text(value, row[name])
                for name, value in got.items()
            }
    (url,) = manifests(run)["users"]
    file = pq.ParquetFile(url.removeprefix("file://"))
    types = {column.name: str(column.type) for column in file.schema_arrow}
    assert {name: types[name] for name in PARQUET_TYPES} == PARQUET_TYPES
    assert file.metadata.row_group(0).column(0).compression == ("GZIP" if compression == "gzip" else "ZSTD")
    assert f'"huge":{HUGE}' in found["users"][0]["custom_attributes"]
    assert found["custom_events"][0]["count"] == 2**63 - 1
    assert json.loads(found["devices"][0]["_rescued_data"]) == {"brand_new": {"x": 1}}


def as_text(value: Any, text: Any) -> Any:
    """A time or date as RECORD writes it: with as many digits as this text has."""
    if isinstance(value, datetime):
        return text if value == datetime.fromisoformat(text) else value
    return value.isoformat() if isinstance(value, date) else value


def plain(value: Any) -> Any:
    """A value as Parquet holds it: numbers as doubles."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(Decimal(value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("shape", at_night(["maps", "flattening", "both"], but=["both"]))
def test_parquet_of_stream_maps(sandbox: Sandbox, tmp_path: Path, shape: str) -> None:
    """Parquet files hold as many rows as there would be RECORD messages, in the same order of keys."""
    segments = {"segment_ids": ["all-users", "one"], "concurrent_exports": 1}
    expected = sync(settings(sandbox, tmp_path, **SHAPES[shape], **segments))
    batch = config(tmp_path / "out", "parquet", None)
    run = sync(settings(sandbox, tmp_path, **SHAPES[shape], **segments, batch_config=batch))
    found = batches.parquet(run)
    assert {stream: len(rows) for stream, rows in found.items()} == dict(expected.counts)
    for stream in found:
        assert [row.get("braze_id") for row in found[stream]] == [row.get("braze_id") for row in expected.rows(stream)]
    if shape == "flattening":
        assert {row["engaged"] for row in found["campaigns_received"]} == {None, "{}", '{"a new kind":false}'}


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_duckdb_reads_the_files(sandbox: Sandbox, tmp_path: Path, file_format: str) -> None:
    """DuckDB reads as many rows as there are RECORD messages, with every digit of a huge number."""
    segments = ["all-users", "one"]
    expected = sync(settings(sandbox, tmp_path, segment_ids=segments))
    batch = config(tmp_path / "out", file_format, "gzip", batch_size=1)
    run = sync(settings(sandbox, tmp_path, segment_ids=segments, batch_config=batch))
    with duckdb.connect(":memory:") as connection:
        for stream, urls in manifests(run).items():
            files = [url.removeprefix("file://") for url in urls]
            if file_format == "parquet":
                source = f"read_parquet({files})"
            else:
                columns = dict.fromkeys(run.columns(stream), "JSON")
                source = f"read_json({files}, columns = {columns}, format = 'newline_delimited', compression = 'gzip')"
            connection.execute(f'create table "{stream}" as from {source}')
        counts = {
            stream: connection.execute(f'select count(*) from "{stream}"').fetchall()[0][0] for stream in run.schemas
        }
        assert counts == dict(expected.counts)
        (row,) = connection.execute(
            "select custom_attributes::varchar, total_revenue::double from users where email::varchar like '%a@ex%'"
        ).fetchall()
        assert (batches.exact(row[0]), row[1]) == (batches.exact(json.dumps(PERSON["custom_attributes"])), 12.5)


@pytest.mark.parametrize("compression", at_night(["gzip", None], but=["gzip"]))
def test_target_loads_the_files(sandbox: Sandbox, tmp_path: Path, postgres: Postgres, compression: str | None) -> None:
    """target-postgres loads the same rows from batch files as from RECORD messages."""
    tables = {}
    for kind in ("record", "batch"):
        schema = f"batches_{kind}_{compression}"
        more = (
            {"batch_config": config(tmp_path / "out", compression=compression, batch_size=60)}
            if kind == "batch"
            else {}
        )
        run = sync(settings(sandbox, tmp_path, segment_ids=["all-users", "one"], **more))
        target = {**postgres.target_config, "default_target_schema": schema, "hard_delete": False}
        done = load("target-postgres", target, run.stdout, tmp_path)
        assert done.returncode == 0, done.stderr
        tables[kind] = {name: table(postgres, schema, name) for name in postgres.tables(schema)}
    assert tables["batch"] == tables["record"]
    assert len(tables["batch"]["users"]) == 40


def table(postgres: Postgres, schema: str, name: str) -> list[str]:
    """The rows of a table, sorted, without columns that differ from run to run."""
    volatile = {"export_id", "file"}
    return sorted(
        json.dumps({column: value for column, value in row.items() if column[:5] != "_sdc_" and column not in volatile})
        for row in postgres.rows(f'select * from "{schema}"."{name}"')
    )


def test_s3(sandbox: Sandbox, store: clouds.Store, tmp_path: Path) -> None:
    """Files are written to a bucket; its secrets appear in no output and no log."""
    storage = {"root": store.at("batches"), "prefix": "night/", "params": store.writer}
    path = written(tmp_path, settings(sandbox, tmp_path, batch_config=config("", storage=storage)))
    done = command("--config", path)
    assert done.code == 0, done.stderr
    assert not done.errors
    assert all(url.startswith(f"{store.at('batches')}/night/") for urls in manifests(done).values() for url in urls)
    assert len(batches.jsonl(done, store.writer)["users"]) == 39
    for secret in store.secrets:
        assert secret not in done.stderr
        assert secret.encode() not in done.stdout


@pytest.mark.fault("Local disk", "the storage of batch files may not be written", "one line")
def test_storage_that_may_not_be_written(sandbox: Sandbox, store: clouds.Store, tmp_path: Path) -> None:
    """One error line names the setting to check and holds no secret."""
    storage = {"root": store.at("batches"), "params": store.reader}
    run = sync(settings(sandbox, tmp_path, batch_config=config("", storage=storage)), fails=True)
    assert run.error.startswith("the storage of batch files cannot be written: PermissionError")
    assert "batch_config.storage.params" in run.error
    assert not [secret for secret in store.secrets if secret in run.error + "".join(run.lines)]
    assert not run.of_type("BATCH")


@pytest.mark.slow
def test_many_rows_are_written_in_parts(tmp_path: Path) -> None:
    """Of a large group more files than one are written, so that memory stays bounded; one BATCH names them all."""
    people = [{"braze_id": f"b{number}", "custom_attributes": {"text": "x" * 100_000}} for number in range(1000)]
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("large", people)
        large = settings(sandbox, tmp_path, segment_ids=["large"], batch_config=config(tmp_path / "out"))
        run = sync(large, catalog=selecting(["users"]))
    ((message,),) = groups(run)
    assert len(message["manifest"]) == 2  # blocks of 64 MiB
    assert len(batches.jsonl(run)["users"]) == 1000


# Refusals


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"storage": {"root": "x"}}, "batch_config.encoding.format is missing"),
        ({"encoding": {"format": "jsonl"}}, "batch_config.storage.root is missing"),
        ({**config("x"), "size": 1}, "batch_config knows no size"),
        ({**config("x"), "batch_size": 0}, "batch_config.batch_size must be an integer of at least 1"),
        (config("x", "csv"), "batch_config.encoding.format must be one of jsonl, parquet"),
        (config("x", storage={"secret": "topsecret"}), "batch_config.storage knows no secret"),
        ([], "batch_config must be an object"),
        (config("s4://x"), "batch_config.storage.root starts with s4://, which names no storage"),
    ],
)
def test_refused_settings(tmp_path: Path, given: Any, problem: str) -> None:
    """The error comes before any request to Braze and holds no value."""
    base = {"api_url": "http://127.0.0.1:9", "api_key": "k", "segment_ids": ["s"], "spool_dir": str(tmp_path / "spool")}
    error = refusal("--config", written(tmp_path, {**base, "batch_config": given}))
    assert problem in error
    assert "topsecret" not in error


def test_files_travel_without_their_connection(tmp_path: Path) -> None:
    """`repr` of the writer holds no option of the storage."""
    batch = config(tmp_path, storage={"params": {"token": "topsecret"}})
    files = BatchFiles.of(batch, FakeClock())
    assert "topsecret" not in repr(files)


def test_workers_write_where_the_run_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative directory is that of the run, also for a worker that was started in another one."""
    for folder in ("run", "worker"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "run")
    sent = pickle.dumps(BatchFiles.of(config("out"), FakeClock()).elsewhere())

    monkeypatch.chdir(tmp_path / "worker")
    file = pickle.loads(sent).write({"users": Rows((b"{}\n",), 1)}, "part")["users"]

    (path,) = (tmp_path / "run" / "out").iterdir()
    assert file.url == path.as_uri()
    assert not [*(tmp_path / "worker").iterdir()]
