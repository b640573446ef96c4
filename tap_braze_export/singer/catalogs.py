"""A catalog as a person has edited it: each edit is followed, or refused in one line before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_sdk.singerlib import Schema
from singer_sdk.singerlib.catalog import REPLICATION_FULL_TABLE, Metadata

from tap_braze_export.errors import ConfigError
from tap_braze_export.schema.declared import Declaration
from tap_braze_export.schema.table import EXPORTED_AT
from tap_braze_export.schema.user_object import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singer_sdk.singerlib import Catalog
    from singer_sdk.singerlib.catalog import CatalogEntry

    from tap_braze_export.schema.table import Table

_TABLES = {table.stream: table for table in TABLES}
_MOST_ERRORS = 5
_NO_KEY = "has no {}, since rows cannot say when a user changed"
_REFUSED = {
    **dict.fromkeys(
        ("stream", "stream_alias", "table_name", "table-name", "schema-name"),
        "cannot be renamed by {}: use stream_maps with __alias__",
    ),
    **dict.fromkeys(
        ("replication_method", "replication-method", "forced-replication-method"),
        f"has no {{}} but {REPLICATION_FULL_TABLE}, since rows cannot say when a user changed: the setting incremental"
        " asks Braze for changed users",
    ),
    **dict.fromkeys(("replication_key", "replication-key", "valid-replication-keys", "bookmark-properties"), _NO_KEY),
    **dict.fromkeys(("is_view", "is-view", "view-key-properties"), "is no view: leave {} out"),
}
"""Words of a stream's entry, or its metadata, that say more than the tap can do, and why."""
_INCLUSIONS = {None, *(inclusion.value for inclusion in Metadata.InclusionType)}


def declared_streams(catalog: Catalog | None, as_given: Mapping[str, Any]) -> dict[str, Declaration]:
    """Return the streams of a catalog as it declares them; keys and exported_at are added where it lacks them.

    Args:
        catalog: The catalog as the SDK reads it, without words that it does not know. It receives these columns.
        as_given: The catalog as it was given, which has these words; empty where there is no other.

    Raises:
        ConfigError: If an edit can be neither followed nor left out.
    """
    raw = {entry["tap_stream_id"]: entry for entry in as_given.get("streams", ())}
    declarations: dict[str, Declaration] = {}
    errors: list[str] = []
    for name, entry in (catalog or {}).items():
        if table := _TABLES.get(name):
            given = raw.get(name) or entry.to_dict()
            schema = given.get("schema") or {}
            always = {column.name: column.json_schema for column in table.columns if column.name in _always(table)}
            _add_columns(entry, always)
            properties = always | (schema.get("properties") or {})
            declarations[name] = Declaration.of(table, {**schema, "properties": properties})
            errors += declarations[name].errors
            errors += _errors(table, entry, given)
    if errors:
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        raise ConfigError(f"catalog: {'; '.join([*errors[:_MOST_ERRORS], *more])}")
    return declarations


def _always(table: Table) -> tuple[str, ...]:
    """The columns that are in every row."""
    return (*table.keys, EXPORTED_AT)


def _add_columns(entry: CatalogEntry, always: Mapping[str, Any]) -> None:
    entry.schema.properties = entry.schema.properties or {}
    for name, definition in always.items():
        entry.schema.properties.setdefault(name, Schema.from_dict(definition))
        entry.metadata["properties", name].inclusion = Metadata.InclusionType.AUTOMATIC


def _errors(table: Table, entry: CatalogEntry, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a stream's entry says about more than columns, and cannot be; set the key that SCHEMA names."""
    metadata = given.get("metadata", ())
    root: dict[str, Any] = next((each["metadata"] for each in metadata if not each["breadcrumb"]), {})
    for word, reason in _REFUSED.items():
        if {**given, **root}.get(word) not in (None, "", False, [], table.stream, REPLICATION_FULL_TABLE):
            yield f"{table.stream} {reason.format(word)}"
    for item in metadata:
        if (inclusion := item["metadata"].get("inclusion")) not in _INCLUSIONS:
            place = ".".join([table.stream, *item["breadcrumb"][1::2]])
            yield f"{place} has the inclusion {inclusion}, which is none"
    entry.key_properties = table.keys
    for names in filter(None, (given.get("key_properties"), root.get("table-key-properties"))):
        # A key must be unique and never null.
        if not {*table.keys} <= {*names} <= {*_always(table)} or len({*names}) < len(names):
            yield (
                f"{table.stream} cannot have the key {', '.join(map(str, names))}: it can be {', '.join(table.keys)},"
                f" in any order, and {EXPORTED_AT} with it"
            )
        elif {*entry.key_properties} == {*table.keys}:
            entry.key_properties = tuple(names)
