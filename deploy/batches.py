"""Reads the messages of a tap that writes Parquet files, and hands its files over until STATE: what load_*.py share.

DuckDB reads the files, and picks the last row of each key in bounded memory, for every destination.
"""  # noqa: INP001

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import duckdb

_KINDS = {"integer": "integer", "number": "number", "boolean": "boolean"}
_FORMATS = {"date-time": "timestamp", "date": "date"}
_LISTED = {"string", *_KINDS.values()}
DUCKDB_TYPES = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
    "string": "VARCHAR",
    "json": "JSON",
}


@dataclass(frozen=True)
class Table:
    """A table as a SCHEMA message describes it.

    Attributes:
        name: The stream's name.
        columns: The kind of each column: a key of `DUCKDB_TYPES`, with `[]` for a list of such values; `json` where its
            schema allows several types.
        keys: The columns of its key; none if rows are appended.
    """

    name: str
    columns: Mapping[str, str]
    keys: tuple[str, ...]

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Table:
        """The table of a SCHEMA message."""
        columns = {name: _kind(spec) for name, spec in message["schema"]["properties"].items()}
        return cls(message["stream"], columns, tuple(message.get("key_properties") or ()))


def _kind(spec: Mapping[str, Any]) -> str:
    given = spec.get("type", [])
    kinds = [given] if isinstance(given, str) else [kind for kind in given if kind != "null"]
    if kinds == ["string"]:
        return _FORMATS.get(spec.get("format", ""), "string")
    if kinds == ["array"] and (item := _kind(spec.get("items") or {})) in _LISTED:
        return f"{item}[]"
    return _KINDS.get(kinds[0], "json") if len(kinds) == 1 else "json"


def type_of(kind: str, types: Mapping[str, str]) -> str:
    """The type for a kind of column; lists are JSON."""
    return types["json" if kind.endswith("[]") else kind]


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def last_rows(table: Table, types: Mapping[str, str] = DUCKDB_TYPES) -> str:
    """The query for the last row of each key in the files that the variable `files` names; without a key for all rows.

    Args:
        table: The table.
        types: The type in DuckDB that values of each kind get.
    """
    values = ",\n  ".join(_value(quoted(name), kind, type_of(kind, types)) for name, kind in table.columns.items())
    query = f"""select
  {values}
from read_parquet(getvariable('files'), union_by_name = true, filename = true, file_row_number = true)"""  # noqa: S608 - names are quoted
    if not table.keys:
        return query
    # Stream maps may take exported_at away: then the rows that were sent last are the newest.
    newest = "exported_at" if "exported_at" in table.columns else "list_position(getvariable('files'), filename)"
    return f"""{query}
qualify row_number() over (
  partition by {", ".join(map(quoted, table.keys))} order by {newest} desc, filename desc, file_row_number desc
) = 1"""


def _value(name: str, kind: str, wanted: str) -> str:
    if kind.endswith("[]"):
        return f"to_json({name})::{wanted} as {name}"
    return name if kind == "string" else f"{name}::{wanted} as {name}"


def with_files(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> duckdb.DuckDBPyConnection:
    """The connection, whose queries read these files, with times in UTC."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set variable files = ?", [paths])
    return connection


def load_messages(load: Callable[[list[tuple[Table, list[str]]]], None]) -> None:
    """Read messages to their end: load what stands between two STATE messages, then hand STATE on and remove the files.

    Args:
        load: Loads the files of some tables. When it returns, they are there for good.
    """
    tables: dict[str, Table] = {}
    waiting: dict[str, list[str]] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "SCHEMA":
            tables[message["stream"]] = Table.of(message)
        elif message["type"] == "BATCH":
            paths = [url.removeprefix("file://") for url in message["manifest"]]
            waiting.setdefault(message["stream"], []).extend(paths)
        elif message["type"] == "STATE":
            load([(tables[stream], paths) for stream, paths in waiting.items()])
            for path in (path for paths in waiting.values() for path in paths):
                Path(path).unlink()
            waiting.clear()
            print(json.dumps(message["value"]), flush=True)  # noqa: T201
        else:
            sys.exit(f"{message['type']} messages cannot be loaded: set batch_config in the tap's settings")
