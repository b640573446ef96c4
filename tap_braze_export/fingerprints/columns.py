"""Columns of emitted users, in numpy's own files: a part is an `.npz`, a version has an `.npy` for each column."""

from __future__ import annotations

import hashlib
import mmap
import zipfile
import zlib
from collections import Counter
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    Column = np.ndarray[Any, np.dtype[Any]]
    Columns = Mapping[str, Column]
    Create = Callable[[str], AbstractContextManager[BinaryIO]]
    """Opens a new file, by the end of its name."""
    PathOf = Callable[[str], Path]
    """The path of a file, by the end of its name."""

USERS = "users"
"""The table of profiles: key, and digests of the line and the content that were last emitted."""
_LEFT, _PERHAPS, IS_MEMBER = 0, 1, 2
"""States of a member; of a doubtful one the target may have the row or not. Who has left is in no version."""
_ROWS_AT_ONCE = 1_000_000
_RELEASED_BYTES = 64 * 2**20
"""A smaller file may stay in memory as a whole."""


class UnreadableError(ValueError):
    """The file is missing, damaged, incomplete or of another format."""


class PartFacts(msgspec.Struct, frozen=True):
    """The facts of a part.

    Attributes:
        signature: Hash of everything that shapes rows; what was emitted with another one cannot be compared.
        export_id: The export.
        users: Number of its users, also of those that have no row.
        segment: The segment whose memberships were emitted; empty for none.
        has_profiles: True if more than memberships was emitted.
        has_left: True if its users have left the segment.
        deletes: True if loaders may have deleted all that the part's run did not emit.
    """

    signature: str
    export_id: str = ""
    users: int = 0
    segment: str = ""
    has_profiles: bool = False
    has_left: bool = False
    deletes: bool = False


class VersionFacts(msgspec.Struct, frozen=True):
    """The facts of a version.

    Attributes:
        signature: As in a part.
        includes: How many parts of each run it knows of.
        replaces: The version before it; empty for none.
        tables: The tables, in the order of the numbers of their files.
        files: The SHA-256 of each file, by the end of its name.
    """

    signature: str
    includes: dict[str, int]
    replaces: str
    tables: list[str]
    files: dict[str, str]


class _Sealed(msgspec.Struct):
    sha256: str
    facts: msgspec.Raw


def members_table(segment_id: str) -> str:
    """The table of the members of a segment: key, id and state."""
    return f"members {segment_id}"


@contextmanager
def _readable() -> Iterator[None]:
    """Turn every way in which a file can be damaged into one error."""
    try:
        yield
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableError from error


@dataclass(frozen=True)
class Part:
    """The users of a block of lines, or some that left a segment.

    Attributes:
        facts: Its facts.
        columns: Of users whose line is not the one that the target has, sorted by key: `key`, `raw`, `content`,
            `emitted`, and where memberships are emitted `id`.
        seen: The keys of all users, sorted, where memberships are emitted.
    """

    facts: PartFacts
    columns: Columns
    seen: Column

    def write(self, file: BinaryIO) -> None:
        """Write it."""
        facts = np.frombuffer(msgspec.json.encode(self.facts), "u1")
        np.savez(file, facts=facts, seen=self.seen, **self.columns)  # type: ignore[arg-type] # of which none is bool

    @classmethod
    def read(cls, path: Path) -> Part:
        """Read it.

        Raises:
            UnreadableError: It cannot be read.
        """
        with _readable(), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
            facts = msgspec.json.decode(columns.pop("facts").tobytes(), type=PartFacts)
            return cls(facts, seen=columns.pop("seen"), columns=columns)

    @property
    def tables(self) -> list[str]:
        """The tables that it has rows of."""
        users = [USERS] if self.facts.has_profiles else []
        return [*users, members_table(self.facts.segment)] if self.facts.segment else users

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return len(self.columns["key"]) if table in self.tables else 0

    def rows(self, table: str, low: int, high: int, *, is_doubted: bool) -> Columns:
        """Its rows of a table with keys from `low` up to `high`."""
        rows = between(self.columns, low, high)
        keys, emitted = rows["key"], rows["emitted"]
        if table == USERS and not is_doubted:
            return {name: rows[name] for name in ("key", "raw", "content")}
        if table == USERS:
            none = np.zeros_like(keys[emitted])
            return {"key": keys[emitted], "raw": none, "content": none}
        state = _PERHAPS if is_doubted else _LEFT if self.facts.has_left else IS_MEMBER
        return {"key": keys[emitted], "id": rows["id"][emitted], "state": np.full(emitted.sum(), state, "u1")}


