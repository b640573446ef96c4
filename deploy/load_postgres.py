"""Loads the Parquet files of BATCH messages into PostgreSQL by COPY: the last row of each key stays.

Usage: tap-braze-export --config batches.json | python load_postgres.py postgresql://… --schema braze > state.jsonl
Needs the packages duckdb and psycopg.
"""  # noqa: INP001

from __future__ import annotations

import argparse

import duckdb
import psycopg
from batches import Table, last_rows, load_messages, quoted, type_of, with_files
from psycopg import sql

TYPES = {
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "timestamp": "timestamptz",
    "date": "date",
    "string": "text",
    "json": "jsonb",
}
_AS_TEXT = dict.fromkeys(TYPES, "VARCHAR") | {"timestamp": "TIMESTAMP", "date": "DATE"}
_ROWS_AT_A_TIME = 10_000


def load_table(target: psycopg.Connection, files: duckdb.DuckDBPyConnection, table: Table, schema: str) -> None:
    """Replace the rows of a table whose keys the files have, and add the others."""
    name = sql.Identifier(schema, table.name)
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    target.execute(sql.SQL("create table if not exists {} ()").format(name))
    for column, kind in table.columns.items():
        added = sql.SQL("alter table {} add column if not exists {} {}")
        target.execute(added.format(name, sql.Identifier(column), sql.SQL(type_of(kind, TYPES))))
    staged = sql.SQL("create temp table staged on commit drop as select {} from {} limit 0")
    target.execute(staged.format(columns, name))
    texts = ", ".join(f"{quoted(column)}::VARCHAR" for column in table.columns)
    found = files.execute(f"select {texts} from ({last_rows(table, _AS_TEXT)})")  # noqa: S608 - names are quoted
    with target.cursor().copy(sql.SQL("copy staged ({}) from stdin").format(columns)) as copy:
        while rows := found.fetchmany(_ROWS_AT_A_TIME):
            for row in rows:
                copy.write_row(row)
    if table.keys:
        keys = sql.SQL(", ").join(map(sql.Identifier, table.keys))
        # A null in a key equals no other: such rows are added, as DuckDB adds them.
        replaced = sql.SQL("delete from {} where ({}) in (select {} from staged)")
        target.execute(replaced.format(name, keys, keys))
    inserted = sql.SQL("insert into {} ({}) select {} from staged")
    target.execute(inserted.format(name, columns, columns))
    target.execute("drop table staged")


def main() -> None:
    """Load what stands between two STATE messages in one transaction."""
    parser = argparse.ArgumentParser(description="Load the Parquet files of a tap into PostgreSQL.")
    parser.add_argument("url")
    parser.add_argument("--schema", default="braze", help="the schema of the tables")
    arguments = parser.parse_args()
    with psycopg.connect(arguments.url) as target, duckdb.connect() as files:
        target.execute("set time zone 'UTC'")
        target.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(arguments.schema)))
        target.commit()

        def load(waiting: list[tuple[Table, list[str]]]) -> None:
            for table, paths in waiting:
                load_table(target, with_files(files, paths), table, arguments.schema)
            target.commit()

        load_messages(load)


if __name__ == "__main__":
    main()
