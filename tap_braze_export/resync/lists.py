"""Lists of identifiers at `identifiers_url`: CSV or JSON lines, as databases, scripts and spreadsheets write them."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import logging
import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from tap_braze_export.errors import ConfigError, unknown_names
from tap_braze_export.files.formats import GZIP_MAGIC, HEAD_BYTES, encoding_of, foreign_format
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.resync.cells import EXTERNAL_ID, USER_ALIAS
from tap_braze_export.settings import IDENTIFIER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.clock import Clock

    Cells = dict[str, Any] | None

PLAIN_KINDS = tuple(kind for kind in IDENTIFIER_KINDS.values() if kind != USER_ALIAS)
"""Kinds that are a single text; each is a column of a list."""
ALIAS_COLUMNS = ("alias_name", "alias_label")
_COLUMNS = (*PLAIN_KINDS, *ALIAS_COLUMNS)
_SPELLINGS = {
    **{column: column for column in _COLUMNS},
    **{setting: kind for setting, kind in IDENTIFIER_KINDS.items() if kind in _COLUMNS},
    "email_address": "email",
    "phone_number": "phone",
}
_JSON_LINES_ENDINGS = (".jsonl", ".ndjson", ".json")
_MAX_FILES = 10_000
_MAX_LINE_CHARS = 2**20
_CHUNK_BYTES = 2**20
_MAX_COMPRESSIONS = 2
_DELIMITERS = ",;\t|"
_EXCELS_DELIMITER = re.compile(r'"?sep=([^\w"\r\n])"?[;,\t]*', re.IGNORECASE)
"""Matches a first line that tells Excel the delimiter."""
_log = logging.getLogger(__name__)


def lists_at(url: str, options: Mapping[str, Any], *, clock: Clock) -> list[IdentifierList]:
    """The lists that an address names: one file, those of a folder or those that match a pattern, in order of name.

    Args:
        url: A local path or any address that fsspec knows.
        options: fsspec's options for it, secrets.
        clock: The waits between tries to reach their storage.

    Raises:
        ConfigError: If they cannot be listed, or there are none.
    """
    address = f"identifiers_url {_without_secrets(url)}"
    labels = StorageLabels(
        name=address,
        url=address,
        options="bucket_options, sent only where the scheme is that of bucket_url,",
        needed="read it",
        kind="a file",
        unreachable_error=ConfigError,
    )
    storage = Storage(url, options, labels, clock=clock)
    root = storage.root

    def kind() -> str:
        """The type of the address itself, empty if nothing is there; a file needs no listing of a bucket."""
        if urlsplit(url).scheme in {"http", "https"}:
            return "file"
        try:
            return str(storage.files.info(root)["type"])
        except FileNotFoundError:
            return ""

    found = storage.retrying("listed", kind)
    is_pattern = not found and any(sign in root for sign in "*?[")
    if found != "directory" and not is_pattern:
        return [IdentifierList(storage, root, address)]
    folder = root.partition("*")[0].rpartition("/")[0] if is_pattern else root
    find = storage.files.glob if is_pattern else storage.files.find
    paths = [
        path
        for path, info in storage.retrying("listed", lambda: find(root, detail=True)).items()
        if info["type"] != "directory"
    ]
    names = {str(path).removeprefix(folder).lstrip("/"): str(path) for path in paths}
    # Programs that write many files mark what is no data so: _SUCCESS, .part-0.crc.
    shown = sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")))
    if not shown:
        raise ConfigError(f"{address} names no file: check the path, and that something was unloaded there")
    if len(shown) > _MAX_FILES:
        raise ConfigError(f"{address} names more than {_MAX_FILES:,} files: name a folder of identifiers only")
    return [IdentifierList(storage, names[name], f"{address}: {name}", name) for name in shown]


class IdentifierList:
    """A file of identifiers, of any length.

    Args:
        storage: Where it is.
        path: Its path there.
        address: The setting, and its address without secrets, for errors.
        name: Its name among several, empty if there is one file.

    Attributes:
        setting: The name of the setting, and its own among several.
        is_json_lines: True or False by its extension, None if it is another one.
    """

    def __init__(self, storage: Storage, path: str, address: str, name: str = "") -> None:
        self.setting = f"identifiers_url {name}".rstrip()
        ending = path.lower().partition("?")[0].removesuffix(".gz")
        is_csv = ending.endswith((".csv", ".tsv"))
        self.is_json_lines = True if ending.endswith(_JSON_LINES_ENDINGS) else False if is_csv else None
        self._storage = storage
        self._path = path
        self._address = address

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes; raises a ConfigError if it cannot be read."""
        with self._storage.open(self._path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def rows(self) -> Iterator[tuple[int, Cells]]:
        """Yield each row's line, from 1, and its cells by column; None for a malformed one.

        Raises:
            ConfigError: If the file cannot be read, or is no CSV and no JSON lines.
        """
        lines = self._lines()
        first = next(lines, "")
        is_json_lines = self.is_json_lines
        if is_json_lines is not False and first.lstrip()[:1] == "[":
            raise ConfigError(f"{self._address} is one JSON list: write JSON lines, one object a line")
        if is_json_lines is None:
            is_json_lines = first.lstrip()[:1] == "{" or _is_json_text(first)
        lines = itertools.chain([first] if first else [], lines)
        return _json_lines(lines, self.setting) if is_json_lines else _csv(lines, self.setting)

    def _lines(self) -> Iterator[str]:
        """Yield the lines, of bounded length; bytes that are not UTF-8 become lone surrogates."""
        encoding = ""
        try:
            with self._storage.open(self._path) as file:
                inflated = self._inflated(file)
                encoding = encoding_of(inflated.peek(HEAD_BYTES)[:HEAD_BYTES])
                encoding = "utf-8-sig" if encoding == "utf-8" else encoding
                text = io.TextIOWrapper(inflated, encoding=encoding, errors="surrogateescape", newline="")
                for number in itertools.count(1):
                    if not (line := text.readline(_MAX_LINE_CHARS)):
                        return
                    if len(line) == _MAX_LINE_CHARS:
                        raise ConfigError(
                            f"line {number} of {self.setting} is longer than 1 MiB: is it CSV or JSON lines?"
                        )
                    yield line
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise ConfigError(f"{self._address} is a damaged gzip file: write it again") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self._address} is damaged {encoding} text: save it as UTF-8") from None

    def _inflated(self, file: Any) -> io.BufferedReader:
        """Inflate the file, whatever its name; raises a ConfigError if it is no text."""
        found: io.BufferedReader = file
        for _ in range(_MAX_COMPRESSIONS):
            if found.peek(HEAD_BYTES).startswith(GZIP_MAGIC):
                found = io.BufferedReader(gzip.GzipFile(fileobj=found, mode="rb"))
        if name := foreign_format(found.peek(HEAD_BYTES)[:HEAD_BYTES]):
            raise ConfigError(f"{self._address} is {name}: save it as CSV in UTF-8 with a header, or as JSON lines")
        return found


