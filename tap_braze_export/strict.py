"""The fast path: lines that are exactly as the schema says, decoded by their types in C, a block at a time.

It gives the rows of the careful path in `fanout.py`, or refuses a user, who then takes that path alone. Members that
the schema does not know are learned after a few refusals, so that a field that Braze adds to every line costs little.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Raw

from tap_braze_export.columns import conformer
from tap_braze_export.conform import CONFORM, UNFIT, read_number
from tap_braze_export.device_key import ANONYMOUS, key_by_content, key_by_id
from tap_braze_export.rows import Rows
from tap_braze_export.schema import BY_PATH, DEVICE_IDS
from tap_braze_export.soundness import (
    CHECKS,
    LONG,
    are_attributes,
    attributes_decoder,
    is_odd,
    is_too_deep,
    may_be_deep,
)
from tap_braze_export.table import EXPORTED_AT, RESCUED, Type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.selection import Selection
    from tap_braze_export.table import Field, Table

    Path = tuple[str, ...]

_REFUSALS_TO_LEARN = 8
_MOST_LEARNED = 64
_CHUNK = 1024
"""Values checked at once; of a chunk with an odd one, each is looked at."""
_NEVER = Literal["\x00"]
"""The type of a member that only the tap writes: no line that is read here has a NUL in it."""
_FLAGS = dict[str, bool | None] | None
_TYPES: dict[Type, Any] = {
    Type.STRING: str | None,
    Type.INTEGER: LONG | str | None,
    Type.BOOLEAN: bool | None,
    Type.DATE_TIME: str | None,
    Type.TIMESTAMP: LONG | str | None,
    Type.DATE: str | None,
    Type.NUMBER: Raw,
    Type.COORDINATES: Raw,
}
_RAW_TYPES = (Type.NUMBER, Type.COORDINATES, Type.OBJECT)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=read_number)


class RefusedError(ValueError):
    """A line, or a user, that has to take the careful path."""


@dataclass
class _Level:
    """The objects at one place of the user object."""

    table: Table
    selection: Selection | None
    lists: dict[str, _Level] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    """Members that are not selected: by name, the attribute that takes them."""

    def __post_init__(self) -> None:
        """Work out what is decoded: the selected columns, or the keys that lists inside need."""
        table, selection = self.table, self.selection
        keys = tuple(column for column in table.fields if column.name in table.keys)
        self.columns = selection.columns if selection else keys
        names = {column.name for column in self.columns}
        self.names = names
        self.own = [name for name in names if name not in (*table.given, EXPORTED_AT, RESCUED)]
        self.hidden = [name for name in DEVICE_IDS if "device_key" in table.keys and name not in names]
        inner = {path[-1] for path in BY_PATH if path and path[:-1] == table.path}
        self.known = {column.name for column in table.fields if column.name not in table.given} | inner
        self.places = names | {*self.hidden, "braze_id"}

    def compile(self, exported_at: str) -> type[msgspec.Struct]:
        """Make the struct of these objects, after those of the lists inside."""
        members: list[tuple[str, Any, Any]] = []
        for column in self.columns:
            name = column.name
            if name in self.table.given or name == RESCUED:
                members.append((name, _NEVER, None))
            elif name == EXPORTED_AT:
                members.append((name, _NEVER, exported_at))
            elif name in self.table.keys:
                members.append((name, str, ""))
            elif column.type is Type.OBJECT:
                members.append((name, Raw if name == "custom_attributes" else _FLAGS, None))
            else:
                members.append((name, _TYPES[column.type], None))
        if not self.table.path and "braze_id" not in {member[0] for member in members}:
            members.append(("braze_id", str, ""))
        for name, level in self.lists.items():
            members.append((name, list[level.compile(exported_at)] | None, UNSET))  # type: ignore[misc]
        members += [(name, str | None, None) for name in self.hidden]
        members += [(attribute, Raw, UNSET) for attribute in self.learned.values()]
        return msgspec.defstruct(
            self.table.stream,
            members,
            forbid_unknown_fields=True,
            gc=False,
            rename={attribute: name for name, attribute in self.learned.items()},
        )


class StrictReader:
    """Decodes lines and fans them out, as long as they are exactly as the schema says.

    Args:
        by_path: The selected streams of the user object.
        exported_at: The value of that column in every row.
    """

    def __init__(self, by_path: Mapping[Path, Selection], *, exported_at: str) -> None:
        self._exported_at = exported_at
        self._user = _level((), by_path)
        self._decode: Callable[[bytes], Any]
        self._unknown: Counter[tuple[Path, str]] = Counter()
        self._compile()

    def decode(self, line: bytes) -> Any:
        """A line as a struct with at least a `braze_id`.

        Raises:
            RefusedError: If it is not exactly as the schema says.
        """
        if b"\r" in line or (b"\\" in line and b"\\u0000" in line):
            raise RefusedError  # loaders that read text would take a carriage return for a line's end
        try:
            user = self._decode(line)
            if self._may_be_deep(user, line) and is_too_deep(_DECODER.decode(line)):
                raise RefusedError
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError from error
        if not user.braze_id:
            raise RefusedError
        return user

    def learn(self, user: dict[str, Any]) -> None:
        """Note which members made a user be refused; those that keep appearing get a place."""
        unknown = {*_unknown(self._user, (), user)}
        self._unknown.update(unknown)
        ripe = [found for found in unknown if self._unknown[found] == _REFUSALS_TO_LEARN]
        for path, name in ripe:
            level = self._at(path)
            if len(level.learned) < _MOST_LEARNED:
                level.learned[name] = f"learned_{len(level.learned)}"
                level.places.add(name)
        if ripe:
            self._compile()

    def fan_out(self, users: Sequence[Any]) -> tuple[dict[str, Rows], set[str]]:
        """The rows of decoded users by stream, and the ids of users that are refused after all."""
        refused: set[str] = set()
        found: dict[str, list[Any]] = {}
        self._collect(self._user, users, found, refused)
        if refused:
            found = {stream: [row for row in rows if row.braze_id not in refused] for stream, rows in found.items()}
        rendered = {stream: Rows((_ENCODER.encode_lines(rows),), len(rows)) for stream, rows in found.items() if rows}
        return rendered, refused

    def _may_be_deep(self, user: Any, line: bytes) -> bool:
        """Whether a part that is not decoded may be too deep: it must be known before the user's rows are made."""
        if self._learned_inside:
            return may_be_deep(line)
        return any(type(raw) is Raw and may_be_deep(bytes(raw)) for raw in map(user.__getattribute__, self._raws))

    def _compile(self) -> None:
        raws = [column.name for column in self._user.columns if column.type in _RAW_TYPES]
        self._raws = [*raws, *self._user.learned.values()]
        self._learned_inside = any(level.learned for level in _inside(self._user))
        self._decode = msgspec.json.Decoder(self._user.compile(self._exported_at)).decode

    def _at(self, path: Path) -> _Level:
        level = self._user
        for name in path:
            level = level.lists[name]
        return level

    def _collect(self, level: _Level, objects: Sequence[Any], found: dict[str, list[Any]], refused: set[str]) -> None:
        """Add the rows of objects that have their ids already, then those of the lists inside them."""
        for name, inner in level.lists.items():
            self._collect(inner, _items(inner, name, objects, refused), found, refused)
        if level.selection is None:
            return
        _place_learned(level, objects, refused)
        for column in level.columns:
            if column.name in level.table.given or column.name == EXPORTED_AT:
                continue
            if column.name == "custom_attributes":
                _check_attributes(column, level.selection, objects, refused)
            elif dropped := level.selection.dropped.get(column.name):
                _drop_members(column.name, dropped, objects)
            elif column.type in CHECKS:
                _check(column, objects, refused)
        found[level.table.stream] = list(objects)


