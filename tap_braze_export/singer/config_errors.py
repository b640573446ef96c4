"""Configuration errors that name the setting and never its value: settings hold keys and people's identifiers."""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from singer_sdk.configuration._dict_config import TRUTHY
from singer_sdk.plugin_base import JSONSchemaValidator
from singer_sdk.singerlib import Catalog

from tap_braze_export.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import ValidationError
    from singer_sdk import Tap

_TYPE_NAMES = {
    "integer": "an integer",
    "array": "a list",
    "object": "an object",
    "string": "a text",
    "boolean": "true or false",
}
_BOOLEAN_WORDS = {*TRUTHY, "false", "0", "no", "off"}
"""The SDK reads every word that it does not know as false."""


def describe_errors(tap: Tap) -> tuple[list[str], list[str]]:
    """Validate a tap's settings and fill in their defaults, as the SDK does.

    Returns:
        Errors of missing settings and errors of wrong values, each error once.
    """
    tap.append_builtin_config(tap.config_jsonschema)
    missing: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for error in JSONSchemaValidator(tap.config_jsonschema).iter_errors(tap._config):  # noqa: SLF001 - as the SDK does
        is_missing = error.validator == "required" and not error.absolute_path
        (missing if is_missing else wrong).update(dict.fromkeys(_describe(error, tap.name)))
    return [*missing], [*wrong]


def variables(tap: Tap | type[Tap]) -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """Yield the settings that the environment holds: name, JSON schema, variable and text. Blank ones are not set."""
    tap.append_builtin_config(tap.config_jsonschema)
    for setting, definition in tap.config_jsonschema["properties"].items():
        variable = _variable(tap.name, setting)
        text = os.environ.get(variable, "")
        if text.strip():
            yield setting, definition, variable, text


def environment_errors(tap: Tap | type[Tap]) -> list[str]:
    """List the environment variables whose text the SDK cannot convert."""
    return [
        f"the environment variable {variable} must hold {wanted}"
        for _, definition, variable, text in variables(tap)
        if (wanted := _unmet(text, definition.get("type", ())))
    ]


def _variable(tap_name: str, setting: str) -> str:
    """The environment variable of a setting."""
    return f"{tap_name}_{setting}".upper().replace("-", "_")


def _unmet(text: str, kinds: list[str]) -> str:
    """The kind of value that a text should hold and does not; empty if the SDK can convert it."""
    if "integer" in kinds:
        try:
            int(text)
        except ValueError:
            return "an integer"
    elif "boolean" in kinds:
        return "" if text.lower() in _BOOLEAN_WORDS else "true or false"
    elif "object" in kinds or ("array" in kinds and text.lstrip().startswith(("[", "{"))):
        try:
            json.loads(text)
        except ValueError:
            return "JSON"
    return ""


def forget_unknown_log_levels(name: str) -> list[str]:
    """Remove the environment variables that name no existing log level; return the names of these variables."""
    known = logging.getLevelNamesMapping()
    names = (_variable(name, "loglevel"), "LOGLEVEL")
    unknown = [variable for variable in names if os.environ.get(variable, "INFO").upper() not in known | {"": 0}]
    for variable in unknown:
        del os.environ[variable]
    return unknown


def check_config_file(path: str) -> None:
    """Check a file given with --config.

    Raises:
        ConfigError: If it cannot be used.
    """
    label = f"--config: {path}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{label} cannot be read ({error.strerror})") from None
    _json_object(content, label)


def checked_state(file: IO[str] | None) -> IO[str] | None:
    """Check a file given with --state; return one with the same content.

    Raises:
        ConfigError: If it cannot be used.
    """
    if file is None:
        return None
    text, state = _read(file, "--state")
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict) or not all(isinstance(bookmark, dict) for bookmark in bookmarks.values()):
        raise ConfigError(f"--state: {file.name} is no Singer state: its bookmarks must be an object for each stream")
    return io.StringIO(text)


def checked_catalog(file: IO[str] | None) -> IO[str] | None:
    """Check a file given with --catalog; return one with the same content.

    Raises:
        ConfigError: If it cannot be used.
    """
    if file is None:
        return None
    text, catalog = _read(file, "--catalog")
    try:
        Catalog.from_dict({"streams": catalog["streams"]})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(f"--catalog: {file.name} is no Singer catalog: make one with --discover") from None
    return io.StringIO(text)


def _read(file: IO[str], option: str) -> tuple[str, dict[str, Any]]:
    label = f"{option}: {file.name}"
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise ConfigError(f"{label} is no UTF-8 text") from None
    return text, _json_object(text, label)


def _json_object(content: str | bytes, label: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{label} is not JSON (line {error.lineno}, column {error.colno})") from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{label} is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{label} must hold a JSON object")
    return value


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
        names = [rule] if isinstance(rule, str) else rule
        yield f"{setting} must be {' or '.join(_TYPE_NAMES.get(kind, kind) for kind in names if kind != 'null')}"
    elif error.validator == "enum":
        yield f"{setting} must be one of {', '.join(str(allowed) for allowed in rule if allowed is not None)}"
    elif error.validator in {"minimum", "maximum"}:
        yield f"{setting} must be at {'least' if error.validator == 'minimum' else 'most'} {rule}"
    else:
        yield f"{setting or 'the configuration'} is not valid ({error.validator})"
