"""Loads the Parquet files of BATCH messages into DuckDB by SQL: the last row of each key stays, without keys every row.

Usage: tap-braze-export --config batches.json | python load_duckdb.py warehouse.duckdb > state.jsonl
"""  # noqa: INP001

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb

TYPES = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "object": "JSON", "array": "JSON"}
FORMATS = {"date-time": "TIMESTAMP", "date": "DATE"}


def column_type(spec: dict[str, Any]) -> str:
    """The type of a column; JSON where its schema allows several."""
    given = spec.get("type", [])
    kinds = [given] if isinstance(given, str) else [kind for kind in given if kind != "null"]
    if kinds == ["string"]:
        return FORMATS.get(spec.get("format", ""), "VARCHAR")
    return TYPES.get(kinds[0], "JSON") if len(kinds) == 1 else "JSON"


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def statements(schema: dict[str, Any]) -> list[str]:
    """The statements that load the files in the variable `files` into the table of a SCHEMA message."""
    table = quoted(schema["stream"])
    columns = {quoted(name): column_type(spec) for name, spec in schema["schema"]["properties"].items()}
    keys = ", ".join(map(quoted, schema.get("key_properties") or ()))
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    values = ",\n  ".join(name if kind == "VARCHAR" else f"{name}::{kind} as {name}" for name, kind in columns.items())
    staged = f"""create or replace temp table staged as
select
  {values}
from read_parquet(getvariable('files'), union_by_name = true, filename = true, file_row_number = true)"""  # noqa: S608 - names are quoted
    replaced = []
    if keys:
        # Stream maps may take exported_at away: then the rows that were sent last are the newest.
        newest = "exported_at" if quoted("exported_at") in columns else "list_position(getvariable('files'), filename)"
        staged += f"""
qualify row_number() over (
  partition by {keys} order by {newest} desc, filename desc, file_row_number desc
) = 1"""
        replaced = [f"delete from {table} where ({keys}) in (select ({keys}) from staged)"]  # noqa: S608
    return [
        f"create table if not exists {table} ({types})",
        *(f"alter table {table} add column if not exists {name} {kind}" for name, kind in columns.items()),
        staged,
        *replaced,
        f"insert into {table} by name select * from staged",  # noqa: S608
    ]


def load(connection: duckdb.DuckDBPyConnection, schema: dict[str, Any], paths: list[str]) -> None:
    """Run the statements of a table for these files."""
    connection.execute("set variable files = ?", [paths])
    for statement in statements(schema):
        connection.execute(statement)


def main(database: str) -> None:
    """Load what stands between two STATE messages in one transaction, and hand STATE on once it is there."""
    schemas: dict[str, dict[str, Any]] = {}
    waiting: dict[str, list[str]] = {}
    with duckdb.connect(database) as connection:
        for line in sys.stdin:
            message = json.loads(line)
            if message["type"] == "SCHEMA":
                schemas[message["stream"]] = message
            elif message["type"] == "BATCH":
                paths = [url.removeprefix("file://") for url in message["manifest"]]
                waiting.setdefault(message["stream"], []).extend(paths)
            elif message["type"] == "STATE":
                connection.begin()
                for stream, paths in waiting.items():
                    load(connection, schemas[stream], paths)
                connection.commit()
                for paths in waiting.values():
                    for path in paths:
                        Path(path).unlink()
                waiting.clear()
                print(json.dumps(message["value"]), flush=True)  # noqa: T201
            else:
                sys.exit(f"{message['type']} messages cannot be loaded: set batch_config in the tap's settings")


if __name__ == "__main__":
    main(sys.argv[1])
