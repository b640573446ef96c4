"""Reads a file of `identifiers_url`: CSV or JSON lines, as databases, scripts and spreadsheets write them."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import logging
import re
import zlib
from typing import IO, TYPE_CHECKING, Any

import msgspec

from tap_braze_export.errors import ConfigError, unknown_names
from tap_braze_export.files.formats import GZIP_MAGIC, HEAD_BYTES, encoding_of, foreign_format
from tap_braze_export.resync.cells import EXTERNAL_ID, USER_ALIAS
from tap_braze_export.settings import IDENTIFIER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.files.storage import Storage

    Cells = dict[str, Any] | None

PLAIN_KINDS = tuple(kind for kind in IDENTIFIER_KINDS.values() if kind != USER_ALIAS)
"""Kinds that are a single text; each is a column of the file."""
ALIAS_COLUMNS = ("alias_name", "alias_label")
_COLUMNS = (*PLAIN_KINDS, *ALIAS_COLUMNS)
_JSON_LINES_ENDINGS = (".jsonl", ".ndjson", ".json")
_MAX_LINE_CHARS = 2**20
_CHUNK_BYTES = 2**20
_MAX_COMPRESSIONS = 2
_MAX_REMEMBERED_NAMES = 1_000
_DELIMITERS = ",;\t|"
_EXCELS_DELIMITER = re.compile(r'"?sep=([^\w"\r\n])"?[;,\t]*', re.IGNORECASE)
"""Matches a first line that tells Excel the delimiter."""
_log = logging.getLogger(__name__)


class IdentifiersFile:
    """A file of identifiers, of any length.

    Args:
        storage: Where it is.
        path: Its path there.
        address: What errors call it: the setting, and its address without secrets.
        name: Its name among several, empty if there is one file.
    """

    def __init__(self, storage: Storage, path: str, address: str, name: str = "") -> None:
        self.setting = f"identifiers_url {name}".rstrip()
        self._storage = storage
        self._path = path
        self._address = address
        self._warned = False

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes.

        Raises:
            ConfigError: If it cannot be read.
        """
        with self._open() as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def rows(self) -> Iterator[tuple[int, Cells]]:
        """Yield each row's line, from 1, and its cells by column; None for a malformed one.

        Raises:
            ConfigError: If the file cannot be read, or is no CSV and no JSON lines.
        """
        columns = _Columns()
        lines = self._lines()
        first = next(lines, "")
        is_json_lines = self.is_json_lines_by_name()
        if is_json_lines is not False and first.lstrip()[:1] == "[":
            raise ConfigError(f"{self._address} is one JSON list: write JSON lines, one object a line")
        if is_json_lines is None:
            is_json_lines = first.lstrip()[:1] == "{" or _is_json_text(first)
        lines = itertools.chain([first] if first else [], lines)
        yield from _json_lines(lines, columns) if is_json_lines else _csv(lines, columns, self.setting)
        if columns.unknown and not self._warned:
            self._warned = True
            described = unknown_names(columns.unknown, _COLUMNS)
            _log.warning("%s has columns that are ignored: %s", self.setting, ", ".join(described))

    def is_json_lines_by_name(self) -> bool | None:
        """True or False by the file's extension, None if it is another one."""
        path = self._path.lower().partition("?")[0].removesuffix(".gz")
        return True if path.endswith(_JSON_LINES_ENDINGS) else False if path.endswith((".csv", ".tsv")) else None

    def _lines(self) -> Iterator[str]:
        """Yield the lines, of bounded length; bytes that are not UTF-8 become lone surrogates."""
        with self._open() as file:
            inflated = self._inflated(file)
            encoding = encoding_of(inflated.peek(HEAD_BYTES)[:HEAD_BYTES])
            encoding = "utf-8-sig" if encoding == "utf-8" else encoding
            text = io.TextIOWrapper(inflated, encoding=encoding, errors="surrogateescape", newline="")
            for number in itertools.count(1):
                try:
                    line = text.readline(_MAX_LINE_CHARS)
                except (gzip.BadGzipFile, EOFError, zlib.error):
                    raise ConfigError(f"{self._address} is a damaged gzip file: write it again") from None
                except UnicodeDecodeError:
                    raise ConfigError(f"{self._address} is damaged {encoding} text: save it as UTF-8") from None
                if not line:
                    return
                if len(line) == _MAX_LINE_CHARS:
                    raise ConfigError(f"line {number} of {self.setting} is longer than 1 MiB: is it CSV or JSON lines?")
                yield line

    def _inflated(self, file: Any) -> io.BufferedReader:
        """Inflate the file, whatever its name.

        Raises:
            ConfigError: If it is no text.
        """
        found: io.BufferedReader = file
        try:
            for _ in range(_MAX_COMPRESSIONS):
                if found.peek(HEAD_BYTES).startswith(GZIP_MAGIC):
                    found = io.BufferedReader(gzip.GzipFile(fileobj=found, mode="rb"))
            name = foreign_format(found.peek(HEAD_BYTES)[:HEAD_BYTES])
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise ConfigError(f"{self._address} is a damaged gzip file: write it again") from None
        if name:
            raise ConfigError(f"{self._address} is {name}: save it as CSV in UTF-8 with a header, or as JSON lines")
        return found

    def _open(self) -> IO[bytes]:
        """The opened file.

        Raises:
            ConfigError: If it cannot be opened; reading it may raise this, too.
        """
        return self._storage.open(self._path)


