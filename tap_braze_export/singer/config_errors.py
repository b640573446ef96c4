"""Configuration errors that name the setting and never its value: settings hold keys and people's identifiers."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec
from singer_sdk.plugin_base import JSONSchemaValidator
from singer_sdk.singerlib import Catalog

from tap_braze_export.errors import ConfigError, unknown_names
from tap_braze_export.files.formats import HEAD_BYTES, encoding_of, foreign_format
from tap_braze_export.rows.exact_json import is_too_deep
from tap_braze_export.singer.config_values import read_text, unquoted, wanted
from tap_braze_export.singer.odd_values import MAX_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError
    from singer_sdk import Tap

_NOT_JSON = re.compile(r"#|---|[\w.-]+\s*[:=]")
"""Matches the beginning of YAML and of a .env file."""
_STATE_WRAPPINGS = ("value", "singer_state")
"""Members that hold the STATE in a STATE message, and in what `meltano state get` prints."""
_NAMES_OF_ORCHESTRATORS = ("_", "MELTANO_")


def describe_errors(tap: Tap) -> tuple[list[str], list[str]]:
    """Validate a tap's settings and fill in their defaults, as the SDK does.

    Returns:
        Errors of missing settings and errors of wrong values, each error once.
    """
    tap.append_builtin_config(tap.config_jsonschema)
    missing: dict[str, None] = {}
    wrong: dict[str, None] = {}
    schema = _sound(tap.config_jsonschema)
    for error in JSONSchemaValidator(schema).iter_errors(tap._config):  # noqa: SLF001 - as the SDK does
        is_missing = error.validator == "required" and not error.absolute_path
        (missing if is_missing else wrong).update(dict.fromkeys(_describe(error, tap.name)))
    return [*missing], [*wrong]


def variables(tap: Tap | type[Tap]) -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """Yield the settings that the environment holds: name, JSON schema, variable and text. Blank ones are not set."""
    tap.append_builtin_config(tap.config_jsonschema)
    for setting, definition in tap.config_jsonschema["properties"].items():
        variable = _variable(tap.name, setting)
        text = os.environ.get(variable, "")
        if unquoted(text):
            yield setting, definition, variable, text


def read_environment(tap: Tap | type[Tap]) -> tuple[dict[str, Any], list[str]]:
    """Read the settings that the environment holds.

    Returns:
        The settings, and an error for each variable whose text cannot be converted.
    """
    settings, errors = {}, []
    for setting, definition, variable, text in variables(tap):
        try:
            settings[setting] = read_text(text, definition)
        except ValueError as error:
            errors.append(f"the environment variable {variable} must hold {error}")
    return settings, errors


def unknown_settings(tap: Tap, *, with_environment: bool) -> list[str]:
    """Name the settings of the configuration, and of the environment, that the tap does not know, never their values.

    Orchestrators add names of their own: Meltano's begin with an underscore or MELTANO_.
    """
    known = [*tap.config_jsonschema["properties"]]
    given = [name for name in tap.config if name not in known and not name.upper().startswith(_NAMES_OF_ORCHESTRATORS)]
    described = unknown_names(given, known)
    if with_environment:
        prefix = _variable(tap.name, "")
        known_variables = {_variable(tap.name, name) for name in [*known, "loglevel"]}
        strangers = [name for name in os.environ if name.startswith(prefix) and name not in known_variables]
        strangers = [name for name in strangers if not name.removeprefix(prefix).startswith(_NAMES_OF_ORCHESTRATORS)]
        described += unknown_names(strangers, known_variables)
    return described


def _variable(tap_name: str, setting: str) -> str:
    """The environment variable of a setting."""
    return f"{tap_name}_{setting}".upper().replace("-", "_")


def forget_unknown_log_levels(name: str) -> list[str]:
    """Remove the environment variables that name no existing log level; return the names of these variables."""
    known = logging.getLevelNamesMapping()
    names = (_variable(name, "loglevel"), "LOGLEVEL")
    unknown = [variable for variable in names if os.environ.get(variable, "INFO").upper() not in known | {"": 0}]
    for variable in unknown:
        del os.environ[variable]
    return unknown


def read_config_file(path: str) -> dict[str, Any]:
    """Read a file given with --config, in any of the encodings of Unicode.

    Raises:
        ConfigError: If it cannot be used.
    """
    label = f"--config: {path}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{label} cannot be read ({error.strerror})") from None
    return _json_object(_text(content, label), label)


def checked_state(file: IO[str] | None) -> IO[str] | None:
    """Check a file given with --state; return one with the same content.

    Raises:
        ConfigError: If it cannot be used.
    """
    if file is None:
        return None
    text, state = _read(file, "--state")
    wrapping = next((name for name in _STATE_WRAPPINGS if isinstance(state.get(name), dict)), "")
    if wrapping and "bookmarks" not in state:
        raise ConfigError(
            f"--state: {file.name} has the STATE in its member {wrapping}: make a file of that member alone"
        )
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict) or not all(isinstance(bookmark, dict) for bookmark in bookmarks.values()):
        raise ConfigError(f"--state: {file.name} is no Singer state: its bookmarks must be an object for each stream")
    return io.StringIO(text)


class _Definition(msgspec.Struct):
    """The JSON schema of a stream, or of what is in it: the members that the SDK reads."""

    type: str | list[str] | None = None
    properties: dict[str, _Definition] | None = None
    items: _Definition | None = None


class _Choice(msgspec.Struct, rename="kebab"):
    """The members that select a stream or a column, or name a key; the text "false" would be a yes."""

    selected: bool | None = None
    selected_by_default: bool | None = None
    inclusion: str | None = None
    table_key_properties: list[str] | None = None


class _Metadata(msgspec.Struct):
    """Metadata of a stream, or of a column."""

    breadcrumb: list[str]
    metadata: _Choice


class _Entry(msgspec.Struct):
    """A stream of a catalog, with the types of Singer's specification."""

    tap_stream_id: str
    schema: _Definition
    metadata: list[_Metadata] = []
    stream: str | None = None
    key_properties: list[str] | None = None
    replication_key: str | None = None
    stream_alias: str | None = None


