"""Loads the Parquet files of BATCH messages into DuckDB by SQL: the last row of each key stays, without keys every row.

Usage: tap-braze-export --config batches.json | python load_duckdb.py warehouse.duckdb > state.jsonl
"""  # noqa: INP001

from __future__ import annotations

import argparse
import json
from pathlib import Path

import duckdb
from batches import DUCKDB_TYPES, Table, last_rows, load_messages, quoted, type_of, with_files

# DuckDB 1.x, target-duckdb and SQLMesh open no file that DuckDB 2.x has made in its own format.
STORAGE_VERSION = "v1.0.0"


def statements(table: Table, schema: str = "main") -> list[str]:
    """The statements that load the files in the variable `files` into a table."""
    name = quoted(table.name) if schema == "main" else f"{quoted(schema)}.{quoted(table.name)}"
    columns = [f"{quoted(column)} {type_of(kind, DUCKDB_TYPES)}" for column, kind in table.columns.items()]
    keys = ", ".join(map(quoted, table.keys))
    replaced = [f"delete from {name} where ({keys}) in (select ({keys}) from staged)"] if keys else []  # noqa: S608
    return [
        f"create table if not exists {name} ({', '.join(columns)})",
        *(f"alter table {name} add column if not exists {column}" for column in columns),
        f"create or replace temp table staged as\n{last_rows(table)}",
        *replaced,
        f"insert into {name} by name select * from staged",  # noqa: S608
    ]


def main() -> None:
    """Load what stands between two STATE messages in one transaction."""
    parser = argparse.ArgumentParser(description="Load the Parquet files of a tap into DuckDB.")
    parser.add_argument("database", nargs="?")
    parser.add_argument("--schema", default="main", help="the schema of the tables")
    parser.add_argument("--storage-version", default=STORAGE_VERSION, help="oldest DuckDB that opens a new file")
    parser.add_argument("--config", type=Path, help="these as JSON, as Meltano writes them")
    arguments = parser.parse_args()
    if arguments.config:
        parser.set_defaults(**json.loads(arguments.config.read_text(encoding="utf-8")))
        arguments = parser.parse_args()
    if not arguments.database:
        parser.error("the database is missing")
    Path(arguments.database).parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        path = arguments.database.replace("'", "''")
        connection.execute(f"attach '{path}' as warehouse (storage_version '{arguments.storage_version}')")
        connection.execute("use warehouse")
        connection.execute(f"create schema if not exists {quoted(arguments.schema)}")

        def load(waiting: list[tuple[Table, list[str]]]) -> None:
            connection.begin()
            for table, paths in waiting:
                for statement in statements(table, arguments.schema):
                    with_files(connection, paths).execute(statement)
            connection.commit()

        load_messages(load)


if __name__ == "__main__":
    main()
