"""Deliveries → rows, read by the run or by a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Self

from tap_braze_export.clock import Clock
from tap_braze_export.errors import ConfigError, DamagedFileError, TapError, unforeseen
from tap_braze_export.export import GLOBAL_CONTROL_GROUP, IDS
from tap_braze_export.files.disk import private_file
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.rows.reader import BlockRows, Reader
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.schema.user_object import SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from tap_braze_export.deliveries import Delivery
    from tap_braze_export.export import Export
    from tap_braze_export.files.archive import Block
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.rows.known_users import KnownUsers
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.singer.batch_files import BatchFile, BatchFiles

    ReadResult = list["ReadBlock"] | None
    """The rows of a file; None if the run has to read it, block by block, as they would fill the disk or the memory."""


_MOST_WAITING_BYTES = 256 * 2**20
"""Rows of a file that may wait on the disk until the run emits them; ordinary ones have the size of its lines."""
_MOST_REJECTED_BYTES = 16 * 2**20
"""Rejected lines of a file that may come back to the run."""
_MANY_ROWS = 1_000_000
"""So many rows are read whatever their density."""
_FEWEST_BYTES_A_ROW = 16
"""Of an export's lines. The shortest user has 40 bytes, and a row in two streams; all others have far more a row."""
_FEWEST_BYTES_MORE = 32
"""A row that takes the careful path, and a line that is rejected, cost three times as much time."""


@dataclass
class ReadBlock(BlockRows):
    """Rows of one block of lines, those of some streams in batch files."""

    batch_files: Mapping[str, BatchFile] = field(default_factory=dict)

    @classmethod
    def of(cls, block: BlockRows) -> Self:
        """The rows of a block without batch files."""
        return cls(**vars(block))

    def discard(self) -> None:
        """Remove the private file with the rows, if there is one."""
        if isinstance(self.rows, FileRows):
            self.rows.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class FileRows(Mapping[str, Rows]):
    """The rows of a block that a process has left in a private file, read when they are asked for.

    For each stream there are the start, the bytes and the number of its rows.
    """

    path: Path
    spans: dict[str, tuple[int, int, int]]

    @classmethod
    def written(cls, rows: Mapping[str, Rows], path: Path) -> Self:
        """Write rows to a file.

        Raises:
            ExportError: The disk is full.
        """
        spans = {}
        with private_file(path, durable=False) as file:
            for stream, found in rows.items():
                spans[stream] = file.tell(), found.size, found.count
                file.writelines(found.parts)
        return cls(path, spans)

    def __getitem__(self, stream: str) -> Rows:
        start, size, count = self.spans[stream]
        with self.path.open("rb", buffering=0) as file:
            return Rows((os.pread(file.fileno(), size, start),), count)

    def __iter__(self) -> Iterator[str]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)