class _Catalog(msgspec.Struct):
    """A file given with --catalog."""

    streams: list[_Entry]


def checked_catalog(file: IO[str] | None) -> IO[str] | None:
    """Check a file given with --catalog; return one with the same content.

    Raises:
        ConfigError: If it cannot be used.
    """
    if file is None:
        return None
    text, catalog = _read(file, "--catalog")
    try:
        msgspec.convert(catalog, _Catalog)
        Catalog.from_dict({"streams": catalog["streams"]})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = f" ({error})" if isinstance(error, msgspec.ValidationError) else ""
        raise ConfigError(f"--catalog: {file.name} is no Singer catalog{where}: make one with --discover") from None
    return io.StringIO(text)


def _read(file: IO[str], option: str) -> tuple[str, dict[str, Any]]:
    label = f"{option}: {file.name}"
    content: bytes = file.buffer.read()  # type: ignore[attr-defined]  # as text it would have the locale's encoding
    text = _text(content, label)
    return text, _json_object(text, label)


def _text(content: bytes, label: str) -> str:
    """Decode a file: Windows programs write UTF-16, or UTF-8 with a byte order mark."""
    if name := foreign_format(content[:HEAD_BYTES]):
        raise ConfigError(f"{label} is {name}, not JSON")
    try:
        return content.decode(encoding_of(content))
    except UnicodeDecodeError:
        raise ConfigError(f"{label} is no text in UTF-8 or UTF-16: save it as UTF-8") from None


def _json_object(text: str, label: str) -> dict[str, Any]:
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


def _describe(error: ValidationError, tap_name: str) -> Iterator[str]:
    """Describe an error of the JSON schema's validation in plain words."""
    rule: Any = error.validator_value
    instance: Any = error.instance
    setting = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        for missing in rule:
            if missing not in instance:
                where = "" if setting else f" (in the environment: {_variable(tap_name, missing)})"
                yield f"{setting + '.' if setting else ''}{missing} is missing: set it{where}"
        return
    if error.validator == "type":
        yield f"{setting} must be {wanted(error.schema)}"
    elif error.validator == "enum":
        yield f"{setting} must be one of {', '.join(str(allowed) for allowed in rule if allowed is not None)}"
    elif error.validator in {"minimum", "maximum"}:
        yield f"{setting} must be at {'least' if error.validator == 'minimum' else 'most'} {rule}"
    elif error.validator == "anyOf":
        inner = max(error.context or (), key=_depth, default=error)
        if _depth(inner) > _depth(error):
            yield from _describe(inner, tap_name)
        else:
            yield f"{setting} must be {' or '.join(_choice(choice) for choice in rule)}"
    else:
        yield f"{setting or 'the configuration'} is not valid ({error.validator})"


def _depth(error: ValidationError) -> int:
    return len(error.absolute_path)


def _choice(definition: Mapping[str, Any]) -> str:
    """Say in words what one of several JSON schemas wants."""
    return json.dumps(definition["const"]) if "const" in definition else wanted(definition) or "null"


def _sound(definition: Any) -> Any:
    """A JSON schema without the texts that the SDK puts among the choices of `__else__`: a validator fails on them."""
    if isinstance(definition, list):
        return [_sound(each) for each in definition]
    if not isinstance(definition, dict):
        return definition
    return {
        name: [_sound(choice) for choice in value if isinstance(choice, dict)] if name == "anyOf" else _sound(value)
        for name, value in definition.items()
    }
