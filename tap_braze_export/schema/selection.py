"""The catalog's selection: the columns of each stream, and the fields that an export requests from Braze."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.schema.table import EXPORTED_AT, RESCUED
from tap_braze_export.schema.user_object import paths_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from tap_braze_export.schema.table import Field, Table

ROWS_VERSION = 1
"""Raised whenever the code makes other rows of the same lines: a test pins it to the rows of a sample."""
MOST_NAMED_ATTRIBUTES = 500
"""Names that Braze accepts in `custom_attributes_to_export`."""


@dataclass(frozen=True)
class Selection:
    """The catalog's selection of one table.

    Attributes:
        columns: The selected columns, with their selected members only.
        dropped: Deselected members by the column that holds them.
    """

    table: Table
    columns: tuple[Field, ...]
    dropped: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Table, is_selected: Mapping[tuple[str, ...], bool], schema: Mapping[str, Any]) -> Selection:
        """Read the selection of a table in a catalog.

        Args:
            table: The table.
            is_selected: The catalog's mask, by breadcrumb.
            schema: The catalog's JSON schema of the stream; a column that it lacks is deselected.
        """
        columns: list[Field] = []
        dropped: dict[str, frozenset[str]] = {}
        listed = schema.get("properties", {})
        own_members = {column.name: column.members for column in table.fields}
        for column in table.columns:
            crumb = ("properties", column.name)
            given = column.name in (*table.keys, EXPORTED_AT)
            if not given and (column.name not in listed or not is_selected[crumb]):
                continue
            kept = tuple(m for m in column.members if is_selected[(*crumb, "properties", m.name)])
            columns.append(replace(column, members=kept))
            known_members = {m.name for m in (*column.members, *own_members.get(column.name, ()))}
            dropped[column.name] = frozenset(known_members) - {m.name for m in kept}
        return cls(table=table, columns=tuple(columns), dropped=dropped)

    @property
    def names(self) -> frozenset[str]:
        """The names of the selected columns."""
        return frozenset(column.name for column in self.columns)

    @property
    def signature(self) -> list[Any]:
        """Everything of it that shapes rows: columns with their types and members, and the deselected members."""
        columns = {
            column.name: [column.signature, {member.name: member.signature for member in column.members}]
            for column in self.columns
        }
        return [columns, {column: sorted(members) for column, members in self.dropped.items()}]

    @property
    def named_attributes(self) -> tuple[str, ...] | None:
        """The only custom attributes to emit, or None for all: deselecting one member makes the rest a closed list."""
        for column in self.columns:
            if column.name == "custom_attributes" and self.dropped["custom_attributes"]:
                return tuple(member.name for member in column.members)
        return None


def selected_inside(path: tuple[str, ...], by_path: Collection[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the paths inside a path, by member, that are selected or have a selected path inside them."""
    inside = paths_inside(path)
    return {name: inner for name, inner in inside.items() if any(p[: len(inner)] == inner for p in by_path)}


@dataclass(frozen=True)
class RequestedFields:
    """The fields that an export requests from Braze."""

    fields_to_export: tuple[str, ...]
    custom_attributes_to_export: tuple[str, ...] = ()

    @classmethod
    def of(cls, selections: Iterable[Selection], extra: Iterable[str] = ()) -> RequestedFields:
        """Request exactly the fields that the selections need, `braze_id` and extra ones, sorted."""
        fields = {"braze_id", *extra}
        attributes: tuple[str, ...] = ()
        for selection in selections:
            table = selection.table
            if table.path is None:
                continue
            if table.path:
                fields.add(table.path[0])
                continue
            for column in selection.columns:
                if column.name == "custom_attributes" and selection.named_attributes is not None:
                    attributes = selection.named_attributes
                elif column.name not in (EXPORTED_AT, RESCUED):
                    fields.add(column.requested_as or column.name)
        if len(attributes) > MOST_NAMED_ATTRIBUTES:
            fields.add("custom_attributes")
            attributes = ()
        return cls(tuple(sorted(fields)), tuple(sorted(attributes)))

    @property
    def requested_fields(self) -> tuple[str, ...]:
        """All names in one list, custom attributes as `custom_attributes.<name>`."""
        named = (f"custom_attributes.{name}" for name in self.custom_attributes_to_export)
        return (*self.fields_to_export, *named)


def rows_signature(
    selections: Mapping[str, Selection],
    fields: RequestedFields,
    row_shaping: Mapping[str, Any],
    *,
    version: int = ROWS_VERSION,
) -> str:
    """A hash that is equal only if an export gives the same rows; `row_shaping` has the settings that change them."""
    signatures = {name: selection.signature for name, selection in selections.items()}
    content = msgspec.json.encode([version, fields.requested_fields, signatures, row_shaping], order="sorted")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
