"""Loads the Parquet files of BATCH messages into Delta tables, one a stream: the last row of each key stays.

Usage: tap-braze-export --config batches.json | python load_delta.py lake > state.jsonl
Needs the packages duckdb, pyarrow and deltalake. Each table commits by itself: a run that is killed between two of them
has loaded some tables and not handed STATE on, and the next run loads the same rows once more.
"""  # noqa: INP001

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import duckdb
from batches import DUCKDB_TYPES, Table, last_rows, load_messages, quoted, with_files
from deltalake import DeltaTable, write_deltalake

# Objects stay text: Delta has no type for them. Times are instants.
_TYPES = DUCKDB_TYPES | {"json": "VARCHAR", "timestamp": "TIMESTAMPTZ"}


def load_table(files: duckdb.DuckDBPyConnection, table: Table, folder: Path) -> None:
    """Replace the rows of a table whose keys the files have, and add the others."""
    path = str(folder / table.name)
    rows = files.sql(last_rows(table, _TYPES)).to_arrow_reader()
    if not table.keys or not DeltaTable.is_deltatable(path):
        write_deltalake(path, rows, mode="append", schema_mode="merge")
        return
    matching = " and ".join(f"old.{quoted(key)} = new.{quoted(key)}" for key in table.keys)
    # Without merge_schema a column that the table does not have is left out without a word.
    merger = DeltaTable(path).merge(
        rows, matching, source_alias="new", target_alias="old", merge_schema=True, streamed_exec=True
    )
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def main() -> None:
    """Load what stands between two STATE messages, table by table."""
    parser = argparse.ArgumentParser(description="Load the Parquet files of a tap into Delta tables.")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with duckdb.connect() as files:

        def load(waiting: list[tuple[Table, list[str]]]) -> None:
            for table, paths in waiting:
                load_table(with_files(files, paths), table, arguments.folder)

        load_messages(load)
    # deltalake's threads now and then abort an interpreter that ends, after all the work is done.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
