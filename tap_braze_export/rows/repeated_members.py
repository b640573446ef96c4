"""Finds raw JSON objects in which a member stands twice: the last one wins, and only decoding drops the first.

Members are counted in the text of many objects and in what the decoder makes of it, which has each name once.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FLAT_DECODER = msgspec.json.Decoder(list[dict[str, Raw]])
_DECODER, _ENCODER = msgspec.json.Decoder(), msgspec.json.Encoder()
_END_OF_NAME = b'":'
_BLANKS = b" \t\r"
_find_escaped_end = re.compile(rb"\\u00(?:22|3[aA])").search
"""Finds quotes and colons that are escaped: decoding makes ends of names of them where there are none."""


class _RepeatedError(Exception):
    """A member stands twice in an object."""


def repeated_members(contents: Sequence[bytes]) -> Iterator[int]:
    """Yield the index of each raw JSON value with an object, at any depth, in which a member stands twice."""
    nested = [content.find(b"{", 1) > 0 for content in contents]
    for are_nested in (False, True):
        indexes = [index for index, is_nested in enumerate(nested) if is_nested is are_nested]
        if indexes and _may_repeat([contents[index] for index in indexes], are_nested=are_nested):
            yield from (index for index in indexes if _repeats(contents[index]))


def _may_repeat(contents: Sequence[bytes], *, are_nested: bool) -> bool:
    joined = b"[%b]" % b",".join(contents)
    names = joined.translate(None, _BLANKS).count(_END_OF_NAME)
    try:
        if are_nested:
            different = _ENCODER.encode(_DECODER.decode(joined)).count(_END_OF_NAME)
        else:
            different = sum(map(len, _FLAT_DECODER.decode(joined)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return names != different or bool(b"\\" in joined and _find_escaped_end(joined))


def _repeats(content: bytes) -> bool:
    try:
        json.loads(content, object_pairs_hook=_once)
    except (_RepeatedError, ValueError, RecursionError):
        return True
    return False


def _once(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) < len(members):
        raise _RepeatedError
