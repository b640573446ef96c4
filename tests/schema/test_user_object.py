"""The catalog of a tap without any configuration."""

from __future__ import annotations

from typing import Any

import pytest

from tap_braze_export.schema.custom_attributes import ATTRIBUTE_TYPES
from tap_braze_export.schema.declared import Declaration
from tap_braze_export.schema.table import Field, Type
from tap_braze_export.schema.user_object import TABLES, USERS
from tap_braze_export.tap import TapBrazeExport

KEYS = {
    "users": ["braze_id"],
    "devices": ["braze_id", "device_key"],
    "purchases": ["braze_id", "name"],
    "custom_events": ["braze_id", "name"],
    "campaigns_received": ["braze_id", "api_campaign_id"],
    "canvases_received": ["braze_id", "api_canvas_id"],
    "canvas_steps_received": ["braze_id", "api_canvas_id", "api_canvas_step_id"],
    "apps": ["braze_id", "name", "platform"],
    "push_tokens": ["braze_id", "app", "platform", "token"],
    "user_aliases": ["braze_id", "alias_label", "alias_name"],
    "cards_clicked": ["braze_id", "name"],
    "segment_members": ["segment_id", "braze_id"],
    "export_files": ["export_id", "file"],
    "invalid_user_ids": ["identifier_type", "identifier", "alias_label"],
}
NOT_RESCUING = {"segment_members", "export_files", "invalid_user_ids"}
NOT_BY_DEFAULT = {"segment_members", "invalid_user_ids"}
DATE_TIMES = {
    *("exported_at", "updated_since", "read_at", "created_at", "uninstalled_at"),
    *("push_opted_in_at", "push_unsubscribed_at"),
    *("email_opted_in_at", "email_unsubscribed_at", "first", "last", "first_used", "last_used", "last_received"),
    *("last_received_message", "last_entered", "last_entered_control_at", "last_exited"),
}


@pytest.fixture(scope="module")
def catalog() -> dict[str, dict[str, Any]]:
    """Each stream's entry in the catalog, by name."""
    tap = TapBrazeExport(config={}, validate_config=False)
    return {entry["tap_stream_id"]: entry for entry in tap.catalog_dict["streams"]}


def metadata(entry: dict[str, Any], *breadcrumb: str) -> dict[str, Any]:
    """The metadata of a stream or one of its columns."""
    found: dict[str, Any] = next(item["metadata"] for item in entry["metadata"] if item["breadcrumb"] == [*breadcrumb])
    return found


def test_the_catalog_has_the_streams_of_the_contract(catalog: dict[str, dict[str, Any]]) -> None:
    """With their keys, and nothing besides."""
    assert {name: [*entry["key_properties"]] for name, entry in catalog.items()} == KEYS
    assert {table.stream for table in TABLES} == set(KEYS)


def test_every_stream_is_a_full_table(catalog: dict[str, dict[str, Any]]) -> None:
    """Braze has no updated-at."""
    for entry in catalog.values():
        assert entry["replication_method"] == "FULL_TABLE"
        assert not entry.get("replication_key")


def test_keys_are_required_and_never_null(catalog: dict[str, dict[str, Any]]) -> None:
    """And of one type, text; the catalog cannot deselect them."""
    for stream, keys in KEYS.items():
        schema = catalog[stream]["schema"]
        assert schema["required"] == keys, stream
        for name in keys:
            assert schema["properties"][name]["type"] == "string", stream
            assert metadata(catalog[stream], "properties", name)["inclusion"] == "automatic", stream


def test_every_row_says_when_it_was_exported(catalog: dict[str, dict[str, Any]]) -> None:
    """`exported_at` is a date and time, never null, and cannot be deselected: the join for current rows needs it."""
    for stream in KEYS:
        column = catalog[stream]["schema"]["properties"]["exported_at"]
        assert (column["type"], column["format"]) == ("string", "date-time"), stream
        assert metadata(catalog[stream], "properties", "exported_at")["inclusion"] == "automatic", stream


def test_every_other_column_may_be_null(catalog: dict[str, dict[str, Any]]) -> None:
    """Braze leaves out what is empty; each column has one type besides null."""
    for stream, keys in KEYS.items():
        for name, column in catalog[stream]["schema"]["properties"].items():
            if name not in (*keys, "exported_at"):
                assert len(column["type"]) == 2, stream
                assert column["type"][1] == "null", stream
                assert metadata(catalog[stream], "properties", name)["inclusion"] == "available", stream


def test_what_is_made_of_braze_s_object_can_rescue(catalog: dict[str, dict[str, Any]]) -> None:
    """Every stream but the tap's own three has `_rescued_data`, an open object or null."""
    rescued = {
        name: entry["schema"]["properties"]["_rescued_data"]
        for name, entry in catalog.items()
        if "_rescued_data" in entry["schema"]["properties"]
    }
    assert set(rescued) == set(KEYS) - NOT_RESCUING
    for column in rescued.values():
        assert column["type"] == ["object", "null"]
        assert column["additionalProperties"] is True


