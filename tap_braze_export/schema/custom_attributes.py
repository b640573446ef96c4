"""The types of custom attributes: Braze's own at discovery, and those of the settings, which win."""

from __future__ import annotations

import re
from operator import itemgetter
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
    "string": Type.STRING,
    "number": Type.NUMBER,
    "boolean": Type.BOOLEAN,
    "time": Type.DATE_TIME,
    "date": Type.DATE_TIME,
    "datetime": Type.DATE_TIME,
    "array": Type.ARRAY,
    "object": Type.OBJECT,
}
"""The type that a word in Braze's `data_type` means; the exact spellings are not documented."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""NUL and lone surrogates, which become U+FFFD in rows, too."""


def attribute_fields(types: Mapping[str, Type]) -> list[Field]:
    """Return the members of `custom_attributes`, sorted by name, as rows spell it."""
    storable = {_UNSTORABLE.sub("\ufffd", name): kind for name, kind in types.items()}
    return [Field(name, kind, "Custom attribute") for name, kind in sorted(storable.items(), key=itemgetter(0))]


def discovered_types(attributes: Iterable[Mapping[str, Any]]) -> dict[str, Type]:
    """Return the types that Braze gives to custom attributes: any JSON type, where the tap cannot tell one.

    Args:
        attributes: Items of GET `/custom_attributes`. Blocklisted ones carry no data and are left out, as are items
            without a name. A name that is listed twice with two types is open to any JSON type.
    """
    types: dict[str, Type] = {}
    for attribute in attributes:
        name = attribute.get("name")
        if not isinstance(name, str) or not name or str(attribute.get("status")).lower() == "blocklisted":
            continue
        kind = _told_by_words(attribute.get("data_type"))
        types[name] = kind if types.get(name, kind) is kind else Type.ANY
    return types


def _told_by_words(data_type: Any) -> Type:
    """Return the type that the words of Braze's `data_type` mean; any JSON type if they mean none or several."""
    words = _WORD.findall(data_type) if isinstance(data_type, str) else ()
    kinds = {kind for word in words if (kind := _TYPES_BY_WORD.get(word.lower()))}
    if Type.ARRAY in kinds:
        return Type.ARRAY  # of objects, of strings
    return kinds.pop() if len(kinds) == 1 else Type.ANY
