"""This machine's record of an export, beside STATE: loaders hand STATE on late, some only at their end.

The spool directory has one file per `api_url` and segment, with the signed URL that STATE must not hold, and a lock
that keeps a second run away from the same segment. Record and download stay when a run has read the export to its end,
as its loader may fail yet.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import filelock
import msgspec

from tap_braze_export.errors import DiskFullError, TapError
from tap_braze_export.export import subject
from tap_braze_export.exports.phases import Phase
from tap_braze_export.files.disk import file_lock, private_file
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tap_braze_export.export import Export
    from tap_braze_export.files.spool import Spool

_DIGEST_BYTES = 12
_DOWNLOAD = "download"


@dataclass(frozen=True)
class KnownExport:
    """An export that this run or an earlier one has requested.

    Attributes:
        bookmark: The export, as STATE says it.
        url: The signed URL of its download, a secret; None for a bucket, or while no response has come.
        token: The token of its callback.
        follows: While no response has come, the `export_id` of the export before it: its folder is not the wanted one.
        given_state: Digest of the STATE that was handed to the run which recorded it; empty for an empty STATE.
        read_before: The bookmark of a run that has read it to its end, if it is to be read again.
        proven: True if that run knew, and did not only assume, that it had every file.
    """

    bookmark: Bookmark
    url: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    follows: str = ""
    given_state: str = ""
    read_before: Bookmark | None = None
    proven: bool = False

    @property
    def export(self) -> Export:
        """Which one it is."""
        return self.bookmark.export

    @property
    def phase(self) -> Phase:
        """How far it had come when it was written down."""
        if not self.bookmark.running:
            return Phase.KEPT
        return Phase.RUNNING if self.export.export_id else Phase.LOST


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
    """The journal of one segment, or of the control group, and its downloads."""

    def __init__(self, spool: Spool, workspace: str, key: tuple[str, str], state: Mapping[str, Any]) -> None:
        digest = _digest("\n".join((workspace, *key)))
        self.path = spool.root / "journal" / f"{digest}.json"
        self.given_state = _digest(json.dumps(state, sort_keys=True)) if state else ""
        self.spool = spool
        self._subject = subject(*key)
        self._lock = file_lock(self.path.with_suffix(".lock"))

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
        download = self.spool.path(self._folder_name(found.export.export_id)) / _DOWNLOAD
        return None if found.phase is Phase.KEPT and found.url is not None and not download.exists() else found

    def write(self, export: KnownExport) -> None:
        """Record a running export, atomically; not its files: which ones the target has, only STATE says."""
        self._write(replace(export, bookmark=replace(export.bookmark, digests={}, users=0, rejected=0)))

    def end(self, bookmark: Bookmark, *, proven: bool) -> None:
        """Record that the export was read to its end: a run whose loader has failed can read it again."""
        known = self.read()
        if known is None or known.export.export_id != bookmark.export.export_id:
            return
        try:
            self._write(replace(known, bookmark=bookmark, proven=proven))
        except DiskFullError:
            self.forget()
            self.clear(bookmark.export.export_id)

    def forget(self) -> None:
        """Remove the record."""
        self.path.unlink(missing_ok=True)

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

    # The downloads

    def download(self, export_id: str) -> Path:
        """Where the download of a hosted export goes."""
        return self.spool.folder(self._folder_name(export_id)) / _DOWNLOAD

    def copies(self, export_id: str) -> Path:
        """An empty folder for copies from the bucket: nobody knows which of a dead run's are whole."""
        self.clear(export_id)
        return self.spool.folder(self._folder_name(export_id))

    def clear(self, export_id: str) -> None:
        """Remove what was downloaded of an export."""
        self.spool.clear(self._folder_name(export_id))

    def clear_others(self, keep: Iterable[str]) -> None:
        """Remove what was downloaded of this segment's exports, but for these ids."""
        self.spool.clear_others(self._folder_name(""), [self._folder_name(export_id) for export_id in keep])

    def _folder_name(self, export_id: str) -> str:
        return f"{self.path.stem}-{export_id}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
