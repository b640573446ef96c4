"""The private directory on the local disk: downloads, the journal of running exports, rejected lines."""

from __future__ import annotations

import logging
import re
import shutil
import stat
import tempfile
import uuid
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from tap_braze_export.errors import ConfigError, DiskFullError, InterruptedExportError
from tap_braze_export.files.disk import APPEND, FLUSH, LOCK, REMOVE, RENAME, WRITE, file_lock, private_file, try_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import filelock

    from tap_braze_export.clock import Clock

_DAY_SECONDS = 24 * 3600
_KEEP_REJECTED_SECONDS = 7 * _DAY_SECONDS
_KEEP_DOWNLOADS_SECONDS = 2 * _DAY_SECONDS
_LOCK_SUFFIX = ".lock"
_MAX_LOGGED_LINE_NUMBERS = 10
_MAX_NAME_CHARS = 255
_MAX_ID_CHARS = 200  # of an export's id in a file name, which gets a suffix
_CALLS = (WRITE, APPEND, FLUSH, RENAME, LOCK, REMOVE)
_log = logging.getLogger(__name__)


class Spool:
    """A directory that only the tap's user can read (0700, files 0600).

    A directory of another owner, as Kubernetes (`fsGroup`) and network mounts provide it, cannot be given that mode.
    It is used if other users cannot write to it and the tap's folders in it, or a directory above it, keep them out.
    The directory itself may be a symbolic link; nothing in it is followed if it is one. Without one it is in the user's
    cache directory.

    Raises:
        ConfigError: It names the home of a user who does not exist, or there is none for the default.
    """

    def __init__(self, directory: str | None, *, clock: Clock) -> None:
        self.root = _path(directory)
        self._is_default = not directory
        self._clock = clock
        self._locks: dict[Path, filelock.FileLock] = {}

    def open(self) -> None:
        """Make the directory, and remove old files of earlier runs, and what runs that are dead have left.

        Raises:
            ConfigError: If it cannot be made or used, or others could read or replace what is in it.
        """
        with suppress(DiskFullError):  # the run makes room, or says what it cannot write
            self.check()
        self._remove_older("exports", _KEEP_DOWNLOADS_SECONDS)
        self._remove_older("rejected", _KEEP_REJECTED_SECONDS)
        self._remove_dead_runs()

    def check(self) -> None:
        """Make the directory, and try out what a run does in it.

        Raises:
            ConfigError: If it cannot be made or used, or others could read or replace what is in it.
            DiskFullError: If its disk has no room.
        """
        self._make()
        try_out(self.root / "exports", _CALLS, setting="spool_dir", named=self.root)

    def _make(self) -> None:
        folder = self.root
        try:
            if self.root.exists() and self.root.stat().st_mode & stat.S_ISVTX:
                raise ConfigError(f"spool_dir {self.root} is shared by all users: name a directory of the tap's own")
            _make_private(folder, shut_out=stat.S_IWOTH)
            for folder in (self.root / name for name in ("exports", "journal", "rejected", "runs")):
                if folder.is_symlink():
                    raise ConfigError(f"spool_dir: {folder} is a symbolic link, which is not followed: remove it")
                _make_private(folder, shut_out=stat.S_IRWXO)
        except OSError as error:
            text = f"spool_dir {folder} cannot be written ({error.strerror}): name a directory of the tap's own user"
            if self._is_default:
                text = f"spool_dir is not set, and its default cannot be used: {text}"
            raise ConfigError(text) from None

    def path(self, export_id: str) -> Path:
        """The path of the folder of an export's downloads, which may not be there."""
        return self.root / "exports" / _id_as_name(export_id)

    def folder(self, export_id: str) -> Path:
        """Make the folder of an export's downloads."""
        folder = self.path(export_id)
        if folder.is_symlink():
            folder.unlink()
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def clear(self, export_id: str) -> None:
        """Remove an export's downloads."""
        _remove(self.path(export_id))

    def clear_others(self, prefix: str, keep: Iterable[str]) -> None:
        """Remove the downloads of all exports whose ids begin with `prefix`, but for those to keep."""
        kept = {self.path(export_id) for export_id in keep}
        for folder in (self.root / "exports").glob(f"{prefix}*"):
            if folder not in kept:
                _remove(folder)

    def run_folder(self, purpose: str) -> Path:
        """Make a folder for this run alone; if it is killed, the next run on this machine removes the folder.

        A lock tells that the run lives. It is there before the folder is, so no folder of a living run is without one.
        """
        folder = self.root / "runs" / f"{purpose}-{uuid.uuid4().hex}"
        lock = self._locks[folder] = _lock_of(folder)
        lock.acquire()
        folder.mkdir(mode=0o700)
        return folder

    def clear_run_folder(self, folder: Path) -> None:
        """Remove a folder of this run."""
        _remove_with_lock(folder, self._locks.pop(folder))

    def rejected(self, export_id: str, name: str) -> RejectedLines:
        """The rejected lines of a delivery, named as in `export_files`; each export has a file for them."""
        return RejectedLines(self.root / "rejected" / f"{_id_as_name(export_id)}.jsonl", name)

    def _remove_older(self, folder: str, seconds: float) -> None:
        for path in (self.root / folder).iterdir():
            with suppress(FileNotFoundError):  # a run of another segment tidies up as well
                if self._is_older(path, seconds):
                    _remove(path)

    def _remove_dead_runs(self) -> None:
        """Remove the folders of runs that were killed, at once: a living run holds the lock of its own."""
        for path in (self.root / "runs").iterdir():
            with suppress(OSError):  # a run lives, or has just ended, or was another user's
                if path.suffix != _LOCK_SUFFIX:
                    lock = _lock_of(path)
                    lock.acquire()
                    _remove_with_lock(path, lock)
                elif not path.with_suffix("").exists() and self._is_older(path, _KEEP_DOWNLOADS_SECONDS):
                    path.unlink()

    def _is_older(self, path: Path, seconds: float) -> bool:
        return self._clock.age(path.lstat().st_mtime) > seconds


