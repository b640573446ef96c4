"""A process that reads files, started by `processes.py`: it lives as long as the pipe whose number it is given."""

from __future__ import annotations

import ctypes
import pickle
import signal
import sys
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.workers.file_reader import FileReader

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
_KEPT_BYTES = 128 * 2**20
"""Free memory at the end of the heap that is not given back."""
_LARGEST_HEAP_BYTES = 32 * 2**20
"""Larger pieces of memory are mapped on their own, and given back when they are freed."""


def main() -> None:
    """Read files until the run closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # it ends without a traceback
    warnings.simplefilter("ignore")  # the run shows its own
    keep_freed_memory()
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        reader: FileReader = connection.recv()
        while True:
            connection.send_bytes(pickle.dumps(reader.result(connection.recv())))


def keep_freed_memory() -> None:
    """Have the C library keep freed memory: it would return it to the system and fetch it again for each file.

    All threads share one heap, so that memory freed by a download serves the rows. This saves a tenth of the tap's time
    on Linux with glibc; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_ARENA_MAX, 1)


if __name__ == "__main__":
    main()
