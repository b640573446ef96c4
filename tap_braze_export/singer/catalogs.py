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
    from collections.abc import Iterable, Iterator, Mapping

    from singer_sdk.singerlib import Catalog
    from singer_sdk.singerlib.catalog import CatalogEntry

    from tap_braze_export.schema.table import Table

_TABLES = {table.stream: table for table in TABLES}
_MOST_ERRORS = 5
_NAMES = ("stream", "stream_alias", "table_name", "table-name", "schema-name")
"""Members that would rename a stream."""
_REPLICATION_METHODS = ("replication_method", "replication-method", "forced-replication-method")
_REPLICATION_KEYS = ("replication_key", "replication-key", "valid-replication-keys", "bookmark-properties")
_VIEW = ("is_view", "is-view", "view-key-properties")
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
            root: dict[str, Any] = next(
                (each["metadata"] for each in given.get("metadata", ()) if not each["breadcrumb"]), {}
            )
            errors += _stream_errors(name, {**given, **root})
            errors += _inclusion_errors(name, given.get("metadata", ()))
            keys = [given.get("key_properties"), root.get("table-key-properties")]
            entry.key_properties, problem = _keys(table, [key for key in keys if key])
            errors += problem
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


def _stream_errors(name: str, said: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a stream's entry and its metadata say about more than columns, and cannot be."""
    for word in _NAMES:
        if said.get(word) not in (None, "", name):
            yield f"{name} cannot be renamed by {word}: use stream_maps with __alias__"
    for word in _REPLICATION_METHODS:
        if said.get(word) not in (None, "", REPLICATION_FULL_TABLE):
            yield (
                f"{name} has no {word} but {REPLICATION_FULL_TABLE}, since rows cannot say when a user changed:"
                " the setting incremental asks Braze for changed users"
            )
    for word in _REPLICATION_KEYS:
        if said.get(word):
            yield f"{name} has no {word}, since rows cannot say when a user changed"
    for word in _VIEW:
        if said.get(word):
            yield f"{name} is no view: leave {word} out"


def _inclusion_errors(name: str, metadata: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the words of `inclusion` that mean nothing."""
    for item in metadata:
        if (inclusion := item["metadata"].get("inclusion")) not in _INCLUSIONS:
            yield f"{'.'.join([name, *item['breadcrumb'][1::2]])} has the inclusion {inclusion}, which is none"


def _keys(table: Table, given: Iterable[list[str]]) -> tuple[tuple[str, ...], list[str]]:
    """Return the key that SCHEMA names, and what is wrong with the given ones: a key must be unique and never null."""
    key = table.keys
    for names in given:
        if not {*table.keys} <= {*names} <= {*_always(table)} or len({*names}) < len(names):
            wrong, own = ", ".join(map(str, names)), ", ".join(table.keys)
            return table.keys, [
                f"{table.stream} cannot have the key {wrong}: it can be {own}, in any order, and {EXPORTED_AT} with it"
            ]
        if {*key} == {*table.keys}:
            key = tuple(names)
    return key, []