@lru_cache(maxsize=1_000)
def _column(name: str) -> str | None:
    """The column of a name in any case and with any separator: `E-Mail`, `External ID`; None if there is none."""
    return _BY_SPELLING.get(_spelling(name))


def _spelling(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


_BY_SPELLING = {_spelling(name): column for name, column in _SPELLINGS.items()}


def _known_columns(names: Iterable[str], setting: str) -> list[str]:
    """The columns that a first row names; where it names some, a warning tells its other names."""
    columns = {name: _column(name) for name in names}
    known = [column for name in names if (column := columns[name])]
    unknown = [name.strip() for name, column in columns.items() if not column and name.strip()]
    if known and unknown:
        _log.warning("%s has columns that are ignored: %s", setting, ", ".join(unknown_names(unknown, _COLUMNS)))
    return known


def _json_lines(lines: Iterable[str], setting: str) -> Iterator[tuple[int, Cells]]:
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
            _known_columns(value, setting)
        yield row, {column: cell for name, cell in value.items() if (column := _column(name))}


def _decoded(line: str) -> Any:
    """A JSON value; Python writes NaN, which is no JSON."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        if "NaN" not in line:
            raise
        return json.loads(line)


def _csv(lines: Iterator[str], setting: str) -> Iterator[tuple[int, Cells]]:
    delimiter = ""
    for skipped, header in enumerate(lines):  # noqa: B007 - read below
        told = None if delimiter else _EXCELS_DELIMITER.fullmatch(header.rstrip("\r\n"))
        if told:
            delimiter = told[1]
        elif header.strip():
            break
    else:
        return
    delimiter = delimiter or max(_DELIMITERS, key=lambda char: _rank(header, char))
    rows = csv.reader(itertools.chain([header], lines), delimiter=delimiter)
    names = next(rows)
    columns = [_column(name) for name in names]
    known = _known_columns(names, setting)
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
        found = {column: cell for column, cell in zip(columns, cells, strict=False) if column}
        yield row, found if len(cells) <= len(columns) else None


def _rank(header: str, delimiter: str) -> tuple[int, int]:
    """How likely a delimiter is that of a header: by the columns that it makes known, then by its number."""
    try:
        cells = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    return sum(_column(cell) is not None for cell in cells), header.count(delimiter)


def _is_json_text(line: str) -> bool:
    """True if a line is a JSON text as a whole; a CSV's header may be one column in quotes."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return isinstance(value, str) and _column(value) is None


def _without_secrets(url: str) -> str:
    """An address without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
