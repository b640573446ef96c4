"""The structs of the fast path, one for each kind of object that the selected streams are made of, and their rows."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw

from tap_braze_export.rows.careful_path import ANONYMOUS_PREFIX, key_by_content, key_by_id
from tap_braze_export.rows.column_checks import conform_columns
from tap_braze_export.rows.exact_json import Integer64
from tap_braze_export.rows.raw_json import unfit
from tap_braze_export.schema.selection import selected_inside
from tap_braze_export.schema.table import EXPORTED_AT, RESCUED, Type
from tap_braze_export.schema.user_object import BY_PATH, DEVICE_IDS, paths_inside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tap_braze_export.schema.selection import Selection

    Path = tuple[str, ...]

_NEVER_IN_A_LINE = Literal["\x00"]
"""The type of a column that only the tap fills: no line that the fast path reads holds a NUL."""
_ID = Annotated[str, Meta(min_length=1)]
_RAW_TYPES = (Type.NUMBER, Type.COORDINATES, Type.OBJECT)
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
    Type.OBJECT: dict[str, bool | None] | None,
}
_MOST_LEARNED = 64
_ids_of = attrgetter(*DEVICE_IDS)


class Level:
    """The objects at one path of the user object.

    Attributes:
        stream: The stream of their rows.
        lists: The levels of the lists inside, by member.
        learned: The attribute of each member that has no column in the struct but keeps appearing, by name.
        rescues: True if its rows have rescued data.
    """

    def __init__(self, path: Path, by_path: Mapping[Path, Selection]) -> None:
        self.lists = {name: Level(inner, by_path) for name, inner in selected_inside(path, by_path).items()}
        self.learned: dict[str, str] = {}
        self._table = table = BY_PATH[path]
        self.stream = table.stream
        self._selection = selection = by_path.get(path)
        keys = tuple(column for column in table.fields if column.name in table.keys)
        self._columns = selection.columns if selection else keys
        names = {column.name for column in self._columns}
        self._own = [name for name in names if name not in (*table.given, EXPORTED_AT, RESCUED)]
        self._are_devices = "device_key" in table.keys
        self._hidden = [name for name in DEVICE_IDS if self._are_devices and name not in names]
        self._known = {column.name for column in table.fields if column.name not in table.given} | {*paths_inside(path)}
        self._accepted = names | {*self._hidden, "braze_id"}
        self._inherited = [name for name in table.given if name not in ("braze_id", "device_key")]
        own_keys = [key for key in table.keys if key not in ("braze_id", *self._inherited)]
        self._own_key_of = attrgetter(*(own_keys or table.keys))
        self.rescues = selection is not None and RESCUED in names
        self._rescues_text = any(column.loaded for column in self._columns if column.name == RESCUED)
        own = [column for column in self._columns if column.name not in (*table.given, EXPORTED_AT)]
        self._conform = [*conform_columns(own, selection)] if selection else []

    @property
    def raw_attributes(self) -> list[str]:
        """The attributes whose values are raw JSON."""
        raws = [column.name for column in self._columns if column.type in _RAW_TYPES and column.name != RESCUED]
        return [*raws, *self.learned.values()]

    def levels(self) -> Iterator[Level]:
        """Yield this level, those of the lists inside, and so on."""
        yield self
        for inner in self.lists.values():
            yield from inner.levels()

    def unknown_members(self, source: dict[str, Any]) -> Iterator[tuple[Level, str]]:
        """Yield level and name of each member that the struct of its object does not accept but could learn."""
        for name, value in source.items():
            if inner := self.lists.get(name):
                for item in value if isinstance(value, list) else ():
                    if isinstance(item, dict):
                        yield from inner.unknown_members(item)
            elif name not in self._accepted and self._can_learn(name):
                yield self, name

    def _can_learn(self, name: str) -> bool:
        """True if the struct can have a member, and its rescued data need not be text."""
        is_name = name.isprintable() and not set(name) & {'"', "\\"}
        return is_name and (name in self._known or not self._rescues_text)

    def learn(self, name: str) -> None:
        """Have the struct accept a member, within limits; it takes effect when the struct is compiled again."""
        if len(self.learned) < _MOST_LEARNED:
            self.learned[name] = f"learned_{len(self.learned)}"
            self._accepted.add(name)

    def compile(self, exported_at: str) -> type[msgspec.Struct]:
        """Make the struct of these objects, after those of the lists inside."""
        members: list[tuple[str, Any, Any]] = []
        for column in self._columns:
            name = column.name
            if name in self._table.given or name == RESCUED:
                members.append((name, _NEVER_IN_A_LINE, None))
            elif name == EXPORTED_AT:
                members.append((name, _NEVER_IN_A_LINE, exported_at))
            elif name == "braze_id":
                members.append((name, _ID, msgspec.NODEFAULT))
            elif name in self._table.keys:
                members.append((name, str, ""))
            else:
                members.append((name, Raw if name == "custom_attributes" else _STRUCT_TYPES[column.type], None))
        if not self._table.path and "braze_id" not in {member[0] for member in members}:
            members.append(("braze_id", _ID, msgspec.NODEFAULT))
        for name, level in self.lists.items():
            members.append((name, list[level.compile(exported_at)] | None, UNSET))  # type: ignore[misc]
        members += [(name, str | None, None) for name in self._hidden]
        members += [(attribute, Raw, UNSET) for attribute in self.learned.values()]
        return msgspec.defstruct(
            self.stream,
            members,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
            rename={attribute: name for name, attribute in self.learned.items()},
        )

    def collect(self, objects: list[Any], found: dict[str, list[Any]], refused: set[str]) -> None:
        """Add the rows of objects that have their owner's ids already, after those of the lists inside them."""
        for name, inner in self.lists.items():
            inner.collect(inner._taken_from(objects, name, refused), found, refused)  # noqa: SLF001
        if self._selection is None:
            return
        for name, attribute in self.learned.items():
            self._move_learned(name, attribute, objects, refused)
        for conform in self._conform:
            conform(objects, refused)
        found[self.stream] = objects

    def _taken_from(self, owners: Sequence[Any], name: str, refused: set[str]) -> list[Any]:
        """Move the items of a list out of all owners, and give them the ids of their owner."""
        items: list[Any] = []
        own_key_of, inherited, are_devices = self._own_key_of, self._inherited, self._are_devices
        for owner, own_items in zip(owners, [*map(attrgetter(name), owners)], strict=True):
            if own_items is UNSET:
                continue
            setattr(owner, name, UNSET)
            if not own_items:
                continue
            braze_id = owner.braze_id
            for item in own_items:
                item.braze_id = braze_id
            for column in inherited:
                value = getattr(owner, column)
                for item in own_items:
                    setattr(item, column, value)
            if are_devices:
                for device in own_items:
                    device.device_key = self._device_key(device, refused)
            if len(own_items) > 1 and len({*map(own_key_of, own_items)}) < len(own_items):
                if self.lists:
                    refused.add(braze_id)
                if are_devices:
                    _number_equal_devices(own_items)
                items += {own_key_of(item): item for item in own_items}.values()  # the later one wins
            else:
                items += own_items
        return items

    def _device_key(self, device: Any, refused: set[str]) -> str:
        key: str
        if self._hidden:
            key = key_by_id((getattr(device, name), name not in self._hidden) for name in DEVICE_IDS)
            for name in self._hidden:
                setattr(device, name, UNSET)
        else:
            key = device.device_id or next(filter(None, _ids_of(device)), "")
        if key:
            if key.startswith(ANONYMOUS_PREFIX):
                refused.add(device.braze_id)
            return key
        if any(getattr(device, attribute) is not UNSET for attribute in self.learned.values()):
            refused.add(device.braze_id)
        return key_by_content({name: getattr(device, name) for name in self._own})

    def _move_learned(self, name: str, attribute: str, objects: Sequence[Any], refused: set[str]) -> None:
        """Move a member that the schema does not know to the rescued data; drop one that it knows: deselected."""
        holders = [item for item in objects if getattr(item, attribute) is not UNSET]
        if self.rescues and name not in self._known:
            contents = [bytes(getattr(item, attribute)) for item in holders]
            refused.update(holders[index].braze_id for index in unfit(contents))
            for item in holders:
                item._rescued_data = {**(item._rescued_data or {}), name: getattr(item, attribute)}  # noqa: SLF001
        for item in holders:
            setattr(item, attribute, UNSET)


def _number_equal_devices(devices: Sequence[Any]) -> None:
    """Add an ordinal to the keys of devices of one user that are equal and have no id."""
    counts: Counter[str] = Counter()
    for device in devices:
        if (key := device.device_key).startswith(ANONYMOUS_PREFIX):
            counts[key] += 1
            if counts[key] > 1:
                device.device_key = f"{key}-{counts[key]}"
