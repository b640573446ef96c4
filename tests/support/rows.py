"""Lines of an export → rows, for tests; and the data files: users with the rows expected from them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.export import Export
from tap_braze_export.files.archive import Block
from tap_braze_export.rows.reader import Reader
from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES
from tap_braze_export.schema.selection import Selection
from tap_braze_export.schema.table import EXPORTED_AT, Field, Type
from tap_braze_export.schema.user_object import TABLES, USERS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.rows.reader import BlockRows

    RowsByStream = dict[str, list[dict[str, Any]]]

EXPORT = Export("segment", "seg", "0a1b2c3d-1800000000", datetime(2026, 11, 20, 3, tzinfo=UTC).timestamp())
"""The export of these tests."""
AT = "2026-11-20T03:00:00.000000Z"
"""Its `exported_at`."""
DATA = Path(__file__).parents[1] / "rows" / "data"
SAMPLES = Path(__file__).parents[2] / "tap_braze_export" / "sandbox" / "odd_users.jsonl"
KEYS = {table.stream: table.keys for table in TABLES}
HUGE = "1234567890" * 500
"""An integer of 5,000 digits, more than most loaders read."""
KINDS = {**ATTRIBUTE_TYPES, "any": Type.ANY}
"""The types of custom attributes: those of the settings, and that of one whose type Braze does not tell."""


def shown(number: str) -> str:
    """A number with all its digits, however its exponent is written."""
    return f"<{Decimal(number) if 'e' in number.lower() else number}>"


def parse(text: bytes | str | msgspec.Raw, number: Callable[[str], Any] = shown) -> Any:
    """JSON whose numbers are shown as `<12.50>`: neither their spelling nor 1 and true are mixed up."""
    plain = text if isinstance(text, str) else bytes(text)
    return json.loads(plain, parse_int=number, parse_float=number)


def selected(
    *,
    only: Collection[str] | None = None,
    without: Iterable[str] = (),
    attributes: Mapping[str, str] | None = None,
) -> dict[str, Selection]:
    """The selections of a catalog by stream.

    Args:
        only: Streams that are selected; None for every one.
        without: Deselected paths: `stream`, `stream.column` or `stream.column.member`.
        attributes: Types of custom attributes, as in `KINDS`.
    """
    deselected: dict[str, dict[tuple[str, ...], bool]] = defaultdict(lambda: defaultdict(lambda: True))
    for path in without:
        stream, *names = path.split(".", 2)
        deselected[stream][tuple(part for name in names for part in ("properties", name))] = False
    typed = [Field(name, KINDS[kind], "") for name, kind in (attributes or {}).items()]
    tables = (table.with_attributes(typed) if table is USERS else table for table in TABLES)
    return {
        table.stream: Selection.of(table, deselected[table.stream], table.json_schema)
        for table in tables
        if (only is None or table.stream in only) and deselected[table.stream][()]
    }


def select(catalog: Mapping[str, Any], paths: Iterable[str], *, selected: bool) -> None:
    """Select or deselect `stream`, `stream.column` or `stream.column.member` in a catalog's metadata."""
    for path in paths:
        stream, *names = path.split(".", 2)
        crumb = [part for name in names for part in ("properties", name)]
        (entry,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream]
        (metadata,) = [item["metadata"] for item in entry["metadata"] if [*item["breadcrumb"]] == crumb]
        metadata["selected"] = selected


def read(*lines: bytes | str, selections: Mapping[str, Selection] | None = None, segment_id: str = "") -> BlockRows:
    """Read the lines of one file; without `selections` every stream and column is selected."""
    reader = Reader(selected() if selections is None else selections, exported_at=AT, segment_id=segment_id)
    return read_block(reader, [line.encode() if isinstance(line, str) else line for line in lines])


def read_block(reader: Reader, lines: Iterable[bytes]) -> BlockRows:
    """Read one block of lines, whose rows are few enough to come at once."""
    (found,) = reader.read(Block(1, [*lines]))
    return found


def rows(result: BlockRows) -> RowsByStream:
    """The rows by stream, decoded."""
    return {stream: [parse(row) for row in found.jsonl.split(b"\n") if row] for stream, found in result.rows.items()}


def rows_as_loaded(result: BlockRows) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows as a loader decodes them."""
    for stream, found in result.rows.items():
        yield stream, [json.loads(row) for row in found.jsonl.splitlines()]


def each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, in which no member stands twice: each warehouse would show another of the two."""
    found = dict(members)
    assert len(found) == len(members), members
    return found


def contents(result: BlockRows) -> Any:
    """Rows and counts of a block, the rows unordered."""
    found = {
        stream: Counter(
            json.dumps(json.loads(row, parse_float=shown, object_pairs_hook=each_once), sort_keys=True)
            for row in rows_.jsonl.splitlines()
        )
        for stream, rows_ in result.rows.items()
    }
    counts = {stream: rows_.count for stream, rows_ in result.rows.items()}
    rescued = dict(result.rescued), dict(result.rescued_members)
    return found, counts, rescued, (result.lines, result.users, result.duplicates, result.rejected)


def both_paths(selections: Mapping[str, Selection], blocks: Sequence[list[bytes]]) -> tuple[list[Any], list[Any]]:
    """Contents of the same blocks by the fast and by the careful path."""
    readers = (Reader(selections, exported_at=AT, segment_id="s", strict=strict) for strict in (True, False))
    fast, careful = ([contents(read_block(reader, lines)) for lines in blocks] for reader in readers)
    return fast, careful


def user_row(line: bytes | str, **options: Any) -> dict[str, Any]:
    """The one row of `users` that a line gives."""
    (row,) = rows(read(line, **options))["users"]
    return row


def row_of(member: str, value: str, **options: Any) -> tuple[Any, Any]:
    """The column and the rescued data of a user with this member; the value is JSON text."""
    row = user_row(f'{{"braze_id":"u","{member}":{value}}}', **options)
    return row[member], row["_rescued_data"]


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """A user as Braze sends it, and its rows: those columns that are not null."""

    behaviour: str
    user: msgspec.Raw
    rows: dict[str, list[msgspec.Raw]]
    without: list[str] = []
    attributes: dict[str, str] = {}

    @property
    def line(self) -> bytes:
        """The user in one line, spelled as in the file."""
        return bytes(self.user).replace(b"\n", b" ")

    @property
    def selections(self) -> dict[str, Selection]:
        """The selections of its catalog."""
        return selected(without=self.without, attributes=self.attributes)

    @property
    def is_plain(self) -> bool:
        """True if its catalog selects everything and types no attribute."""
        return not self.without and not self.attributes

    def expected(self, number: Callable[[str], Any] = shown) -> RowsByStream:
        """All columns of each expected row."""
        given = {"braze_id": parse(self.user, str)["braze_id"], EXPORTED_AT: AT}
        return {
            stream: [dict.fromkeys(sorted(self.selections[stream].names)) | given | parse(row, number) for row in found]
            for stream, found in self.rows.items()
        }


def cases(name: str) -> Iterator[Case]:
    """The cases of a file in `tests/rows/data`."""
    yield from msgspec.json.decode((DATA / name).read_bytes(), type=list[Case])
