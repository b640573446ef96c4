"""Settings as text: templates, YAML and the environment give numbers, booleans, lists and objects that way."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import ConfigValidationError

from tap_braze_export.tap import TapBrazeExport
from tests.support.runs import command, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest import LogCaptureFixture  # noqa: PT013 - as a type it reads better so

PREFIX = "TAP_BRAZE_EXPORT_"
BASE = {"api_url": "https://rest.iad-01.braze.com", "api_key": "a-key", "segment_ids": ["one"]}
TapBrazeExport.append_builtin_config(TapBrazeExport.config_jsonschema)
SCHEMAS: dict[str, dict[str, Any]] = TapBrazeExport.config_jsonschema["properties"]
ALIAS = {"alias_name": "lead-1", "alias_label": "crm"}
BATCHES = {"encoding": {"format": "jsonl"}, "storage": {"root": "x"}}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of the tap."""
    for variable in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(variable)
    return monkeypatch


def in_force(config: Mapping[str, Any], *, parse_environment: bool = False) -> dict[str, Any]:
    tap = TapBrazeExport(config={**BASE, **config}, parse_env_config=parse_environment, setup_mapper=False)
    return dict(tap.config)


def errors(config: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ConfigValidationError) as caught:
        in_force(config)
    return list(caught.value.errors)


def of_type(kind: str) -> list[str]:
    return [name for name, schema in SCHEMAS.items() if kind in schema["type"]]


AS_TEXT: list[tuple[str, str, Any]] = [
    *((name, text, 3) for name in of_type("integer") for text in ("3", " 3 ", "3.0", "+3", "003", "3.\n")),
    *((name, text, True) for name in of_type("boolean") for text in ("true", "True", "1", "yes", " ON ")),
    *((name, text, False) for name in of_type("boolean") for text in ("false", "FALSE", "0", "no", "off")),
    *(
        (name, text, wanted)
        for name in of_type("array")
        if name != "user_aliases"
        for text, wanted in [
            ("one", ["one"]),
            ("one,two", ["one", "two"]),
            (" one , two ,", ["one", "two"]),
            ("one\ntwo\n", ["one", "two"]),
            ('["one", "two"]', ["one", "two"]),
            ('"one"', ["one"]),
            ('"a,b", c', ["a,b", "c"]),
            ("5", ["5"]),
            ("{3F2504E0-4F89}", ["{3F2504E0-4F89}"]),
        ]
    ),
    ("user_aliases", json.dumps(ALIAS), [ALIAS]),
    ("user_aliases", json.dumps([ALIAS, ALIAS]), [ALIAS, ALIAS]),
    ("custom_attributes", '{"plan": "string"}', {"plan": "string"}),
    ("bucket_options", ' {"key": "k", "anon": false}\n', {"key": "k", "anon": False}),
    ("stream_maps", '{"users": {"email": null}}', {"users": {"email": None}}),
    ("stream_map_config", '{"rate": 1.1}', {"rate": 1.1}),
    ("batch_config", json.dumps(BATCHES), BATCHES),
]


def with_needed(name: str, value: Any) -> dict[str, Any]:
    """A setting with the others that it needs."""
    more = {"batch_config": BATCHES} if name == "batch_config" else {}
    return {**more, name: value}


def test_text_is_read_in_files_and_in_the_environment_alike(environment: pytest.MonkeyPatch) -> None:
    for name, text, wanted in AS_TEXT:
        assert in_force(with_needed(name, text))[name] == wanted, (name, text, wanted)
        assert type(in_force(with_needed(name, text))[name]) is type(wanted), (name, text, wanted)
        environment.setenv(f"{PREFIX}{name.upper()}", text)
        assert in_force({}, parse_environment=True)[name] == wanted, (name, text, wanted)
        environment.delenv(f"{PREFIX}{name.upper()}")


NEARLY_RIGHT: list[tuple[str, Any, Any]] = [
    ("workers", 3.0, 3),
    ("global_control_group", 1, True),
    ("global_control_group", 0, False),
    ("user_aliases", ALIAS, [ALIAS]),
    ("user_aliases", [json.dumps(ALIAS)], [ALIAS]),
    ("batch_config", {**BATCHES, "batch_size": "500"}, {**BATCHES, "batch_size": 500}),
    ("batch_config", {**BATCHES, "encoding": '{"format": "jsonl"}'}, BATCHES),
    (
        "batch_config",
        {**BATCHES, "storage": {"root": "x", "params": '{"anon": true}'}},
        {**BATCHES, "storage": {"root": "x", "params": {"anon": True}}},
    ),
    ("output_format", " gzip\n", "gzip"),
    ("api_key", "a-key\n", "a-key"),
    ("flattening_separator", " _", " _"),
    ("extra_export_fields", ["1", "true"], ["1", "true"]),
    ("custom_attributes", {"1": "string"}, {"1": "string"}),
    ("stream_maps", {"users": "__NULL__"}, {"users": "__NULL__"}),
    ("stream_map_config", {"flag": "true", "list": "a,b", "number": "3"}, None),
]


def test_values_that_are_nearly_right_are_taken() -> None:
    """And values whose JSON schema leaves them open stay as they are."""
    for name, value, wanted in NEARLY_RIGHT:
        assert in_force({name: value})[name] == (value if wanted is None else wanted), (name, value, wanted)


