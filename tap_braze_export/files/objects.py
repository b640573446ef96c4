"""Where a delivered object stands: on the local disk, in the bucket, or in memory on its way to another machine."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.files.archive import Block, Member
    from tap_braze_export.files.bucket import Bucket


@dataclass(frozen=True)
class BucketObject:
    """A delivered file in a bucket; `version` changes when its content does."""

    name: str
    path: str
    size: int
    version: str


Place = Path | BucketObject | bytes
_DIRECTORY = 64 * 2**10
"""Bytes at each end of an object: most zips' directories fit in."""


@contextmanager
def on_disk(path: Path, name: str) -> Iterator[BinaryIO]:
    """A file on the local disk.

    Raises:
        DamagedFileError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DamagedFileError(f"{name} cannot be read: {error.strerror}") from None


def blocks(place: Place, member: Member, bucket: Bucket | None = None) -> Iterator[Block]:
    """The lines of a member of an object, see `archive.blocks`.

    Args:
        place: Where the object stands.
        member: What to read of it.
        bucket: Has it, if it stands there.

    Raises:
        ExportError: If they cannot be read to their end.
    """
    if isinstance(place, Path):
        with on_disk(place, member.name) as file:
            yield from archive.blocks(file, member)
    elif isinstance(place, bytes):
        yield from archive.blocks(io.BytesIO(place), member)
    elif bucket is not None:
        with bucket.open(place) as file:
            yield from archive.blocks(file, member)


def forget(place: Place) -> None:
    """Remove a copy; what stands in the bucket is its owner's."""
    if isinstance(place, Path):
        place.unlink()


class Fetcher(Protocol):
    """What is done with an object in the bucket before its files are read."""

    def take(self, found: BucketObject) -> tuple[Place, list[Member]]:
        """Where it stands then, and the files in it.

        Raises:
            ExportError: If it cannot be read.
        """


class CopyToDisk:
    """It is copied to the local disk.

    Args:
        bucket: The bucket.
        folder: Takes the copies.
    """

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket = bucket
        self._folder = folder
        self._numbers = count(1)

    def take(self, found: BucketObject) -> tuple[Place, list[Member]]:
        """See `Fetcher`."""
        path = self._folder / f"object-{next(self._numbers)}"
        self._bucket.fetch(found, path)
        try:
            with on_disk(path, found.name) as file:
                return path, archive.members(file, found.name)
        except DamagedFileError:
            path.unlink()
            raise


class ReadInPlace:
    """It stays where it is, for those on other machines who read it; only a zip's directory is read.

    Args:
        bucket: The bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def take(self, found: BucketObject) -> tuple[Place, list[Member]]:
        """See `Fetcher`."""
        with self._bucket.open(found, end_bytes=_DIRECTORY) as file:
            return found, archive.members(file, found.name)
