"""The customer's own bucket as a place of delivery (fsspec)."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem
from typing_extensions import override

from tap_braze_export.errors import DamagedFileError, ExportError, TapError
from tap_braze_export.files.disk import file_name, private_file
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.files.storage import StorageLabels, Store, is_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

    from tap_braze_export.clock import Clock

_CHUNK = 2**20
_MOST_DATES = 10
"""Up to so many dates all are looked at each time; of more, old ones without a file of the export only once."""
_BARREN_DAYS = 3
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified")
_WORDS = StorageLabels("the bucket", url="bucket_url", options="bucket_options", needed="list and get objects")


class Bucket:
    """The customer's own bucket, where Braze writes `segment-export/<segment>/<date>/<export>/<file>`.

    Args:
        bucket_url: `s3://bucket/prefix`, `gs://…`, `abfs://…` or a local directory.
        options: fsspec's options for it, secrets.
        clock: Time, and the waits between tries.
    """

    def __init__(self, bucket_url: str, options: Mapping[str, Any], *, clock: Clock) -> None:
        self._clock = clock
        # Listings are not cached: fsspec would keep one for ever.
        self._store = Store(bucket_url, {**options, "use_listings_cache": False}, _WORDS, clock=clock)
        self._files, self._root = self._store.files, self._store.root
        self._barren: dict[str, set[str]] = {}

    def objects(self, export_id: str, segment_id: str | None) -> list[BucketObject]:
        """The files of an export that are there now, by name.

        The folder of the date is not computed: documentation and practice disagree about which date it is.

        Args:
            export_id: The export's `object_prefix`.
            segment_id: Its segment; None looks below all, for the control group, whose segment is not known.
        """
        objects = []
        dates = self._store.tried("listed", lambda: self._dates(segment_id))
        for date in dates:
            barren = self._barren.setdefault(export_id, set())
            if date in barren and len(dates) > _MOST_DATES:
                continue
            infos = [info for info in self._listed(f"{date}/{export_id}") if info["type"] == "file" and info["size"]]
            objects += [
                BucketObject(file_name(info["name"]), info["name"], info["size"], _version(info)) for info in infos
            ]
            if not infos and date.rpartition("/")[2] < self._days_ago(_BARREN_DAYS):
                barren.add(date)
        return sorted(objects, key=lambda item: item.name)

    def export_ids(self, segment_id: str) -> set[str]:
        """The exports of a segment whose files have begun to come in the last days."""
        recent = [
            date
            for date in self._store.tried("listed", lambda: self._dates(segment_id))
            if date.rpartition("/")[2] >= self._days_ago(_BARREN_DAYS)
        ]
        return {
            info["name"].rstrip("/").rpartition("/")[2]
            for date in recent
            for info in self._listed(date)
            if info["type"] == "directory"
        }

    def fetch(self, wanted: BucketObject, path: Path) -> None:
        """Copy a file to `path`, complete or not at all.

        Raises:
            DamagedFileError: It has another length than the listing says.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            self._store.tried("read", lambda: self._copy(wanted, part))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def opened(self, wanted: BucketObject, *, ends: int = 0) -> BinaryIO:
        """A file as it stands in the bucket, fetched piece by piece.

        Args:
            wanted: The file.
            ends: So many bytes at its beginning and at its end come first, both at once: whoever wants the directory
                of a zip would otherwise wait for four answers.
        """
        spans = {(0, min(ends, wanted.size)), (max(0, wanted.size - ends), wanted.size)} if ends else ()
        return io.BufferedReader(_Distant(self._store, wanted, [*spans]), 8 * _CHUNK)

    def check(self) -> str | None:
        """What keeps the bucket from being listed, None if nothing does."""
        try:
            self._store.tried("listed", self._list)
        except TapError as error:
            return str(error)
        return None

    def _dates(self, segment_id: str | None) -> list[str]:
        """The folders of dates, of one segment or of all."""
        top = f"{self._root}/segment-export"
        segments = [f"{top}/{segment_id}"] if segment_id else self._folders(top)
        dates = [date for segment in segments for date in self._folders(segment)]
        if not dates:
            self._list()  # is it the export that is not there, or the bucket?
        return dates

    def _folders(self, path: str) -> list[str]:
        return [info["name"].rstrip("/") for info in self._ls(path) if info["type"] == "directory"]

    def _listed(self, path: str) -> list[dict[str, Any]]:
        return self._store.tried("listed", lambda: self._ls(path))

    def _ls(self, path: str) -> list[dict[str, Any]]:
        """What is in a folder; an object store's folder exists only while something is in it."""
        try:
            return list(self._files.ls(path, detail=True))
        except FileNotFoundError:
            return []

    def _days_ago(self, days: int) -> str:
        return datetime.fromtimestamp(self._clock.now() - days * 86_400, UTC).date().isoformat()

    def _list(self) -> None:
        try:
            self._files.ls(f"{self._root}/segment-export", detail=False)
        except FileNotFoundError:
            # Before the first export only the bucket itself is there.
            local = isinstance(self._files, LocalFileSystem)
            try:
                self._files.ls(self._root if local else self._root.split("/")[0], detail=False)
            except Exception as error:
                # Credentials may be good for the prefix alone; that could be listed, so the bucket is there.
                if local or not is_refusal(error):
                    raise

    def _copy(self, wanted: BucketObject, part: Path) -> None:
        size = 0
        with (
            self._files.open(wanted.path, "rb", block_size=8 * _CHUNK) as source,
            private_file(part, durable=False) as target,  # the next run would fetch it again
        ):
            while size <= wanted.size and (chunk := source.read(_CHUNK)):
                if self._clock.stopped:
                    raise ExportError(f"{wanted.name} is not read, the run was told to end")
                target.write(chunk)
                size += len(chunk)
        if size != wanted.size:
            raise DamagedFileError(f"{wanted.name} has another length than the {wanted.size} bytes listed")


class _Distant(io.RawIOBase):
    """A file in a store: each piece of it is a call of its own, tried again like any other."""

    def __init__(self, store: Store, wanted: BucketObject, spans: list[tuple[int, int]]) -> None:
        super().__init__()
        self._store = store
        self._wanted = wanted
        self._at = 0
        self._known = dict(zip((start for start, _ in spans), self._fetched(spans), strict=True))

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._wanted.size}[whence]
        if at < 0:
            raise ValueError("before the start of the file")
        self._at = at
        return at

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer)
        at, end = self._at, min(self._at + len(into), self._wanted.size)
        for start, piece in self._known.items():
            if start <= at < start + len(piece):
                found = piece[at - start : end - start]
                break
        else:
            (found,) = self._fetched([(at, end)]) if at < end else [b""]
        into[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _fetched(self, spans: list[tuple[int, int]]) -> list[bytes]:
        """Pieces, all of them at once where the library can."""

        def fetch() -> list[bytes]:
            paths, starts, ends = [self._wanted.path] * len(spans), *(list(ends) for ends in zip(*spans, strict=True))
            found = self._store.files.cat_ranges(paths, starts, ends)
            for piece in found:
                if isinstance(piece, Exception):
                    raise piece
            return list(found)

        return self._store.tried("read", fetch) if spans else []


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
