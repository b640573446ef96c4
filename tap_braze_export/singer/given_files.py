"""The files given with --config, --state and --catalog, in any of the encodings of Unicode."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import IO, Any

from jsonschema import Draft202012Validator
from singer_sdk.singerlib import Catalog

from tap_braze_export.errors import ConfigError
from tap_braze_export.files.formats import HEAD_BYTES, encoding_of, foreign_format
from tap_braze_export.rows.exact_json import is_too_deep
from tap_braze_export.singer.config_errors import in_words
from tap_braze_export.singer.config_values import MAX_LEVELS

_NOT_JSON = re.compile(r"#|---|[\w.-]+\s*[:=]")
"""Matches the beginning of YAML and of a .env file."""
_STATE_WRAPPINGS = ("value", "singer_state")
"""Members that hold the STATE in a STATE message, and in what `meltano state get` prints."""
_TEXT = {"type": ["string", "null"]}
_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
_FLAG = {"type": ["boolean", "null"]}
"""True if a stream or column is selected; the text "false" would be a yes."""
_CHOICE = {"selected": _FLAG, "selected-by-default": _FLAG, "inclusion": _TEXT, "table-key-properties": _TEXTS}
_METADATA = {
    "required": ["breadcrumb", "metadata"],
    "properties": {
        "breadcrumb": {"type": "array", "items": {"type": "string"}},
        "metadata": {"type": "object", "properties": _CHOICE},
    },
}
_ENTRY = {
    "required": ["tap_stream_id", "schema"],
    "properties": {
        "tap_stream_id": {"type": "string"},
        "schema": {"type": "object"},
        "metadata": {"type": "array", "items": {"type": "object", **_METADATA}},
        "key_properties": _TEXTS,
        **dict.fromkeys(("stream", "replication_key", "stream_alias"), _TEXT),
    },
}
_CATALOG = {
    "required": ["streams"],
    "properties": {"streams": {"type": "array", "items": {"type": "object", **_ENTRY}}},
}
"""The members of a catalog that the SDK reads, with the types of Singer's specification; `declared` reads `schema`."""


def read_config(path: str) -> dict[str, Any]:
    """Read a file given with --config.

    Raises:
        ConfigError: If it cannot be used.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read ({error.strerror})") from None
    return _object(content, f"--config: {path}")


def read_state(file: IO[str]) -> dict[str, Any]:
    """Read a file given with --state.

    Raises:
        ConfigError: If it cannot be used.
    """
    state = _object(_content(file), f"--state: {file.name}")
    wrapping = next((name for name in _STATE_WRAPPINGS if isinstance(state.get(name), dict)), "")
    if wrapping and "bookmarks" not in state:
        raise ConfigError(
            f"--state: {file.name} has the STATE in its member {wrapping}: make a file of that member alone"
        )
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict) or not all(isinstance(bookmark, dict) for bookmark in bookmarks.values()):
        raise ConfigError(f"--state: {file.name} is no Singer state: its bookmarks must be an object for each stream")
    return state


def read_catalog(file: IO[str]) -> dict[str, Any]:
    """Read a file given with --catalog.

    Raises:
        ConfigError: If it cannot be used.
    """
    catalog = _object(_content(file), f"--catalog: {file.name}")
    faults = (fault for error in Draft202012Validator(_CATALOG).iter_errors(catalog) for fault in in_words(error))
    if fault := next(faults, ""):
        raise ConfigError(f"--catalog: {file.name} is no Singer catalog ({fault}): make one with --discover")
    try:
        Catalog.from_dict(catalog)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(f"--catalog: {file.name} is no Singer catalog: make one with --discover") from None
    return catalog


def _content(file: IO[str]) -> bytes:
    content: bytes = file.buffer.read()  # type: ignore[attr-defined]  # as text it would have the locale's encoding
    return content


def _object(content: bytes, label: str) -> dict[str, Any]:
    """Read a JSON object; Windows programs write UTF-16, or UTF-8 with a byte order mark."""
    if name := foreign_format(content[:HEAD_BYTES]):
        raise ConfigError(f"{label} is {name}, not JSON")
    try:
        text = content.decode(encoding_of(content))
    except UnicodeDecodeError:
        raise ConfigError(f"{label} is no text in UTF-8 or UTF-16: save it as UTF-8") from None
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{label} holds half of a character, an escape such as \\ud800 without its other half"
        ) from None
    except OverflowError:
        raise ConfigError(f"{label} is not JSON: it holds NaN, Infinity or a number that is too large") from None
    except json.JSONDecodeError as error:
        hint = ": it looks like YAML or a list of variables" if _NOT_JSON.match(text.lstrip()) else ""
        raise ConfigError(f"{label} is not JSON (line {error.lineno}, column {error.colno}){hint}") from None
    except ValueError:
        raise ConfigError(f"{label} is not JSON that can be read: it holds a number of thousands of digits") from None
    except RecursionError:
        raise ConfigError(f"{label} is not JSON that can be read: it is too deep") from None
    if is_too_deep(value, most_levels=MAX_LEVELS):
        raise ConfigError(f"{label} is not JSON that can be read: it is too deep")
    if not isinstance(value, dict):
        raise ConfigError(f"{label} must hold a JSON object")
    return value


def _finite(text: str) -> float:
    """Read a number with a fraction, or the name of none.

    Raises:
        OverflowError: It is NaN or infinite, so that it could not be written as JSON again.
    """
    if not math.isfinite(number := float(text)):
        raise OverflowError
    return number
