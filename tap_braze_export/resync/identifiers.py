"""Identifiers of the users to resync, from the settings and from a file of any length: in order, each once."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.cells import USER_ALIAS, identifier_text, without_placeholder
from tap_braze_export.resync.lists import ALIAS_COLUMNS, PLAIN_KINDS, lists_at
from tap_braze_export.settings import IDENTIFIER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.clock import Clock
    from tap_braze_export.resync.lists import Cells, IdentifierList
    from tap_braze_export.settings import Settings

_DIGEST_BYTES = 8
_MAX_LOGGED_ROWS = 5
_log = logging.getLogger(__name__)


def digest(*texts: str) -> bytes:
    """64 bits of several texts: among 10 million, two are equal by chance in one of 400,000 cases."""
    content = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


class Identifier(NamedTuple):
    """A text that names a user, and where it was read.

    Attributes:
        kind: One of `IDENTIFIER_KINDS`.
        value: The text.
        alias_label: Label of an alias, else empty.
        setting: The setting that has it, or `identifiers_url`, and the name of its file among several.
        row: Line of the file (a CSV's header is line 1) or position in the setting, from 1.
    """

    kind: str
    value: str
    alias_label: str
    setting: str
    row: int

    @property
    def key(self) -> tuple[str, str, str]:
        """Kind, value and label: equal for the same identifier in two places."""
        return self[:3]


class Identifiers:
    """The identifiers of a resync; each pass gives the same ones, and keeps a digest of each in memory.

    Every use raises a ConfigError if the file cannot be read, or nothing in it or the settings is usable.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    @cached_property
    def _lists(self) -> list[IdentifierList]:
        if not (url := self._settings.identifiers_url):
            return []
        return lists_at(url, self._settings.storage_options(url), clock=self._clock)

    def fingerprint(self, key: bytes) -> str:
        """A hash of all of them, keyed, so that nobody without the key can find out an address by trying."""
        result = hashlib.blake2b(key=hashlib.blake2b(key).digest(), digest_size=16)
        given = [getattr(self._settings, setting) for setting in IDENTIFIER_KINDS]
        result.update(json.dumps(given).encode())  # also what is no text: it is left out later
        for given_list in self._lists:
            result.update(f"\n{given_list.is_json_lines}\n".encode())
            for chunk in given_list.chunks():
                result.update(chunk)
        return result.hexdigest()

    def summary(self) -> str:
        """How many identifiers the first of the files holds, by kind: nothing of their content."""
        counts: Counter[str] = Counter()
        left_out = _LeftOutRows()
        for setting, row, cells in _rows(self._lists[:1]):
            counts.update(identifier.kind for identifier in _identifiers(cells, setting, row, left_out))
        if left_out and not counts:
            raise ConfigError(f"there is no usable identifier to resync: {left_out}")
        told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "no identifier"
        told = f"{len(self._lists):,} files; in the first of them {told}" if len(self._lists) > 1 else told
        return f"{told}; left out: {left_out}" if left_out else told

    def __iter__(self) -> Iterator[Identifier]:
        """Every usable identifier; at the end a warning counts the others, with their rows."""
        seen: set[bytes] = set()
        left_out = _LeftOutRows()
        for setting, row, cells in itertools.chain(self._from_settings(), _rows(self._lists)):
            for identifier in _identifiers(cells, setting, row, left_out):
                if (key := digest(*identifier.key)) in seen:
                    left_out.add(setting, "duplicate", row)
                else:
                    seen.add(key)
                    yield identifier
        if left_out:
            _log.warning("Identifiers left out: %s", left_out)
        if left_out and not seen:
            raise ConfigError(f"there is no usable identifier to resync: {left_out}")

    def _from_settings(self) -> Iterator[tuple[str, int, Cells]]:
        for setting, kind in IDENTIFIER_KINDS.items():
            for row, given in enumerate(getattr(self._settings, setting), 1):
                yield setting, row, given if isinstance(given, dict) else {kind: given}


def _rows(lists: Iterable[IdentifierList]) -> Iterator[tuple[str, int, Cells]]:
    for given in lists:
        for row, cells in given.rows():
            yield given.setting, row, cells and {name: without_placeholder(cell) for name, cell in cells.items()}


def _identifiers(cells: Cells, setting: str, row: int, left_out: _LeftOutRows) -> list[Identifier]:
    """A row's usable identifiers: a malformed cell is noted, and leaves out none of the others."""
    if cells is None:
        left_out.add(setting, "malformed", row)
        return []
    values = {kind: identifier_text(kind, cells.get(kind)) for kind in PLAIN_KINDS}
    found = [Identifier(kind, value, "", setting, row) for kind, value in values.items() if value]
    name, label = (identifier_text(USER_ALIAS, cells.get(column)) for column in ALIAS_COLUMNS)
    if name and label:
        found.append(Identifier(USER_ALIAS, name, label, setting, row))
    if None in values.values() or not ((name and label) or name == label == ""):
        left_out.add(setting, "malformed", row)
    elif not found:
        left_out.add(setting, "empty", row)
    return found


class _LeftOutRows:
    """Rows of which something gives no identifier: their number by setting and fault, and the first of them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first_rows: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, setting: str, fault: str, row: int) -> None:
        self._counts[setting, fault] += 1
        if self._counts[setting, fault] <= _MAX_LOGGED_ROWS:
            self._first_rows[setting, fault].append(row)

    def __str__(self) -> str:
        parts = []
        for (setting, fault), count in self._counts.items():
            shown = ", ".join(str(row) for row in self._first_rows[setting, fault])
            more = ", …" if count > _MAX_LOGGED_ROWS else ""
            parts.append(f"{setting}: {count:,} {fault} (row{'s' if count > 1 else ''} {shown}{more})")
        return "; ".join(parts)
