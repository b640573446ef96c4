"""The fast path: lines that are exactly as the schema says, decoded by their types in C, a block at a time.

It gives the rows of the careful path, or refuses a user, who then takes the careful path alone. Members that the
schema does not know are learned after a few refusals, so that a field that Braze adds to every line costs little.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw

from tap_braze_export.rows.column_checks import (
    CHECKS,
    are_attributes,
    are_readable,
    attributes_decoder,
    is_readable,
    rewrite_utc,
    unstorable_numbers,
)
from tap_braze_export.rows.conform import UNFIT, conform_to, conformer
from tap_braze_export.rows.device_key import ANONYMOUS_PREFIX, key_by_content, key_by_id
from tap_braze_export.rows.exact_json import DECODER
from tap_braze_export.rows.line_limits import can_be_user
from tap_braze_export.rows.repeated_members import repeated_members
from tap_braze_export.rows.rescued_members import count_rows
from tap_braze_export.rows.structs import RAW_TYPES, level_at, levels_inside, unknown_members
from tap_braze_export.schema.table import RESCUED, Type
from tap_braze_export.schema.user_object import DEVICE_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tap_braze_export.rows.rescued_members import MemberCounts
    from tap_braze_export.rows.structs import Level, Path
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field

_REFUSALS_TO_LEARN = 8
_MOST_LEARNED = 64
_find_nul = re.compile(rb"\\u0000").search  # finds it in half the time that "in" takes
_ids_of = attrgetter(*DEVICE_IDS)


class FastPath:
    """Turns lines into rows, as long as they are exactly as the schema says.

    Args:
        by_path: The selected streams of the user object.
        exported_at: The value of that column in every row.

    Attributes:
        generation: Rises when members are learned, with which lines that were refused may be accepted.
    """

    def __init__(self, by_path: Mapping[Path, Selection], *, exported_at: str) -> None:
        self._exported_at = exported_at
        self._user = level_at((), by_path)
        self._decode: Callable[[bytes], Any]
        self._raw_attributes: list[str]
        self._learned_inside_lists: bool
        self._refusals: Counter[tuple[Path, str]] = Counter()
        self.generation = 0
        self._compile()

    def decode(self, lines: Sequence[bytes]) -> list[Any]:
        """Decode lines into structs with a `braze_id`; None for each that is not exactly as the schema says.

        A line that the careful path would reject must be refused here: later, it would have replaced an earlier line of
        its user. So parts that the decoder only skims are checked here to be readable.
        """
        lines = [line if can_be_user(line) else b"" for line in lines]
        decode = self._decode
        users: list[Any] = []
        for line in lines:
            try:
                users.append(decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                users.append(None)
        for index, line in enumerate(lines):
            if b"\\" in line and _find_nul(line):
                users[index] = None
        if self._learned_inside_lists or not are_readable(self._raw_values(users)):
            readable = map(is_readable, lines)
            users = [user if can_stay else None for user, can_stay in zip(users, readable, strict=True)]
        return users

    def learn(self, user: dict[str, Any]) -> None:
        """Note the members for which a user was refused; those that keep appearing get an attribute in the struct."""
        unknown = {*unknown_members(self._user, (), user)}
        self._refusals.update(unknown)
        frequent = [found for found in unknown if self._refusals[found] == _REFUSALS_TO_LEARN]
        for path, name in frequent:
            level = self._level(path)
            if len(level.learned) < _MOST_LEARNED:
                level.learned[name] = f"learned_{len(level.learned)}"
                level.accepted.add(name)
        if frequent:
            self._compile()

    def to_rows(self, users: Sequence[Any]) -> tuple[dict[str, list[Any]], set[str]]:
        """Return the rows of decoded users by stream, and the `braze_id` of each user that is refused after all.

        Args:
            users: As `decode` made them.
        """
        refused: set[str] = set()
        found: dict[str, list[Any]] = {}
        self._collect(self._user, users, found, refused)
        return without(found, refused), refused

    def count_rescued(
        self, rows: Mapping[str, Sequence[Any]], rescued: Counter[str], rescued_members: MemberCounts
    ) -> None:
        """Add the number of rows with rescued members: by stream, and by stream and member."""
        for level in (self._user, *levels_inside(self._user)):
            if level.learned and level.selection and RESCUED in level.selection.names:
                stream = level.table.stream  # only learned members are rescued here
                found = [data for row in rows.get(stream, ()) if (data := row._rescued_data) is not None]  # noqa: SLF001
                if found:
                    rescued[stream] += len(found)
                    count_rows(stream, found, rescued_members)

    def _raw_values(self, users: Iterable[Any]) -> list[Any]:
        """Return the values of users that stay undecoded."""
        known = [user for user in users if user is not None]
        return [raw for name in self._raw_attributes for raw in map(attrgetter(name), known) if type(raw) is Raw]

    def _compile(self) -> None:
        self.generation += 1
        raws = [column.name for column in self._user.columns if column.type in RAW_TYPES and column.name != RESCUED]
        self._raw_attributes = [*raws, *self._user.learned.values()]
        self._learned_inside_lists = any(level.learned for level in levels_inside(self._user))
        self._decode = msgspec.json.Decoder(self._user.compile(self._exported_at)).decode

    def _level(self, path: Path) -> Level:
        level = self._user
        for name in path:
            level = level.lists[name]
        return level

    def _collect(self, level: Level, objects: Sequence[Any], found: dict[str, list[Any]], refused: set[str]) -> None:
        """Add the rows of objects that have their owner's ids already, after those of the lists inside them."""
        for name, inner in level.lists.items():
            self._collect(inner, _items(inner, name, objects, refused), found, refused)
        if level.selection is None:
            return
        _move_learned(level, objects, refused)
        for column, get in level.checked:
            if column.name == "custom_attributes":
                _conform_attributes(column, level.selection, objects, refused)
            elif column.type is Type.OBJECT and column.name != RESCUED:
                _conform_flags(column, level.selection, objects, refused)
            elif column.loaded:
                _conform_values(column, objects, refused)
            elif column.type in CHECKS:
                _conform_column(column, get, objects, refused)
        found[level.table.stream] = list(objects)


