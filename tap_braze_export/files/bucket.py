"""The customer's own bucket, to which Braze delivers (fsspec)."""

from __future__ import annotations

import io
import logging
import os
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from tap_braze_export.errors import DamagedFileError, ExportError, InterruptedExportError, TapError
from tap_braze_export.files import leftovers
from tap_braze_export.files.bucket_url import read_bucket_url, shown_bucket_url, split_bucket
from tap_braze_export.files.disk import private_file
from tap_braze_export.files.key_listing import BRAZES_FOLDER, NearbyKeys, listed
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.files.spool import file_name
from tap_braze_export.files.storage import RangedFile, Storage, StorageLabels, is_refusal
from tap_braze_export.files.stored_bytes import is_encoded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import BinaryIO

    from tap_braze_export.clock import Clock

_COPY_BYTES = 2**20
_FETCH_BYTES = 8 * 2**20
_MAX_DATES_ALWAYS_LISTED = 10
"""Up to this number of dates, all are listed each time; of more, an old one without a file of the export only once."""
_RECENT_DAYS = 3
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified")
"""Members of a listing that change with a file's content, the best one first."""
_TEMPORARY_NAME = re.compile(
    r"""
    \.                                            # rsync, azcopy, s3cmd and others hide what they write
    | .*(
        \.(tmp|temp|part|partial|filepart|crdownload|download|incomplete|inprogress|uploading|aria2|swp)
        | _\.gstmp(_\d+)?                         # gsutil and gcloud
        | \._COPYING_                             # hadoop
        | ~
        | \.(zip|gz|gzip)\.(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9]{6,10}        # aws, mktemp
        | \.(zip|gz|gzip)\.(?=.*[a-z])(?=.*[A-Z])[A-Za-z]{6,10}
        | \.(zip|gz|gzip)\d{5,}                   # s5cmd
    )$
    """,
    re.VERBOSE,
)
"""How the names of files look that a copy tool has not finished: it renames them then. Braze's names do not."""
_log = logging.getLogger(__name__)


