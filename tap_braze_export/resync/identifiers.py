"""Whom to resync: identifiers from the settings and from a file of any length, in order and each once."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import logging
import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec
import msgspec

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.digests import DigestSet, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.settings import Settings

EXTERNAL_ID, BRAZE_ID, EMAIL, PHONE, DEVICE_ID = "external_id", "braze_id", "email", "phone", "device_id"
USER_ALIAS = "user_alias"
_BY_SETTING = {
    "external_ids": EXTERNAL_ID,
    "user_aliases": USER_ALIAS,
    "braze_ids": BRAZE_ID,
    "emails": EMAIL,
    "phones": PHONE,
    "device_ids": DEVICE_ID,
}
"""In the order in which they are asked for."""
_PLAIN = (EXTERNAL_ID, BRAZE_ID, EMAIL, PHONE, DEVICE_ID)
_ALIAS = ("alias_name", "alias_label")
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_LONGEST_LINE = 2**20
_LONGEST_IDENTIFIER = 2_000
_CHUNK = 2**20
_MOST_ROW_NUMBERS = 5
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_EMPTY, _DUPLICATE, _MALFORMED = "empty", "duplicate", "malformed"
_log = logging.getLogger(__name__)


class Identifier(NamedTuple):
    """Something that names a profile, and where it was read."""

    kind: str
    """`external_id`, `braze_id`, `email`, `phone`, `device_id` or `user_alias`."""
    value: str
    alias_label: str
    setting: str
    row: int
    """Line of the file (a CSV's header is line 1) or place in the setting, from 1."""


class Identifiers:
    """The identifiers of a resync; each pass over them gives the same ones and keeps at most 27 bytes of each.

    Args:
        settings: The tap's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.identifiers_url or ""

    def fingerprint(self, key: bytes) -> str:
        """A hash of all of them, keyed: without the key nobody can try out whose e-mail address it stands for.

        Raises:
            ConfigError: If the file cannot be read.
        """
        found = hashlib.blake2b(key=hashlib.blake2b(key).digest(), digest_size=16)
        found.update(msgspec.json.encode([getattr(self._settings, setting) for setting in _BY_SETTING]))
        if self._url:
            found.update(f"\n{self._is_json_lines_by_name()}\n".encode())
            for chunk in self._chunks():
                found.update(chunk)
        return found.hexdigest()

    def __iter__(self) -> Iterator[Identifier]:
        """Every usable identifier; at the end a log line tells how many others there were, and where.

        Raises:
            ConfigError: If the file cannot be read, or nothing in it or the settings is usable.
        """
        seen = DigestSet()
        faults = _Faults()
        for setting, row, cells in itertools.chain(self._from_settings(), self._from_file()):
            found = _identifiers(cells, setting, row)
            if isinstance(found, str):
                faults.add(setting, found, row)
                continue
            for identifier in found:
                if seen.add(digest(*identifier[:3])):
                    yield identifier
                else:
                    faults.add(setting, _DUPLICATE, row)
        faults.report()
        if not seen and faults:
            raise ConfigError(f"there is no usable identifier to resync: {faults}")

    def _from_settings(self) -> Iterator[_Row]:
        for setting, kind in _BY_SETTING.items():
            for row, given in enumerate(getattr(self._settings, setting), 1):
                yield setting, row, given if isinstance(given, dict) else {kind: given}

    def _from_file(self) -> Iterator[_Row]:
        if not self._url:
            return
        lines = self._lines()
        if self._is_json_lines_by_name() is None:
            first = next(lines, "")
            is_json_lines = first.lstrip()[:1] in {"{", '"'}
            lines = itertools.chain([first] if first else [], lines)
        else:
            is_json_lines = bool(self._is_json_lines_by_name())
        for row, cells in _json_lines(lines) if is_json_lines else _csv(lines):
            yield "identifiers_url", row, cells

    def _is_json_lines_by_name(self) -> bool | None:
        """What the file's extension says, None if it is no known one."""
        path = self._url.lower().partition("?")[0]
        return True if path.endswith(_JSON_LINES) else False if path.endswith(".csv") else None

    def _lines(self) -> Iterator[str]:
        """The file's lines, each bounded; what is not UTF-8 becomes lone surrogates."""
        file = io.BufferedReader(_Chunks(self._chunks()))
        reader = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for number in itertools.count(1):
            line = reader.readline(_LONGEST_LINE)
            if not line:
                return
            if len(line) == _LONGEST_LINE:
                raise ConfigError(f"line {number} of identifiers_url is longer than 1 MiB: is it CSV or JSON lines?")
            yield line

    def _chunks(self) -> Iterator[bytes]:
        """The file's bytes.

        Raises:
            ConfigError: If they cannot be read.
        """
        try:
            with fsspec.open(self._url, "rb", **self._options()) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except ImportError:
            scheme = urlsplit(self._url).scheme
            raise ConfigError(
                f"identifiers_url starts with {scheme}://, which needs a library: for s3, gcs and azure"
                " pip install 'tap-braze-export[…]', else the one that fsspec names"
            ) from None
        except Exception as error:  # noqa: BLE001  each of fsspec's libraries has its own
            # The error's name only: its text may hold the address with its signature, or credentials.
            code = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(code) if isinstance(code, int) else type(error).__name__
            raise ConfigError(
                f"identifiers_url {_without_secrets(self._url)} cannot be read ({reason}): check the address, and that"
                " this machine may read it (bucket_options go with it where the scheme is that of bucket_url)"
            ) from None

    def _options(self) -> dict[str, Any]:
        scheme = urlsplit(self._url).scheme
        same = scheme == urlsplit(self._settings.bucket_url or "").scheme
        return dict(self._settings.bucket_options) if scheme and same else {}


_Row = tuple[str, int, "dict[str, Any] | str"]
"""Setting, row number and the row's members; a text where it has none, which says what is wrong with it."""


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for row, line in enumerate(lines, 1):
        try:
            value = msgspec.json.decode(line) if line.strip() else {}
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = None
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            value = {EXTERNAL_ID: value}
        yield row, value if isinstance(value, dict) else _MALFORMED


def _csv(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    header = next(lines, None)
    if header is None:
        return
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(itertools.chain([header], lines), delimiter=delimiter)
    names = [name.strip().lower() for name in next(rows)]
    if not {*_PLAIN, *_ALIAS} & {*names}:
        raise ConfigError(
            f"the first line of identifiers_url names none of {', '.join((*_PLAIN, *_ALIAS))}: a CSV needs a header"
        )
    while True:
        row = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield row, _MALFORMED
            continue
        yield row, dict(zip(names, cells, strict=False)) if len(cells) <= len(names) else _MALFORMED


def _identifiers(cells: dict[str, Any] | str, setting: str, row: int) -> list[Identifier] | str:
    """What a row names, or what is wrong with it."""
    if isinstance(cells, str):
        return cells
    found = []
    for kind in _PLAIN:
        value = _text(cells.get(kind), strip=kind != EXTERNAL_ID)
        if value is None or (value and not _is_plausible(kind, value)):
            return _MALFORMED
        if value:
            found.append(Identifier(kind, value, "", setting, row))
    name, label = (_text(cells.get(part)) for part in _ALIAS)
    if name is None or label is None or bool(name) != bool(label):
        return _MALFORMED
    if name and label:
        found.append(Identifier(USER_ALIAS, name, label, setting, row))
    return found or _EMPTY


def _text(value: object, *, strip: bool = False) -> str | None:
    """An identifier as text: "" if it is empty, None if it cannot be one."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or len(value) > _LONGEST_IDENTIFIER:
        return None
    if not value.strip():
        return ""
    kept = value.strip() if strip else value
    return None if _UNPRINTABLE.search(kept) else kept


def _is_plausible(kind: str, value: str) -> bool:
    """Whether it can be such an identifier at all; Braze judges the rest."""
    if kind == EMAIL:
        return "@" in value[1:-1]
    return kind != PHONE or any(character.isdigit() for character in value)


class _Faults:
    """Rows that give no identifier, by setting and fault."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rows: dict[tuple[str, str], list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, setting: str, fault: str, row: int) -> None:
        self._counts[setting, fault] += 1
        rows = self._rows.setdefault((setting, fault), [])
        if len(rows) < _MOST_ROW_NUMBERS:
            rows.append(row)

    def report(self) -> None:
        if self._counts:
            _log.warning("Identifiers left out: %s", self)

    def __str__(self) -> str:
        parts = []
        for (setting, fault), count in self._counts.items():
            shown = ", ".join(str(row) for row in self._rows[setting, fault])
            more = ", …" if count > _MOST_ROW_NUMBERS else ""
            parts.append(f"{setting}: {count:,} {fault} (row{'s' if count > 1 else ''} {shown}{more})")
        return "; ".join(parts)


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._chunks, b"")
        part = self._left[: len(buffer)]
        self._left = self._left[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def _without_secrets(url: str) -> str:
    """An address without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
