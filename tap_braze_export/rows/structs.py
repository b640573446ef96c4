"""The structs of the fast path, one for each kind of object that the selected streams are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw

from tap_braze_export.rows.exact_json import Integer64
from tap_braze_export.schema.selection import selected_inside
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED, Type
from tap_braze_export.schema.user_object import BY_PATH, DEVICE_IDS, paths_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tap_braze_export.schema.selection import Selection

    Path = tuple[str, ...]

_NEVER_IN_A_LINE = Literal["\x00"]
"""The type of a column that only the tap fills: no line that the fast path reads holds a NUL."""
_ID = Annotated[str, Meta(min_length=1)]
_FLAGS = dict[str, bool | None] | None
RAW_TYPES = (Type.NUMBER, Type.COORDINATES, Type.OBJECT)
"""Types of a user's columns that stay the bytes they are."""
_STRUCT_TYPES: dict[Type, Any] = {
    Type.STRING: str | None,
    Type.INTEGER: Integer64 | str | None,
    Type.BOOLEAN: bool | None,
    Type.DATE_TIME: str | None,
    Type.TIMESTAMP: Integer64 | str | None,
    Type.DATE: str | None,
    Type.NUMBER: Raw,
    Type.COORDINATES: Raw,
}


@dataclass
class Level:
    """The objects at one path of the user object, and what the fast path decodes of them.

    Attributes:
        path: The members that lead to them.
        selection: Selection of their table; None if it is not selected, only lists inside are.
        lists: The levels of the lists inside, by member.
        learned: The attribute of each member that has no column in the struct but keeps appearing, by name.
        table: Their table.
        columns: The selected columns, or the keys that lists inside need.
        own: Names of the columns that the object itself holds.
        hidden: Deselected device ids, which are decoded only for the key.
        known: Names of the members that the schema knows.
        accepted: Names of the members that the struct accepts.
        inherited: Columns that come from the owner, besides its `braze_id`.
        own_keys: Key columns that come from the object itself.
        key_of: Returns the own key of an object.
        checked: The columns that the object itself holds, each with the getter of its value.
    """

    path: Path
    selection: Selection | None
    lists: dict[str, Level] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Derive the rest from path and selection."""
        path, selection = self.path, self.selection
        self.table = table = BY_PATH[path]
        keys = tuple(column for column in table.fields if column.name in table.keys)
        self.columns = selection.columns if selection else keys
        names = {column.name for column in self.columns}
        self.own = [name for name in names if name not in (*table.given, EXPORTED_AT, RESCUED)]
        self.hidden = [name for name in DEVICE_IDS if "device_key" in table.keys and name not in names]
        own_fields = {column.name for column in table.fields if column.name not in table.given}
        self.known = own_fields | paths_inside(path).keys()
        self.accepted = names | {*self.hidden, "braze_id"}
        self.inherited = [name for name in table.given if name not in ("braze_id", "device_key")]
        self.own_keys = [key for key in table.keys if key not in ("braze_id", *self.inherited)]
        self.key_of = attrgetter(*(self.own_keys or ["braze_id"]))
        own = [column for column in self.columns if column.name not in (*table.given, EXPORTED_AT)]
        self.checked = [(column, attrgetter(column.name)) for column in own]

    def can_learn(self, name: str) -> bool:
        """True if the struct can have a member, and its rescued data need not be text."""
        is_name = name.isprintable() and not set(name) & {'"', "\\"}
        return is_name and (name in self.known or not any(c.loaded for c in self.columns if c.name == RESCUED))

    def compile(self, exported_at: str) -> type[msgspec.Struct]:
        """Make the struct of these objects, after those of the lists inside."""
        members: list[tuple[str, Any, Any]] = []
        for column in self.columns:
            name = column.name
            if name in self.table.given or name == RESCUED:
                members.append((name, _NEVER_IN_A_LINE, None))
            elif name == EXPORTED_AT:
                members.append((name, _NEVER_IN_A_LINE, exported_at))
            elif name == "braze_id":
                members.append((name, _ID, msgspec.NODEFAULT))
            elif name in self.table.keys:
                members.append((name, str, ""))
            elif column.type is Type.OBJECT:
                members.append((name, Raw if name == "custom_attributes" else _FLAGS, None))
            else:
                members.append((name, _STRUCT_TYPES[column.type], None))
        if not self.table.path and "braze_id" not in {member[0] for member in members}:
            members.append(("braze_id", _ID, msgspec.NODEFAULT))
        for name, level in self.lists.items():
            members.append((name, list[level.compile(exported_at)] | None, UNSET))  # type: ignore[misc]
        members += [(name, str | None, None) for name in self.hidden]
        members += [(attribute, Raw, UNSET) for attribute in self.learned.values()]
        return msgspec.defstruct(
            self.table.stream,
            members,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
            rename={attribute: name for name, attribute in self.learned.items()},
        )


def level_at(path: Path, by_path: Mapping[Path, Selection]) -> Level:
    """Make the level of the objects at a path, given the selections by path."""
    lists = {name: level_at(inner, by_path) for name, inner in selected_inside(path, by_path).items()}
    return Level(path, by_path.get(path), lists)


def levels_inside(level: Level) -> Iterator[Level]:
    """Yield the levels of the lists inside, those of their lists, and so on."""
    for inner in level.lists.values():
        yield from (inner, *levels_inside(inner))


def unknown_members(level: Level, path: Path, source: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield path and name of each member that the struct of its object does not accept but could learn."""
    for name, value in source.items():
        inner = level.lists.get(name)
        if inner is not None:
            for item in value if isinstance(value, list) else ():
                if isinstance(item, dict):
                    yield from unknown_members(inner, (*path, name), item)
        elif name not in level.accepted and level.can_learn(name):
            yield path, name
