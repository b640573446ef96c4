"""Prints the statements that load Parquet files of the tap into Snowflake, BigQuery, Redshift or Databricks.

Usage: tap-braze-export --config config.json --discover | python warehouse_sql.py --dialect bigquery > load.sql
It reads a catalog and writes, for each selected stream, a table, a staged table with the files of the BATCH messages,
and the statement that replaces the rows of each key by their last ones. FILES stands for the files of that stream.
"""  # noqa: INP001

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batches import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Dialect:
    """One warehouse's SQL.

    Attributes:
        types: The type of each kind of column.
        quote: What stands around a name.
        staged_json: The type in which JSON text is staged.
        parsed: Makes the column of JSON text.
        listed: The type of a list; `{}` is the type of its items.
        staging: Fills `{staged}` with FILES; `{columns}` are its columns with their types.
    """

    types: Mapping[str, str]
    quote: str
    staged_json: str
    parsed: str
    listed: str
    staging: str

    def name(self, name: str) -> str:
        """A name, quoted where the dialect's own spelling of names allows it."""
        return f"{self.quote}{name}{self.quote}"

    def columns(self, table: Table, *, staged: bool = False) -> list[str]:
        """The columns with their types."""
        types = {**self.types, "json": self.staged_json} if staged else self.types
        kinds = {column: kind.removesuffix("[]") for column, kind in table.columns.items()}
        lists = {column for column, kind in table.columns.items() if kind.endswith("[]")}
        return [
            f"{self.name(column)} {self.listed.format(types[kind]) if column in lists else types[kind]}"
            for column, kind in kinds.items()
        ]

    def last_rows(self, table: Table, staged: str) -> str:
        """The query for the last staged row of each key."""
        values = [
            f"{self.parsed.format(self.name(column))} as {self.name(column)}" if kind == "json" else self.name(column)
            for column, kind in table.columns.items()
        ]
        keys = ", ".join(map(self.name, table.keys))
        listed = ",\n    ".join(values)
        return f"""select
    {listed}
  from {staged}
  where true
  qualify row_number() over (partition by {keys} order by {self.name("exported_at")} desc) = 1"""  # noqa: S608

    def statements(self, table: Table, prefix: str) -> Iterator[str]:
        """Yield the statements for the table of a stream."""
        target, staged = (self.name(f"{table.name}{ending}") for ending in ("", "_staged"))
        target, staged = prefix + target, prefix + staged
        columns = ",\n  ".join(self.columns(table))
        yield f"create table if not exists {target} (\n  {columns}\n)"
        staged_columns = ",\n  ".join(self.columns(table, staged=True))
        for statement in self.staging.split(";\n"):
            yield statement.format(staged=staged, columns=staged_columns)
        yield from self.replacement(table, target, staged)

    def replacement(self, table: Table, target: str, staged: str) -> Iterator[str]:
        """Yield the statements that replace the rows of each staged key."""
        names = [self.name(column) for column in table.columns]
        keys = [self.name(key) for key in table.keys]
        matching = " and ".join(f"target.{key} = staged.{key}" for key in keys)
        updated = ",\n  ".join(f"{name} = staged.{name}" for name in names if name not in keys)
        values = ", ".join(f"staged.{name}" for name in names)
        yield f"""merge into {target} as target using (
  {self.last_rows(table, staged)}
) as staged
on {matching}
when matched then update set
  {updated}
when not matched then insert ({", ".join(names)})
values ({values})"""  # noqa: S608


class Redshift(Dialect):
    """Redshift's MERGE takes no query, so rows are deleted and inserted."""

    def replacement(self, table: Table, target: str, staged: str) -> Iterator[str]:
        """Yield the statements that replace the rows of each staged key."""
        names = ", ".join(self.name(column) for column in table.columns)
        matching = " and ".join(f"{target}.{self.name(key)} = {staged}.{self.name(key)}" for key in table.keys)
        yield "begin"
        yield f"delete from {target} using {staged} where {matching}"  # noqa: S608
        yield f"insert into {target} ({names})\n  {self.last_rows(table, staged)}"
        yield "commit"


DIALECTS = {
    "snowflake": Dialect(
        types={
            "integer": "bigint",
            "number": "double",
            "boolean": "boolean",
            "timestamp": "timestamp_tz",
            "date": "date",
            "string": "varchar",
            "json": "variant",
        },
        quote="",
        staged_json="varchar",
        parsed="parse_json({})",
        listed="variant",
        staging="""create or replace transient table {staged} (
  {columns}
);
copy into {staged} from @braze_stage
  files = ('FILES')
  file_format = (type = parquet use_logical_type = true)
  match_by_column_name = case_insensitive""",
    ),
    "bigquery": Dialect(
        types={
            "integer": "int64",
            "number": "float64",
            "boolean": "bool",
            "timestamp": "timestamp",
            "date": "date",
            "string": "string",
            "json": "json",
        },
        quote="`",
        staged_json="string",
        parsed="parse_json({}, wide_number_mode => 'round')",
        listed="array<{}>",
        staging="""load data overwrite {staged} (
  {columns}
)
from files (format = 'PARQUET', uris = ['FILES'])""",
    ),
    "redshift": Redshift(
        types={
            "integer": "bigint",
            "number": "double precision",
            "boolean": "boolean",
            "timestamp": "timestamp",
            "date": "date",
            "string": "varchar(65535)",
            "json": "super",
        },
        quote='"',
        staged_json="varchar(65535)",
        parsed="json_parse({})",
        listed="super",
        staging="""drop table if exists {staged};
create table {staged} (
  {columns}
);
copy {staged} from 'FILES' iam_role default format as parquet serializetojson""",
    ),
    "databricks": Dialect(
        types={
            "integer": "bigint",
            "number": "double",
            "boolean": "boolean",
            "timestamp": "timestamp",
            "date": "date",
            "string": "string",
            "json": "string",
        },
        quote="`",
        staged_json="string",
        parsed="{}",
        listed="array<{}>",
        staging="""create or replace table {staged} (
  {columns}
);
copy into {staged} from 'FILES' fileformat = parquet copy_options ('mergeSchema' = 'true')""",
    ),
}


def selected(entry: Mapping[str, Any]) -> bool:
    """True if a catalog's stream is selected."""
    of_stream = next((each["metadata"] for each in entry["metadata"] if not each["breadcrumb"]), {})
    return bool(of_stream.get("selected", of_stream.get("selected-by-default", True)))


def main() -> None:
    """Print the statements of all streams."""
    parser = argparse.ArgumentParser(description="Print SQL that loads a tap's Parquet files.")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), required=True)
    parser.add_argument("--schema", default="braze", help="the schema, or BigQuery's dataset, of the tables")
    arguments = parser.parse_args()
    dialect = DIALECTS[arguments.dialect]
    for entry in json.load(sys.stdin)["streams"]:
        if selected(entry):
            message = {
                "stream": entry["tap_stream_id"],
                "schema": entry["schema"],
                "key_properties": entry["key_properties"],
            }
            table = Table.of(message)
            for statement in dialect.statements(table, f"{dialect.name(arguments.schema)}."):
                print(f"{statement};\n")  # noqa: T201


if __name__ == "__main__":
    main()
