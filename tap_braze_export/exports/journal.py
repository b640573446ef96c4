"""This machine's record of an export, beside STATE: loaders hand STATE on late, some only at their end.

The spool directory has one file per `api_url` and segment, with the signed URL that STATE must not hold, and a lock
that keeps a second run away from the same segment. Record and download stay when a run has read the export to its end,
as its loader may fail yet.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import filelock
import msgspec

from tap_braze_export.errors import DiskFullError, TapError
from tap_braze_export.exports.resume import KnownExport, Status
from tap_braze_export.files.disk import file_lock, private_file
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tap_braze_export.files.spool import Spool

_DIGEST_BYTES = 12
_DOWNLOAD = "download"
_log = logging.getLogger(__name__)


class _Record(msgspec.Struct):
    """The content of the file; a disk that failed may have left anything."""

    bookmark: dict[str, Any]
    url: str | None
    token: str
    given_state: str
    proven: bool
    follows: str = ""
    """Missing in a record of an earlier version."""


class Journal:
    """The journal of one segment, or of the control group, and its downloads.

    Args:
        path: Its file.
        spool: Has the downloads.
        subject: The segment, as errors name it.
        given_state: Digest of the STATE that this run was handed; empty for an empty one.

    Attributes:
        is_kept: True if this run has read the export to its end.
    """

    def __init__(self, path: Path, spool: Spool, *, subject: str = "", given_state: str = "") -> None:
        self.path = path
        self.given_state = given_state
        self.is_kept = False
        self._spool = spool
        self._lock = file_lock(path.with_suffix(".lock"))
        self._subject = subject

    @classmethod
    def of(cls, spool: Spool, workspace: str, key: tuple[str, str], state: Mapping[str, Any]) -> Journal:
        """The journal of a source and segment id in a workspace, for a run that was handed this STATE."""
        digest = _digest("\n".join((workspace, *key)))
        given_state = _digest(json.dumps(state, sort_keys=True)) if state else ""
        path = spool.root / "journal" / f"{digest}.json"
        return cls(path, spool, subject=" ".join(key).strip(), given_state=given_state)

    def lock(self) -> None:
        """Keep other runs from this segment until this process ends.

        Raises:
            TapError: If another run is there already.
        """
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise TapError(
                f"another run is exporting {self._subject} on this machine: wait for its end, or stop it "
                f"(it holds {self._lock.lock_file})"
            ) from None

    def unlock(self) -> None:
        """Release the lock."""
        self._lock.release()

    # The record

    def read(self) -> KnownExport | None:
        """The recorded export, if there is a readable record; None, too, if it was read and its download is gone."""
        try:
            record = msgspec.json.decode(self.path.read_bytes(), type=_Record)
            found = KnownExport(
                Bookmark.from_dict(record.bookmark),
                record.url,
                record.token,
                given_state=record.given_state,
                proven=record.proven,
                follows=record.follows,
            )
        except (OSError, ValueError, RecursionError):
            return None
        if found.status is Status.ENDED and found.url is not None and not self._download(found).exists():
            return None
        return found

    def write(self, export: KnownExport) -> None:
        """Record a running export, atomically; not its files: which ones the target has, only STATE says."""
        self._write(replace(export, bookmark=replace(export.bookmark, digests={}, users=0, rejected=0)))

    def keep(self, bookmark: Bookmark, *, proven: bool) -> None:
        """Record that the export was read to its end: a run whose loader has failed can read it again.

        Args:
            bookmark: The export, with all its files.
            proven: True if it is known, not only assumed, that it has no more.
        """
        known = self.read()
        try:
            if known:
                self._write(replace(known, bookmark=bookmark, proven=proven))
                self.is_kept = True
        except DiskFullError:
            self.forget()
            self.clear(bookmark.export.export_id)

    def forget(self) -> None:
        """Remove the record: the export was given up, or the target has it."""
        self.path.unlink(missing_ok=True)
        self.is_kept = False

    def _write(self, export: KnownExport) -> None:
        content = {
            "bookmark": export.bookmark.to_dict(),
            "url": export.url,
            "token": export.token,
            "given_state": self.given_state,
            "proven": export.proven,
            "follows": export.follows,
        }
        part = self.path.with_suffix(".part")
        with private_file(part) as file:
            file.write(msgspec.json.encode(content))
        part.replace(self.path)
        self.is_kept = False

    # The downloads

    def download(self, export_id: str) -> Path:
        """Where the download of a hosted export goes."""
        return self._spool.folder(self._folder_name(export_id)) / _DOWNLOAD

    def copies(self, export_id: str) -> Path:
        """An empty folder for copies from the bucket: nobody knows which of a dead run's are whole."""
        self.clear(export_id)
        return self._spool.folder(self._folder_name(export_id))

    def clear(self, export_id: str) -> None:
        """Remove what was downloaded of an export."""
        self._spool.clear(self._folder_name(export_id))

    def clear_others(self, keep: Iterable[str]) -> None:
        """Remove what was downloaded of this segment's exports, but for these ids."""
        self._spool.clear_others(self._folder_name(""), [self._folder_name(export_id) for export_id in keep])

    def _download(self, export: KnownExport) -> Path:
        return self._spool.path(self._folder_name(export.export.export_id)) / _DOWNLOAD

    def _folder_name(self, export_id: str) -> str:
        return f"{self.path.stem}-{export_id}"

    # Room for other exports

    def kept(self) -> KnownExport | None:
        """The export that stays only in case a loader fails, if it takes up room."""
        found = self.read()
        return found if found and found.status is Status.ENDED and found.url is not None else None

    def remove_kept(self) -> bool:
        """Remove that export; False if a run uses it."""
        try:
            with self._lock:
                if (found := self.kept()) is None:
                    return False
                self.forget()
        except OSError:  # a run holds the lock, or it is another user's
            return False
        self.clear(found.export.export_id)  # without the lock, which would turn away a run that begins meanwhile
        _log.info(
            "The disk is full: export %s is removed, which was kept in case its loader fails",
            found.export.export_id,
        )
        return True


def make_room(spool: Spool, own: Iterable[Journal]) -> bool:
    """Remove the oldest download that stays only in case a loader fails, of any segment; False if there is none.

    Args:
        spool: Has it.
        own: The journals that this run has locked.
    """
    journals = {path: Journal(path, spool) for path in (spool.root / "journal").glob("*.json")}
    for journal in own:
        journals.pop(journal.path, None)  # the export may be read once more just now
        if journal.is_kept:
            journals[journal.path] = journal
    found = {path: known.export.requested_at for path, journal in journals.items() if (known := journal.kept())}
    return any(journals[path].remove_kept() for path in sorted(found, key=lambda path: found[path]))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