class Bucket:
    """The customer's own bucket, where Braze writes `segment-export/<segment>/<date>/<export>/<file>`.

    It may be a local directory, whose symbolic links are followed. `shown_url` is its address without secrets.

    Raises:
        ConfigError: There can be no such bucket.
    """

    def __init__(self, bucket_url: str, options: Mapping[str, Any], *, clock: Clock) -> None:
        self._clock = clock
        url = read_bucket_url(bucket_url)
        self.shown_url = shown_bucket_url(url)
        labels = StorageLabels(
            "the bucket", "bucket_url", "bucket_options", needed="list and get objects", shown_url=self.shown_url
        )
        # Listings are not cached: fsspec would keep one for ever.
        self._storage = Storage(url, {**options, "use_listings_cache": False}, labels, clock=clock)
        self._files, self._root = self._storage.files, self._storage.root
        is_store = not self._storage.has_folders
        if is_store:  # the libraries differ in what they make of slashes too many
            self._name, prefix = split_bucket(self._root)
            prefix = "/".join(part for part in prefix.split("/") if part)
            self._root = f"{self._name}/{prefix}".rstrip("/")
        else:
            self._name, prefix = "", os.path.normpath(self._root)
        self._nearby = NearbyKeys(self._storage, self._name, prefix)
        self._shown_scheme = f"{url.partition('://')[0]}://" if is_store else ""
        self._right_top = f"{self._root}/{BRAZES_FOLDER}"
        self._tops = [self._right_top]
        """The paths of Braze's folder: the right one, and those with a slash too many that were found."""
        self._dates_without_files: dict[str, set[str]] = {}
        self._left_alone: set[str] = set()

    def objects(self, export_id: str, segment_id: str | None) -> list[BucketObject]:
        """The files of an export that are there now, by name, but for those that a copy tool has not finished.

        The folder of the date is not computed: documentation and practice disagree about which date it is. The segment
        of the control group is not known: None searches all.
        """
        objects: list[BucketObject] = []
        dates = self._storage.retrying("listed", lambda: self._dates(segment_id))
        for date in sorted(dates):
            skipped = self._dates_without_files.setdefault(export_id, set())
            if date in skipped and len(dates) > _MAX_DATES_ALWAYS_LISTED:
                continue
            infos = [info for info in self._list(f"{date}/{export_id}") if info["type"] == "file" and info["size"]]
            taken = {found.name for found in objects}
            objects += [
                BucketObject(
                    _name(info["name"], date, taken), info["name"], info["size"], _version(info), is_encoded(info)
                )
                for info in infos
                if not self._is_unfinished(info["name"])
            ]
            if not infos and not self._is_recent(date):
                skipped.add(date)
        return sorted(objects, key=lambda item: item.name)

    def export_ids(self, segment_id: str) -> set[str]:
        """The exports of a segment whose first files came in the last days."""
        dates = self._storage.retrying("listed", lambda: self._dates(segment_id))
        return {
            info["name"].rstrip("/").rpartition("/")[2]
            for date in dates
            if self._is_recent(date)
            for info in self._list(date)
            if info["type"] == "directory"
        }

    def fetch(self, stored: BucketObject, path: Path) -> None:
        """Copy a file to `path`, complete or not at all.

        Raises:
            ExportError: It cannot be read.
            DamagedFileError: It has another length than the listing says.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            # Not durable: the next run would fetch it again.
            with self.open(stored) as source, private_file(part, durable=False) as target:
                while chunk := source.read(_COPY_BYTES):
                    if self._clock.stopped:
                        raise ExportError(f"{stored.name} is not read, the run was told to end")
                    target.write(chunk)
            if part.stat().st_size != stored.size:
                raise DamagedFileError(f"{stored.name} has another length than the {stored.size} bytes listed")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def open(self, stored: BucketObject, *, end_bytes: int = 0) -> BinaryIO:
        """Open a file where it is; pieces are fetched as they are read.

        So many bytes at its beginning and at its end are fetched first, both at once: reading the directory of a zip
        would otherwise wait for four responses.

        Raises:
            ExportError: It cannot be read; reading it may raise this, too.
        """
        ends = {(0, min(end_bytes, stored.size)), (max(0, stored.size - end_bytes), stored.size)} if end_bytes else ()
        return io.BufferedReader(RangedFile(self._storage, stored, [*ends]), _FETCH_BYTES)

    def twin(self, leftover: BucketObject, others: Iterable[BucketObject]) -> BucketObject | None:
        """The object that holds all that can be read of a truncated one; see `leftovers`."""
        return leftovers.twin(self, leftover, others)

    def check(self) -> str | None:
        """Why the bucket cannot be listed; None if it can."""
        try:
            return self._storage.retrying("listed", self._check_listing)
        except TapError as error:
            return str(error)

    def find_misplaced(self) -> bool:
        """Look for folders of Braze with a slash too many, which are read from now on; true if there are new ones."""
        new = [top for top in self._nearby.with_more_slashes() if top not in self._tops]
        for top in new:
            _log.warning(
                "Braze's files are below %s/, since the folder in Braze's partner settings has a slash too many: they"
                " are read there; remove it in Braze",
                self._shown(top),
            )
        self._tops += new
        return bool(new)

    def elsewhere(self, export_id: str = "", segment_id: str = "") -> tuple[str, bool]:
        """Say where Braze's folder stands near bucket_url, only where files of the export are in it if they are.

        The first value is empty if there is none, the second True if the export's files were found.
        """
        tops = self._nearby.below_other_prefixes()
        certain = [top for top in tops if export_id and self._nearby.holds(top, export_id, segment_id)]
        return " and ".join(f"{self._shown(top)}/" for top in certain or tops), bool(certain)

    def without_folder(self) -> str:
        """Say what stands near bucket_url, which lacks Braze's folder; empty if it has it, or nothing was found."""
        if len(self._tops) > 1 or self._list_once(self._right_top):
            return ""
        self.find_misplaced()
        where = " and ".join(f"{self._shown(top)}/" for top in self._tops[1:]) or self.elsewhere()[0]
        return where and f"it holds no {BRAZES_FOLDER}/ yet, but {where} is there"

    def _shown(self, path: str) -> str:
        return f"{self._shown_scheme}{path}"

    def _is_unfinished(self, path: str) -> bool:
        """True if a file has the temporary name that a copy tool gives it until it is whole; logged once."""
        if not _TEMPORARY_NAME.match(path.rpartition("/")[2]):
            return False
        if path not in self._left_alone:
            self._left_alone.add(path)
            _log.warning("%s is left alone: a copy tool names a file so until it is whole", file_name(path))
        return True

    def require(self) -> None:
        """Find out before an export is started if its files could ever be read: a bucket out of reach may come back.

        A local directory that is missing in an existing one may be made by the program that copies into it.

        Raises:
            ConfigError: It does not exist, or does not let the credentials list it.
        """
        root = Path(self._root)
        if isinstance(self._files, LocalFileSystem) and not root.exists() and root.parent.is_dir():
            _log.warning("bucket_url %s: there is no such directory yet", root)
            return
        with suppress(InterruptedExportError):
            self._storage.once("listed", self._check_listing)

    def _dates(self, segment_id: str | None) -> list[str]:
        """The folders of dates, of one segment or of all."""
        segments = [
            segment for top in self._tops for segment in ([f"{top}/{segment_id}"] if segment_id else self._folders(top))
        ]
        dates = [date for segment in segments for date in self._folders(segment)]
        if not dates:
            self._check_listing()  # is it the export that is not there, or the bucket?
        return dates

    def _folders(self, path: str) -> list[str]:
        return [info["name"].rstrip("/") for info in self._list_once(path) if info["type"] == "directory"]

    def _list(self, path: str) -> list[dict[str, Any]]:
        return self._storage.retrying("listed", lambda: self._list_once(path))

    def _list_once(self, path: str) -> list[dict[str, Any]]:
        """The content of a folder; in an object store a folder exists only while something is in it."""
        try:
            if any(f"{path}/".startswith(f"{top}/") for top in self._tops[1:]):
                infos = listed(self._files, self._name, path.removeprefix(f"{self._name}/") + "/")
            else:
                infos = list(self._files.ls(path, detail=True))
        except FileNotFoundError:
            return []
        return [_followed(info) if info.get("islink") else info for info in infos]

    def _is_recent(self, date: str) -> bool:
        first = datetime.fromtimestamp(self._clock.unset_now() - _RECENT_DAYS * 86_400, UTC).date()
        return date.rpartition("/")[2] >= first.isoformat()

    def _check_listing(self) -> None:
        try:
            self._files.ls(self._right_top, detail=False)
        except FileNotFoundError:
            # Before the first export only the bucket itself is there.
            local = isinstance(self._files, LocalFileSystem)
            try:
                self._files.ls(self._root if local else self._name or self._root.split("/")[0], detail=False)
            except Exception as error:
                # Credentials may be good for the prefix alone; that could be listed, so the bucket is there.
                if local or not is_refusal(error):
                    raise


def _followed(info: dict[str, Any]) -> dict[str, Any]:
    """The listing of the target of a symbolic link in a local directory."""
    try:
        found = os.stat(info["name"])  # noqa: PTH116 - a path of fsspec
    except OSError:
        return info  # to nowhere, or in a circle
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
    return {**info, "type": kind, "size": found.st_size, "mtime": found.st_mtime}


def _name(path: str, date: str, taken: Collection[str]) -> str:
    """The name of a file, with its date where a file of an earlier date has that name: it may be another one."""
    name = file_name(path)
    return f"{file_name(date)}-{name}" if name in taken else name


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
