"""Segments: their users as lines of JSON, split into files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox.vocabulary import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_braze_export.sandbox.selection import Selection
    from tap_braze_export.sandbox.users import Population

_BRAZE_ID = re.compile(rb'"braze_id"\s*:\s*"([^"]*)"')


class GivenUser:
    """A user given as an object, or as a raw line that is exported unchanged."""

    def __init__(self, user: dict[str, Any] | bytes, updated_at: float = 0.0) -> None:
        """Keep the user, last updated at this time in epoch seconds; a raw line need not be JSON."""
        self._user = user
        self.updated_at = updated_at

    @property
    def content(self) -> str | bytes:
        """The whole user, to be compared with others."""
        return self._user if isinstance(self._user, bytes) else json.dumps(self._user)

    @property
    def braze_id(self) -> str:
        """The user's identifier, the first one in a raw line; empty if there is none."""
        if isinstance(self._user, bytes):
            found = _BRAZE_ID.search(self._user)
            return found[1].decode(errors="replace") if found else ""
        return str(self._user.get("braze_id", ""))

    def line(self, selection: Selection) -> bytes:
        """The selected members as a line of JSON; a raw line unchanged."""
        if isinstance(self._user, bytes):
            return self._user
        selected = selection.of_object(self._user)
        try:
            return dump(selected).encode()
        except UnicodeEncodeError:  # lone surrogates exist in JSON only as escapes
            return json.dumps(selected, separators=(",", ":")).encode()


@dataclass(frozen=True)
class MadeUser:
    """A user of the generated population."""

    population: Population
    index: int

    @property
    def updated_at(self) -> float:
        """When the user was last updated, in epoch seconds."""
        return self.population.updated_at(self.index)

    @property
    def braze_id(self) -> str:
        """The user's identifier."""
        return self.population.braze_id(self.index)

    def line(self, selection: Selection) -> bytes:
        """The selected members as a line of JSON."""
        return self.population.line(self.index, selection)


User = GivenUser | MadeUser


@dataclass
class Segment:
    """Some users: given ones first, then generated ones; or exactly the given files."""

    id: str
    name: str
    population: Population
    given: list[GivenUser] = field(default_factory=list)
    indexes: Sequence[int] = ()
    files: list[list[GivenUser]] | None = None

    def __len__(self) -> int:
        """The number of lines of an export."""
        return len(self.given) + len(self.indexes) + sum(len(file) for file in self.files or [])

    def file_count(self, users_per_file: int) -> int:
        """The number of files of an export; an empty segment has one empty file."""
        if self.files is not None:
            return len(self.files)
        return max(1, -(-len(self) // users_per_file))

    def updated_since(self, moment: float, is_missed: Callable[[str], bool]) -> Segment:
        """The same segment with only the users that were updated at or after a time and are not missed.

        Given files that have none of them are left out; if none is left, there is one empty file.
        """

        def comes(user: User) -> bool:
            return user.updated_at >= moment and not is_missed(user.braze_id)

        files = self.files
        if files is not None:
            files = [kept for file in files if (kept := [user for user in file if comes(user)])] or [[]]
        indexes = [index for index in self.indexes if comes(MadeUser(self.population, index))]
        return replace(self, given=[user for user in self.given if comes(user)], indexes=indexes, files=files)

    def parts(self, selection: Selection, users_per_file: int) -> Iterator[Iterator[bytes]]:
        """Yield the lines of each file, which must be read before the next file is asked for."""
        if self.files is not None:
            for file in self.files:
                yield (user.line(selection) for user in file)
            return
        lines = chain(
            (user.line(selection) for user in self.given),
            (self.population.line(index, selection) for index in self.indexes),
        )
        for number in range(self.file_count(users_per_file)):
            size = min(users_per_file, len(self) - number * users_per_file)
            yield (next(lines) for _ in range(size))
