"""The types of custom attributes: those that Braze tells at discovery, and those of the settings, which win."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.schema.table import ATTRIBUTE_TYPES, Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TYPES = {
    "array": "array",  # first: Braze also has arrays of objects
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "time": "date-time",
    "date": "date-time",
    "object": "object",
}
"""StorageLabels in Braze's `data_type`, whose exact spellings are not documented, and the type that they mean."""


def attribute_fields(types: Mapping[str, str]) -> list[Field]:
    """The typed members of `custom_attributes`, by name."""
    return [Field(name, ATTRIBUTE_TYPES[types[name]], "Custom attribute") for name in sorted(types)]


def discovered_types(attributes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The types that Braze's list of custom attributes tells; of a type unknown here the attribute stays untyped.

    Args:
        attributes: Items of GET `/custom_attributes`. Blocklisted ones carry no data and are left out.
    """
    found = {}
    for attribute in attributes:
        said = str(attribute.get("data_type") or "").lower()
        kind = next((kind for word, kind in _TYPES.items() if word in said), None)
        if kind and attribute.get("name") and str(attribute.get("status") or "").lower() != "blocklisted":
            found[str(attribute["name"])] = kind
    return found
