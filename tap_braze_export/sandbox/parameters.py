"""The parameters of a request: read, or refused as Braze refuses them."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from typing import Any

# RFC 3339. Braze does not say what a time without offset means, so the sandbox takes none.
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Refusal(Exception):  # noqa: N818 - an answer, not an error of the sandbox
    """A response other than success."""

    def __init__(self, status: int, message: str, key: str = "message") -> None:
        """Respond with this status and `{key: message}`."""
        super().__init__(message)
        self.status, self.message, self.key = status, message, key


def strings(body: dict[str, Any], name: str) -> list[str]:
    """A list of texts, empty if the request does not have it."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(400, f"The {name} parameter must be an array of strings")
    return value


def fields(body: dict[str, Any]) -> list[str]:
    """The requested fields, of which there is at least one."""
    named = strings(body, "fields_to_export")
    if not named:
        raise Refusal(400, "The fields_to_export parameter is required")
    return named


def kind(body: dict[str, Any]) -> str:
    """The format of the files, zip unless the request names another."""
    wanted = body.get("output_format") or "zip"
    if wanted not in ("zip", "gzip"):
        raise Refusal(400, "The output_format must be zip or gzip")
    return str(wanted)


def updated_since(body: dict[str, Any]) -> float | None:
    """The time in epoch seconds since which users must have been updated, None if the request has no such limit."""
    wanted = body.get("user_last_updated_at")
    if wanted is None:
        return None
    if isinstance(wanted, str) and _DATE_TIME.fullmatch(wanted):
        with contextlib.suppress(ValueError):  # such as February 30
            return datetime.fromisoformat(wanted).timestamp()
    raise Refusal(400, "The user_last_updated_at parameter must be a date-time with Z or an offset")


def identifiers(body: dict[str, Any]) -> list[tuple[str, str | tuple[str, str]]]:
    """Kind and value of every identifier of a request but the external ids."""
    wanted: list[tuple[str, str | tuple[str, str]]] = []
    aliases = body.get("user_aliases") or []
    if not isinstance(aliases, list) or not all(isinstance(alias, dict) for alias in aliases):
        raise Refusal(400, "The user_aliases parameter must be an array of objects")
    wanted += [("user_alias", (str(a.get("alias_label")), str(a.get("alias_name")))) for a in aliases]
    for given_as, name in (
        ("device_id", "device_id"),
        ("email", "email_address"),
        ("phone", "phone"),
        ("braze_id", "braze_id"),
    ):
        value = body.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise Refusal(400, f"The {name} parameter must be a single string")
        wanted.append((given_as, value))
    return wanted
