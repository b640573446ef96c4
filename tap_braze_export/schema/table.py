"""The types that the schema is written in: column types, fields, tables, and the JSON schema of each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESCUED = "_rescued_data"
EXPORTED_AT = "exported_at"
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1
"""The integers that a column holds: signed, of 64 bits."""


class Type(enum.Enum):
    """The type of a column."""

    STRING = enum.auto()
    INTEGER = enum.auto()
    NUMBER = enum.auto()
    BOOLEAN = enum.auto()
    DATE_TIME = enum.auto()
    TIMESTAMP = enum.auto()
    """A date and time that Braze may also send as epoch seconds or milliseconds."""
    DATE = enum.auto()
    COORDINATES = enum.auto()
    ARRAY = enum.auto()
    OBJECT = enum.auto()
    ANY = enum.auto()
    """Any JSON value, as it is."""


_JSON_SCHEMAS: dict[Type, dict[str, Any]] = {
    Type.STRING: {"type": "string"},
    Type.INTEGER: {"type": "integer"},
    Type.NUMBER: {"type": "number"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.DATE_TIME: {"type": "string", "format": "date-time"},
    Type.TIMESTAMP: {"type": "string", "format": "date-time"},
    Type.DATE: {"type": "string", "format": "date"},
    Type.COORDINATES: {"type": "array", "items": {"type": "number"}},
    Type.ARRAY: {"type": "array"},
    Type.OBJECT: {"type": "object", "additionalProperties": True},
    # The types are spelled out: loaders skip or refuse a property without one.
    Type.ANY: {"type": ["string", "integer", "number", "boolean", "array", "object"], "additionalProperties": True},
}


def own_kinds(kind: Type) -> tuple[str, ...]:
    """The JSON types of the values of a type, but null."""
    kinds = _JSON_SCHEMAS[kind]["type"]
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def own_format(kind: Type) -> str | None:
    """The format that JSON schema has for the texts of a type."""
    found: str | None = _JSON_SCHEMAS[kind].get("format")
    return found


@dataclass(frozen=True)
class Field:
    """A member of Braze's object and the column made of it.

    Attributes:
        type: The type of its values, as Braze sends them.
        requested_as: Its name in `fields_to_export`, where that is not its own.
        personal: True if it identifies a person.
        members: The known members of an open object.
        loaded: The type that rows have instead, because the catalog says so: text, or a number for an integer.
        kinds: The JSON types that the catalog allows, but null, where these are others than the type's own.
        nullable: False for keys, and for items of a list that the catalog wants without null.
        items: The items of a list, where the catalog types them.
        annotations: Further members of its JSON schema, which say nothing about values.
    """

    name: str
    type: Type
    description: str
    requested_as: str | None = None
    personal: bool = False
    members: tuple[Field, ...] = ()
    loaded: Type | None = None
    kinds: tuple[str, ...] = ()
    nullable: bool = True
    items: Field | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)

    @property
    def json_schema(self) -> dict[str, Any]:
        """The column's JSON schema."""
        schema = dict(_JSON_SCHEMAS[self.loaded or self.type])
        kinds = self.kinds or own_kinds(self.loaded or self.type)
        schema["type"] = [*kinds, "null"] if self.nullable else kinds[0] if len(kinds) == 1 else [*kinds]
        if "object" not in kinds:
            schema.pop("additionalProperties", None)
        if self.description:
            schema["description"] = self.description
        if self.items:
            schema["items"] = self.items.json_schema
        if self.members and not self.loaded:
            schema["properties"] = {member.name: member.json_schema for member in self.members}
        return {**schema, **self.annotations}

    @property
    def is_edited(self) -> bool:
        """True if a catalog has changed what its values may be."""
        return bool(self.loaded or self.kinds or self.items)

    @property
    def signature(self) -> Any:
        """Everything of it that shapes values, but its members."""
        if not self.is_edited:
            return self.type.name
        loaded = self.loaded and self.loaded.name
        return [self.type.name, loaded, self.kinds, self.nullable, self.items and self.items.signature]


EXPORTED_AT_COLUMN = Field(
    EXPORTED_AT, Type.DATE_TIME, "When this export was requested from Braze (ids export: when it answered)"
)
RESCUED_COLUMN = Field(
    RESCUED, Type.OBJECT, "Members unknown to the schema and values that do not fit their column", personal=True
)


@dataclass(frozen=True)
class Table:
    """The rows of one stream: their path in the user object, their keys and their columns.

    Attributes:
        fields: The columns but `exported_at` and `_rescued_data`.
        path: The members that lead to its objects; () is the user itself, None a stream of the tap's own rows.
        given: Columns that the tap fills itself: ids of the owner, the device key.
        personal: True if its rows as a whole identify a person.
        edited: Columns as a catalog declares them, by name.
    """

    stream: str
    keys: tuple[str, ...]
    description: str
    fields: tuple[Field, ...]
    path: tuple[str, ...] | None = None
    given: tuple[str, ...] = ()
    personal: bool = False
    selected_by_default: bool = True
    edited: Mapping[str, Field] = field(default_factory=dict)

    @property
    def rescues(self) -> bool:
        """True if its `_rescued_data` keeps members that fit nowhere else."""
        return self.path is not None

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """All columns in the order of the catalog."""
        exported_at = () if any(column.name == EXPORTED_AT for column in self.fields) else (EXPORTED_AT_COLUMN,)
        own = (*self.fields, *exported_at, *((RESCUED_COLUMN,) if self.rescues else ()))
        columns = (replace(column, nullable=column.name not in (*self.keys, EXPORTED_AT)) for column in own)
        return tuple(self.edited.get(column.name, column) for column in columns)

    @property
    def json_schema(self) -> dict[str, Any]:
        """The stream's JSON schema."""
        properties = {column.name: column.json_schema for column in self.columns}
        return {"type": "object", "properties": properties, "required": [*self.keys]}

    def with_attributes(self, attributes: Iterable[Field]) -> Table:
        """The same table with typed members of `custom_attributes`."""
        members = tuple(attributes)
        fields = (replace(f, members=members) if f.name == "custom_attributes" else f for f in self.fields)
        return replace(self, fields=tuple(fields))