def without(rows: dict[str, list[Any]], braze_ids: AbstractSet[str]) -> dict[str, list[Any]]:
    """Return rows by stream without those of some users."""
    if not braze_ids:
        return rows
    return {stream: [row for row in own if row.braze_id not in braze_ids] for stream, own in rows.items()}


def _items(inner: Level, name: str, owners: Sequence[Any], refused: set[str]) -> list[Any]:
    """Move the items of a list out of all owners, and give them the ids of their owner."""
    items: list[Any] = []
    key_of, devices = inner.key_of, "device_key" in inner.own_keys
    for owner, own_items in zip(owners, [*map(attrgetter(name), owners)], strict=True):
        if own_items is UNSET:
            continue
        setattr(owner, name, UNSET)
        if not own_items:
            continue
        braze_id = owner.braze_id
        for item in own_items:
            item.braze_id = braze_id
        if devices:
            for device in own_items:
                device.device_key = _device_key(device, inner, refused)
        for column in inner.inherited:
            value = getattr(owner, column)
            for item in own_items:
                setattr(item, column, value)
        if len(own_items) > 1 and len({*map(key_of, own_items)}) != len(own_items):
            if inner.lists:
                refused.add(braze_id)
            if devices:
                _number_equal_devices(own_items)
            items += {key_of(item): item for item in own_items}.values()  # the later one wins
        else:
            items += own_items
    return items


def _device_key(device: Any, level: Level, refused: set[str]) -> str:
    key: str
    if level.hidden:
        key = key_by_id((getattr(device, name), name not in level.hidden) for name in DEVICE_IDS)
        for name in level.hidden:
            setattr(device, name, UNSET)
    else:
        key = device.device_id or next(filter(None, _ids_of(device)), "")
    if key:
        if key.startswith(ANONYMOUS_PREFIX):
            refused.add(device.braze_id)
        return key
    if any(getattr(device, attribute, UNSET) is not UNSET for attribute in level.learned.values()):
        refused.add(device.braze_id)
    return key_by_content({name: getattr(device, name) for name in level.own})


def _number_equal_devices(devices: Iterable[Any]) -> None:
    """Add an ordinal to the keys of devices of one user that are equal and have no id."""
    counts: Counter[str] = Counter()
    for device in devices:
        if (key := device.device_key).startswith(ANONYMOUS_PREFIX):
            counts[key] += 1
            if counts[key] > 1:
                device.device_key = f"{key}-{counts[key]}"


