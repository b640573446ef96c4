"""The types of custom attributes: Braze's own at discovery, and those of the settings, which win."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tap_braze_export.schema.table import Field, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
_TYPES_BY_WORD = {
    "array": "array",  # first: Braze also has arrays of objects
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "time": "date-time",
    "date": "date-time",
    "object": "object",
}
"""The type that a word in Braze's `data_type` means; the exact spellings are not documented."""

_NO_COLUMN = re.compile(r"[\x00\ud800-\udfff]")
"""Matches in a name that no message can hold."""


def attribute_fields(types: Mapping[str, str]) -> list[Field]:
    """Return the typed members of `custom_attributes`, sorted by name."""
    return [Field(name, ATTRIBUTE_TYPES[types[name]], "Custom attribute") for name in sorted(types)]


def discovered_types(attributes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the types that Braze gives to custom attributes; one of a type unknown here stays untyped.

    Args:
        attributes: Items of GET `/custom_attributes`. Blocklisted ones carry no data and are left out.
    """
    types = {}
    for attribute in attributes:
        name, data_type, status = (_text(attribute.get(member)) for member in ("name", "data_type", "status"))
        kind = next((kind for word, kind in _TYPES_BY_WORD.items() if word in data_type.lower()), None)
        if kind and name and not _NO_COLUMN.search(name) and status.lower() != "blocklisted":
            types[name] = kind
    return types


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def type_of(json_schema: dict[str, Any]) -> Type:
    """Return the type that a catalog's JSON schema gives to a custom attribute."""
    names = json_schema.get("type", "object")
    plain = {name for name in ([names] if isinstance(names, str) else names) if name != "null"}
    name = "date-time" if json_schema.get("format") == "date-time" else next(iter(plain), "object")
    return ATTRIBUTE_TYPES.get(name, Type.OBJECT)
