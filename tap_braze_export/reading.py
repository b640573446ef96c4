"""A delivered file → its rows: what is done here, block by block, or by a process of its own, file by file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tap_braze_export import archive
from tap_braze_export.disk import private_file
from tap_braze_export.fanout import Reader
from tap_braze_export.rows import Rows
from tap_braze_export.schema import GLOBAL_CONTROL_GROUP, IDS, SEGMENT_MEMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from tap_braze_export.archive import Member
    from tap_braze_export.batch_files import BatchFiles
    from tap_braze_export.fanout import FanOut
    from tap_braze_export.files import ExportFile
    from tap_braze_export.selection import Selection


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
    """A file to be read by a process."""

    path: Path
    member: Member
    export_id: str
    exported_at: str
    source: str
    segment_id: str

    @classmethod
    def of(cls, file: ExportFile) -> Job:
        """The job to read a delivered file."""
        return cls(file.path, file.member, file.export_id, file.exported_at, file.source, file.segment_id)

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
        folder: Takes the private files with rows.
        batch_files: Writes the rows of `plain` streams; None where RECORD messages are wanted.
        plain: Streams whose rows leave as they are, without stream maps and flattening.
    """

    selections: Mapping[str, Selection]
    folder: Path
    batch_files: BatchFiles | None = None
    plain: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Begin without readers."""
        self._readers = Readers(self.selections)

    def read(self, job: Job) -> FanOut | None:
        """What a file gives; None if it has several blocks, whose rows would take too much room in one piece.

        Raises:
            TapError: If it cannot be read, or its batch files cannot be written.
        """
        blocks = archive.blocks(job.path, job.member)
        block = next(blocks, archive.Block(1, []))
        if next(blocks, None) is not None:
            return None
        reader = self._readers.of(job.exported_at, job.source, job.segment_id)
        result = reader.read(block)
        rows = dict(result.rows)
        if self.batch_files is not None and (plain := {name: rows.pop(name) for name in self.plain & rows.keys()}):
            result.batch_files = self.batch_files.write(plain, job.name)
        result.rows = self._keep(rows, job)
        return result

    def _keep(self, rows: Mapping[str, Rows], job: Job) -> FileRows:
        kept = FileRows(self.folder / f"{job.name}.{os.getpid()}")
        with private_file(kept.path, durable=False) as file:
            for stream, found in rows.items():
                kept.places[stream] = file.tell(), found.size, found.count
                file.writelines(found.parts)
        return kept