@dataclass
class FileReader:
    """Reads deliveries. Workers get pickled copies of one that has read nothing yet.

    Attributes:
        selections: The selected streams by name.
        known_users: Says which users need not be emitted again; None to emit all.
        batch_files: Writes the rows of plain streams, in workers; None where RECORD messages are wanted.
        plain_streams: Streams whose rows leave as they are, without stream maps and flattening.
        rows_folder: Receives the files of `FileRows`; None where rows come back in memory.
        bucket_url: The bucket that holds files which were not copied to the local disk.
        bucket_options: fsspec's options for it, secrets.
    """

    selections: Mapping[str, Selection]
    known_users: KnownUsers | None = None
    batch_files: BatchFiles | None = None
    plain_streams: frozenset[str] = frozenset()
    rows_folder: Path | None = None
    bucket_url: str = ""
    bucket_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _readers: dict[Export, Reader] = field(default_factory=dict, init=False)

    def blocks(self, delivery: Delivery | DeliveredFile, blocks: Iterable[Block]) -> Iterator[ReadBlock]:
        """Yield the rows of the blocks of a delivery."""
        return read_blocks(self._reader(delivery.export), blocks, delivery.name)

    def result(self, file: DeliveredFile) -> ReadResult | TapError:
        """Read a file as a worker does: errors are values, since Dask logs what is raised, with what the task holds."""
        try:
            return self.read(file)
        except TapError as error:
            return error
        except ImportError as error:
            return ConfigError(f"{error.name} is missing: install tap-braze-export there with the same extras as here")
        except Exception as error:  # noqa: BLE001 - the run tells of it
            return TapError(unforeseen(error))

    def read(self, file: DeliveredFile) -> ReadResult:
        """Read a file: its blocks, or None if it has several, whose rows would have to wait on the disk.

        Raises:
            TapError: If it cannot be read, or its batch files cannot be written.
        """
        blocks = file.blocks(self._bucket if isinstance(file.stored, BucketObject) else None)
        if self.batch_files is None or self.selections.keys() - self.plain_streams:
            first_blocks = [*islice(blocks, 2)]
            if len(first_blocks) > 1:
                return None
            blocks = iter(first_blocks)
        read: list[ReadBlock] = []
        waiting = rejected = 0
        for number, rows in enumerate(self.blocks(file, blocks), 1):
            waiting += sum(each.size for stream, each in rows.rows.items() if not self._is_batched(stream))
            rejected += sum(len(line) for _, line in rows.rejected)
            if waiting > _MOST_WAITING_BYTES or rejected > _MOST_REJECTED_BYTES:
                for earlier in read:
                    earlier.discard()
                return None
            read.append(self._written(rows, f"{file.work_name}-{number}"))
        return read

    def _is_batched(self, stream: str) -> bool:
        """True if the rows of a stream become batch files here."""
        return self.batch_files is not None and stream in self.plain_streams

    @cached_property
    def _bucket(self) -> Bucket:
        from tap_braze_export.files.bucket import Bucket  # noqa: PLC0415 - slow to import, and processes need none

        bucket = Bucket(self.bucket_url, self.bucket_options, clock=Clock())
        if problem := bucket.check():  # such as a directory that only the run's own machine has
            raise ConfigError(problem)
        return bucket

    def _reader(self, export: Export) -> Reader:
        """The reader of an export, which learns from each file what the next one may hold; only the last one is kept.

        Of the control group only `segment_members` can be read.
        """
        if export not in self._readers:
            is_control_group = export.source == GLOBAL_CONTROL_GROUP
            wanted = [SEGMENT_MEMBERS.stream] if is_control_group else [*self.selections]
            reader = Reader(
                {name: selection for name, selection in self.selections.items() if name in wanted},
                exported_at=export.exported_at,
                segment_id=GLOBAL_CONTROL_GROUP if is_control_group else export.segment_id,
                # Not the fast path for a resync: it changes the order of users, and is no slower than Braze's limit.
                strict=export.source != IDS,
                known_users=self.known_users,
            )
            self._readers = {export: reader}
        return self._readers[export]

    def _written(self, block: ReadBlock, name: str) -> ReadBlock:
        """Move the rows of a block to batch files and to the private file."""
        rows = dict(block.rows)
        plain = {stream: rows.pop(stream) for stream in block.rows if self._is_batched(stream)}
        if self.batch_files is not None and plain:
            block.batch_files = self.batch_files.write(plain, name)
        folder = self.rows_folder
        block.rows = FileRows.written(rows, folder / f"{name}.{os.getpid()}") if folder else rows
        return block


def read_blocks(reader: Reader, blocks: Iterable[Block], name: str) -> Iterator[ReadBlock]:
    """Yield the rows of the blocks of a file, whose name is for errors.

    Raises:
        DamagedFileError: It makes far more rows than an export of so many bytes can, or is mostly no users.
    """
    size = made = effort = 0
    for block in blocks:
        for rows in reader.read(block):
            size += rows.size
            made += len(rows.rejected) + sum(each.count for each in rows.rows.values())
            effort += len(rows.rejected) + rows.careful
            if made > _MANY_ROWS and made * _FEWEST_BYTES_A_ROW + effort * _FEWEST_BYTES_MORE > size:
                raise DamagedFileError(
                    f"{name} holds {made:,} rows and unreadable lines in {size:,} bytes: no export of Braze is so"
                    " dense, it is refused"
                )
            yield ReadBlock.of(rows)