def _level(path: Path, by_path: Mapping[Path, Selection]) -> _Level:
    inner = {place[-1]: place for place in BY_PATH if place and place[:-1] == path}
    wanted = {name: place for name, place in inner.items() if any(p[: len(place)] == place for p in by_path)}
    lists = {name: _level(place, by_path) for name, place in wanted.items()}
    return _Level(BY_PATH[path], by_path.get(path), lists)


def _inside(level: _Level) -> Iterator[_Level]:
    for inner in level.lists.values():
        yield from (inner, *_inside(inner))


def _items(inner: _Level, name: str, owners: Sequence[Any], refused: set[str]) -> list[Any]:
    """The objects of one list of all owners, with the ids of their owner, which loses the list."""
    items: list[Any] = []
    given = [column for column in inner.table.given if column not in ("braze_id", "device_key")]
    own_keys = [key for key in inner.table.keys if key not in ("braze_id", *given)]
    list_of, key_of = attrgetter(name), attrgetter(*own_keys)
    devices = "device_key" in own_keys
    for owner in owners:
        mine = list_of(owner)
        if mine:
            braze_id = owner.braze_id
            for item in mine:
                item.braze_id = braze_id
                if devices:
                    item.device_key = _device_key(item, inner, refused)
                for column in given:
                    setattr(item, column, getattr(owner, column))
            if len(mine) > 1 and len(set(map(key_of, mine))) != len(mine):
                if inner.lists:
                    refused.add(braze_id)
                if devices:
                    _tell_apart(mine)
                mine = {key_of(item): item for item in mine}.values()  # the later one wins
            items += mine
        if mine is not UNSET:
            setattr(owner, name, UNSET)
    return items


