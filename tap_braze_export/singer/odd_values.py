"""Finds values of settings that no program can use: they are named, never shown."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.exact_json import is_too_deep
from tap_braze_export.settings import IDENTIFIER_KINDS
from tap_braze_export.singer.config_values import begins_with_quote, kinds_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LEVELS = 100
"""Lists and objects inside each other in a setting or a file: more make other programs fail."""
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLACEHOLDER = re.compile(r"\$\{[^{}]*\}|\{\{.*\}\}|(?<![^/])\$[A-Za-z_]\w*(?=/|$)")
"""A variable that an env file or a secret keeps as it is: ${NAME}, {{ name }}, $NAME/folder."""
_WITH_LINES = ("bucket_options", "stream_maps", "stream_map_config", "faker_config")
"""Settings whose texts may have several lines: keys, and expressions."""
_CHECKED_ELSEWHERE = (*IDENTIFIER_KINDS, *_WITH_LINES, "api_url")
"""Odd identifiers are left out of a resync, and an address of Braze has rules of its own."""
_SEPARATOR = "flattening_separator"


def odd_settings(config: Mapping[str, Any]) -> list[str]:
    """Name the settings whose values no program can use: too deep, no number, or with halves of characters or NUL.

    Identifiers are people's data: odd ones are left out of a resync, not refused.
    """
    errors = []
    for name, value in config.items():
        if is_too_deep(value, most_levels=MAX_LEVELS):
            errors.append(f"{name} is nested too deep")
        elif any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(value)):
            errors.append(f"{name} holds NaN or an infinite number")
        elif name not in IDENTIFIER_KINDS and any(
            isinstance(leaf, str) and _NO_TEXT.search(leaf) for leaf in _leaves(value)
        ):
            errors.append(f"{name} holds NUL, or half of a character")
    return errors


def odd_texts(config: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """Name the settings, converted ones, whose texts nobody means: with control characters, quotes or placeholders."""
    errors = []
    for name, value in config.items():
        if name in _CHECKED_ELSEWHERE:
            continue
        texts = [leaf for leaf in _leaves(_without_params(value)) if isinstance(leaf, str)]
        is_plain = "string" in kinds_of(definitions.get(name)) and name != _SEPARATOR
        if any(_CONTROL.search(text) for text in texts):
            errors.append(f"{name} holds a line end or another control character: remove it")
        elif (is_plain or isinstance(value, list)) and any(map(begins_with_quote, texts)):
            errors.append(f"{name} begins with a quotation mark: remove it")
        elif name != "custom_attributes" and any(map(_PLACEHOLDER.search, texts)):
            errors.append(f"{name} holds a placeholder that nothing has replaced: write the value itself")
    return errors


def _without_params(value: Any) -> Any:
    """The value of a setting without the options of a storage, which may have several lines, too."""
    storage = value.get("storage") if isinstance(value, dict) else None
    return {**value, "storage": {**storage, "params": None}} if isinstance(storage, dict) else value


def _leaves(value: Any) -> Iterator[Any]:
    """Yield every key and plain value in a value that is not too deep."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value
