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
_SUCCESS = "success"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NoAnswerError(ValueError):
    """The body says nothing about anybody, although its status is one of success; the text says what it is."""


class IdsBody(msgspec.Struct):
    """The members of an ids response."""

    users: list[msgspec.Raw]
    invalid_user_ids: list[Any] | None = None
    message: Any = None
    errors: Any = None


def read_ids_body(body: bytes) -> tuple[list[bytes], list[Any]]:
    """Return the raw JSON of each user, and the identifiers that matched nobody.

    A body that a strict decoder refuses is cut by its brackets, commas and strings alone: what is odd inside a user
    is judged later, as in a line of a file.

    Raises:
        NoAnswerError: It is no JSON, or incomplete, or does not say that Braze has looked for the users.
    """
    try:
        content = _STRICT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = _read_tolerantly(body.removeprefix(_BYTE_ORDER_MARK).strip(), len(body))
    users, listed = [bytes(user) for user in content.users], content.invalid_user_ids or []
    if content.message is None:
        has_succeeded = bool(users or listed)
    else:
        has_succeeded = isinstance(content.message, str) and content.message.strip().lower() == _SUCCESS
    if not has_succeeded:
        raise NoAnswerError("without the message success")
    if content.errors and not (users or listed):
        raise NoAnswerError("with errors instead of users")
    if users and not any(user.startswith(b"{") for user in users):
        raise NoAnswerError("with users that are no objects")
    return users, listed


_STRICT = msgspec.json.Decoder(IdsBody)


def _read_tolerantly(body: bytes, length: int) -> IdsBody:
    try:
        members = _members(body)
        listed = members.get("invalid_user_ids", b"")
        if (users := members.get("users", b"")).startswith(b"["):
            return IdsBody(
                [msgspec.Raw(user) for user in _pieces(users)],
                [_value(piece) for piece in _pieces(listed)] if listed.startswith(b"[") else [],
                _value(members.get("message", b"null")),
                _value(members.get("errors", b"null")),
            )
    except _UnreadableBodyError:
        raise NoAnswerError(f"with unreadable JSON ({length} bytes)") from None
    raise NoAnswerError("without users")


class _UnreadableBodyError(ValueError):
    """The body is no JSON, or only the beginning of one."""


def _members(body: bytes) -> dict[Any, bytes]:
    """Return the members of the body, each as its text; none if it is JSON, but no object."""
    if not body.startswith(b"{"):
        if _is_json(body):
            return {}
        raise _UnreadableBodyError
    members: dict[Any, bytes] = {}
    for piece in _pieces(body):
        key = _KEY.match(piece)
        if key is None:
            raise _UnreadableBodyError
        members[_value(key[1])] = piece[key.end() :].strip()
    return members


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
            raise _UnreadableBodyError
        if depth == 0 or (depth == 1 and sign == b","):
            pieces.append(text[start : token.start()].strip())
            start = token.end()
        if depth == 0:
            break
    if depth or start != len(text) or text[:1] + text[-1:] not in {b"{}", b"[]"}:
        raise _UnreadableBodyError
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
