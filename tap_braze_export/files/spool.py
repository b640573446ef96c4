"""The private directory on local disk: downloads, the journal of running exports, rejected lines."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from tap_braze_export.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.clock import Clock

_DAY = 24 * 3600
_REJECTED_KEPT = 7 * _DAY
_LEFTOVERS_KEPT = 2 * _DAY


class Spool:
    """A directory that only the tap's user can read (0700, files 0600).

    Args:
        directory: The setting `spool_dir`; None for the user's cache directory.
        clock: Tells what is old.
    """

    def __init__(self, directory: str | None, *, clock: Clock) -> None:
        self.root = Path(directory).expanduser() if directory else platformdirs.user_cache_path("tap-braze-export")
        self._clock = clock

    def open(self) -> None:
        """Make the directory and remove what earlier runs left.

        Raises:
            ConfigError: If it cannot be made or written.
        """
        try:
            if self.root.exists() and self.root.stat().st_mode & stat.S_ISVTX:
                raise ConfigError(f"spool_dir {self.root} is shared by all users: name a directory of the tap's own")
            for folder in (self.root, *(self.root / name for name in ("exports", "journal", "rejected"))):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigError(
                f"spool_dir {self.root} cannot be written ({error.strerror}): name a directory of the tap's own user"
            ) from None
        self._remove_older("exports", _LEFTOVERS_KEPT)
        self._remove_older("rejected", _REJECTED_KEPT)

    def folder(self, export_id: str) -> Path:
        """Where an export's downloads stand while it is read."""
        folder = self.root / "exports" / _as_name(export_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def clear(self, export_id: str) -> None:
        """Remove an export's downloads."""
        shutil.rmtree(self.root / "exports" / _as_name(export_id), ignore_errors=True)

    def reject(self, export_id: str, lines: Iterable[bytes]) -> Path:
        """Keep lines that could not be read, as they came."""
        path = self.root / "rejected" / f"{_as_name(export_id)}.jsonl"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.writelines(line + b"\n" for line in lines)
        return path

    def _remove_older(self, folder: str, seconds: float) -> None:
        for path in (self.root / folder).iterdir():
            with suppress(FileNotFoundError):  # a run of another segment tidies up as well
                if path.stat().st_mtime < self._clock.now() - seconds:
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()


def _as_name(export_id: str) -> str:
    """A file name for an id that somebody else made up."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", export_id).lstrip(".")[:200] or "_"
