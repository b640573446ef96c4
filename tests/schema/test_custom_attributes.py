"""Types of custom attributes: from Braze, from the settings, and in the rows of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.custom_attributes import attribute_fields, discovered_types
from tap_braze_export.schema.table import Type
from tests.support.rows import select
from tests.support.runs import discover, sync

if TYPE_CHECKING:
    from pathlib import Path


SPELLINGS: list[tuple[Any, Type]] = [
    ("String", Type.STRING),
    ("STRING", Type.STRING),
    ("string (custom)", Type.STRING),
    ("Number", Type.NUMBER),
    ("Number (Automatically Detected)", Type.NUMBER),
    ("Boolean", Type.BOOLEAN),
    ("Time", Type.DATE_TIME),
    ("Date", Type.DATE_TIME),
    ("DateTime", Type.DATE_TIME),
    ("datetime", Type.DATE_TIME),
    ("Date/Time", Type.DATE_TIME),
    ("Array", Type.ARRAY),
    ("Object Array", Type.ARRAY),
    ("ObjectArray", Type.ARRAY),
    ("object_array", Type.ARRAY),
    ("Array of Objects", Type.ARRAY),
    ("Array (String)", Type.ARRAY),
    ("Object", Type.OBJECT),
    ("Nested Object", Type.OBJECT),
    ("Mystery", Type.ANY),
    ("Lifetime Value", Type.ANY),
    ("Substring", Type.ANY),
    ("String or Number", Type.ANY),
    ("Date, String", Type.ANY),
    ("", Type.ANY),
    (None, Type.ANY),
    (7, Type.ANY),
    (["String"], Type.ANY),
    ({"type": "String"}, Type.ANY),
]


def test_types_are_told_from_whatever_spelling() -> None:
    """Braze's spellings are not documented: a word in it decides; without one, any JSON type will do."""
    for said, meant in SPELLINGS:
        assert discovered_types([{"name": "a", "data_type": said, "status": "Active"}]) == {"a": meant}, (said, meant)


@pytest.mark.parametrize(
    "attribute",
    [
        {"name": "", "data_type": "String"},
        {"name": None, "data_type": "String"},
        {"name": ["a"], "data_type": "String"},
        {"data_type": "String"},
        {},
        {"name": "a", "data_type": "String", "status": "Blocklisted"},
        {"name": "a", "data_type": "Mystery", "status": "BLOCKLISTED"},
    ],
)
def test_what_has_no_name_or_is_blocklisted_is_left_out(attribute: dict[str, Any]) -> None:
    """A blocklisted attribute carries no data."""
    assert discovered_types([attribute]) == {}


@pytest.mark.parametrize(
    ("listed", "meant"),
    [
        ([("a", "String"), ("a", "String")], {"a": Type.STRING}),
        ([("a", "String"), ("a", "Number")], {"a": Type.ANY}),
        ([("a", "String"), ("a", "Number"), ("a", "String")], {"a": Type.ANY}),
        ([("a", "Mystery"), ("a", "String")], {"a": Type.ANY}),
        ([("Plan", "String"), ("plan", "Number")], {"Plan": Type.STRING, "plan": Type.NUMBER}),
        (
            [(" ", "String"), ("a ", "Number"), ("a", "Date")],
            {" ": Type.STRING, "a ": Type.NUMBER, "a": Type.DATE_TIME},
        ),
    ],
)
def test_names_that_are_alike(listed: list[tuple[str, str]], meant: dict[str, Type]) -> None:
    """Case and blanks tell names apart; one that is listed with two types is open to all of them."""
    assert discovered_types({"name": name, "data_type": said} for name, said in listed) == meant


def test_a_blocklisted_twin_hides_no_attribute() -> None:
    """It carries no data, and its type does not count."""
    twins = [{"name": "a", "data_type": "Number", "status": "Blocklisted"}, {"name": "a", "data_type": "String"}]
    assert discovered_types(twins) == discovered_types(twins[::-1]) == {"a": Type.STRING}


def test_names_are_spelled_as_in_rows() -> None:
    """NUL and lone surrogates become U+FFFD, since no catalog could be written with them."""
    fields = attribute_fields({"b\0": Type.STRING, "\ud800": Type.ANY, "a": Type.NUMBER})
    assert [(field.name, field.type) for field in fields] == [
        *(("a", Type.NUMBER), ("b\ufffd", Type.STRING), ("\ufffd", Type.ANY))
    ]


def members(catalog: dict[str, Any]) -> dict[str, Any]:
    """The typed members of custom_attributes in a catalog."""
    (users,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "users"]
    typed: dict[str, Any] = users["schema"]["properties"]["custom_attributes"].get("properties", {})
    return typed


