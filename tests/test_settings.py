"""Settings: null and blank mean "not set" for every one of them, and one typed object holds them all."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import ConfigValidationError

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.settings import IDENTIFIER_SETTINGS, Settings
from tap_braze_export.tap import TapBrazeExport
from tests.support.runs import settings, sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX = "TAP_BRAZE_EXPORT_"
BASE = {"api_url": "https://rest.iad-01.braze.com", "api_key": "a-key", "segment_ids": ["one"]}


def schemas(of: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON schemas of the settings in a configuration's schema, with those that the SDK adds to it."""
    TapBrazeExport.append_builtin_config(of)
    properties: dict[str, dict[str, Any]] = of["properties"]
    return properties


SCHEMAS = schemas(TapBrazeExport.config_jsonschema)
SDK_SETTINGS = set(schemas({"properties": {}}))
TYPED_SDK_SETTINGS = {"batch_config", "emit_activate_version_messages"}
UNSET = [None, "", "  ", "\t\n"]
BLANK = ["", "  ", "\t"]
EVERY_SETTING = pytest.mark.parametrize("name", SCHEMAS)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of the tap."""
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    return monkeypatch


def outcome(config: Mapping[str, Any], *, parse_environment: bool = False) -> tuple[list[str], dict[str, Any]]:
    """The errors of a configuration, or the settings that are in force."""
    try:
        tap = TapBrazeExport(config=dict(config), parse_env_config=parse_environment)
    except ConfigValidationError as error:
        return error.errors, {}
    assert tap.settings == Settings.of(tap.config)
    return [], dict(tap.config)


def without(name: str) -> dict[str, Any]:
    """A valid configuration without this setting, which may make it invalid."""
    return {setting: value for setting, value in BASE.items() if setting != name}


@EVERY_SETTING
@pytest.mark.parametrize("value", UNSET)
def test_unset_in_a_configuration_is_the_same_as_absent(name: str, value: str | None) -> None:
    """No error but those of an absent setting, and its default in force."""
    errors, found = outcome(without(name) | {name: value})
    assert (errors, found) == outcome(without(name))
    assert bool(errors) == (name in BASE)
    assert found.get(name) == SCHEMAS[name].get("default")


@EVERY_SETTING
@pytest.mark.parametrize("value", BLANK)
def test_blank_in_the_environment_is_the_same_as_absent(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(f"{PREFIX}{name.upper()}", value)
    errors, found = outcome(without(name), parse_environment=True)
    assert (errors, found) == outcome(without(name))
    assert found.get(name) == SCHEMAS[name].get("default")


@pytest.mark.parametrize("value", BLANK)
def test_blank_in_the_environment_leaves_the_file_as_it_is(environment: pytest.MonkeyPatch, value: str) -> None:
    given = {
        **BASE,
        "workers": 3,
        "output_format": "gzip",
        "global_control_group": True,
        "custom_attributes": {"a": "string"},
    }
    for name in SCHEMAS:
        environment.setenv(f"{PREFIX}{name.upper()}", value)
    assert outcome(given, parse_environment=True) == outcome(given)


@pytest.mark.parametrize("name", IDENTIFIER_SETTINGS)
def test_unset_identifiers_make_no_resync(environment: pytest.MonkeyPatch, name: str) -> None:
    """Null, blank or empty, in a configuration or in the environment."""
    nothing: list[Any] = [*UNSET, []]
    for unset in nothing:
        assert not Settings.of({**BASE, name: unset}).is_resync
    for value in BLANK:
        environment.setenv(f"{PREFIX}{name.upper()}", value)
        assert not TapBrazeExport(config=dict(BASE), parse_env_config=True).settings.is_resync
    assert Settings.of({**BASE, name: ["somebody"]}).is_resync


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_run_with_unset_settings_is_the_run_without_them(tmp_path: Path, value: str | None) -> None:
    with Sandbox(users=12) as sandbox:
        plain = settings(sandbox, tmp_path)
        unset = {name: value for name in SCHEMAS if name not in plain}
        runs = [sync(config) for config in (plain, plain | unset)]
    users, others = (run.rows("users") for run in runs)
    assert users == others != []
    assert runs[0].of_type("SCHEMA") == runs[1].of_type("SCHEMA")


def test_null_inside_a_setting_is_left_alone() -> None:
    """The SDK gives it a meaning: a stream map of null removes a stream or column."""
    nested = {
        "stream_maps": {"devices": None, "users": {"email": None}},
        "batch_config": {
            "encoding": {"format": "jsonl"},
            "storage": {"root": "x", "prefix": None},
            "batch_size": None,
        },
    }
    errors, found = outcome(BASE | nested)
    assert not errors
    assert {name: found[name] for name in nested} == nested
    typed = Settings.of(found)
    assert typed.batch_config == nested["batch_config"]
    assert typed.row_shaping["stream_maps"] == nested["stream_maps"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settle_minutes", 0),
        ("max_rejected_lines", 0),
        ("emit_activate_version_messages", False),
        ("bucket_options", {}),
    ],
)
def test_zero_false_and_an_empty_object_are_set(name: str, value: Any) -> None:
    assert outcome({**BASE, name: value})[1][name] == value
    assert getattr(Settings.of({**BASE, name: value}), name) == value


@EVERY_SETTING
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str) -> None:
    """One by one, and without stopping the rules that settings must fulfil together."""
    value = "hidden" if "integer" in SCHEMAS[name]["type"] else 5
    errors, _ = outcome({**BASE, name: value})
    assert any(error.startswith(f"{name} must be ") for error in errors)
    assert "hidden" not in "".join(errors)


@pytest.mark.parametrize("name", [name for name in SCHEMAS if "string" not in SCHEMAS[name]["type"]])
def test_text_in_the_environment_that_cannot_be_converted_is_refused_by_variable(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    """Before the SDK fails on it, or reads it as false."""
    environment.setenv(f"{PREFIX}{name.upper()}", "[hidden")
    errors, _ = outcome(without(name), parse_environment=True)
    assert len(errors) == 1
    assert errors[0].startswith(f"the environment variable {PREFIX}{name.upper()} must hold ")
    assert "hidden" not in errors[0]


# The typed object


def test_settings_are_those_of_the_schema() -> None:
    """The tap's own by their names, two of the SDK's, and the SDK's others where they shape rows."""
    own = {name for name in SCHEMAS if name not in SDK_SETTINGS}
    names = {field.name for field in dataclasses.fields(Settings)}
    assert names == own | TYPED_SDK_SETTINGS | {"row_shaping"}
    shaping = Settings.of({**BASE, **dict.fromkeys(SDK_SETTINGS - TYPED_SDK_SETTINGS, 1)}).row_shaping
    assert set(shaping) == SDK_SETTINGS - TYPED_SDK_SETTINGS


