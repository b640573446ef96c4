"""Types of custom attributes: from Braze, from the settings, and in the rows of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.custom_attributes import discovered_types
from tests.support.rows import select
from tests.support.runs import discover, sync

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("String", "string"),
        ("Number", "number"),
        ("Number (Automatically Detected)", "number"),
        ("Boolean", "boolean"),
        ("Time", "date-time"),
        ("Date", "date-time"),
        ("Array", "array"),
        ("Object Array", "array"),
        ("Object", "object"),
    ],
)
def test_types_are_told_from_whatever_spelling(said: str, meant: str) -> None:
    """Braze's spellings are not documented: a word in it decides."""
    assert discovered_types([{"name": "a", "data_type": said, "status": "Active"}]) == {"a": meant}


@pytest.mark.parametrize(
    "attribute",
    [
        {"name": "a", "data_type": "Mystery", "status": "Active"},
        {"name": "a", "data_type": None},
        {"name": "", "data_type": "String"},
        {"name": "a", "data_type": "String", "status": "Blocklisted"},
    ],
)
def test_what_is_not_known_stays_untyped(attribute: dict[str, Any]) -> None:
    """An unknown type leaves the attribute in the open object; a blocklisted one carries no data."""
    assert discovered_types([attribute]) == {}


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


def test_without_a_catalog_a_run_discovers_for_itself(tmp_path: Path) -> None:
    """The SCHEMA message and the rows know the types."""
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("mine", [{"braze_id": "u", "custom_attributes": {"real_flag": "false"}}])
        config = {**sandbox.config, "spool_dir": str(tmp_path), "segment_ids": ["mine"]}
        run = sync({**config, "discover_custom_attributes": True})
    (row,) = run.rows("users")
    assert row["custom_attributes"] == {"real_flag": False}
