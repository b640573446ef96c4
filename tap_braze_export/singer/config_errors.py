"""Configuration errors that name the setting and never its value: settings hold keys and people's identifiers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from singer_sdk.plugin_base import JSONSchemaValidator

from tap_braze_export.errors import unknown_names
from tap_braze_export.singer.config_values import read_text, unquoted, wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError

_NAMES_OF_ORCHESTRATORS = ("_", "MELTANO_")


def config_errors(config: dict[str, Any], schema: Mapping[str, Any], prefix: str) -> tuple[list[str], list[str]]:
    """Validate settings and fill in their defaults, as the SDK does.

    Returns:
        Errors of missing settings and errors of wrong values, each error once.
    """
    missing: dict[str, None] = {}
    wrong: dict[str, None] = {}
    for error in JSONSchemaValidator(_sound(schema)).iter_errors(config):
        is_missing = error.validator == "required" and not error.absolute_path
        (missing if is_missing else wrong).update(dict.fromkeys(in_words(error, prefix)))
    return [*missing], [*wrong]


def _sound(schema: Any) -> Any:
    """A JSON schema without the texts that the SDK puts among the choices of `__else__`: a validator fails on them."""
    if isinstance(schema, dict):
        choices = {"anyOf": [each for each in schema["anyOf"] if isinstance(each, dict)]} if "anyOf" in schema else {}
        return {name: _sound(value) for name, value in (schema | choices).items()}
    return [_sound(each) for each in schema] if isinstance(schema, list) else schema


def in_words(error: ValidationError, prefix: str = "") -> Iterator[str]:
    """Describe an error of a JSON schema's validation; `prefix` is that of the settings' environment variables."""
    rule: Any = error.validator_value
    place = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        for missing in rule:
            if missing not in error.instance:  # type: ignore[operator]
                where = f" (in the environment: {prefix}{missing.upper()})" if prefix and not place else ""
                yield f"{place + '.' if place else ''}{missing} is missing: set it{where}"
    elif error.validator == "type":
        yield f"{place} must be {wanted(error.schema)}"
    elif error.validator == "enum":
        yield f"{place} must be one of {', '.join(str(allowed) for allowed in rule if allowed is not None)}"
    elif error.validator in {"minimum", "maximum"}:
        yield f"{place} must be at {'least' if error.validator == 'minimum' else 'most'} {rule}"
    elif error.validator == "anyOf":
        inner = max(error.context or (), key=_depth, default=error)
        if _depth(inner) > _depth(error):
            yield from in_words(inner)
        else:
            yield f"{place} must be {' or '.join(_choice(choice) for choice in rule)}"
    else:
        yield f"{place or 'the configuration'} is not valid ({error.validator})"


def _depth(error: ValidationError) -> int:
    return len(error.absolute_path)


def _choice(schema: Mapping[str, Any]) -> str:
    """Say in words what one of several JSON schemas wants."""
    return json.dumps(schema["const"]) if "const" in schema else wanted(schema) or "null"


def read_environment(definitions: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Read the settings that the environment holds; blank ones are not set.

    Returns:
        The settings, and an error for each variable whose text cannot be converted.
    """
    settings, errors = {}, []
    for setting, definition in definitions.items():
        variable = f"{prefix}{setting.upper()}"
        text = os.environ.get(variable, "")
        if unquoted(text):
            try:
                settings[setting] = read_text(text, definition)
            except ValueError as error:
                errors.append(f"the environment variable {variable} must hold {error}")
    return settings, errors


def unknown_settings(config: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> list[str]:
    """Name the settings, and the variables that begin with a prefix, that the tap does not know, never their values.

    Orchestrators add names of their own: Meltano's begin with an underscore or MELTANO_.
    """
    variables = {f"{prefix}{name.upper()}" for name in (*definitions, "loglevel")}
    given = [
        name for name in config if name not in definitions and not name.upper().startswith(_NAMES_OF_ORCHESTRATORS)
    ]
    strangers = [
        name
        for name in os.environ
        if prefix
        and name.startswith(prefix)
        and name not in variables
        and not name.removeprefix(prefix).startswith(_NAMES_OF_ORCHESTRATORS)
    ]
    return unknown_names(given, definitions) + unknown_names(strangers, variables)