class Version:
    """All users that the target has, by table, mapped into memory.

    Args:
        facts: Its facts.
        tables: The columns of each table, sorted by key.
    """

    def __init__(self, facts: VersionFacts, tables: Mapping[str, Columns]) -> None:
        self.facts = facts
        self._tables = tables

    @classmethod
    def read(cls, path_of: PathOf, *, is_checked: bool = False) -> Version:
        """Read it.

        Args:
            path_of: The path of a file, by the end of its name.
            is_checked: True if it is known to be undamaged.

        Raises:
            UnreadableError: It cannot be read.
        """
        with _readable():
            sealed = msgspec.json.decode(path_of(".json").read_bytes(), type=_Sealed)
            if hashlib.sha256(sealed.facts).hexdigest() != sealed.sha256:
                raise UnreadableError
            facts = msgspec.json.decode(sealed.facts, type=VersionFacts)
            tables: dict[str, dict[str, Column]] = {}
            for end, digest in facts.files.items():
                path = path_of(end)
                if not is_checked and _digest(path) != digest:
                    raise UnreadableError
                _, number, name = end.removesuffix(".npy").split("-")
                tables.setdefault(facts.tables[int(number)], {})[name] = np.load(path, "r", allow_pickle=False)
            return cls(facts, tables)

    @property
    def tables(self) -> list[str]:
        """The tables that it has rows of."""
        return [*self._tables]

    @property
    def columns(self) -> Columns:
        """All columns."""
        return {name: values for columns in self._tables.values() for name, values in columns.items()}

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return len(self._tables[table]["key"]) if table in self._tables else 0

    def rows(self, table: str, low: int, high: int, *, is_doubted: bool) -> Columns:
        """Its rows of a table with keys from `low` up to `high`."""
        columns = self._tables[table]
        rows = {name: values.copy() for name, values in between(columns, low, high).items()}
        _release(columns)
        if is_doubted:
            rows |= {name: np.full_like(rows[name], _PERHAPS) for name in rows.keys() & {"state"}}
            rows |= {name: np.zeros_like(rows[name]) for name in rows.keys() & {"raw", "content"}}
        return rows

    def find(self, table: str, keys: Column, wanted: Sequence[str]) -> tuple[Column, dict[str, Column]]:
        """Return the position of each key's row, -1 for none, and the wanted columns of the rows."""
        positions = np.full(len(keys), -1, np.int64)
        columns = self._tables.get(table)
        if columns is None:
            return positions, {name: np.zeros(len(keys), "<u8") for name in wanted}
        order = np.argsort(keys)  # so that pages are read one after the other
        own_keys = np.asarray(columns["key"])
        places = np.minimum(np.searchsorted(own_keys, keys[order]), len(own_keys) - 1)
        positions[order] = np.where(own_keys[places] == keys[order], places, -1)
        found = {name: np.empty(len(keys), columns[name].dtype) for name in wanted}
        for name, values in found.items():
            values[order] = columns[name][places]
        _release(columns)
        return positions, found


@dataclass(frozen=True)
class Source:
    """Something that was emitted.

    Attributes:
        open: Reads it.
        is_doubted: True if the target may have all of it, some or nothing.
    """

    open: Callable[[], Part | Version]
    is_doubted: bool = False


