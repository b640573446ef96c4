"""Values as env files, secrets and templates deliver them: in quotation marks, with line ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from singer_sdk.exceptions import ConfigValidationError

from tap_braze_export.settings import IDENTIFIER_KINDS
from tap_braze_export.tap import TapBrazeExport

PREFIX = "TAP_BRAZE_EXPORT_"
BASE = {"api_url": "https://rest.iad-01.braze.com", "api_key": "a-key", "segment_ids": ["one"]}
TapBrazeExport.append_builtin_config(TapBrazeExport.config_jsonschema)
SCHEMAS: dict[str, dict[str, Any]] = TapBrazeExport.config_jsonschema["properties"]
TEXTS: dict[str, Any] = {
    "api_url": "https://rest.fra-01.braze.eu",
    "bucket_url": "s3://bucket/prefix",
    "fingerprints_url": "/spool/fingerprints",
    "identifiers_url": "/spool/ids.csv",
    "callback_url": "https://hooks.example.com/braze",
    "callback_listen": "127.0.0.1:8080",
    "output_format": "gzip",
    "on_running_export": "fail",
    "custom_attributes": '{"plan": "string"}',
    "bucket_options": '{"key": "k"}',
    "user_aliases": '[{"alias_name": "a", "alias_label": "b"}]',
    "stream_maps": '{"users": {"email": null}}',
    "batch_config": '{"encoding": {"format": "jsonl"}, "storage": {"root": "x"}}',
}
"""A text for each setting that does not take any text of its type."""
BY_KIND = {"string": "text", "integer": "7", "boolean": "true", "array": '["one", "two"]', "object": "{}"}
FREE = ("bucket_options", "stream_maps", "stream_map_config", "faker_config")
"""Settings whose texts may have several lines."""


def text_of(name: str) -> str:
    (kind,) = {*SCHEMAS[name]["type"]} - {"null"}
    return str(TEXTS.get(name, BY_KIND[kind]))


def outcome(config: dict[str, Any], name: str, *, environment: bool = False) -> Any:
    """The value in force, or the errors."""
    try:
        given = {setting: value for setting, value in BASE.items() if not environment or setting != name}
        tap = TapBrazeExport(
            config={**given, **config}, parse_env_config=environment, setup_mapper=False, validate_config=False
        )
    except ConfigValidationError as error:
        return error.errors
    return tap.config.get(name)


def each_way(patch: pytest.MonkeyPatch, name: str, text: str) -> list[Any]:
    """The outcomes of a text in a configuration file and in the environment."""
    in_file = outcome({name: text}, name)
    with patch.context() as variables:
        variables.setenv(f"{PREFIX}{name.upper()}", text)
        return [in_file, outcome({}, name, environment=True)]


def test_a_pair_of_quotation_marks_around_a_value_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every setting; Docker's --env-file keeps them, and people put them into secrets and YAML."""
    for name in SCHEMAS:
        text = text_of(name)
        wanted = each_way(monkeypatch, name, text)
        for quoted in (
            *(f'"{text}"', f"'{text}'", f" '{text}'\n", f'"{text} "', f"\u201c{text}\u201d", f"'\"{text}\"'"),
            json.dumps(text),
        ):
            if name != "flattening_separator" or quoted.strip(" \n") == quoted != f'"{text} "':  # blanks count there
                assert each_way(monkeypatch, name, quoted) == wanted, (name, quoted)


def test_a_blank_value_in_quotation_marks_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCHEMAS:
        for quoted in ('""', "''", '" "'):
            unset = outcome({name: None}, name)
            assert outcome({name: quoted}, name) == unset, (name, quoted)
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", quoted)
            assert outcome({name: None}, name, environment=True) == unset, (name, quoted)
            monkeypatch.delenv(f"{PREFIX}{name.upper()}")


