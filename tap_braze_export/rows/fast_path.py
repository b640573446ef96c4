"""The fast path: lines that are exactly as the schema says, decoded by their types in C, a block at a time.

It gives the rows of the careful path in `fanout.py`, or refuses a user, who then takes that path alone. Members that
the schema does not know are learned after a few refusals, so that a field that Braze adds to every line costs little.
"""

from __future__ import annotations

import re
from collections import Counter
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
    odd_among,
    without_utc,
)
from tap_braze_export.rows.columns import conformer
from tap_braze_export.rows.conform import CONFORM, UNFIT, read_number
from tap_braze_export.rows.device_key import ANONYMOUS, key_by_content, key_by_id
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.rows.structs import RAW_TYPES, level_at, levels_inside, unknown_members
from tap_braze_export.schema.table import RESCUED, Type
from tap_braze_export.schema.user_object import DEVICE_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tap_braze_export.rows.structs import Level
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field

    Path = tuple[str, ...]

_REFUSALS_TO_LEARN = 8
_MOST_LEARNED = 64
_NUL = re.compile(rb"\\u0000").search  # finds it in half the time that "in" takes
_ids_of = attrgetter(*DEVICE_IDS)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=read_number)


class StrictReader:
    """Decodes lines and fans them out, as long as they are exactly as the schema says.

    Args:
        by_path: The selected streams of the user object.
        exported_at: The value of that column in every row.
    """

    def __init__(self, by_path: Mapping[Path, Selection], *, exported_at: str) -> None:
        self._exported_at = exported_at
        self._user = level_at((), by_path)
        self._decode: Callable[[bytes], Any]
        self._raws: list[str]
        self._learned_inside: bool
        self._unknown: Counter[tuple[Path, str]] = Counter()
        self._compile()

    def decode(self, lines: Sequence[bytes]) -> list[Any]:
        """Lines as structs with a `braze_id`; None for each that is not exactly as the schema says.

        What only the careful path rejects must be refused here: later, the line would have replaced an earlier one of
        its user. So parts that the decoder only skims have to prove here that they can be read.
        """
        decode = self._decode
        users: list[Any] = []
        for line in lines:
            try:
                users.append(decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                users.append(None)
        for index, line in enumerate(lines):
            if b"\\" in line and _NUL(line):
                users[index] = None
        if self._learned_inside or not are_readable(self._raws_of(users)):
            readable = map(is_readable, lines)
            users = [user if can_stay else None for user, can_stay in zip(users, readable, strict=True)]
        return users

    def learn(self, user: dict[str, Any]) -> None:
        """Note which members made a user be refused; those that keep appearing get a place."""
        unknown = {*unknown_members(self._user, (), user)}
        self._unknown.update(unknown)
        ripe = [found for found in unknown if self._unknown[found] == _REFUSALS_TO_LEARN]
        for path, name in ripe:
            level = self._at(path)
            if len(level.learned) < _MOST_LEARNED:
                level.learned[name] = f"learned_{len(level.learned)}"
                level.places.add(name)
        if ripe:
            self._compile()

    def to_rows(self, users: Sequence[Any]) -> tuple[dict[str, Rows], set[str]]:
        """The rows of decoded users by stream, and the ids of users that are refused after all."""
        refused: set[str] = set()
        found: dict[str, list[Any]] = {}
        self._collect(self._user, users, found, refused)
        if refused:
            found = {stream: [row for row in rows if row.braze_id not in refused] for stream, rows in found.items()}
        rendered = {stream: Rows((_ENCODER.encode_lines(rows),), len(rows)) for stream, rows in found.items() if rows}
        return rendered, refused

    def _raws_of(self, users: Iterable[Any]) -> list[Any]:
        """The parts that are not decoded."""
        known = [user for user in users if user is not None]
        return [raw for name in self._raws for raw in map(attrgetter(name), known) if type(raw) is Raw]

    def _compile(self) -> None:
        raws = [column.name for column in self._user.columns if column.type in RAW_TYPES and column.name != RESCUED]
        self._raws = [*raws, *self._user.learned.values()]
        self._learned_inside = any(level.learned for level in levels_inside(self._user))
        self._decode = msgspec.json.Decoder(self._user.compile(self._exported_at)).decode

    def _at(self, path: Path) -> Level:
        level = self._user
        for name in path:
            level = level.lists[name]
        return level

    def _collect(self, level: Level, objects: Sequence[Any], found: dict[str, list[Any]], refused: set[str]) -> None:
        """Add the rows of objects that have their ids already, then those of the lists inside them."""
        for name, inner in level.lists.items():
            self._collect(inner, _items(inner, name, objects, refused), found, refused)
        if level.selection is None:
            return
        _place_learned(level, objects, refused)
        for column, get in level.checked:
            if column.name == "custom_attributes":
                _check_attributes(column, level.selection, objects, refused)
            elif dropped := level.selection.dropped.get(column.name):
                _drop_members(column.name, dropped, objects)
            elif column.type in CHECKS:
                _check(column, get, objects, refused)
        found[level.table.stream] = list(objects)


def _items(inner: Level, name: str, owners: Sequence[Any], refused: set[str]) -> list[Any]:
    """The objects of one list of all owners, with the ids of their owner, which loses the list."""
    items: list[Any] = []
    key_of, devices = inner.key_of, "device_key" in inner.own_keys
    for owner, mine in zip(owners, [*map(attrgetter(name), owners)], strict=True):
        if mine is UNSET:
            continue
        setattr(owner, name, UNSET)
        if not mine:
            continue
        braze_id = owner.braze_id
        for item in mine:
            item.braze_id = braze_id
        if devices:
            for device in mine:
                device.device_key = _device_key(device, inner, refused)
        for column in inner.inherited:
            value = getattr(owner, column)
            for item in mine:
                setattr(item, column, value)
        if len(mine) > 1 and len({*map(key_of, mine)}) != len(mine):
            if inner.lists:
                refused.add(braze_id)
            if devices:
                _tell_apart(mine)
            items += {key_of(item): item for item in mine}.values()  # the later one wins
        else:
            items += mine
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
        if key.startswith(ANONYMOUS):
            refused.add(device.braze_id)
        return key
    if any(getattr(device, attribute, UNSET) is not UNSET for attribute in level.learned.values()):
        refused.add(device.braze_id)
    return key_by_content({name: getattr(device, name) for name in level.own})


def _tell_apart(devices: Iterable[Any]) -> None:
    """Number the devices of one user that are alike and have no id."""
    alike: Counter[str] = Counter()
    for device in devices:
        if (key := device.device_key).startswith(ANONYMOUS):
            alike[key] += 1
            if alike[key] > 1:
                device.device_key = f"{key}-{alike[key]}"


def _place_learned(level: Level, objects: Sequence[Any], refused: set[str]) -> None:
    """Take away members that the catalog deselects; keep unknown ones in the rescued data."""
    known = level.known
    rescues = level.selection is not None and RESCUED in level.selection.names
    for name, attribute in level.learned.items():
        try:
            values = [*map(attrgetter(attribute), objects)]
        except AttributeError:  # some were decoded before it was learned
            values = [getattr(item, attribute, UNSET) for item in objects]
        holders = [item for item, value in zip(objects, values, strict=True) if value is not UNSET]
        if rescues and name not in known:
            odd = odd_among([bytes(getattr(item, attribute)) for item in holders])
            refused.update(holders[index].braze_id for index in odd)
            for item in holders:
                item._rescued_data = {**(item._rescued_data or {}), name: getattr(item, attribute)}  # noqa: SLF001
        for item in holders:
            setattr(item, attribute, UNSET)


def _drop_members(name: str, dropped: Iterable[str], objects: Sequence[Any]) -> None:
    for item in objects:
        if flags := getattr(item, name):
            for member in dropped:
                flags.pop(member, None)


def _check(column: Field, get: Callable[[Any], Any], objects: Sequence[Any], refused: set[str]) -> None:
    """Look at all values of a column; where they are not sound, at each of another form."""
    sound = CHECKS[column.type]
    if sound.all([*map(get, objects)]):
        return
    held = [item for item in objects if get(item) is not None]
    if column.type is Type.DATE_TIME and (written := without_utc([*map(get, held)])):
        for item, text in zip(held, written, strict=True):
            setattr(item, column.name, text)
        return
    formed = [item for item in held if sound.form(get(item))]
    odd = [item for item in held if not sound.form(get(item))]
    _conform(column, odd if sound.all([*map(get, formed)]) else held, refused)


def _conform(column: Field, objects: Iterable[Any], refused: set[str]) -> None:
    name, to_type = column.name, CONFORM[column.type]
    for item in objects:
        value = getattr(item, name)
        if isinstance(value, Raw):
            try:
                value = _DECODER.decode(value)
            except (UnicodeDecodeError, msgspec.MsgspecError):  # well formed, but an integer of too many digits
                value = UNFIT
        if value is UNFIT or (value is not None and (value := to_type(value)) is UNFIT):
            refused.add(item.braze_id)
            value = None
        setattr(item, name, value)


def _check_attributes(column: Field, selection: Selection, objects: Sequence[Any], refused: set[str]) -> None:
    """Look at the custom attributes, which stay the bytes they are unless something in them has to change."""
    dropped = selection.dropped.get(column.name)
    decoder = attributes_decoder(column)
    conform = conformer(column, selection)
    held = [item for item in objects if item.custom_attributes is not None]
    contents = [bytes(item.custom_attributes) for item in held]
    sound = not dropped and are_attributes(contents, column, decoder)
    for index in odd_among(contents) if sound else range(len(held)):
        if not _conform_attributes(held[index], contents[index], conform):
            refused.add(held[index].braze_id)


def _conform_attributes(user: Any, content: bytes, conform: Callable[[Any, dict[str, Any]], Any]) -> bool:
    """Whether the attributes could be conformed with nothing to rescue."""
    rescued: dict[str, Any] = {}
    try:
        value = _DECODER.decode(content)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    user.custom_attributes = None if value is None else conform(value, rescued)
    return not rescued