def test_discovery_asks_braze_page_by_page() -> None:
    """All 105 attributes on three pages are listed, without the blocklisted ones; the settings' types win."""
    with Sandbox(users=1) as sandbox:
        config = {**sandbox.config, "discover_custom_attributes": True, "custom_attributes": {"tiny": "string"}}
        found = members(discover(config))
        paths = [call.path for call in sandbox.calls]
    assert paths == ["/custom_attributes"] * 3
    assert len(found) == 105
    assert "ssn" not in found
    assert found["joined_on"]["format"] == "date-time"
    assert found["pets"]["type"] == ["array", "null"]
    assert found["tiny"]["type"] == ["string", "null"]


def test_a_run_with_a_catalog_asks_no_more(tmp_path: Path) -> None:
    """The types stand in the catalog: values are conformed or rescued by it, untyped ones stay."""
    user = {
        "braze_id": "u",
        "custom_attributes": {"real_flag": "true", "joined_on": "once", "tiny": "3.25", "untyped": {"a": 1}},
    }
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("mine", [user])
        config = {**sandbox.config, "spool_dir": str(tmp_path), "discover_custom_attributes": True}
        catalog = discover(config)
        asked = len(sandbox.calls)
        run = sync({**config, "segment_ids": ["mine"]}, catalog=catalog)
        assert "/custom_attributes" not in [call.path for call in sandbox.calls[asked:]]
    (row,) = run.rows("users")
    assert row["custom_attributes"] == {"real_flag": True, "joined_on": None, "tiny": 3.25, "untyped": {"a": 1}}
    assert row["_rescued_data"] == {"custom_attributes.joined_on": "once"}


def test_a_deselected_attribute_closes_the_list(tmp_path: Path) -> None:
    """Only the selected ones are asked for by name, and emitted, even if Braze sends more."""
    types = {"a": "string", "b": "integer", "c": "string"}
    user = {"braze_id": "u", "custom_attributes": {"a": "x", "b": "7", "c": "secret", "other": 1}}
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("mine", [json.dumps(user).encode()])
        config = {**sandbox.config, "spool_dir": str(tmp_path), "segment_ids": ["mine"], "custom_attributes": types}
        catalog = discover(config)
        select(catalog, ["users.custom_attributes.c"], selected=False)
        run = sync(config, catalog=catalog)
        (body,) = [call.body for call in sandbox.calls if call.path == "/users/export/segment"]
    assert body["custom_attributes_to_export"] == ["a", "b"]
    assert "custom_attributes" not in body["fields_to_export"]
    (row,) = run.rows("users")
    assert (row["custom_attributes"], row["_rescued_data"]) == ({"a": "x", "b": 7}, None)


def test_a_closed_list_loses_no_attribute_of_unknown_type(tmp_path: Path) -> None:
    """It is requested by name and emitted with any value; only what was deselected is missing."""
    values = {"text": "x", "many": [1, {"b": 12345678901234567890123}], "none": None, "flag": True, "plan": "p"}
    with Sandbox(users=1) as sandbox:
        sandbox.workspace.attributes[:] = [
            {"name": "text", "data_type": "Mystery"},
            {"name": "many", "data_type": None},
            {"name": "none"},
            {"name": "flag", "data_type": ["?"]},
            {"name": "plan", "data_type": "String"},
        ]
        sandbox.add_segment("mine", [{"braze_id": "u", "custom_attributes": values}])
        config = {**sandbox.config, "spool_dir": str(tmp_path), "segment_ids": ["mine"]}
        catalog = discover({**config, "discover_custom_attributes": True})
        select(catalog, ["users.custom_attributes.plan"], selected=False)
        run = sync(config, catalog=catalog)
        (body,) = [call.body for call in sandbox.calls if call.path == "/users/export/segment"]
    assert body["custom_attributes_to_export"] == ["flag", "many", "none", "text"]
    (row,) = run.rows("users")
    assert row["custom_attributes"] == {name: value for name, value in values.items() if name != "plan"}
    assert row["_rescued_data"] is None
    assert [*run.schemas["users"]["schema"]["properties"]["custom_attributes"]["properties"]] == [
        *("flag", "many", "none", "text")
    ]


def test_without_a_catalog_a_run_discovers_for_itself(tmp_path: Path) -> None:
    """The SCHEMA message and the rows know the types."""
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("mine", [{"braze_id": "u", "custom_attributes": {"real_flag": "false"}}])
        config = {**sandbox.config, "spool_dir": str(tmp_path), "segment_ids": ["mine"]}
        run = sync({**config, "discover_custom_attributes": True})
    (row,) = run.rows("users")
    assert row["custom_attributes"] == {"real_flag": False}
