"""Settings as text and as templates make them: converted to the types of their JSON schema, odd ones named."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from typing import TYPE_CHECKING, Any

from singer_sdk.configuration._dict_config import TRUTHY

from tap_braze_export.rows.exact_json import is_too_deep
from tap_braze_export.settings import IDENTIFIER_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LEVELS = 100
"""Lists and objects inside each other in a setting or a file: more make other programs fail."""
_FALSY = ("false", "0", "no", "off")
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,30})(\.0*)?", re.ASCII)
_SEPARATOR = "flattening_separator"
"""The text setting in which a blank at an end, and a quotation mark, have a meaning."""
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}
_ENDS_OF_IDENTIFIERS = "".join(map(chr, range(32)))
"""Characters that are taken off the ends of an identifier: an external id may begin with a blank."""
_UNDECLARED: dict[str, Any] = {
    "batch_config": {
        "properties": {
            "batch_size": {"type": ["integer", "null"]},
            "storage": {"properties": {"params": {"type": ["object", "null"]}}},
        }
    }
}
"""Settings inside others that the SDK reads though its JSON schema does not declare them."""
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLACEHOLDER = re.compile(r"\$\{[^{}]*\}|\{\{.*\}\}|(?<![^/])\$[A-Za-z_]\w*(?=/|$)")
"""A variable that an env file or a secret keeps as it is: ${NAME}, {{ name }}, $NAME/folder."""
_WITH_LINES = ("bucket_options", "stream_maps", "stream_map_config", "faker_config")
"""Settings whose texts may have several lines: keys, and expressions."""


def converted_config(config: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Convert each setting to the type of its JSON schema; one that cannot be converted stays as it is.

    Env files, secrets and templates leave quotation marks and line ends around texts: these go, and what is blank then
    is not set.
    """
    result = {}
    for name, value in config.items():
        definition = definitions.get(name, {})
        if isinstance(value, str) and definition and not unquoted(value).strip():
            continue
        new = value
        if not is_too_deep(value, most_levels=MAX_LEVELS):
            new = _converted(_converted(value, definition), _UNDECLARED.get(name, {}))
        if isinstance(new, str) and "string" in kinds_of(definition):
            new = unquoted(new, strip=name != _SEPARATOR)
        elif isinstance(new, list) and "string" in kinds_of(definition.get("items")):
            new = [_item(item, is_identifier=name in IDENTIFIER_KINDS) for item in new]
        result[name] = new
    return result


def odd_values(config: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """Name the settings, converted ones, whose values no program can use or nobody means; values are never shown."""
    faults = {name: _faults(name, value, kinds_of(definitions.get(name))) for name, value in config.items()}
    return [f"{name} {fault}" for name, found in faults.items() for fault in itertools.islice(found, 1)]


def _faults(name: str, value: Any, kinds: set[str]) -> Iterator[str]:
    if is_too_deep(value, most_levels=MAX_LEVELS):
        yield "is nested too deep"
    if any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(value)):
        yield "holds NaN or an infinite number"
    if name in IDENTIFIER_KINDS:
        return  # people's data: odd ones are left out of a resync
    texts = [leaf for leaf in _leaves(value) if isinstance(leaf, str)]
    if any(map(_NO_TEXT.search, texts)):
        yield "holds NUL, or half of a character"
    if name in _WITH_LINES or name == "api_url":
        return  # an address of Braze has rules of its own
    if isinstance(value, dict) and isinstance(storage := value.get("storage"), dict):
        texts = [leaf for leaf in _leaves({**value, "storage": {**storage, "params": None}}) if isinstance(leaf, str)]
    if any(map(_CONTROL.search, texts)):
        yield "holds a line end or another control character: remove it"
    is_plain = isinstance(value, list) or ("string" in kinds and name != _SEPARATOR)
    if is_plain and any(text[:1] in _QUOTES for text in texts):
        yield "begins with a quotation mark: remove it"
    if name != "custom_attributes" and any(map(_PLACEHOLDER.search, texts)):
        yield "holds a placeholder that nothing has replaced: write the value itself"


