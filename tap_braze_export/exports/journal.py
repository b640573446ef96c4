"""What this machine remembers of a running export, beside STATE: loaders hand STATE on late, some only at their end.

One file per `api_url` and segment in the spool directory, with the signed URL that STATE must not hold, and a lock
that keeps a second run away from the same segment.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import filelock
import msgspec

from tap_braze_export.errors import TapError
from tap_braze_export.files.spool import private_file
from tap_braze_export.state import Bookmark

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.files.spool import Spool


@dataclass(frozen=True)
class Entry:
    """A running export.

    Attributes:
        bookmark: The export; which files were emitted is STATE's to say.
        url: The signed URL of its download, a secret; None for a bucket, or while Braze's answer is unknown.
        token: What its callback carries.
    """

    bookmark: Bookmark
    url: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)


class Journal:
    """The journal of one segment, or of the control group.

    Args:
        spool: Holds it.
        api_url: Tells workspaces apart.
        key: Source and segment id.
    """

    def __init__(self, spool: Spool, api_url: str, key: tuple[str, str]) -> None:
        digest = hashlib.blake2b("\n".join((api_url.rstrip("/"), *key)).encode(), digest_size=12).hexdigest()
        self.path: Path = spool.root / "journal" / f"{digest}.json"
        self._lock = filelock.FileLock(self.path.with_suffix(".lock"), timeout=0, mode=0o600)
        self._subject = " ".join(key).strip()

    def lock(self) -> None:
        """Keep other runs away until this process ends.

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
        """Let other runs in."""
        self._lock.release()

    def read(self) -> Entry | None:
        """The running export, if one is known here."""
        try:
            content: dict[str, Any] = msgspec.json.decode(self.path.read_bytes())
            return Entry(Bookmark.from_dict(content["bookmark"]), content["url"], content["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, entry: Entry) -> None:
        """Remember a running export, atomically; not its files: what the target has, only STATE knows."""
        bookmark = replace(entry.bookmark, digests={}, users=0)
        content = {"bookmark": bookmark.to_dict(), "url": entry.url, "token": entry.token}
        part = self.path.with_suffix(".part")
        with private_file(part) as file:
            file.write(msgspec.json.encode(content))
        part.replace(self.path)

    def forget(self) -> None:
        """The export has ended, or was given up."""
        self.path.unlink(missing_ok=True)
