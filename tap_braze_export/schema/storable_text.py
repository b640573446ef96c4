"""Text that databases can store: of a JSON text, what none of them does is replaced."""

from __future__ import annotations

import re

_STORABLE_OR_NOT = re.compile(
    rb"(?P<storable>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u0000|u[dD][89a-fA-F])[\s\S])"
    rb"|\\u[0-9a-fA-F]{4}|\xed[\xa0-\xbf][\x80-\xbf]"
)
"""Escapes that stay as they are; else NUL and lone surrogates, escaped or raw, which no database stores as text."""


def storable(text: bytes) -> bytes:
    """JSON text in which NUL and lone surrogates, escaped or raw, are U+FFFD."""
    return _STORABLE_OR_NOT.sub(lambda found: found["storable"] or b"\\ufffd", text)
