"""This machine's record of a running export, beside STATE: loaders hand STATE on late, some only at their end.

The spool directory has one file per `api_url` and segment, with the signed URL that STATE must not hold, and a lock
that keeps a second run away from the same segment.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import filelock
import msgspec

from tap_braze_export.errors import TapError
from tap_braze_export.exports.resume import KnownExport
from tap_braze_export.files.spool import private_file
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.files.spool import Spool


class Journal:
    """The journal of one segment, or of the control group.

    Args:
        spool: Has its file.
        api_url: Identifies the workspace.
        key: Source and segment id.
    """

    def __init__(self, spool: Spool, api_url: str, key: tuple[str, str]) -> None:
        digest = hashlib.blake2b("\n".join((api_url.rstrip("/"), *key)).encode(), digest_size=12).hexdigest()
        self.path: Path = spool.root / "journal" / f"{digest}.json"
        self._lock = filelock.FileLock(self.path.with_suffix(".lock"), timeout=0, mode=0o600)
        self._subject = " ".join(key).strip()

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

    def read(self) -> KnownExport | None:
        """The running export, if there is a readable record of one."""
        try:
            content: dict[str, Any] = msgspec.json.decode(self.path.read_bytes())
            return KnownExport(Bookmark.from_dict(content["bookmark"]), content["url"], content["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, export: KnownExport) -> None:
        """Record a running export, atomically; not its files: which ones the target has, only STATE says."""
        bookmark = replace(export.bookmark, digests={}, users=0)
        content = {"bookmark": bookmark.to_dict(), "url": export.url, "token": export.token}
        part = self.path.with_suffix(".part")
        with private_file(part) as file:
            file.write(msgspec.json.encode(content))
        part.replace(self.path)

    def forget(self) -> None:
        """Remove the record: the export has ended, or was given up."""
        self.path.unlink(missing_ok=True)
