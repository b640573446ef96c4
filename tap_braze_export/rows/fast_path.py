"""The fast path: lines that are exactly as the schema says, decoded by their types in C, a block at a time.

It gives the rows of the careful path, or refuses a user, who then takes the careful path alone. Members that the
schema does not know are learned after a few refusals, so that a field that Braze adds to every line costs little.
"""

from __future__ import annotations

import re
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from tap_braze_export.rows.decode import can_be_user
from tap_braze_export.rows.raw_json import are_readable, is_readable
from tap_braze_export.rows.structs import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from tap_braze_export.rows.structs import Path
    from tap_braze_export.schema.selection import Selection

_REFUSALS_TO_LEARN = 8
_find_nul = re.compile(rb"\\u0000").search  # finds it in half the time that "in" takes


class FastPath:
    """Turns lines into rows, as long as they are exactly as the schema says.

    Args:
        by_path: The selected streams of the user object.
        exported_at: The value of that column in every row.
    """

    def __init__(self, by_path: Mapping[Path, Selection], *, exported_at: str) -> None:
        self._exported_at = exported_at
        self._user = Level((), by_path)
        self._refusals: Counter[tuple[Level, str]] = Counter()
        self._decode: Callable[[bytes], Any]
        self._compile()

    def _compile(self) -> None:
        self._decode = msgspec.json.Decoder(self._user.compile(self._exported_at)).decode
        self._raw_attributes = [attrgetter(name) for name in self._user.raw_attributes]
        self._learned_inside_lists = any(level.learned for level in self._user.levels() if level is not self._user)

    def decode(self, lines: Sequence[bytes]) -> list[Any]:
        """Decode lines into structs with a `braze_id`; None for each that is not exactly as the schema says.

        A line that the careful path would reject must be refused here: later, it would have replaced an earlier line of
        its user. So parts that the decoder only skims are checked here to be readable.
        """
        users: list[Any] = []
        decoded = map(self._decode, [line if can_be_user(line) else b"" for line in lines])
        while len(users) < len(lines):
            try:
                users += decoded  # which keeps those before an error
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                users.append(None)
        for index, line in enumerate(lines):
            if b"\\" in line and _find_nul(line):
                users[index] = None
        known = [user for user in users if user is not None]
        raws = [raw for get in self._raw_attributes for raw in map(get, known) if type(raw) is Raw]
        if self._learned_inside_lists or not are_readable(raws):
            users = [user if is_readable(line) else None for user, line in zip(users, lines, strict=True)]
        return users

    def to_rows(self, users: list[Any]) -> tuple[dict[str, list[Any]], set[str]]:
        """Return the rows of users by stream, and the `braze_id` of each user that is refused after all.

        Args:
            users: As `decode` made them, before anything else was learned.
        """
        refused: set[str] = set()
        found: dict[str, list[Any]] = {}
        self._user.collect(users, found, refused)
        return without(found, refused), refused

    def learn(self, user: dict[str, Any]) -> None:
        """Note the members for which a user was refused; those that keep appearing get an attribute in the struct."""
        unknown = {*self._user.unknown_members(user)}
        self._refusals.update(unknown)
        if frequent := [found for found in unknown if self._refusals[found] == _REFUSALS_TO_LEARN]:
            for level, name in frequent:
                level.learn(name)
            self._compile()

    def rescued(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Return the rescued data of rows by stream: learned members."""
        return {
            level.stream: [row._rescued_data for row in rows.get(level.stream, ()) if row._rescued_data]  # noqa: SLF001
            for level in self._user.levels()
            if level.learned and level.rescues
        }


def without(rows: dict[str, list[Any]], braze_ids: AbstractSet[str]) -> dict[str, list[Any]]:
    """Return rows by stream without those of some users."""
    if not braze_ids:
        return rows
    return {stream: [row for row in own if row.braze_id not in braze_ids] for stream, own in rows.items()}
