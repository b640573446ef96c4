"""The shapes that the schema is written in: types, fields, tables, and the JSON schema of each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

RESCUED = "_rescued_data"
EXPORTED_AT = "exported_at"


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
}

ATTRIBUTE_TYPES: dict[str, Type] = {
    "string": Type.STRING,
    "integer": Type.INTEGER,
    "number": Type.NUMBER,
    "boolean": Type.BOOLEAN,
    "date-time": Type.DATE_TIME,
    "array": Type.ARRAY,
    "object": Type.OBJECT,
}
"""The types that the setting `custom_attributes` can give to a custom attribute."""


def type_of(json_schema: dict[str, Any]) -> Type:
    """The type that a catalog's JSON schema of a custom attribute means."""
    names = json_schema.get("type", "object")
    plain = {name for name in ([names] if isinstance(names, str) else names) if name != "null"}
    name = "date-time" if json_schema.get("format") == "date-time" else next(iter(plain), "object")
    return ATTRIBUTE_TYPES.get(name, Type.OBJECT)


@dataclass(frozen=True)
class Field:
    """A member of Braze's object and the column made of it."""

    name: str
    type: Type
    description: str
    requested_as: str | None = None
    """Its name in `fields_to_export`, where that is not its own."""
    personal: bool = False
    """Whether it identifies a person."""
    members: tuple[Field, ...] = ()
    """The known members of an open object."""

    @property
    def json_schema(self) -> dict[str, Any]:
        """The column's JSON schema, nullable."""
        schema = dict(_JSON_SCHEMAS[self.type])
        schema["type"] = [schema["type"], "null"]
        if self.description:
            schema["description"] = self.description
        if self.members:
            schema["properties"] = {member.name: member.json_schema for member in self.members}
        return schema


EXPORTED_AT_COLUMN = Field(
    EXPORTED_AT, Type.DATE_TIME, "When this export was requested from Braze (ids export: when it answered)"
)
RESCUED_COLUMN = Field(
    RESCUED, Type.OBJECT, "Members unknown to the schema and values that do not fit their column", personal=True
)


@dataclass(frozen=True)
class Table:
    """The rows of one stream: where they stand in the user object, their keys and their columns."""

    stream: str
    keys: tuple[str, ...]
    description: str
    fields: tuple[Field, ...]
    path: tuple[str, ...] | None = None
    """The members that lead to its objects; () is the user itself, None a stream of the tap's own rows."""
    given: tuple[str, ...] = ()
    """Columns that the tap fills itself: ids of the owner, the made-up device key."""
    personal: bool = False
    selected_by_default: bool = True

    @property
    def rescues(self) -> bool:
        """Whether members that fit nowhere else are kept in `_rescued_data`."""
        return self.path is not None

    @property
    def columns(self) -> tuple[Field, ...]:
        """All columns in the order of the catalog."""
        exported_at = () if any(column.name == EXPORTED_AT for column in self.fields) else (EXPORTED_AT_COLUMN,)
        return (*self.fields, *exported_at, *((RESCUED_COLUMN,) if self.rescues else ()))

    @property
    def json_schema(self) -> dict[str, Any]:
        """The stream's JSON schema."""
        properties = {column.name: column.json_schema for column in self.columns}
        for name in (*self.keys, EXPORTED_AT):
            properties[name]["type"] = properties[name]["type"][0]
        return {"type": "object", "properties": properties, "required": [*self.keys]}

    def with_attributes(self, attributes: Iterable[Field]) -> Table:
        """The same table with typed members of `custom_attributes`."""
        members = tuple(attributes)
        fields = (replace(f, members=members) if f.name == "custom_attributes" else f for f in self.fields)
        return replace(self, fields=tuple(fields))