def _device_key(device: Any, level: _Level, refused: set[str]) -> str:
    key: str = "" if level.hidden else device.device_id
    key = key or key_by_id((getattr(device, name), name not in level.hidden) for name in DEVICE_IDS)
    for name in level.hidden:
        setattr(device, name, UNSET)
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


def _place_learned(level: _Level, objects: Sequence[Any], refused: set[str]) -> None:
    """Take away members that the catalog deselects; keep unknown ones in the rescued data."""
    known = level.known
    rescues = level.selection is not None and RESCUED in level.selection.names
    for name, attribute in level.learned.items():
        holders = [item for item in objects if getattr(item, attribute, UNSET) is not UNSET]
        if rescues and name not in known:
            raw = ((item.braze_id, bytes(getattr(item, attribute))) for item in holders)
            refused.update(braze_id for braze_id, content in raw if is_odd(content))
            for item in holders:
                item._rescued_data = {**(item._rescued_data or {}), name: getattr(item, attribute)}  # noqa: SLF001
        for item in holders:
            setattr(item, attribute, UNSET)


def _drop_members(name: str, dropped: Iterable[str], objects: Sequence[Any]) -> None:
    for item in objects:
        if flags := getattr(item, name):
            for member in dropped:
                flags.pop(member, None)


def _check(column: Field, objects: Sequence[Any], refused: set[str]) -> None:
    """Look at a column, a chunk of values at a time; of a chunk that is not sound, at each of another form."""
    get, sound = attrgetter(column.name), CHECKS[column.type]
    for start in range(0, len(objects), _CHUNK):
        chunk = objects[start : start + _CHUNK]
        if sound.all([*map(get, chunk)]):
            continue
        formed = [item for item in chunk if get(item) is not None and sound.form(get(item))]
        odd = [item for item in chunk if get(item) is not None and not sound.form(get(item))]
        _conform(column, odd if sound.all([*map(get, formed)]) else [*formed, *odd], refused)


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
    for start in range(0, len(objects), _CHUNK):
        chunk = [item for item in objects[start : start + _CHUNK] if item.custom_attributes is not None]
        contents = [bytes(item.custom_attributes) for item in chunk]
        sound = not dropped and are_attributes(contents, column, decoder)
        for item, content in zip(chunk, contents, strict=True):
            if (not sound or is_odd(content)) and not _conform_attributes(item, content, conform):
                refused.add(item.braze_id)


def _conform_attributes(user: Any, content: bytes, conform: Callable[[Any, dict[str, Any]], Any]) -> bool:
    """Whether the attributes could be conformed with nothing to rescue."""
    rescued: dict[str, Any] = {}
    try:
        value = _DECODER.decode(content)
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return False
    user.custom_attributes = None if value is None else conform(value, rescued)
    return not rescued


def _unknown(level: _Level, path: Path, source: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """The members of an object, and of those in its lists, that the struct has no place for."""
    for name, value in source.items():
        inner = level.lists.get(name)
        if inner is not None:
            for item in value if isinstance(value, list) else ():
                if isinstance(item, dict):
                    yield from _unknown(inner, (*path, name), item)
        elif name not in level.places and name.isprintable() and not set(name) & {'"', "\\"}:
            yield path, name
