"""The body of an ids response, cut into one raw JSON text per user, so that one odd user costs no other."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},"]', re.DOTALL)
"""A string, a bracket or a comma; a quote alone begins a string that never ends."""
_OPENING = frozenset({b"{", b"["})
_CLOSING = frozenset({b"}", b"]"})
_KEY = re.compile(rb'\s*+("(?:[^"\\]++|\\.)*+")\s*+:', re.DOTALL)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class UnreadableBodyError(ValueError):
    """The body is no JSON, or only the beginning of one."""


class NoUsersError(ValueError):
    """The body is JSON, but no object with a list `users`."""


class IdsBody(msgspec.Struct):
    """The two lists of an ids response."""

    users: list[msgspec.Raw] | None
    invalid_user_ids: list[Any] | None = None


def read_ids_body(body: bytes) -> tuple[list[bytes], list[Any]]:
    """Return the raw JSON of each user, and the identifiers that matched nobody.

    A body that a strict decoder refuses is cut by its brackets, commas and strings alone: what is odd inside a user
    is judged later, as in a line of a file.

    Raises:
        UnreadableBodyError: It is no JSON, or incomplete.
        NoUsersError: It is JSON without a list of users.
    """
    try:
        content = _STRICT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_tolerantly(body.removeprefix(_BYTE_ORDER_MARK).strip())
    return [bytes(user) for user in content.users or ()], content.invalid_user_ids or []


_STRICT = msgspec.json.Decoder(IdsBody)


def _read_tolerantly(body: bytes) -> tuple[list[bytes], list[Any]]:
    if not body.startswith(b"{"):
        if _is_json(body):
            raise NoUsersError
        raise UnreadableBodyError
    members: dict[Any, bytes] = {}
    for piece in _pieces(body):
        key = _KEY.match(piece)
        if key is None:
            raise UnreadableBodyError
        members[_value(key[1])] = piece[key.end() :].strip()
    users = members.get("users", b"")
    if users == b"null":
        return [], _identifiers(members)
    if not users.startswith(b"["):
        raise NoUsersError
    return _pieces(users), _identifiers(members)


def _identifiers(members: dict[Any, bytes]) -> list[Any]:
    listed = members.get("invalid_user_ids", b"")
    return [_value(piece) for piece in _pieces(listed)] if listed.startswith(b"[") else []


def _pieces(text: bytes) -> list[bytes]:
    """Cut the text of one object or list at its own commas."""
    pieces: list[bytes] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign in _OPENING:
            depth += 1
            start = start or token.end()
        elif sign in _CLOSING:
            depth -= 1
        elif sign == b'"':
            raise UnreadableBodyError
        if depth == 0 or (depth == 1 and sign == b","):
            pieces.append(text[start : token.start()].strip())
            start = token.end()
        if depth == 0:
            break
    if depth or start != len(text) or text[:1] + text[-1:] not in {b"{}", b"[]"}:
        raise UnreadableBodyError
    return [piece for piece in pieces if piece]


def _value(text: bytes) -> Any:
    """Decode a key or an identifier; one that cannot be decoded stays as it is written."""
    shown = text.decode(errors="replace")
    try:
        return json.loads(shown, strict=False, parse_int=str)
    except (ValueError, RecursionError):
        return shown


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode(errors="replace"), strict=False, parse_int=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