def write_version(
    create: Create, path_of: PathOf, sources: Sequence[Source], *, of_users: Sequence[Source], **facts: Any
) -> None:
    """Write a version: of each user what was emitted last.

    Args:
        create: Opens a new file, by the end of its name.
        path_of: The path of a file, by the end of its name.
        sources: What was emitted, in this order.
        of_users: Those of them whose profiles loaders have not deleted since.
        facts: `signature`, `includes` and `replaces` of `VersionFacts`.

    Raises:
        UnreadableError: A source cannot be read any more.
    """
    counts, id_type = Counter[str](), np.dtype("S1")
    for source in sources:
        found = source.open()
        counts.update({table: found.count(table) for table in found.tables})
        if "id" in found.columns:
            id_type = np.promote_types(id_type, found.columns["id"].dtype)
    tables, files, lengths = sorted(counts), dict[str, tuple[BinaryIO, np.dtype[Any]]](), Counter[str]()
    with ExitStack() as stack:
        for low, high in key_ranges(counts.total()):
            for number, table in enumerate(tables):
                columns = merged(of_users if table == USERS else sources, table, low, high)
                for name, values in columns.items() if len(columns["key"]) else ():
                    end = f"-{number}-{name}.npy"
                    if end not in files:
                        files[end] = stack.enter_context(create(end)), id_type if name == "id" else values.dtype
                        _write_header(*files[end], 0)
                    file, dtype = files[end]
                    file.write(values.astype(dtype).tobytes())
                    lengths[end] += len(values)
        for end, (file, dtype) in files.items():
            file.seek(0)
            _write_header(file, dtype, lengths[end])
    content = msgspec.json.encode(
        VersionFacts(tables=tables, files={end: _digest(path_of(end)) for end in files}, **facts)
    )
    with create(".json") as file:
        file.write(msgspec.json.encode(_Sealed(hashlib.sha256(content).hexdigest(), msgspec.Raw(content))))


def merged(sources: Sequence[Source], table: str, low: int, high: int) -> Columns:
    """The rows of a table with keys from `low` up to `high`: the last one of each key, unless nobody knows it."""
    pieces: list[Columns] = []
    for source in sources:
        found = source.open()
        if found.count(table):
            pieces.append(found.rows(table, low, high, is_doubted=source.is_doubted))
    if not pieces:
        return {"key": np.zeros(0, "<u8"), "id": np.zeros(0, "S1")}
    columns = {name: np.concatenate([rows[name] for rows in pieces]) for name in pieces[0]}
    order = np.argsort(columns["key"], kind="stable")
    keys = columns["key"][order]
    order = order[np.append(keys[1:] != keys[:-1], np.ones(min(1, len(keys)), bool))]
    order = order[columns["content" if table == USERS else "state"][order] != 0]
    return {name: values[order] for name, values in columns.items()}


def between(columns: Columns, low: int, high: int) -> Columns:
    """The rows of sorted columns with keys from `low` up to `high`."""
    keys = np.asarray(columns["key"])
    start, end = (len(keys) if key >= 2**64 else int(np.searchsorted(keys, np.uint64(key))) for key in (low, high))
    return {name: np.asarray(values)[start:end] for name, values in columns.items()}


def key_ranges(rows: int) -> list[tuple[int, int]]:
    """Ranges of keys with about a million rows each: keys are digests, so they are evenly spread."""
    count = rows // _ROWS_AT_ONCE + 1
    return [*pairwise(index * 2**64 // count for index in range(count + 1))]


def _write_header(file: BinaryIO, dtype: np.dtype[Any], length: int) -> None:
    """Write the head of an `.npy`, which has the same size for every length."""
    head = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, head)


def _release(columns: Columns) -> None:
    """Give the memory of mapped pages that were read back to the system, which still caches the files."""
    for values in columns.values():
        mapped: Any = values.base
        if isinstance(mapped, mmap.mmap) and values.nbytes > _RELEASED_BYTES:
            mapped.madvise(mmap.MADV_DONTNEED)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
