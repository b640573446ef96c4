"""Delivered objects, on the local disk or in the bucket, and the files of users inside them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_braze_export.export import Export
    from tap_braze_export.files.archive import Block, Member


@dataclass(frozen=True)
class LocalObject:
    """A delivered object on the local disk."""

    name: str
    path: Path


@dataclass(frozen=True)
class BucketObject:
    """A delivered object in a bucket; `version` changes when its content does; `is_encoded`: see `stored_bytes`."""

    name: str
    path: str
    size: int
    version: str
    is_encoded: bool = False


StoredObject = LocalObject | BucketObject


class Opener(Protocol):
    """Opens objects that stay in a bucket; `files/bucket` has one."""

    def open(self, stored: BucketObject) -> BinaryIO:
        """The object as a file; raises an ExportError if it cannot be read."""


@dataclass(frozen=True)
class DeliveredFile:
    """One file of an export: a member of a zip, or a gzip stream, in an object that is stored somewhere.

    It holds no connection, so that it can be sent to other processes.
    """

    stored: StoredObject
    member: Member
    export: Export

    @property
    def name(self) -> str:
        """Its name in `export_files`: the object's, with its member where it is a zip."""
        return self.member.name

    @property
    def size(self) -> int:
        """Compressed bytes."""
        return self.member.size

    @property
    def work_name(self) -> str:
        """A file name for what is made of it: the same again if it is made once more."""
        return hashlib.blake2b(f"{self.export.export_id}/{self.name}".encode(), digest_size=12).hexdigest()

    def blocks(self, opener: Opener | None = None) -> Iterator[Block]:
        """Its lines; raises an ExportError if they cannot be read to their end."""
        with _opened(self.stored, opener) as file:
            folder = self.stored.path.parent if isinstance(self.stored, LocalObject) else None
            yield from archive.blocks(file, self.member, spool_folder=folder)


def _opened(stored: StoredObject, opener: Opener | None) -> BinaryIO:
    if isinstance(stored, LocalObject):
        return open_local(stored)
    if opener is None:
        raise TypeError("an object in the bucket needs an opener")
    return opener.open(stored)


def open_local(stored: LocalObject) -> BinaryIO:
    """An object on the local disk as a file.

    Raises:
        DamagedFileError: It cannot be read.
    """
    try:
        return stored.path.open("rb")
    except OSError as error:
        raise DamagedFileError(f"{stored.name} cannot be read: {error.strerror}") from None