WRONG: list[tuple[str, Any, str]] = [
    ("workers", "many", "workers must be an integer such as 3"),
    ("workers", "1e3", "workers must be an integer"),
    ("workers", "1_000", "workers must be an integer"),
    ("workers", "3.5", "workers must be an integer"),
    ("workers", 3.5, "workers must be an integer"),
    ("workers", "٣", "workers must be an integer"),
    ("workers", True, "workers must be an integer"),
    ("workers", [3], "workers must be an integer"),
    ("workers", "-1", "workers must be at least 0"),
    ("concurrent_exports", "101", "concurrent_exports must be at most 100"),
    ("global_control_group", "perhaps", "global_control_group must be true or false"),
    ("global_control_group", 2, "global_control_group must be true or false"),
    ("segment_ids", '["one"', 'segment_ids must be a list, as JSON: ["first", "second"]'),
    ("segment_ids", '{"id": "one"}', "segment_ids must be a list"),
    ("segment_ids", {"id": "one"}, "segment_ids must be a list"),
    ("external_ids", [12345], 'external_ids.0 must be a text in quotes such as "12345"'),
    (
        "user_aliases",
        "lead-1",
        'user_aliases must be a list, as JSON: [{"alias_name": "text", "alias_label": "text"}]',
    ),
    ("user_aliases", {"alias_name": "lead-1"}, "user_aliases.0.alias_label is missing"),
    ("custom_attributes", "plan", 'custom_attributes must be an object, as JSON: {"name": "string"}'),
    ("custom_attributes", '["plan"]', "custom_attributes must be an object"),
    ("custom_attributes", '{"plan": "text"}', "custom_attributes.plan must be one of string, integer"),
    ("bucket_options", "{'key': 'topsecret'}", 'bucket_options must be an object, as JSON: {"name": "text"}'),
    ("flattening_max_depth", "deep", "flattening_max_depth must be an integer"),
    ("batch_config", "jsonl", 'batch_config must be an object, as JSON: {"encoding": {"format": "jsonl"'),
]


def test_wrong_values_are_refused_with_an_example() -> None:
    """One error each, which holds nothing of the value."""
    for name, value, told in WRONG:
        (error,) = errors({name: value})
        assert error.startswith(told), (name, value, told)
        assert "topsecret" not in error, (name, value, told)
        assert "lead-1" not in error, (name, value, told)


def test_flattening_works_with_settings_as_text() -> None:
    config = {"flattening_enabled": "true", "flattening_max_depth": "2", "flattening_max_key_length": "60"}
    tap = TapBrazeExport(config={**BASE, **config, "custom_attributes": '{"plan": "string"}'})
    assert "custom_attributes__plan" in tap.streams["users"].stream_maps[0].transformed_schema["properties"]


# Unknown settings


def warnings_in(log: LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelname == "WARNING"]


def test_unknown_settings_are_named_in_one_warning_with_the_nearest(caplog: LogCaptureFixture) -> None:
    unknown = {"segment_id": "hidden", "worker": "hidden", "apikey": "hidden", "Segment-IDs": "hidden", "zzz": "hidden"}
    in_force(unknown)
    assert warnings_in(caplog) == [
        (
            "Unknown settings are ignored: Segment-IDs (did you mean segment_ids?), apikey (did you mean api_key?), "
            "segment_id (did you mean segment_ids?), worker (did you mean workers?), zzz"
        )
    ]
    assert "hidden" not in caplog.text


def test_unknown_variables_are_named_if_the_environment_is_read(
    environment: pytest.MonkeyPatch, caplog: LogCaptureFixture
) -> None:
    for name in ("SEGMENT_ID", "LOG_LEVEL"):
        environment.setenv(f"{PREFIX}{name}", "hidden")
    in_force({})
    assert not warnings_in(caplog)
    in_force({"worker": 1}, parse_environment=True)
    assert warnings_in(caplog) == [
        (
            "Unknown settings are ignored: worker (did you mean workers?), "
            "TAP_BRAZE_EXPORT_LOG_LEVEL (did you mean TAP_BRAZE_EXPORT_LOGLEVEL?), "
            "TAP_BRAZE_EXPORT_SEGMENT_ID (did you mean TAP_BRAZE_EXPORT_SEGMENT_IDS?)"
        )
    ]
    assert "hidden" not in caplog.text


def test_names_of_orchestrators_are_not_unknown(environment: pytest.MonkeyPatch, caplog: LogCaptureFixture) -> None:
    """Meltano's extras begin with an underscore; the SDK reads the log level."""
    for name in ("_SELECT", "_CATALOG", "_LOAD_SCHEMA", "LOGLEVEL", "MELTANO_RUN", *map(str.upper, SCHEMAS)):
        environment.setenv(f"{PREFIX}{name}", "")
    environment.setenv(f"{PREFIX}LOGLEVEL", "INFO")
    environment.setenv("MELTANO_EXTRACTOR_NAME", "tap-braze-export")
    in_force({"_select": ["*.*"], "_catalog": "x", "MELTANO_ENVIRONMENT": "dev"}, parse_environment=True)
    assert not warnings_in(caplog)


def test_what_may_be_no_name_is_counted_only(caplog: LogCaptureFixture) -> None:
    """A key or an address in the place of a name must not reach the log; nor must hundreds of names."""
    in_force({"some@body.example": 1, "5fbd99ba-c125": 1, "x" * 100: 1, **{f"zz{n:02}": 1 for n in range(12)}})
    (warning,) = warnings_in(caplog)
    assert warning == f"Unknown settings are ignored: {', '.join(f'zz{n:02}' for n in range(10))}, 5 more"


@pytest.mark.parametrize("mode", [(), ("--discover",), ("--test",)])
def test_unknown_settings_are_told_once_in_each_mode(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Beside the error that a misspelt setting causes."""
    given = {"api_url": "http://127.0.0.1:9", "apikey": "hidden", "segment_ids": "one"}
    ended = command(*mode, "--config", written(tmp_path, given))
    assert ended.stderr.count("apikey (did you mean api_key?)") == 1
    assert "hidden" not in ended.stderr
    if mode != ("--discover",):
        assert "api_key is missing" in ended.error
