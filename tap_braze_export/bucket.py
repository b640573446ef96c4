"""The customer's own bucket as a place of delivery (fsspec)."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import backoff
import fsspec
from fsspec.implementations.local import LocalFileSystem

from tap_braze_export.disk import file_name, private_file
from tap_braze_export.errors import (
    ConfigError,
    DamagedFileError,
    ExportError,
    OutOfReachError,
    TapError,
    foreign_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tap_braze_export.clock import Clock

T = TypeVar("T")

_CHUNK = 2**20
_TRIES = 5
_MOST_DATES = 10
"""Up to so many dates all are looked at each time; of more, old ones without a file of the export only once."""
_BARREN_DAYS = 3
_SECRET_LENGTH = 4  # shorter option texts are words such as "on"
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
# By name: the libraries that raise these are optional.
_CREDENTIAL_ERRORS = frozenset(
    {
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RefreshError",
    }
)
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BucketObject:
    """A delivered file in a bucket; `version` changes when its content does."""

    name: str
    path: str
    size: int
    version: str


class Bucket:
    """The customer's own bucket, where Braze writes `segment-export/<segment>/<date>/<export>/<file>`.

    Args:
        bucket_url: `s3://bucket/prefix`, `gs://…`, `abfs://…` or a local directory.
        options: fsspec's options for it, secrets.
        clock: Time, and the waits between tries.
    """

    def __init__(self, bucket_url: str, options: Mapping[str, Any], *, clock: Clock) -> None:
        self._clock = clock
        self._secrets = list(_option_texts(options))
        scheme = urlsplit(bucket_url).scheme
        # gcsfs would first ask over gRPC for the bucket's kind, for a minute where a proxy lets only HTTP pass.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            # What fsspec would cache: one listing for ever, and file systems by their secrets.
            self._files, root = fsspec.url_to_fs(
                bucket_url, **{**options, "use_listings_cache": False, "skip_instance_cache": True}
            )
        except ImportError:
            extra = _EXTRAS.get(scheme)
            command = f"pip install 'tap-braze-export[{extra}]'" if extra else "the library that fsspec needs for it"
            raise ConfigError(f"bucket_url starts with {scheme}://, which needs: {command}") from None
        except Exception as error:  # noqa: BLE001  each cloud library has its own
            raise ConfigError(f"bucket_url or bucket_options cannot be used: {self._said(error)}") from None
        self._root = str(root).rstrip("/")
        self._barren: dict[str, set[str]] = {}

    def objects(self, export_id: str, segment_id: str | None) -> list[BucketObject]:
        """The files of an export that are there now, by name.

        The folder of the date is not computed: documentation and practice disagree about which date it is.

        Args:
            export_id: The export's `object_prefix`.
            segment_id: Its segment; None looks below all, for the control group, whose segment is not known.
        """
        objects = []
        dates = self._tried("listed", lambda: self._dates(segment_id))
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
            for date in self._tried("listed", lambda: self._dates(segment_id))
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
            self._tried("read", lambda: self._copy(wanted, part))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def check(self) -> str | None:
        """What keeps the bucket from being listed, None if nothing does."""
        try:
            self._tried("listed", self._list)
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
        return self._tried("listed", lambda: self._ls(path))

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
            self._files.ls(self._root if local else self._root.split("/")[0], detail=False)

    def _copy(self, wanted: BucketObject, part: Path) -> None:
        size = 0
        with (
            self._files.open(wanted.path, "rb", block_size=8 * _CHUNK) as source,
            private_file(part) as target,
        ):
            while size <= wanted.size and (chunk := source.read(_CHUNK)):
                if self._clock.stopped:
                    raise ExportError(f"{wanted.name} is not read, the run was told to end")
                target.write(chunk)
                size += len(chunk)
        if size != wanted.size:
            raise DamagedFileError(f"{wanted.name} has another length than the {wanted.size} bytes listed")

    def _tried(self, done: str, call: Callable[[], T]) -> T:
        """Call the cloud's library, again after failures that may pass."""
        waits = backoff.expo(max_value=60)
        next(waits)  # backoff's generators give one 0 before the first wait
        tries = 0
        while True:
            tries += 1
            try:
                return call()
            except TapError:
                raise
            except FileNotFoundError:
                if done == "read":
                    raise ExportError("a delivered file was deleted from the bucket before it was read") from None
                raise ConfigError("bucket_url names a bucket or directory that does not exist") from None
            except Exception as error:  # noqa: BLE001  each cloud library has its own
                said = self._said(error)
                if _is_refusal(error):
                    raise ConfigError(
                        f"the bucket cannot be {done}: {said}. Check the credentials (bucket_options or the"
                        " environment) and that they may list and get objects"
                    ) from None
                if tries >= _TRIES or self._clock.stopped:
                    raise OutOfReachError(f"the bucket could not be {done} {tries} times: {said}") from None
            _log.info("The bucket could not be %s: %s; tried again", done, said)
            self._clock.sleep(backoff.full_jitter(next(waits)))

    def _said(self, error: Exception) -> str:
        said = foreign_text(str(error), self._secrets)
        return f"{type(error).__name__}{f' ({said})' if said else ''}"


def _option_texts(value: object) -> Iterator[str]:
    """Every text in the options: any of them may be a secret."""
    if isinstance(value, str) and len(value) >= _SECRET_LENGTH:
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _option_texts(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _option_texts(member)


def _is_refusal(error: Exception) -> bool:
    """Whether a store refuses the credentials: not each library has an error of its own for that."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return (
        isinstance(error, PermissionError)
        or type(error).__name__ in _CREDENTIAL_ERRORS
        or str(status) in {"401", "403"}
        or str(error).startswith("Forbidden: ")  # gcsfs
    )


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