def _move_learned(level: Level, objects: Sequence[Any], refused: set[str]) -> None:
    """Move learned members that the schema does not know to the rescued data; drop those that it knows: deselected."""
    if not level.learned:
        return
    known = level.known
    rescues = level.selection is not None and RESCUED in level.selection.names
    for name, attribute in level.learned.items():
        try:
            values = [*map(attrgetter(attribute), objects)]
        except AttributeError:  # some were decoded before it was learned
            values = [getattr(item, attribute, UNSET) for item in objects]
        holders = [item for item, value in zip(objects, values, strict=True) if value is not UNSET]
        if rescues and name not in known:
            contents = [bytes(getattr(item, attribute)) for item in holders]
            unfit = chain(unstorable_numbers(contents), repeated_members(contents))
            refused.update(holders[index].braze_id for index in unfit)
            for item in holders:
                item._rescued_data = {**(item._rescued_data or {}), name: getattr(item, attribute)}  # noqa: SLF001
        for item in holders:
            setattr(item, attribute, UNSET)


def _conform_flags(column: Field, selection: Selection, objects: Sequence[Any], refused: set[str]) -> None:
    """Drop deselected members of an object of flags; conform the others where the catalog has edited them."""
    name, dropped = column.name, selection.dropped.get(column.name, ())
    if column.loaded or any(member.type is not Type.BOOLEAN or member.is_edited for member in column.members):
        conform, rescued = conformer(column, selection), dict[str, Any]()
        for item in objects:
            if (flags := getattr(item, name)) is not None:
                setattr(item, name, conform(flags, rescued))
                if rescued:
                    refused.add(item.braze_id)
                    rescued.clear()
    elif dropped:
        for item in objects:
            if flags := getattr(item, name):
                for member in dropped:
                    flags.pop(member, None)


def _conform_column(column: Field, get: Callable[[Any], Any], objects: Sequence[Any], refused: set[str]) -> None:
    """Check all values of a column at once; where some are not final, conform those of an unusual form one by one."""
    check = CHECKS[column.type]
    if check.are_final([*map(get, objects)]):
        return
    holders = [item for item in objects if get(item) is not None]
    if column.type is Type.DATE_TIME and (rewritten := rewrite_utc([*map(get, holders)])):
        for item, text in zip(holders, rewritten, strict=True):
            setattr(item, column.name, text)
        return
    usual = [item for item in holders if check.is_usual(get(item))]
    unusual = [item for item in holders if not check.is_usual(get(item))]
    _conform_values(column, unusual if check.are_final([*map(get, usual)]) else holders, refused)


def _conform_values(column: Field, objects: Iterable[Any], refused: set[str]) -> None:
    name, to_type = column.name, conform_to(column)
    for item in objects:
        value = getattr(item, name)
        if isinstance(value, Raw):
            try:
                value = DECODER.decode(value)
            except (UnicodeDecodeError, msgspec.MsgspecError):  # well formed, but an integer of too many digits
                value = UNFIT
        if value is UNFIT or (value is not None and (value := to_type(value)) is UNFIT):
            refused.add(item.braze_id)
            value = None
        setattr(item, name, value)


def _conform_attributes(column: Field, selection: Selection, objects: Sequence[Any], refused: set[str]) -> None:
    """Check the custom attributes of all users; they stay the bytes they are unless something in them has to change."""
    dropped = selection.dropped.get(column.name)
    decoder = attributes_decoder(column)
    conform = conformer(column, selection)
    holders = [item for item in objects if item.custom_attributes is not None]
    contents = [bytes(item.custom_attributes) for item in holders]
    are_final = not dropped and not column.loaded and are_attributes(contents, column, decoder)
    unfit = {*unstorable_numbers(contents), *repeated_members(contents)} if are_final else range(len(holders))
    for index in unfit:
        if not _conform_attributes_of(holders[index], contents[index], conform):
            refused.add(holders[index].braze_id)


def _conform_attributes_of(user: Any, content: bytes, conform: Callable[[Any, dict[str, Any]], Any]) -> bool:
    """Conform the attributes of one user; False if some of them have to be rescued."""
    rescued: dict[str, Any] = {}
    try:
        value = DECODER.decode(content)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    user.custom_attributes = None if value is None else conform(value, rescued)
    return not rescued
