"""Delivered files and deliveries without an export."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tap_braze_export.deliveries import Role
from tap_braze_export.files.archive import Block, Member
from tap_braze_export.files.objects import BucketObject, DeliveredFile, LocalObject, StoredObject
from tests.support.rows import AT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tap_braze_export.errors import ExportError

EXPORT_ID = "0a1b2c3d-1800000000"
SEGMENT_ID = "seg"


def lines(ids: Iterable[str], text: str = "") -> list[bytes]:
    """A user a line, with a custom attribute that makes it longer."""
    return [json.dumps({"braze_id": braze_id, "custom_attributes": {"text": text}}).encode() for braze_id in ids]


def of_export(stored: StoredObject, member: Member, export_id: str = EXPORT_ID) -> DeliveredFile:
    """A file of an export of one segment."""
    return DeliveredFile(stored, member, export_id, AT, "segment", SEGMENT_ID)


def gzip_file(folder: Path, name: str, *ids: str, text: str = "") -> DeliveredFile:
    """A gzip file on the local disk with these users."""
    path = folder / f"copy-of-{name}"
    path.write_bytes(gzip.compress(b"\n".join(lines(ids, text)), 1))
    return of_export(LocalObject(name, path), Member(name, path.stat().st_size))


def bucket_file(name: str) -> DeliveredFile:
    """A file that stayed in a bucket; nobody can read it."""
    return of_export(BucketObject(name, f"/nowhere/{name}", 1, "1"), Member(name, 1))


@dataclass(eq=False)
class FakeDelivery:
    """A delivery that notes what the run did with it.

    Attributes:
        error: Is raised where a block should come.
        reads: How often it was read in this process.
    """

    file: DeliveredFile | None
    users: list[list[str]] = field(default_factory=list)
    """The users of each block; without them those of the file, on the local disk."""
    error: ExportError | None = None
    source: str = "segment"
    segment_id: str = SEGMENT_ID
    exported_at: str = AT
    updated_since: str | None = None
    role: Role = Role.NONE
    invalid_user_ids: Sequence[dict[str, str]] = ()
    reads: int = 0

    @property
    def export_id(self) -> str:
        return self.file.export_id if self.file else "ids-1"

    @property
    def name(self) -> str:
        return self.file.name if self.file else "1"

    @property
    def size(self) -> int:
        return 1

    def blocks(self) -> Iterator[Block]:
        self.reads += 1
        if self.error:
            raise self.error
        if self.users or not self.file:
            yield from (Block(1, lines(ids)) for ids in self.users)
        else:
            yield from self.file.blocks()

    def done(self, users: int, rejected: int = 0) -> None:
        raise NotImplementedError

    def failed(self, error: ExportError) -> None:
        raise NotImplementedError
