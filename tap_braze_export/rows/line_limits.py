"""Limits of a line: one that is longer, or denser, is unreadable, and is not decoded at all.

Users of Braze have a few kilobytes, very large ones a megabyte. A list of two million empty objects has no more bytes
than those, but needs a thousand times the memory.
"""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 2**20
"""Bytes of the longest line that is decoded: its text may need four bytes a character, in several copies."""
MAX_OBJECTS = 30_000
"""Objects of a line: each may become a row."""
MAX_VALUES = 500_000
"""Lists of a line, and its members and items, with which commas in its texts are counted."""
MAX_ESCAPES = 1_000_000
"""Escapes of a line whose text has to be made storable."""
_FEW_BYTES = 3 * MAX_OBJECTS
"""A shorter line has room for no more: each object takes three bytes, each value two."""
_SHORTEST_USER = b'{"braze_id":1}'


def can_be_user(line: bytes) -> bool:
    """True if a line is long enough to hold a user, and will not need far more memory than its bytes."""
    if len(line) <= _FEW_BYTES:
        return len(line) >= len(_SHORTEST_USER)
    return (
        len(line) <= MAX_LINE_BYTES
        and line.count(b"{") <= MAX_OBJECTS
        and line.count(b"[") <= MAX_VALUES
        and line.count(b",") <= MAX_VALUES
    )
