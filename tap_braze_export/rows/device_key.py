"""A device's key: Braze names no field that every device has."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

ANONYMOUS_PREFIX = "anonymous-"
"""Prefix of keys made from a hash, for devices without an id."""
_CANONICAL_ENCODER = msgspec.json.Encoder(decimal_format="number", order="deterministic")


def key_by_id(ids: Iterable[tuple[str | None, bool]]) -> str:
    """Return the first id that is set, hashed if its column is deselected; "" if none is set.

    Args:
        ids: The ids in their order of preference, each with True if its column is selected.
    """
    for value, selected in ids:
        if value:
            return value if selected else _digest(value.encode(), 16)
    return ""


def key_by_content(device: dict[str, Any]) -> str:
    """Return `anonymous-` and a short hash of all members but null and empty ones: the same in every run."""
    content = {name: value for name, value in device.items() if value is not None and value != ""}
    return f"{ANONYMOUS_PREFIX}{_digest(_CANONICAL_ENCODER.encode(content), 8)}"


def _digest(content: bytes, size: int) -> str:
    return hashlib.blake2b(content, digest_size=size).hexdigest()
