"""Settings: null and blank mean "not set" for every one of them, and one typed object holds them all."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import ConfigValidationError

from tap_braze_export.errors import ConfigError
from tap_braze_export.http.addresses import read_api_url
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


def test_unset_in_a_configuration_is_the_same_as_absent() -> None:
    """No error but those of an absent setting, and its default in force."""
    for name, schema in SCHEMAS.items():
        absent = outcome(without(name))
        for value in UNSET:
            errors, found = outcome(without(name) | {name: value})
            assert (errors, found) == absent, (name, value)
            assert bool(errors) == (name in BASE), (name, value)
            assert found.get(name) == schema.get("default"), (name, value)


def test_blank_in_the_environment_is_the_same_as_absent(environment: pytest.MonkeyPatch) -> None:
    for name, schema in SCHEMAS.items():
        absent = outcome(without(name))
        for value in BLANK:
            environment.setenv(f"{PREFIX}{name.upper()}", value)
            errors, found = outcome(without(name), parse_environment=True)
            assert (errors, found) == absent, (name, value)
            assert found.get(name) == schema.get("default"), (name, value)
        environment.delenv(f"{PREFIX}{name.upper()}")


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


def test_a_value_of_the_wrong_type_is_refused_by_name() -> None:
    """One by one, and without stopping the rules that settings must fulfil together."""
    for name, schema in SCHEMAS.items():
        errors, _ = outcome({**BASE, name: "hidden" if "integer" in schema["type"] else 5})
        assert any(error.startswith(f"{name} must be ") for error in errors), (name, errors)
        assert "hidden" not in "".join(errors), name


def test_text_in_the_environment_that_cannot_be_converted_is_refused_by_variable(
    environment: pytest.MonkeyPatch,
) -> None:
    """Before the SDK fails on it, or reads it as false."""
    for name in [name for name, schema in SCHEMAS.items() if "string" not in schema["type"]]:
        environment.setenv(f"{PREFIX}{name.upper()}", "[hidden")
        errors, _ = outcome(without(name), parse_environment=True)
        assert len(errors) == 1, (name, errors)
        assert errors[0].startswith(f"the environment variable {PREFIX}{name.upper()} must hold "), errors
        assert "hidden" not in errors[0], name
        environment.delenv(f"{PREFIX}{name.upper()}")


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
    defaults = Settings.of({**dict.fromkeys(required, "x"), "api_url": BASE["api_url"]})
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


# The address of Braze


ADDRESSES = {
    "https://rest.iad-01.braze.com": "https://rest.iad-01.braze.com",
    " HTTPS://Rest.IAD-01.Braze.com:443/ \n": "https://rest.iad-01.braze.com",
    "https://rest.iad-01.braze.com.": "https://rest.iad-01.braze.com",
    "https://rest.iad-01.braze.com:0443//": "https://rest.iad-01.braze.com",
    "https://rest.iad-01.braze.com:": "https://rest.iad-01.braze.com",
    "https://rest.iad-01.braze.com:8443": "https://rest.iad-01.braze.com:8443",
    "https://proxy.example.com//Braze/eu/": "https://proxy.example.com/Braze/eu",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://\uff52est.braze.com": "https://rest.braze.com",
    "https://[2001:DB8:0::1]": "https://[2001:db8::1]",
    "http://LocalHost:80": "http://localhost",
    "http://localhost.:5000/": "http://localhost:5000",
    "http://127.0.0.1:5000": "http://127.0.0.1:5000",
    "http://[0::1]:5000": "http://[::1]:5000",
}


def test_address_of_braze_has_one_spelling() -> None:
    for given, read in ADDRESSES.items():
        assert Settings.of({**BASE, "api_url": given}).api_url == read, given
        assert read_api_url(read) == read
        assert outcome({**BASE, "api_url": given})[0] == [], given


NO_ADDRESSES = [
    *("http://rest.iad-01.braze.com", "rest.iad-01.braze.com", "ftp://rest.braze.com", "https://", "https:///path"),
    *(
        "http://evil\\@127.0.0.1",
        "https://user@rest.braze.com",
        "https://a:b@rest.braze.com",
        "http://127.0.0.1@evil",
    ),
    *(
        "https://rest.braze.com?x=1",
        "https://rest.braze.com#x",
        "https://rest.braze.com/?",
        "https://rest.braze.com\\x",
    ),
    *(
        "https://rest .braze.com",
        "https://rest\t.braze.com",
        "https://rest\n.braze.com",
        "https://rest.braze.com/a b",
    ),
    *("https://.bad..host./", f"https://{'a' * 64}.com"),
    *(
        "https://[::1",
        "https://[::1%25eth0]",
        "https://[v1.x]",
        "https://rest.braze.com:x",
        "https://rest.braze.com:0",
    ),
    *("https://rest.braze.com:99999", "https://rest.braze.com:\uff11", "https://a℀b.com", "https://a%2eb.com"),
    *("https://rest.braze.com/../x", "https://rest.braze.com/./x", "http://127.0.0.1.evil.com", "http://127.1"),
    *("http://2130706433", "http://0.0.0.0", "http://localhost.evil.com", "http://evil.com/localhost"),
]


def test_what_is_no_address_of_braze_is_refused() -> None:
    """By the checks of the configuration, and wherever settings are read: discovery asks Braze without these checks."""
    for given in NO_ADDRESSES:
        (error,) = outcome({**BASE, "api_url": given})[0]
        assert error.startswith("api_url must be an https address such as "), given
        discovering = {"api_url": given, "api_key": "key", "discover_custom_attributes": True}
        tap = TapBrazeExport(config=discovering, validate_config=False, setup_mapper=False)
        for read in (lambda given=given: Settings.of({**BASE, "api_url": given}), tap.run_discovery):
            with pytest.raises(ConfigError, match=r"^api_url must be an https address"):
                pytest.fail(f"{given} is read as {read()}")


def test_names_of_this_machine_are_one_workspace() -> None:
    """Records of a workspace, and the locks of its segments, are the same for each of its names."""
    names = ["http://localhost:5000", "http://127.0.0.1:5000/", "HTTP://[::1]:5000", "http://LOCALHOST.:05000"]
    assert {Settings.of({**BASE, "api_url": name}).workspace for name in names} == {"http://localhost:5000"}
    assert Settings.of({**BASE, "api_url": "http://localhost"}).workspace == "http://localhost:80"
    assert Settings.of({**BASE, "api_url": "http://localhost:5000/eu"}).workspace == "http://localhost:5000/eu"
    assert Settings.of(BASE).workspace == BASE["api_url"]


@pytest.mark.parametrize(
    "url", ["hooks", "ftp://a", "https://", "https://[x", "https://a:x", "https://a:99999", "http://a b"]
)
def test_callback_url_must_be_an_address(url: str) -> None:
    (error,) = outcome({**BASE, "callback_url": url})[0]
    assert error.startswith("callback_url must be a web address such as ")
