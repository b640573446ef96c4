"""The calls of a local file system that a run needs; mounts refuse some that local disks never do."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import stat
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import filelock

from tap_braze_export.errors import ConfigError, DiskFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from io import BufferedWriter
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EROFS, errno.EPERM, errno.EACCES}
"""A file system that answers so does not do the call at all; any other error says that it failed."""
_log = logging.getLogger(__name__)


def file_lock(path: Path) -> filelock.FileLock:
    """A lock that the system releases when its process ends, and not the library's other kind, which outlives it."""
    return filelock.FileLock(path, timeout=0, mode=0o600, thread_local=False, fallback_to_soft=False)


@contextmanager
def private_file(
    path: Path, *, append: bool = False, durable: bool = True, is_whole: bool = True
) -> Iterator[BufferedWriter]:
    """A file that only its owner can read. A symbolic link is not followed.

    `durable` has it on disk when the block ends, where the file system can do that. If a part of it is of no use, it is
    removed where the disk is full, so that others can go on.

    Raises:
        DiskFullError: The disk is full.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "ab" if append else "wb") as file:
            with suppress(OSError):  # the file system sets owner or mode itself; the file's folder is private
                os.fchmod(file.fileno(), 0o600)
            yield file
            if durable:
                file.flush()
                flush_to_disk(file.fileno(), path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        if is_whole:
            path.unlink(missing_ok=True)
        raise disk_full_error(path.parent) from None


def flush_to_disk(descriptor: int, path: Path) -> str:
    """Have a file's content on disk; returns why its file system never does that, empty if it does.

    Raises:
        OSError: It failed; the content may be lost.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _REFUSED:
            return error.strerror or ""
        raise OSError(error.errno, error.strerror, str(path)) from None  # fsync knows no path
    return ""


def free_bytes(directory: Path) -> int | None:
    """Free space of the disk that holds a directory; None if its file system does not say."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    return usage.free if usage.total else None


def disk_full_error(directory: Path, wanted: int = 0) -> DiskFullError:
    """The error of a disk without room for so many bytes, if it is known how many."""
    shown = f" ({wanted:,} bytes are wanted)" if wanted else ""
    return DiskFullError(
        f"the disk of {directory} is full{shown}: free some space there, or set spool_dir, or fingerprints_url or"
        " batch_config if that is what it holds, to a larger disk"
    )


class Call(NamedTuple):
    """A call that a run needs: its name, why it is needed where nobody knows, what to do about a refusal, and itself.

    It is made with a file and a second name beside it.
    """

    name: str
    need: str
    remedy: str
    make: Callable[[Path, Path], object]


def _write(file: Path, _: Path) -> None:
    with private_file(file, durable=False) as opened:
        opened.write(b"trial")


def _append(file: Path, _: Path) -> None:
    with private_file(file, append=True, durable=False) as opened:
        opened.write(b"\n")


def _flush(file: Path, _: Path) -> None:
    with file.open("rb") as opened:
        if reason := flush_to_disk(opened.fileno(), file):
            _log.warning(
                "The file system of %s has no fsync (%s): after a power failure the next run may have to begin anew",
                file.parent,
                reason,
            )


def set_mode(descriptor: int, mode: int) -> None:
    """Give a file a mode; a file system that sets modes itself will do, if it lets no other users in.

    Raises:
        OSError: It refuses, and lets them in.
    """
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        if os.fstat(descriptor).st_mode & stat.S_IRWXO:
            raise


def _set_mode(file: Path, _: Path) -> None:
    with file.open("rb") as opened:
        set_mode(opened.fileno(), 0o600)


def _rename(file: Path, other: Path) -> None:
    other.touch(mode=0o600)
    file.replace(other)
    other.replace(file)


def _lock(file: Path, _: Path) -> None:
    with file_lock(file):
        pass


def _map(file: Path, _: Path) -> None:
    with file.open("rb") as opened:
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ).close()


WRITE = Call("write", "", "make it writable for the tap's user", _write)
APPEND = Call("append", "an interrupted download goes on so", "mount it so that files can grow", _append)
FLUSH = Call("fsync", "", "look after the disk or the mount, and run again", _flush)
MODE = Call("chmod", "other users must not read profiles", "mount it for the tap's user alone", _set_mode)
RENAME = Call("rename", "files are replaced as a whole", "mount it so that files can be renamed", _rename)
LOCK = Call(
    "flock",
    "locks keep two runs apart",
    "mount it with locks (NFS: a lock service, and not nolock; Lustre: flock)",
    _lock,
)
MAP = Call("mmap", "files are looked up in place", "mount it without direct I/O", _map)
REMOVE = Call("unlink", "old files go", "mount it so that files can be removed", lambda file, _: file.unlink())


def try_out(directory: Path, calls: Sequence[Call], *, setting: str, named: Path | None = None) -> None:
    """Make calls in a directory that is there, WRITE first and REMOVE last; errors name it, or `named` above it.

    Raises:
        DiskFullError: The disk is full.
        ConfigError: A call fails: it names directory, call and remedy.
    """
    file = directory / f".trial-{uuid.uuid4().hex}"
    other = file.with_suffix(".other")
    shown = named or directory
    try:
        for call in calls:
            try:
                call.make(file, other)
            except OSError as error:
                if error.errno in _FULL:
                    raise disk_full_error(directory) from None
                reason = error.strerror or "never free"
                problem = f"the file system fails at {call.name} ({reason}){call.need and f', and {call.need}'}"
                raise ConfigError(
                    f"{setting} {shown}{f' cannot be written ({reason})' if call is WRITE else f': {problem}'}:"
                    f" {call.remedy}, or set {setting} to a directory of a local disk"
                ) from None
    finally:
        for path in (file, other):
            with suppress(OSError):
                path.unlink(missing_ok=True)
