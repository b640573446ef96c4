"""Each kind of edit of a catalog: the schema that is announced and the value in a row, or the line that refuses it."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.schema.selection import RequestedFields, rows_signature
from tap_braze_export.tap import TapBrazeExport
from tests.support.rows import both_paths, row_of, user_row
from tests.support.runs import discover, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tap_braze_export.schema.selection import Selection

TEXT = {"type": ["string", "null"]}
DATE_TIME = {"type": ["string", "null"], "format": "date-time"}


@cache
def discovered() -> dict[str, Any]:
    """The catalog of discovery."""
    return discover({})


def edited(path: str, edit: dict[str, Any]) -> dict[str, Any]:
    """A catalog with other words for one column, or one member; words that are null are gone."""
    catalog = copy.deepcopy(discovered())
    stream, *names = path.split(".")
    (entry,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream]
    definition = entry["schema"]
    for name in names:
        definition = definition.setdefault("properties", {}).setdefault(name, {})
    definition.update(edit)
    return catalog


def declared(catalog: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Selection]]:
    """The JSON schemas that are announced, and the selections, by stream."""
    tap = TapBrazeExport(catalog=catalog, validate_config=False)
    streams = {name: stream for name, stream in tap.streams.items() if stream.selected}
    schemas = {name: schema for stream in streams.values() for name, schema in stream.schemas.items()}  # type: ignore[attr-defined]
    return schemas, {name: stream.selection for name, stream in streams.items()}  # type: ignore[attr-defined]


def announced(schemas: dict[str, Any], path: str) -> dict[str, Any]:
    """The words about one column or member that say something of its values."""
    stream, *names = path.split(".")
    definition = schemas[stream]
    for name in names:
        definition = definition["properties"][name]
    return {word: value for word, value in definition.items() if word != "description"}


FOLLOWED: list[tuple[str, dict[str, Any], dict[str, Any], str, Any]] = [
    ("random_bucket", TEXT, TEXT, "7", "7"),
    ("random_bucket", TEXT, TEXT, '"007"', "007"),
    ("random_bucket", {"type": ["number", "null"]}, {"type": ["number", "null"]}, "7", "<7>"),
    ("random_bucket", {"type": ["number", "null"]}, {"type": ["number", "null"]}, "9007199254740993", None),
    ("random_bucket", {"type": ["null", "integer", "string"]}, {"type": ["integer", "string", "null"]}, "7", "<7>"),
    ("random_bucket", {"type": None, "anyOf": [{"type": "integer"}, {"type": "null"}]}, {}, "7", "<7>"),
    ("total_revenue", TEXT, TEXT, "12.50", "12.50"),
    ("total_revenue", TEXT, TEXT, "null", None),
    ("created_at", {"format": None}, TEXT, '"2020-07-10 15:00:00.000 UTC"', "2020-07-10T15:00:00.000Z"),
    ("created_at", {"format": None}, TEXT, '"yesterday"', "yesterday"),
    ("created_at", {"type": None, "format": None, "anyOf": [DATE_TIME, TEXT]}, TEXT, '"yesterday"', "yesterday"),
    ("uninstalled_at", {"format": None}, TEXT, "1592236800", "2020-06-15T16:00:00.000Z"),
    ("dob", {"format": None}, TEXT, '"12/1980"', "12/1980"),
    ("last_coordinates", TEXT, TEXT, "[1,2.5]", "[1.0,2.5]"),
    ("custom_attributes", TEXT, TEXT, '{"b" : [1.10], "a":{"d":1,"c":2}}', '{"a":{"c":2,"d":1},"b":[1.10]}'),
    ("custom_attributes.n", {"type": ["integer", "null"]}, {}, '{"n":"12"}', {"n": "<12>"}),
    ("custom_attributes.n", {"type": ["array", "null"], "items": TEXT}, {}, '{"n":[1,null]}', {"n": ["1", None]}),
    ("custom_attributes.n", {"type": ["integer", "string", "null"]}, {}, '{"n":1.5}', {"n": "1.5"}),
    ("custom_attributes.n", {"type": ["boolean", "null"]}, {}, '{"n":"no"}', {"n": None}),
    ("email", {"x-sql-datatype": "text"}, {**TEXT, "x-sql-datatype": "text"}, '"e"', "e"),
]  # fmt: skip
"""Column of users, edit, what is announced (or as edited), value of the column, and what its row holds."""


@pytest.mark.slow
def test_an_edit_is_followed_by_schema_and_rows() -> None:
    """On both paths."""
    for path, edit, wanted, value, held in FOLLOWED:
        schemas, selections = declared(edited(f"users.{path}", edit))
        column = path.partition(".")[0]
        plain = {"type": ["integer", "null"]} if "anyOf" in edit else edit
        assert announced(schemas, f"users.{path}") == (wanted or plain), path
        of_users = {name: each for name, each in selections.items() if each.table.path is not None}
        assert row_of(column, value, selections=of_users)[0] == held, path
        line = f'{{"braze_id":"u","{column}":{value}}}'.encode()
        fast, careful = both_paths(of_users, [[line] * 20, [line]])
        assert fast == careful, path


def test_rescued_data_as_text() -> None:
    """Whichever path a line takes, and however often the tap has seen the member."""
    schemas, selections = declared(edited("users._rescued_data", TEXT))
    of_users = {name: each for name, each in selections.items() if each.table.path is not None}
    line = '{"braze_id":"u","new":{"b":2,"a":1}}'
    assert announced(schemas, "users._rescued_data") == TEXT
    assert user_row(line, selections=of_users)["_rescued_data"] == '{"new":{"a":1,"b":2}}'
    fast, careful = both_paths(of_users, [[line.encode()] * 20, [line.encode()] * 20])
    assert fast == careful


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("users.random_bucket", {"type": ["boolean", "null"]}, "without loss: it can be integer or number or string"),
    ("users.email", {"type": ["integer", "null"]}, "users.email cannot be integer without loss: it can be"),
    ("users.email", {"type": "string"}, "users.email must allow null"),
    ("users.email", {"format": "email"}, "users.email cannot promise the format email"),
    ("users.created_at", {"format": "date"}, "users.created_at cannot promise the format date: it can be string, with"),
    ("users.email", {"maxLength": 40}, "users.email cannot promise maxLength"),
    ("users.email", {"enum": ["a", None]}, "users.email cannot promise enum"),
    ("users.email", {"$ref": "#/definitions/text"}, "users.email cannot promise $ref"),
    ("users.email", {"default": ""}, "users.email cannot promise default"),
    ("users.email", {"nullable": False}, "users.email has a word in its schema that says nothing: nullable"),
    ("users.email", {"selected": False}, "users.email has selected in its schema"),
    ("users.email", {"type": ["text", "null"]}, "users.email has the type ['text', 'null']: there are string, integer"),
    ("users.email", {"type": ["null"]}, "users.email allows no value but null"),
    ("users.email", {"oneOf": [TEXT]}, "users.email has oneOf beside other words about its type"),
    ("users.emial", TEXT, "users has no column emial (did you mean email?)"),
    ("users.custom_attributes", {"additionalProperties": False}, "users.custom_attributes cannot limit additionalPr"),
    ("users.custom_attributes.n", {"type": "string"}, "users.custom_attributes.n must allow null"),
    ("users.custom_attributes.n", {**TEXT, "format": "uuid"}, "users.custom_attributes.n cannot promise the format"),
    ("users.custom_attributes.n.m", TEXT, "users.custom_attributes.n cannot have typed members of its own"),
    ("users.last_coordinates", {"items": {"type": "string"}}, "users.last_coordinates.items cannot be string"),
    ("campaigns_received.engaged.opened_email", {"type": ["integer", "null"]}, "opened_email cannot be integer"),
    ("users.braze_id", {"type": "integer"}, "users.braze_id cannot be integer without loss"),
    ("export_files.bytes", {"type": ["array", "null"]}, "export_files.bytes cannot be array without loss"),
]  # fmt: skip


def test_an_edit_that_cannot_be_followed_is_refused() -> None:
    """With stream, column, the type wanted and what is possible."""
    for path, edit, told in REFUSED:
        with pytest.raises(ConfigError) as refused:
            declared(edited(path, edit))
        assert told in str(refused.value), (path, str(refused.value))


OF_STREAMS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"key_properties": ["external_id"]}, {}, "users cannot have the key external_id: it can be braze_id"),
    ({}, {"table-key-properties": ["email"]}, "users cannot have the key email"),
    ({"replication_method": "INCREMENTAL"}, {}, "users has no replication_method but FULL_TABLE"),
    ({}, {"replication-method": "LOG_BASED"}, "users has no replication-method but FULL_TABLE"),
    ({"replication_key": "exported_at"}, {}, "users has no replication_key"),
    ({}, {"replication-key": "exported_at"}, "users has no replication-key"),
    ({"stream": "people"}, {}, "users cannot be renamed by stream"),
    ({"table_name": "people"}, {}, "users cannot be renamed by table_name"),
    ({"is_view": True}, {}, "users is no view"),
    ({"schema": {"type": 1, "properties": {}}}, {}, "users must have the type object"),
    ({"schema": {"type": ["string", "null"], "properties": {}}}, {}, "users must have the type object"),
    ({}, {"inclusion": "sometimes"}, "users has the inclusion sometimes"),
    ({"key_properties": ["exported_at", "braze_id"]}, {"selected-by-default": False, "row-count": 1}, ""),
    ({"is_view": False, "key_properties": [], "row_count": 7}, {"forced-replication-method": "FULL_TABLE"}, ""),
]  # fmt: skip


def test_what_a_catalog_says_of_a_whole_stream_is_followed_or_refused() -> None:
    """In the entry and in its metadata, with words that the SDK does not know, too."""
    for entry_words, metadata_words, told in OF_STREAMS:
        catalog = edited("users", {})
        (entry,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "users"]
        entry.update(entry_words)
        next(item["metadata"] for item in entry["metadata"] if not item["breadcrumb"]).update(metadata_words)
        if told:
            with pytest.raises(ConfigError, match=re.escape(told)):
                declared(catalog)
        else:
            declared(catalog)


def test_several_refused_edits_share_a_line() -> None:
    """Five are named, the others counted."""
    catalog = edited("users", {})
    for number in range(7):
        catalog["streams"][number]["key_properties"] = ["none"]
    with pytest.raises(ConfigError, match=r"^catalog: apps cannot .*; and 2 more$"):
        declared(catalog)


def test_an_edit_changes_the_signature_of_the_rows() -> None:
    """So that fingerprints and a running export of other rows are left alone; words of description do not."""
    fields = RequestedFields.of(())
    unedited = rows_signature(declared(discovered())[1], fields, {})
    for path, edit, *_ in FOLLOWED:
        if "x-sql-datatype" not in edit and "anyOf" not in edit:
            assert rows_signature(declared(edited(f"users.{path}", edit))[1], fields, {}) != unedited, path
    described = edited("users.email", {"description": "Where we write to"})
    assert rows_signature(declared(described)[1], fields, {}) == unedited


def test_a_run_and_its_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """The log of files and the memberships follow, too; the key is announced as the catalog orders it."""
    catalog = edited("export_files.bytes", TEXT)
    for entry in catalog["streams"]:
        if entry["tap_stream_id"] == "users":
            entry["key_properties"] = ["exported_at", "braze_id"]
            entry["schema"]["properties"]["exported_at"] = {"type": "string"}
    run = sync(settings(sandbox, tmp_path), catalog=catalog)
    assert run.schemas["users"]["key_properties"] == ["exported_at", "braze_id"]
    assert run.schemas["users"]["schema"]["properties"]["exported_at"] == {"type": "string"}
    assert run.schemas["export_files"]["schema"]["properties"]["bytes"]["type"] == ["string", "null"]
    assert all(isinstance(row["bytes"], str) and isinstance(row["lines"], int) for row in run.rows("export_files"))