def test_dates_have_their_format(catalog: dict[str, dict[str, Any]]) -> None:
    """Loaders make timestamps of exactly these columns."""
    columns = [column for entry in catalog.values() for column in entry["schema"]["properties"].items()]
    assert {name for name, column in columns if column.get("format") == "date-time"} == DATE_TIMES
    assert {name for name, column in columns if column.get("format") == "date"} == {"dob"}
    assert all("string" in column["type"] for _, column in columns if "format" in column)


@pytest.mark.parametrize(
    ("stream", "columns"),
    [
        ("users", "appboy_id created_from push_opted_in_at push_unsubscribed_at email_opted_in_at"),
        ("users", "email_unsubscribed_at uninstalled_at last_coordinates custom_attributes"),
        ("canvases_received", "in_control is_in_control last_entered_control_at"),
        ("push_tokens", "provisionally_opted_in"),
        ("devices", "device_id windows_ad_id"),
        ("campaigns_received", "engaged multiple_converted"),
        ("segment_members", "is_member"),
        ("export_files", "source segment_id read_at bytes lines users duplicates unchanged rejected"),
    ],
)
def test_columns_that_are_known_though_not_documented(
    catalog: dict[str, dict[str, Any]], stream: str, columns: str
) -> None:
    """They are columns, so that they are never rescued."""
    assert {*columns.split()} <= set(catalog[stream]["schema"]["properties"])


def test_users_hold_no_lists(catalog: dict[str, dict[str, Any]]) -> None:
    """Nested lists live only in their own streams; coordinates are the one array, of numbers."""
    users = catalog["users"]["schema"]["properties"]
    assert not set(users) & set(KEYS)
    assert {name: column for name, column in users.items() if "array" in column["type"]} == {
        "last_coordinates": {**users["last_coordinates"], "type": ["array", "null"], "items": {"type": "number"}}
    }


def test_open_objects_stay_open(catalog: dict[str, dict[str, Any]]) -> None:
    """Whatever members they are known to have; `engaged` knows both spellings of the in-app click."""
    campaigns = catalog["campaigns_received"]["schema"]["properties"]
    for column in (campaigns["engaged"], campaigns["multiple_converted"]):
        assert column["additionalProperties"] is True
    assert set(campaigns["engaged"]["properties"]) == {
        *("opened_email", "opened_push", "clicked_email"),
        *("clicked_in_app_message", "clicked_triggered_in_app_message"),
    }
    assert catalog["users"]["schema"]["properties"]["custom_attributes"]["additionalProperties"] is True


def test_what_is_selected_by_default(catalog: dict[str, dict[str, Any]]) -> None:
    """Everything but `segment_members` and `invalid_user_ids`."""
    selected = {name: metadata(entry).get("selected", True) for name, entry in catalog.items()}
    assert {name for name, chosen in selected.items() if not chosen} == NOT_BY_DEFAULT


def test_every_column_says_what_it_is(catalog: dict[str, dict[str, Any]]) -> None:
    """Descriptions end up in the warehouse."""
    for entry in catalog.values():
        assert all(column.get("description") for column in entry["schema"]["properties"].values())


def test_columns_are_named_once() -> None:
    """Neither a stream's columns nor its keys repeat, and each key is a column."""
    for table in TABLES:
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert set(table.keys) <= set(names)


def test_typed_attributes_are_members_of_custom_attributes() -> None:
    """Nullable, and the object stays open."""
    attributes = [Field(name, kind, "") for name, kind in ATTRIBUTE_TYPES.items()]
    column = USERS.with_attributes(attributes).json_schema["properties"]["custom_attributes"]
    assert column["additionalProperties"] is True
    assert column["properties"] == {
        "string": {"type": ["string", "null"]},
        "integer": {"type": ["integer", "null"]},
        "number": {"type": ["number", "null"]},
        "boolean": {"type": ["boolean", "null"]},
        "date-time": {"type": ["string", "null"], "format": "date-time"},
        "array": {"type": ["array", "null"]},
        "object": {"type": ["object", "null"], "additionalProperties": True},
    }
    assert "properties" not in USERS.json_schema["properties"]["custom_attributes"]


@pytest.mark.parametrize("type_", [*ATTRIBUTE_TYPES.values(), Type.ANY])
def test_a_catalog_gives_attributes_their_types_back(type_: Type) -> None:
    """Types that were discovered once need no second discovery."""
    attributes = USERS.with_attributes([Field("x", type_, "")]).json_schema
    (found,) = Declaration.of(USERS, attributes).table.edited["custom_attributes"].members
    assert found == Field("x", type_, "")


def test_an_open_member_lists_every_type() -> None:
    """Some loaders skip a property without a type."""
    kinds = ["string", "integer", "number", "boolean", "array", "object", "null"]
    assert Field("x", Type.ANY, "").json_schema == {"type": kinds, "additionalProperties": True}
