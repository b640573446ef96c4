"""The file of fingerprints: tables of columns, sorted by key, that are read through a memory map.

After the columns comes a footer of JSON, its length, the SHA-256 of all of that, and eight bytes that name the format.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    Column = np.ndarray[Any, np.dtype[Any]]
    Columns = Mapping[str, Column]

USERS = "users"
"""The table of profiles: key, digests of line and content; zeros where it is not known what was emitted."""
_MEMBERS, _LEFT = "members ", "left "
_MAGIC = b"brazefp1"
_TRAILER = struct.Struct(f"<Q32s{len(_MAGIC)}s")
_ALIGNMENT = 8
_HASHED_BYTES = 2**20
_RELEASED_BYTES = 64 * 2**20
"""A smaller file may stay in memory as a whole."""


def members_table(segment_id: str) -> str:
    """The table of the members of a segment: key, id, and in a version `certain`, 1 or 0."""
    return f"{_MEMBERS}{segment_id}"


def left_table(segment_id: str) -> str:
    """The table of the users that were emitted as having left a segment: key, id."""
    return f"{_LEFT}{segment_id}"


def segments_in(tables: Iterable[str]) -> list[str]:
    """The segments that tables of members or of users that left belong to."""
    kinds = (_MEMBERS, _LEFT)
    return sorted({table.removeprefix(kind) for table in tables for kind in kinds if table.startswith(kind)})


class UnreadableSnapshotError(ValueError):
    """The file is damaged, incomplete or of another format."""


@dataclass(frozen=True)
class Group:
    """Consecutive rows of a table.

    Attributes:
        table: The table.
        count: Number of rows.
        columns: Type and position of each column.
    """

    table: str
    count: int
    columns: Mapping[str, tuple[str, int]]


class SnapshotWriter:
    """Writes a snapshot; the rows of a table come in the order of their keys, in one or more groups.

    Args:
        file: Receives it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._position = 0
        self._groups: list[list[Any]] = []

    def add(self, table: str, columns: Columns) -> None:
        """Write the next rows of a table; none write nothing."""
        if not len(columns["key"]):
            return
        placed = {}
        for name, values in columns.items():
            self._write(bytes(-self._position % _ALIGNMENT))
            placed[name] = (values.dtype.str, self._position)
            self._write(np.ascontiguousarray(values).data.cast("B"))
        self._groups.append([table, len(columns["key"]), placed])

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the end.

        Args:
            facts: What the snapshot says of itself, as JSON.
        """
        footer = msgspec.json.encode({"facts": facts, "groups": self._groups})
        self._write(footer)
        self._write(struct.pack("<Q", len(footer)))
        self._file.write(self._hash.digest() + _MAGIC)

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._position += len(content)


@dataclass
class Snapshot:
    """A snapshot on the local disk; its checksum is right.

    Attributes:
        facts: What it says of itself.
        groups: The groups of each table, in the order of their keys.
        path: The file.
    """

    facts: Mapping[str, Any]
    groups: Mapping[str, list[Group]]
    path: Path
    _map: mmap.mmap | None = field(repr=False)

    @classmethod
    def open(cls, path: Path, *, is_checked: bool = False, stays_mapped: bool = False) -> Self:
        """Open a file.

        Args:
            path: The file.
            is_checked: True if its checksum is known to be right.
            stays_mapped: True if it is read often. A map holds an open file, of which a process has only so many.

        Raises:
            UnreadableSnapshotError: If it is missing, damaged or of another format.
        """
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                length, checksum, magic = _TRAILER.unpack(mapped[-_TRAILER.size :])
                if magic != _MAGIC or not (is_checked or _checksum(file, len(mapped)) == checksum):
                    raise UnreadableSnapshotError
            end = len(mapped) - _TRAILER.size
            footer = msgspec.json.decode(mapped[end - length : end])
            groups: dict[str, list[Group]] = {}
            for table, count, columns in footer["groups"]:
                placed = {name: (dtype, start) for name, (dtype, start) in columns.items()}
                groups.setdefault(table, []).append(Group(table, count, placed))
            return cls(footer["facts"], groups, path, mapped if stays_mapped else None)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise UnreadableSnapshotError from error

    @property
    def is_gone(self) -> bool:
        """True if another run, or a person, has removed the file."""
        return self._map is None and not self.path.exists()

    def columns(self, group: Group) -> dict[str, Column]:
        """The columns of a group, mapped into memory.

        Raises:
            UnreadableSnapshotError: If the file is gone.
        """
        mapped = self._map
        if mapped is None:
            try:
                with self.path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise UnreadableSnapshotError from error
        return {
            name: np.frombuffer(mapped, dtype, group.count, start) for name, (dtype, start) in group.columns.items()
        }

    def count(self, table: str) -> int:
        """Number of rows of a table."""
        return sum(group.count for group in self.groups.get(table, ()))

    def release(self) -> None:
        """Give the memory of the pages that were read back to the system, which still caches the file."""
        if self._map is not None and len(self._map) > _RELEASED_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)

    def lookup(self, table: str, keys: Column, wanted: Sequence[str] = ()) -> tuple[Column, dict[str, Column]]:
        """Find rows by key.

        Args:
            table: The table.
            keys: Sorted.
            wanted: Columns; the pages of others are not read.

        Returns:
            The position of each key's row, -1 for none, and the wanted columns of these rows; 0 where there is none.
        """
        positions = np.full(len(keys), -1, np.int64)
        found: dict[str, Column] = {}
        first = start = 0
        for group in self.groups.get(table, ()):
            columns = self.columns(group)
            own_keys = columns["key"]
            end = int(np.searchsorted(keys, own_keys[-1], "right"))
            if end > start:
                places = np.searchsorted(own_keys, keys[start:end])
                matches = own_keys[places] == keys[start:end]
                places = places[matches]
                positions[start:end][matches] = first + places
                for name in wanted:
                    of_all = found.setdefault(name, np.zeros(len(keys), columns[name].dtype))
                    of_all[start:end][matches] = columns[name][places]
                self.release()
            first, start = first + group.count, end
        return positions, found

    def between(self, table: str, low: int, high: int) -> Iterator[dict[str, Column]]:
        """Yield copies of the rows whose key is at least `low` and less than `high`."""
        for group in self.groups.get(table, ()):
            columns = self.columns(group)
            start, end = (_place(columns["key"], key) for key in (low, high))
            if end > start:
                yield {name: values[start:end].copy() for name, values in columns.items()}
            self.release()


def _place(keys: Column, key: int) -> int:
    return len(keys) if key >= 2**64 else int(np.searchsorted(keys, np.uint64(key)))


def _checksum(file: BinaryIO, size: int) -> bytes:
    """The SHA-256 of a file up to its own checksum; read, not mapped, so that it takes no memory."""
    found = hashlib.sha256()
    left = size - len(_MAGIC) - found.digest_size
    while left > 0 and (content := file.read(min(left, _HASHED_BYTES))):
        found.update(content)
        left -= len(content)
    return found.digest()
