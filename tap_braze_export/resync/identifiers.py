"""Identifiers of the users to resync, from the settings and from a file of any length: in order, each once."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.cells import USER_ALIAS, identifier_text, without_placeholder
from tap_braze_export.resync.identifiers_file import ALIAS_COLUMNS, PLAIN_KINDS
from tap_braze_export.resync.identifiers_files import IdentifiersFiles
from tap_braze_export.settings import IDENTIFIER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.clock import Clock
    from tap_braze_export.resync.identifiers_file import IdentifiersFile
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


class _Fault(StrEnum):
    """Why a row, or a cell of it, gives no identifier."""

    EMPTY = "empty"
    DUPLICATE = "duplicate"
    MALFORMED = "malformed"


_Cells = dict[str, Any] | _Fault
"""A row's cells by column, or why it has none."""


class Identifiers:
    """The identifiers of a resync; each pass gives the same ones, and keeps a digest of each in memory.

    Args:
        settings: The tap's settings.
        clock: The waits between tries to reach the file's storage.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self._url = settings.identifiers_url or ""
        options = settings.storage_options(self._url)
        self._files: Iterable[IdentifiersFile] = IdentifiersFiles(self._url, options, clock=clock) if self._url else ()

    def fingerprint(self, key: bytes) -> str:
        """A hash of all of them, keyed, so that nobody without the key can find out an address by trying.

        Raises:
            ConfigError: If the file cannot be read.
        """
        result = hashlib.blake2b(key=hashlib.blake2b(key).digest(), digest_size=16)
        given = [getattr(self._settings, setting) for setting in IDENTIFIER_KINDS]
        result.update(json.dumps(given).encode())  # also what is no text: it is left out later
        for file in self._files:
            result.update(f"\n{file.is_json_lines_by_name()}\n".encode())
            for chunk in file.chunks():
                result.update(chunk)
        return result.hexdigest()

    def summary(self) -> str:
        """How many identifiers the first of the files holds, by kind: nothing of their content.

        Raises:
            ConfigError: If the files cannot be listed, or the first one cannot be read or has nothing usable.
        """
        files = list(self._files)
        counts: Counter[str] = Counter()
        left_out = _LeftOutRows()
        for setting, row, cells in self._from_files(files[:1]):
            found, fault = _identifiers(cells, setting, row)
            counts.update(identifier.kind for identifier in found)
            if fault:
                left_out.add(setting, fault, row)
        if left_out and not counts:
            raise ConfigError(f"there is no usable identifier to resync: {left_out}")
        told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "no identifier"
        told = f"{len(files):,} files; in the first of them {told}" if len(files) > 1 else told
        return f"{told}; left out: {left_out}" if left_out else told

    def __iter__(self) -> Iterator[Identifier]:
        """Every usable identifier; at the end a warning counts the others, with their rows.

        Raises:
            ConfigError: If the file cannot be read, or nothing in it or the settings is usable.
        """
        seen: set[bytes] = set()
        left_out = _LeftOutRows()
        for setting, row, cells in itertools.chain(self._from_settings(), self._from_files(self._files)):
            found, fault = _identifiers(cells, setting, row)
            if fault:
                left_out.add(setting, fault, row)
            for identifier in found:
                if (key := digest(*identifier.key)) in seen:
                    left_out.add(setting, _Fault.DUPLICATE, row)
                else:
                    seen.add(key)
                    yield identifier
        if left_out:
            _log.warning("Identifiers left out: %s", left_out)
        if left_out and not seen:
            raise ConfigError(f"there is no usable identifier to resync: {left_out}")

    def _from_settings(self) -> Iterator[tuple[str, int, _Cells]]:
        for setting, kind in IDENTIFIER_KINDS.items():
            for row, given in enumerate(getattr(self._settings, setting), 1):
                yield setting, row, given if isinstance(given, dict) else {kind: given}

    def _from_files(self, files: Iterable[IdentifiersFile]) -> Iterator[tuple[str, int, _Cells]]:
        for file in files:
            for row, cells in file.rows():
                if cells is None:
                    yield file.setting, row, _Fault.MALFORMED
                else:
                    yield file.setting, row, {column: without_placeholder(cell) for column, cell in cells.items()}


def _identifiers(cells: _Cells, setting: str, row: int) -> tuple[list[Identifier], _Fault | None]:
    """Return a row's usable identifiers, and its fault: a malformed cell leaves out none of the others."""
    if isinstance(cells, _Fault):
        return [], cells
    found, is_malformed = [], False
    for kind in PLAIN_KINDS:
        value = identifier_text(kind, cells.get(kind))
        if value is None:
            is_malformed = True
        elif value:
            found.append(Identifier(kind, value, "", setting, row))
    name, label = (identifier_text(USER_ALIAS, cells.get(column)) for column in ALIAS_COLUMNS)
    if name and label:
        found.append(Identifier(USER_ALIAS, name, label, setting, row))
    elif name != label or name is None:
        is_malformed = True
    if is_malformed:
        return found, _Fault.MALFORMED
    return found, None if found else _Fault.EMPTY


class _LeftOutRows:
    """Rows of which something gives no identifier, counted by setting and fault."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, _Fault]] = Counter()
        self._first_rows: dict[tuple[str, _Fault], list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, setting: str, fault: _Fault, row: int) -> None:
        self._counts[setting, fault] += 1
        rows = self._first_rows.setdefault((setting, fault), [])
        if len(rows) < _MAX_LOGGED_ROWS:
            rows.append(row)

    def __str__(self) -> str:
        parts = []
        for (setting, fault), count in self._counts.items():
            shown = ", ".join(str(row) for row in self._first_rows[setting, fault])
            more = ", …" if count > _MAX_LOGGED_ROWS else ""
            parts.append(f"{setting}: {count:,} {fault} (row{'s' if count > 1 else ''} {shown}{more})")
        return "; ".join(parts)
