"""Delivered files on the local disk: private, complete, and never more than fits."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tap_braze_export.errors import ExportError, InterruptedExportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedWriter
    from pathlib import Path


def free_bytes(directory: Path) -> int:
    """Free space of the disk that holds a directory."""
    return shutil.disk_usage(directory).free


def full(directory: Path) -> ExportError:
    """The error of a disk without room."""
    return InterruptedExportError(
        f"the disk of {directory} is full: free some space there, or set spool_dir to a larger disk"
    )


@contextmanager
def private_file(path: Path, *, append: bool = False, durable: bool = True) -> Iterator[BufferedWriter]:
    """A file that only its owner can read; if `durable`, it is on disk when the block ends.

    Raises:
        ExportError: The disk is full; the file is removed then, so that other exports can go on.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if append else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "ab" if append else "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        path.unlink(missing_ok=True)
        raise full(path.parent) from None


def file_name(text: str) -> str:
    """A name from outside as one line that is no path: its last component, control characters replaced."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text.rpartition("/")[2])[:255]
