"""Loads the Parquet files of BATCH messages into Iceberg tables: the last row of each key stays, from the run's end on.

Usage: tap-braze-export --config batches.json | python load_iceberg.py lake > state.jsonl
Needs the packages duckdb and pyiceberg[pyarrow,sql-sqlite]. pyiceberg's upsert by several columns is slow (29 s for
4,800 rows), so rows are appended until the messages end; then each table is written anew without the rows that were
replaced. A run that is killed before leaves rows that a later one replaces: until then the last row of a key is the
one with the greatest exported_at.
"""  # noqa: INP001

from __future__ import annotations

import argparse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from batches import DUCKDB_TYPES, Table, last_rows, load_messages, with_files
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    LongType,
    StringType,
    TimestamptzType,
)

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

# Objects stay text: Iceberg has no type for them. Times are instants.
_IN_FILES = DUCKDB_TYPES | {"json": "VARCHAR", "timestamp": "TIMESTAMPTZ"}
_TYPES: dict[str, IcebergType] = {
    "integer": LongType(),
    "number": DoubleType(),
    "boolean": BooleanType(),
    "timestamp": TimestamptzType(),
    "date": DateType(),
    "string": StringType(),
    "json": StringType(),
}


class Lake:
    """Iceberg tables in a folder, with a catalog in SQLite beside them.

    Args:
        folder: The folder.
        namespace: The namespace of the tables.
    """

    def __init__(self, folder: Path, namespace: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        warehouse = folder.resolve()
        self._catalog = SqlCatalog("lake", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=warehouse.as_uri())
        self._catalog.create_namespace_if_not_exists(namespace)
        self._namespace = namespace
        self._files = duckdb.connect()
        self._loaded: dict[str, Table] = {}

    def load(self, waiting: list[tuple[Table, list[str]]]) -> None:
        """Append the last rows of these files, table by table."""
        for table, paths in waiting:
            target = self._table(table)
            target.add_files([self._written(target, last_rows(table, _IN_FILES), paths)])
            self._loaded[table.name] = table

    def replace_old_rows(self) -> None:
        """Write each loaded table anew with the last row of each key."""
        for table in self._loaded.values():
            if not table.keys:
                continue
            target = self._table(table)
            paths = [task.file.file_path.removeprefix("file://") for task in target.scan().plan_files()]
            path = self._written(target, last_rows(table, _IN_FILES), paths)
            with target.transaction() as transaction:
                transaction.delete(AlwaysTrue())
                transaction.add_files([path])

    def _table(self, table: Table) -> IcebergTable:
        name = f"{self._namespace}.{table.name}"
        target = self._catalog.create_table_if_not_exists(name, Schema())
        with target.update_schema() as update:
            for column, kind in table.columns.items():
                if column not in target.schema().column_names:
                    update.add_column(column, _TYPES.get(kind, _TYPES["json"]))
        return target

    def _written(self, target: IcebergTable, query: str, paths: list[str]) -> str:
        """Write a query's rows into a new file of a table."""
        folder = Path(target.location().removeprefix("file://")) / "data"
        folder.mkdir(parents=True, exist_ok=True)
        path = str(folder / f"{uuid.uuid4()}.parquet")
        written = path.replace("'", "''")
        with_files(self._files, paths).execute(f"copy ({query}) to '{written}' (format parquet, compression zstd)")
        return f"file://{path}"


def main() -> None:
    """Load what stands between two STATE messages, table by table."""
    parser = argparse.ArgumentParser(description="Load the Parquet files of a tap into Iceberg tables.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--namespace", default="braze", help="the namespace of the tables")
    arguments = parser.parse_args()
    lake = Lake(arguments.folder, arguments.namespace)
    load_messages(lake.load)
    lake.replace_old_rows()


if __name__ == "__main__":
    main()
