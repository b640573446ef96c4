"""A member of Braze's object → its column: conformed to the column's type, or rescued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.conform import CONFORM, UNFIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field


def conformer(column: Field, selection: Selection | None) -> Callable[[Any, dict[str, Any]], Any]:
    """A function of a value and the row's rescued data that returns what the column holds."""
    name = column.name
    to_type = CONFORM[column.type]

    def conform(value: Any, rescued: dict[str, Any]) -> Any:
        fitting = to_type(value)
        if fitting is UNFIT:
            rescued[name] = value
            return None
        return fitting

    dropped = selection.dropped.get(name, frozenset()) if selection else frozenset()
    if not column.members and not dropped:
        return conform
    members = {member.name: CONFORM[member.type] for member in column.members}
    closed = name == "custom_attributes" and bool(dropped)

    def conform_members(value: Any, rescued: dict[str, Any]) -> Any:
        if not isinstance(value, dict):
            return conform(value, rescued)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            to_member = members.get(key)
            if to_member is None:
                if key not in dropped and not closed:
                    kept[key] = item
            elif item is None:
                kept[key] = None
            else:
                fitting = to_member(item)
                if fitting is UNFIT:
                    rescued[f"{name}.{key}"] = item
                kept[key] = None if fitting is UNFIT else fitting
        return kept

    return conform_members
