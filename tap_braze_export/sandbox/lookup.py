"""Find the users that an identifier of the ids export names."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox.selection import Selection

if TYPE_CHECKING:
    from tap_braze_export.sandbox.segments import User

IDENTITY = Selection(
    frozenset({"braze_id", "external_id", "user_aliases", "email", "phone", "devices"}),
)


@lru_cache(maxsize=20_000)
def identity(user: User) -> dict[str, Any]:
    """The members by which a user can be found; empty for a line that is no object."""
    try:
        read = json.loads(user.line(IDENTITY))
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def is_named_by(user: dict[str, Any], kind: str, wanted: str | tuple[str, str]) -> bool:
    """True if an identifier names the user with these members."""
    if kind == "user_alias":
        aliases = user.get("user_aliases") or []
        return any((alias.get("alias_label"), alias.get("alias_name")) == wanted for alias in aliases)
    if kind == "device_id":
        devices = user.get("devices") or []
        return any(wanted in (device.get("device_id"), device.get("idfv")) for device in devices)
    if kind == "phone":  # Braze's own example leaves the plus sign out
        return user.get("phone") in {wanted, f"+{wanted}"}
    return user.get(kind) == wanted


_DECIMAL = re.compile(r"(?:user-|member|person|lead-|amp_|\(030\) |\+?1555)(\d{1,9})(?:@|$)")


def possible_indexes(identifier: str) -> set[int]:
    """The indexes of generated users that an identifier may name."""
    found: set[int] = set()
    if match := _DECIMAL.match(identifier):
        found |= {int(match[1]), int(match[1]) + 1}  # the next user may share the e-mail address
    if identifier.isascii() and identifier.isdigit():
        found.add(int(identifier) - 100000)
    last = identifier.rpartition("-")[2]
    for digits in (last[:10], identifier[16:24]):  # a UUID's last group, or the end of a braze_id
        try:
            found.add(int(digits, 16))
        except ValueError:
            continue
    return found