def test_defaults_are_those_of_the_schema() -> None:
    """A setting without a default is not set, or required."""
    required = {
        field.name
        for field in dataclasses.fields(Settings)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert required == set(TapBrazeExport.config_jsonschema["required"])
    defaults = Settings.of(dict.fromkeys(required, "x"))
    for name in SCHEMAS.keys() - required:
        if "default" in SCHEMAS[name]:
            assert getattr(defaults, name, SCHEMAS[name]["default"]) == SCHEMAS[name]["default"]
        else:
            assert not getattr(defaults, name, None), name


def test_secrets_and_personal_settings_do_not_show() -> None:
    """`repr` holds no key, no identifier, no option of a storage and nothing of a stream map."""
    hidden = {name for name, schema in SCHEMAS.items() if schema.get("secret")}
    hidden |= {*IDENTIFIER_SETTINGS, "batch_config", "stream_maps", "stream_map_config"}
    assert {"api_key", "bucket_options"} <= hidden
    given = {
        name: {"option": f"hidden-{name}"} if "object" in SCHEMAS[name]["type"] else [f"hidden-{name}"]
        for name in hidden
    }
    shown = repr(Settings.of(BASE | given))
    assert "hidden" not in shown
    assert "https://rest.iad-01.braze.com" in shown


def test_settings_cannot_be_changed() -> None:
    """Lists become tuples, too."""
    made = Settings.of(BASE)
    assert made.segment_ids == ("one",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.workers = 2  # type: ignore[misc]


def test_minutes_are_available_in_seconds() -> None:
    made = Settings.of({**BASE, "export_timeout_minutes": 2, "settle_minutes": 3})
    assert (made.export_timeout_seconds, made.settle_seconds) == (120, 180)