def test_half_a_pair_and_control_characters_are_refused() -> None:
    """The setting is named, its value not shown. Identifiers are left out of a resync, `api_url` has its own line."""
    for name, schema in SCHEMAS.items():
        if name in {*IDENTIFIER_KINDS, *FREE, "api_url"} or not {"string", "array"} & {*schema["type"]}:
            continue
        for text in ('"hidden', "'hidden", "hid\nden", "hid\tden", "hid\x1bden", "hid\x85den", "hid\u2028den"):
            value = [text, "x"] if "array" in schema["type"] else text
            errors = outcome({name: value}, name)
            if name == "flattening_separator" and "hidden" in text:
                assert errors == text  # it may be a quotation mark
                continue
            assert isinstance(errors, list), (name, text)
            assert len(errors) == 1, (name, text, errors)
            assert errors[0].startswith(f"{name} "), (name, text, errors)
            assert "hid" not in errors[0], (name, text, errors)


def test_placeholders_that_nothing_has_replaced_are_refused() -> None:
    """They would be a folder of that name, outside the volume. Text that merely has such signs stays."""
    for name, schema in SCHEMAS.items():
        if name in {*IDENTIFIER_KINDS, *FREE, "api_url", "custom_attributes"} or "boolean" in schema["type"]:
            continue
        for text in ("${NAME}", "${NAME:-x}/spool", "{{ name }}", "s3://b/{{name}}/x", "$NAME", "$NAME/spool"):
            value: Any = [text, "x"] if "array" in schema["type"] else text
            if name == "batch_config":
                value = {"encoding": {"format": "jsonl"}, "storage": {"root": text}}
            errors = outcome({name: value}, name)
            if "string" in schema["type"] or isinstance(value, list | dict):
                assert errors == [f"{name} holds a placeholder that nothing has replaced: write the value itself"], (
                    *(name, text, errors),
                )
    for text in ("/spool/a$b", "/spool/{a}", "s3://b/ids-{1,2}.csv", "$", "$$"):
        assert outcome({"fingerprints_url": text}, "fingerprints_url") == text


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\x00", "\t", "\x1f"])
def test_line_ends_around_the_items_of_a_list_go(ending: str) -> None:
    """In JSON, where blanks inside quotes would stay; an external id may begin with a blank, and with a quote."""
    for name, schema in SCHEMAS.items():
        if "array" in schema["type"] and name != "user_aliases" and (name in IDENTIFIER_KINDS or ending != "\x00"):
            assert outcome({name: [f"one{ending}", f"{ending}two"]}, name) == ["one", "two"], name
    assert outcome({"external_ids": [' "a"']}, "external_ids") == [' "a"']
    assert outcome({"segment_ids": [' "a"']}, "segment_ids") == ["a"]


def test_items_in_quotation_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, wanted in {
        "'one','two'": ["one", "two"],
        '"one","two"': ["one", "two"],
        "\"one\", 'two'": ["one", "two"],
        '"one,two"': ["one", "two"],
        '\'["one", "two"]\'': ["one", "two"],
        '"["one", "two"]"': ["one", "two"],
        '"[\\"one\\", \\"two\\"]"': ["one", "two"],
    }.items():
        assert each_way(monkeypatch, "segment_ids", text) == [wanted, wanted], text


def test_the_env_file_from_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker hands it to the container."""
    for name, text in {
        "API_KEY": '"your-key"',
        "SPOOL_DIR": '"/spool"',
        "FINGERPRINTS_URL": '"/spool/fingerprints"',
        "SEGMENT_IDS": "'[\"your-segment\"]'",
    }.items():
        monkeypatch.setenv(f"{PREFIX}{name}", text)
    tap = TapBrazeExport(config={"api_url": BASE["api_url"]}, parse_env_config=True, setup_mapper=False)
    assert (tap.settings.api_key, tap.settings.segment_ids) == ("your-key", ("your-segment",))
    assert Path(str(tap.settings.spool_dir)) == Path("/spool")
    assert tap.settings.fingerprints_url == "/spool/fingerprints"
