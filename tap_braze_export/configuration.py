"""Configuration errors in words that name the setting and never its value: settings hold keys and people's ids."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from singer_sdk.plugin_base import JSONSchemaValidator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError
    from singer_sdk import Tap

_KINDS = {"integer": "an integer", "array": "a list", "object": "an object", "string": "a text"}


def describe_errors(tap: Tap) -> list[str]:
    """What is wrong with a tap's settings one by one; fills in the defaults on the way, as the SDK does."""
    tap.append_builtin_config(tap.config_jsonschema)
    errors = JSONSchemaValidator(tap.config_jsonschema).iter_errors(tap._config)  # noqa: SLF001 - as the SDK does
    return [*dict.fromkeys(text for error in errors for text in _describe(error, tap.name))]


def environment_errors(json_schema: Mapping[str, Any], name: str) -> list[str]:
    """Which environment variables do not hold what their setting needs."""
    prefix = f"{name.upper().replace('-', '_')}_"
    errors = []
    for setting, definition in json_schema["properties"].items():
        variable, kinds = f"{prefix}{setting.upper()}", set(definition["type"])
        if variable not in os.environ:
            continue
        try:
            if "integer" in kinds:
                int(os.environ[variable])
            elif "object" in kinds or ("array" in kinds and os.environ[variable].lstrip().startswith(("[", "{"))):
                json.loads(os.environ[variable])
        except ValueError:
            wanted = "an integer" if "integer" in kinds else "JSON"
            errors.append(f"the environment variable {variable} must hold {wanted}")
    return errors


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
