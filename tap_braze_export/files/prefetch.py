"""How an object in the bucket becomes readable: it is copied to the local disk, or read where it is."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Protocol

from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files import archive
from tap_braze_export.files.objects import LocalObject, StoredObject, open_local

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import BucketObject

    Fetched = tuple[StoredObject, list[Member]]

_DIRECTORY_BYTES = 2**17
"""Bytes at each end of an object that are read at once: a zip's longest comment and most directories fit in."""


class Fetcher(Protocol):
    """Makes an object readable. Called on a thread while other objects are read."""

    def fetch(self, wanted: BucketObject) -> Fetched:
        """The readable object, and the files in it.

        Raises:
            ExportError: If it cannot be read.
        """


class CopyToDisk:
    """Copies objects to a folder of the local disk."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self._bucket = bucket
        self._folder = folder
        self._numbers = count(1)

    def fetch(self, wanted: BucketObject) -> Fetched:
        """Copy an object."""
        copy = LocalObject(wanted.name, self._folder / f"object-{next(self._numbers)}")
        self._bucket.fetch(wanted, copy.path)
        try:
            with open_local(copy) as file:
                return copy, archive.members(file, wanted.name)
        except DamagedFileError:
            copy.path.unlink()
            raise


class ReadInPlace:
    """Leaves objects in the bucket, for workers on other machines; reads only the directory of a zip."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def fetch(self, wanted: BucketObject) -> Fetched:
        """Read what is in an object."""
        with self._bucket.open(wanted, end_bytes=_DIRECTORY_BYTES) as file:
            return wanted, archive.members(file, wanted.name)