def _leaves(value: Any) -> Iterator[Any]:
    """Yield every key and plain value in a value that is not too deep."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def unquoted(text: str, *, strip: bool = True) -> str:
    """Text without the quotation marks around all of it, and without blanks at its ends."""
    text = text.strip() if strip else text
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip() if strip else text[1:-1]
    return text


def _item(item: Any, *, is_identifier: bool) -> Any:
    """An item of a list; quotation marks may be part of an identifier."""
    if not isinstance(item, str):
        return item
    return item.strip(_ENDS_OF_IDENTIFIERS) if is_identifier else unquoted(item)


def _converted(value: Any, definition: Any) -> Any:
    """Convert a value to the type of its JSON schema, and what is inside it; what cannot be converted stays."""
    kinds = kinds_of(definition)
    if isinstance(value, str) and kinds and "string" not in kinds:
        try:
            value = read_text(value, definition)
        except ValueError:
            return value
    if isinstance(value, dict):
        if "array" in kinds and "object" not in kinds and "object" in kinds_of(definition.get("items")):
            return [_converted(value, definition["items"])]
        return {name: _converted(inner, _member(definition, name)) for name, inner in value.items()}
    if isinstance(value, list) and "array" in kinds:
        return [_converted(item, definition.get("items")) for item in value]
    return _converted_number(value, kinds)


def _converted_number(value: Any, kinds: set[str]) -> Any:
    """Convert 3.0 to an integer, and 0 and 1 to a boolean, where the JSON schema wants these."""
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        return int(value)
    return bool(value) if kinds == {"boolean"} and type(value) is int and value in {0, 1} else value


def read_text(text: str, definition: Mapping[str, Any]) -> Any:
    """Read the text of a setting.

    Raises:
        ValueError: If it is not what the JSON schema wants; the error says what that is.
    """
    kinds = kinds_of(definition)
    stripped, bare = text.strip(), unquoted(text)
    found: Any = None
    if "integer" in kinds:
        whole = _WHOLE_NUMBER.fullmatch(bare)
        found = int(whole[1]) if whole else None
    elif "boolean" in kinds:
        word = bare.lower()
        found = word in TRUTHY if word in {*TRUTHY, *_FALSY} else None
    elif "array" in kinds:
        found = _list(stripped, has_texts="string" in kinds_of(definition.get("items")))
    elif "object" in kinds:
        found = _object(stripped)
    else:
        return text
    if found is None:
        raise ValueError(wanted(definition))
    return found


def wanted(definition: Any) -> str:
    """Say in words what a JSON schema wants, with an example."""
    words = {
        "integer": "an integer such as 3",
        "number": "a number such as 1.5",
        "boolean": "true or false",
        "array": f"a list, as JSON: {json.dumps(_example(definition))}",
        "object": f"an object, as JSON: {json.dumps(_example(definition))}",
        "string": f"a text in quotes such as {json.dumps((definition.get('enum') or ['12345'])[0])}",
    }
    return " or ".join(words.get(kind, kind) for kind in sorted(kinds_of(definition)))


def kinds_of(definition: Any) -> set[str]:
    """The types that a JSON schema allows, but null."""
    given = definition.get("type", ()) if isinstance(definition, dict) else ()
    return ({given} if isinstance(given, str) else set(given)) - {"null"}


def _list(text: str, *, has_texts: bool) -> list[Any] | None:
    """Read a JSON list, a single JSON object or, where the items are texts, texts separated by commas or newlines."""
    value = _json(text)
    if isinstance(value, list):
        return value
    if inner := _inner(text):
        return _list(inner, has_texts=has_texts)
    if not has_texts:
        return [value] if isinstance(value, dict) else None
    if text.startswith("[") or isinstance(value, dict):
        return None
    try:
        items = [unquoted(item) for row in csv.reader(text.splitlines(), skipinitialspace=True) for item in row]
    except csv.Error:
        return None
    return [item for item in items if item] or None


def _object(text: str) -> dict[str, Any] | None:
    """Read a JSON object."""
    value, inner = _json(text), _inner(text)
    if isinstance(value, dict):
        return value
    return _object(inner) if inner else None


def _inner(text: str) -> str:
    """The text inside the quotation marks around all of it; empty if these are those of its first and last item."""
    value = _json(text)
    if isinstance(value, str):
        return value.strip()
    inner = text[1:-1].strip()
    is_whole = text[:1] not in inner or inner.startswith(("[", "{"))
    return inner if is_whole and _QUOTES.get(text[:1]) == text[-1:] else ""


def _json(text: str) -> Any:
    """Read JSON; None for anything else, and for what is too deep."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if is_too_deep(value, most_levels=MAX_LEVELS) else value


def _member(definition: Any, name: str) -> Any:
    """The JSON schema of a member of an object."""
    if not isinstance(definition, dict):
        return None
    return definition.get("properties", {}).get(name, definition.get("additionalProperties"))


def _example(definition: Any) -> Any:
    """An example of a value."""
    kinds = kinds_of(definition)
    if "array" in kinds:
        items = definition.get("items")
        return ["first", "second"] if "string" in kinds_of(items) else [_example(items)]
    if "object" not in kinds:
        allowed = definition.get("enum") if isinstance(definition, dict) else None
        return allowed[0] if allowed else "text"
    members = definition.get("properties") or {}
    named = {name: _example(member) for name, member in members.items() if not name.startswith("_")}
    return named or {"name": _example(definition.get("additionalProperties"))}