class _Columns:
    """The columns of a file by the names it gives them, in any case and with any separator: `E-Mail`, `External ID`.

    Attributes:
        unknown: Names of the first row that are no columns.
    """

    def __init__(self) -> None:
        self._by_spelling = {_spelling(column): column for column in _COLUMNS}
        self._by_spelling |= {"emailaddress": "email", "phonenumber": "phone"}
        self._by_spelling |= {_spelling(s): kind for s, kind in IDENTIFIER_KINDS.items() if kind in _COLUMNS}
        self._by_name: dict[str, str | None] = {}
        self.unknown: list[str] = []

    def column(self, name: str) -> str | None:
        """The column of a name, None if there is none."""
        if name in self._by_name:
            return self._by_name[name]
        column = self._by_spelling.get(_spelling(name))
        if len(self._by_name) < _MAX_REMEMBERED_NAMES:
            self._by_name[name] = column
        return column

    def of_first_row(self, names: Iterable[str]) -> list[str]:
        """Return the known columns of the first row; where it has some, its other names are remembered as unknown."""
        named = [(name, self.column(name)) for name in names]
        known = [column for _, column in named if column]
        if known:
            self.unknown = [name.strip() for name, column in named if not column and name.strip()]
        return known


def _spelling(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _json_lines(lines: Iterable[str], columns: _Columns) -> Iterator[tuple[int, Cells]]:
    is_first = True
    for row, line in enumerate(lines, 1):
        try:
            value = _decoded(line) if line.strip() else {}
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            value = {EXTERNAL_ID: value}
        if not isinstance(value, dict):
            yield row, None
            continue
        if is_first and value:
            is_first = False
            columns.of_first_row(value)
        yield row, {column: cell for name, cell in value.items() if (column := columns.column(name))}


def _decoded(line: str) -> Any:
    """A JSON value; Python writes NaN, which is no JSON."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        if "NaN" not in line:
            raise
        return json.loads(line)


def _csv(lines: Iterator[str], columns: _Columns, setting: str) -> Iterator[tuple[int, Cells]]:
    header, skipped, delimiter = next(lines, None), 0, ""
    while header is not None:
        told = _EXCELS_DELIMITER.fullmatch(header.rstrip("\r\n")) if not delimiter else None
        if not told and header.strip():
            break
        delimiter = told[1] if told else delimiter
        header, skipped = next(lines, None), skipped + 1
    if header is None:
        return
    delimiter = delimiter or max(_DELIMITERS, key=lambda char: _rank(header, char, columns))
    rows = csv.reader(itertools.chain([header], lines), delimiter=delimiter)
    header_cells = next(rows)
    names = [columns.column(name) for name in header_cells]
    known = columns.of_first_row(header_cells)
    if not known:
        raise ConfigError(f"the first line of {setting} names none of {', '.join(_COLUMNS)}: a CSV needs a header")
    if twice := sorted({column for column in known if known.count(column) > 1}):
        raise ConfigError(f"the first line of {setting} names {', '.join(twice)} twice: keep one such column")
    while True:
        row = skipped + rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield row, None
            continue
        found = {column: cell for column, cell in zip(names, cells, strict=False) if column}
        yield row, found if len(cells) <= len(names) else None


def _rank(header: str, delimiter: str, columns: _Columns) -> tuple[int, int]:
    """How likely a delimiter is that of a header: by the columns that it makes known, then by its number."""
    try:
        cells = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    return sum(columns.column(cell) is not None for cell in cells), header.count(delimiter)


def _is_json_text(line: str) -> bool:
    """True if a line is a JSON text as a whole; a CSV's header may be one column in quotes."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return isinstance(value, str) and _Columns().column(value) is None
