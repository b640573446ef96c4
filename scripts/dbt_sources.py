"""Writes the sources of the dbt package: the tables of the streams, with the descriptions and keys of the schema."""  # noqa: INP001

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.schema.user_object import TABLES

if TYPE_CHECKING:
    from tap_braze_export.schema.table import Table


def _entry(table: Table) -> dict[str, Any]:
    # The tests of a disabled table are disabled, too, lest each run of dbt warns of them.
    loaded = {"enabled": f"{{{{ '{table.stream}' in var('braze_streams') }}}}"}
    return {
        "name": table.stream,
        "description": f"{table.description}; all that was ever loaded",
        "config": loaded,
        "data_tests": [{"unique_key": {"arguments": {"columns": list(table.keys)}, "config": dict(loaded)}}],
        "columns": [
            {"name": column.name, "description": column.description} for column in table.columns if column.description
        ],
    }


def dbt_sources() -> dict[str, Any]:
    """The content of `dbt/models/sources.yml`; streams that are not loaded are left out, and not tested."""
    source = {
        "name": "braze",
        "description": "The tables that tap-braze-export fills",
        "schema": "{{ var('braze_schema') }}",
        "tables": [_entry(table) for table in TABLES],
    }
    return {"version": 2, "sources": [source]}