class RejectedLines:
    """The lines of one delivery that hold no user: kept as they came, counted, and told in one line of the log."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self.count = 0
        self.first_numbers: list[int] = []

    def keep(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Keep lines, given with their numbers.

        Raises:
            ExportError: They cannot be written; what was kept before stays.
        """
        if not lines:
            return
        try:
            with private_file(self._path, append=True, durable=False, is_whole=False) as file:
                file.writelines(line + b"\n" for _, line in lines)
        except OSError as error:
            raise InterruptedExportError(
                f"unreadable lines cannot be kept in {self._path} ({error.strerror}): make it a file that the tap may"
                " write"
            ) from None
        self.count += len(lines)
        numbers = (number for number, _ in lines)
        self.first_numbers = nsmallest(_MAX_LOGGED_LINE_NUMBERS, [*self.first_numbers, *numbers])

    def tell(self) -> None:
        """Log their number, the first ones and where they are, without their content."""
        if self.count:
            shown = ", ".join(map(str, self.first_numbers))
            more = ", …" if self.count > len(self.first_numbers) else ""
            message = "%s: %d lines are no user objects, kept in %s: line %s%s"
            _log.warning(message, self._name, self.count, self._path, shown, more)


def _path(directory: str | None) -> Path:
    if directory:
        try:
            return Path(directory).expanduser()
        except RuntimeError:  # pathlib's for a home that nobody has
            raise ConfigError(f"spool_dir {directory} begins with the home of a user who does not exist") from None
    with suppress(RuntimeError):  # platformdirs' for a user without a home
        return platformdirs.user_cache_path("tap-braze-export")
    raise ConfigError(
        "spool_dir is not set, and there is no default, as this user has no home: set it to a directory of the tap's"
        " own user"
    )


def _remove(path: Path) -> None:
    """Remove a folder and all in it, a file, or a link but not its target."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock_of(folder: Path) -> filelock.FileLock:
    return file_lock(folder.with_suffix(_LOCK_SUFFIX))


def _remove_with_lock(folder: Path, lock: filelock.FileLock) -> None:
    """Remove a folder, then the lock, which is held: a folder without a lock would belong to nobody."""
    _remove(folder)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _make_private(folder: Path, *, shut_out: int) -> None:
    """Make a directory that only its owner can use, as far as its file system and its owner let it.

    Raises:
        ConfigError: Others have permissions that are to be shut out, and no directory above keeps them out.
        OSError: It cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # only its owner may, and some mounts let nobody: what counts is the mode
        folder.chmod(0o700)
    found = folder.stat()
    if found.st_mode & shut_out and all(above.stat().st_mode & stat.S_IXOTH for above in folder.resolve().parents):
        raise ConfigError(
            f"spool_dir: {folder}, which belongs to uid {found.st_uid}, lets all users in (mode"
            f" {found.st_mode & 0o777:o}), and the tap cannot change that: name a directory below it that does not"
            f" exist yet, such as {folder / 'spool'}, have its owner take these permissions away, or mount it for the"
            " tap's user alone (options such as uid, dir_mode=0700, file_mode=0600)"
        )
    with tempfile.TemporaryFile(dir=folder):
        pass


def file_name(text: str) -> str:
    """The last component of a path from outside, on one line: control characters are replaced."""
    name = text.rpartition("/")[2][:_MAX_NAME_CHARS]
    return name if name.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in name)


def _id_as_name(export_id: str) -> str:
    """A file name for an id that Braze made up."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", export_id).lstrip(".")[:_MAX_ID_CHARS] or "_"
