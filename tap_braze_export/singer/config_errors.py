"""Configuration errors in words that name the setting and never its value: settings hold keys and people's ids."""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from singer_sdk.plugin_base import JSONSchemaValidator
from singer_sdk.singerlib import Catalog

from tap_braze_export.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonschema import ValidationError
    from singer_sdk import Tap

_KINDS = {
    "integer": "an integer",
    "array": "a list",
    "object": "an object",
    "string": "a text",
    "boolean": "true or false",
}
_BOOLEANS = ("true", "1", "yes", "on", "false", "0", "no", "off", "")


def describe_errors(tap: Tap) -> tuple[list[str], list[str]]:
    """What is missing and what is wrong in a tap's settings; fills in the defaults on the way, as the SDK does."""
    tap.append_builtin_config(tap.config_jsonschema)
    missing: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for error in JSONSchemaValidator(tap.config_jsonschema).iter_errors(tap._config):  # noqa: SLF001 - as the SDK does
        is_missing = error.validator == "required" and not error.absolute_path
        (missing if is_missing else wrong).update(dict.fromkeys(_describe(error, tap.name)))
    return [*missing], [*wrong]


def environment_errors(tap: type[Tap]) -> list[str]:
    """Which environment variables do not hold what their setting needs."""
    tap.append_builtin_config(tap.config_jsonschema)
    prefix = f"{tap.name.upper().replace('-', '_')}_"
    errors = []
    for setting, definition in tap.config_jsonschema["properties"].items():
        text = os.environ.get(variable := f"{prefix}{setting.upper()}")
        if text and text.strip() and (wanted := _unmet(text, definition.get("type", ()))):
            errors.append(f"the environment variable {variable} must hold {wanted}")
    return errors


def _unmet(text: str, kinds: list[str]) -> str:
    """What a variable lacks, of the kinds that the SDK converts; empty if nothing."""
    if "integer" in kinds:
        try:
            int(text)
        except ValueError:
            return "an integer"
    elif "boolean" in kinds:
        return "" if text.lower() in _BOOLEANS else "true or false"
    elif "object" in kinds or ("array" in kinds and text.lstrip().startswith(("[", "{"))):
        try:
            json.loads(text)
        except ValueError:
            return "JSON"
    return ""


def forget_unknown_log_levels(name: str) -> list[str]:
    """Remove the variables that should set the log level and do not; their names."""
    known = logging.getLevelNamesMapping()
    names = (f"{name.upper().replace('-', '_')}_LOGLEVEL", "LOGLEVEL")
    unknown = [variable for variable in names if os.environ.get(variable, "INFO").upper() not in known | {"": 0}]
    for variable in unknown:
        del os.environ[variable]
    return unknown


def check_config_file(path: str) -> None:
    """See that a file given with --config can be used.

    Raises:
        ConfigError: If not.
    """
    what = f"--config: {path}"
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} cannot be read ({error.strerror})") from None
    _json_object(content, what)


def checked_state(file: IO[str] | None) -> IO[str] | None:
    """The same file given with --state, if it can be used.

    Raises:
        ConfigError: If not.
    """
    if file is None:
        return None
    text, state = _read(file, "--state")
    bookmarks = state.get("bookmarks", {})
    if not isinstance(bookmarks, dict) or not all(isinstance(bookmark, dict) for bookmark in bookmarks.values()):
        raise ConfigError(f"--state: {file.name} is no Singer state: its bookmarks must be an object for each stream")
    return io.StringIO(text)


def checked_catalog(file: IO[str] | None) -> IO[str] | None:
    """The same file given with --catalog, if it can be used.

    Raises:
        ConfigError: If not.
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
    what = f"{option}: {file.name}"
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is no UTF-8 text") from None
    return text, _json_object(text, what)


def _json_object(content: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{what} is not JSON (line {error.lineno}, column {error.colno})") from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{what} is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must hold a JSON object")
    return value


def _describe(error: ValidationError, name: str) -> Iterator[str]:
    rule: Any = error.validator_value
    instance: Any = error.instance
    setting = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        for missing in rule:
            if missing not in instance:
                variable = f"{name}_{missing}".upper().replace("-", "_")
                where = f" (in the environment: {variable})" if not setting else ""
                yield f"{setting + '.' if setting else ''}{missing} is missing: set it{where}"
        return
    if error.validator == "type":
        names = [rule] if isinstance(rule, str) else rule
        yield f"{setting} must be {' or '.join(_KINDS.get(kind, kind) for kind in names if kind != 'null')}"
    elif error.validator == "enum":
        yield f"{setting} must be one of {', '.join(str(allowed) for allowed in rule if allowed is not None)}"
    elif error.validator in {"minimum", "maximum"}:
        yield f"{setting} must be at {'least' if error.validator == 'minimum' else 'most'} {rule}"
    else:
        yield f"{setting or 'the configuration'} is not valid ({error.validator})"
