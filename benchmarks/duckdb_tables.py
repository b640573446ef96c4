"""The same five tables in DuckDB, from the same files gzipped: it reads no zip. In memory, with so many threads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from tap_braze_export.schema import user_object
from tap_braze_export.schema.table import Type

if TYPE_CHECKING:
    from tap_braze_export.schema.table import Field, Table

_TYPES = {
    Type.STRING: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.NUMBER: "DOUBLE",
    Type.BOOLEAN: "BOOLEAN",
    Type.DATE_TIME: "TIMESTAMPTZ",
    Type.TIMESTAMP: "VARCHAR",
    Type.DATE: "DATE",
    Type.COORDINATES: "DOUBLE[]",
    Type.OBJECT: "JSON",
}
_LISTS = (user_object.DEVICES, user_object.PURCHASES, user_object.CUSTOM_EVENTS, user_object.CAMPAIGNS_RECEIVED)


def _own(table: Table) -> list[Field]:
    return [column for column in table.fields if column.name not in table.given or not table.path]


def _load(files: str, threads: int) -> None:
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    columns = {column.name: _TYPES[column.type] for column in _own(user_object.USERS)}
    for table in _LISTS:
        members = ", ".join(f'"{column.name}" {_TYPES[column.type]}' for column in _own(table))
        columns[table.stream] = f"STRUCT({members})[]"
    spelled = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    if not any(Path(files).parent.iterdir()):
        return
    connection.execute(f"CREATE TEMP TABLE read AS SELECT * FROM read_ndjson('{files}', columns = {{{spelled}}})")
    names = ", ".join(f'"{column.name}"' for column in _own(user_object.USERS))
    connection.execute(f"CREATE TABLE users AS SELECT {names} FROM read")
    for table in _LISTS:
        connection.execute(
            f'CREATE TABLE "{table.stream}" AS SELECT braze_id, unnest({table.stream}, recursive := true) FROM read'
            if table is not user_object.CAMPAIGNS_RECEIVED
            else f"CREATE TABLE {table.stream} AS SELECT braze_id, unnest({table.stream}, max_depth := 2) FROM read"
        )
    for table in (user_object.USERS, *_LISTS):
        found = connection.execute(f'SELECT count(*) FROM "{table.stream}"').fetchone()
        sys.stderr.write(f'"metric": "record_count", "value": {found[0] if found else 0}\n')


if __name__ == "__main__":
    _load(sys.argv[1], int(sys.argv[2]))
