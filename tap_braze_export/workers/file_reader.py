"""A delivered file → its rows: what is done here, block by block, or in another process, file by file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from tap_braze_export.clock import Clock
from tap_braze_export.errors import ConfigError
from tap_braze_export.files import objects
from tap_braze_export.files.spool import private_file
from tap_braze_export.rows.reader import BlockRows, Reader
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.schema.user_object import GLOBAL_CONTROL_GROUP, IDS, SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    from tap_braze_export.deliveries import ExportFile
    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import Place
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.singer.batch_files import BatchFile, BatchFiles


@dataclass
class ReadBlock(BlockRows):
    """The rows of a block that a worker has read.

    Attributes:
        batch_files: The files with the rows that it has written already, by stream.
    """

    batch_files: Mapping[str, BatchFile] = field(default_factory=dict)


Result = list[ReadBlock] | None
"""What each block of a file gave; None of a file that has to be read by the run."""


class Readers:
    """Gives the reader of an export, which has learned what its files hold.

    Args:
        selections: What the catalog selects, by stream.
    """

    def __init__(self, selections: Mapping[str, Selection]) -> None:
        self._selections = selections
        self._readers: dict[tuple[str, str, str], Reader] = {}

    def of(self, exported_at: str, source: str, segment_id: str) -> Reader:
        """Reads into the selected streams; of the control group only its members are known."""
        key = (exported_at, source, segment_id)
        if key not in self._readers:
            self._readers = {key: self._new(*key)}
        return self._readers[key]

    def _new(self, exported_at: str, source: str, segment_id: str) -> Reader:
        control_group = source == GLOBAL_CONTROL_GROUP
        wanted = {
            name: selection
            for name, selection in self._selections.items()
            if name == SEGMENT_MEMBERS.stream or not control_group
        }
        segment_id = GLOBAL_CONTROL_GROUP if control_group else segment_id
        # The fast path changes the order of users, which a resync promises; Braze's limit is slower than either path.
        return Reader(wanted, exported_at=exported_at, segment_id=segment_id, strict=source != IDS)


@dataclass(frozen=True)
class Job:
    """A file to be read by another process."""

    place: Place
    member: Member
    export_id: str
    exported_at: str
    source: str
    segment_id: str

    @classmethod
    def of(cls, file: ExportFile) -> Job:
        """The job to read a delivered file."""
        return cls(file.place, file.member, file.export_id, file.exported_at, file.source, file.segment_id)

    @property
    def name(self) -> str:
        """A name for what is made of it: the same again if it is made once more."""
        return hashlib.blake2b(f"{self.export_id}/{self.member.name}".encode(), digest_size=12).hexdigest()


@dataclass
class FileRows(Mapping[str, Rows]):
    """The rows of one file as a process has left them, in a private file.

    Attributes:
        path: That file.
        places: Start, bytes and number of the rows of each stream in it.
    """

    path: Path
    places: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _file: BinaryIO | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the rows readable; the file is gone at the end."""
        with self.path.open("rb") as self._file:
            self.path.unlink()
            yield

    def __getitem__(self, stream: str) -> Rows:
        start, size, count = self.places[stream]
        if self._file is None:
            raise ValueError("not opened")
        return Rows((os.pread(self._file.fileno(), size, start),), count)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


@dataclass
class FileReader:
    """Reads whole files; it travels to the process that does.

    Attributes:
        selections: What the catalog selects, by stream.
        folder: Takes the private files with rows; None where rows come back in memory.
        batch_files: Writes the rows of `plain` streams; None where RECORD messages are wanted.
        plain: Streams whose rows leave as they are, without stream maps and flattening.
        bucket_url: The bucket that files were left in.
        bucket_options: fsspec's options for it, secrets.
    """

    selections: Mapping[str, Selection]
    folder: Path | None = None
    batch_files: BatchFiles | None = None
    plain: frozenset[str] = frozenset()
    bucket_url: str | None = None
    bucket_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Begin without readers, and without a connection."""
        self._readers = Readers(self.selections)
        self._bucket: Bucket | None = None

    def read(self, job: Job) -> Result:
        """What a file gives; None if it has several blocks and rows that would take too much room in one piece.

        Raises:
            TapError: If it cannot be read, or its batch files cannot be written.
        """
        blocks = objects.blocks(job.place, job.member, self._connected())
        if self.batch_files is None or self.selections.keys() - self.plain:
            # Two are a big file, which is read once more then, a block at a time; of none there is nothing to tell.
            some = [*islice(blocks, 2)]
            if len(some) > 1:
                return None
            blocks = iter(some)
        reader = self._readers.of(job.exported_at, job.source, job.segment_id)
        return [self._written(reader.read(block), f"{job.name}-{number}") for number, block in enumerate(blocks, 1)]

    def _connected(self) -> Bucket | None:
        if self._bucket is None and self.bucket_url:
            from tap_braze_export.files.bucket import Bucket  # noqa: PLC0415 - slow to import, and processes need none

            bucket = Bucket(self.bucket_url, self.bucket_options, clock=Clock())
            if problem := bucket.check():  # such as a directory that only the run's own machine has
                raise ConfigError(problem)
            self._bucket = bucket
        return self._bucket

    def _written(self, block: BlockRows, name: str) -> ReadBlock:
        result = ReadBlock(**vars(block))
        rows = dict(result.rows)
        if self.batch_files is not None and (
            plain := {stream: rows.pop(stream) for stream in self.plain & rows.keys()}
        ):
            result.batch_files = self.batch_files.write(plain, name)
        result.rows = rows if self.folder is None else self._kept(rows, self.folder / f"{name}.{os.getpid()}")
        return result

    @staticmethod
    def _kept(rows: Mapping[str, Rows], path: Path) -> FileRows:
        kept = FileRows(path)
        with private_file(kept.path, durable=False) as file:
            for stream, found in rows.items():
                kept.places[stream] = file.tell(), found.size, found.count
                file.writelines(found.parts)
        return kept
