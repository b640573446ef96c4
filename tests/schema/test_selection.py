"""The catalog decides which fields are requested, and which columns are emitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.singerlib import SelectionMask

from tap_braze_export.schema.selection import MOST_NAMED_ATTRIBUTES, RequestedFields, Selection
from tap_braze_export.schema.user_object import CAMPAIGNS_RECEIVED, TABLES, USERS
from tests.support.rows import select, selected
from tests.support.runs import discover, settings, sync

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tests.support.runs import Run

EVERYTHING = [
    *("appboy_id", "apps", "attributed_ad", "attributed_adgroup", "attributed_campaign", "attributed_source"),
    *("braze_id", "campaigns_received", "canvases_received", "cards_clicked", "country", "created_at"),
    *("created_from", "custom_attributes", "custom_events", "devices", "dob", "email", "email_subscribe"),
    *("external_id", "first_name", "gender", "home_city", "language", "last_coordinates", "last_name", "phone"),
    *("purchases", "push_subscribe", "push_tokens", "random_bucket", "time_zone", "total_revenue"),
    *("uninstalled_at", "user_aliases"),
]
NESTED = {
    *("apps", "campaigns_received", "canvases_received", "cards_clicked", "custom_events", "devices"),
    *("purchases", "push_tokens", "user_aliases"),
}
SCALARS = [name for name in EVERYTHING if name not in NESTED]
USER_COLUMNS = [column.name for column in USERS.columns]


def requested_fields(*, extra: Iterable[str] = (), **options: Any) -> list[str]:
    """The `fields_to_export` of a selection."""
    return [*RequestedFields.of(selected(**options).values(), extra).fields_to_export]


def users_without(kept: Iterable[str]) -> list[str]:
    """Paths that deselect all columns of `users` but these."""
    return [f"users.{name}" for name in USER_COLUMNS if name not in {*kept}]


def test_everything_selected_asks_for_everything() -> None:
    """Each scalar, `custom_attributes` and each list once, sorted; no column that comes by itself."""
    assert requested_fields() == EVERYTHING


def test_braze_id_is_always_asked_for() -> None:
    """Without it no row has a key."""
    assert requested_fields(only=[]) == ["braze_id"]
    assert requested_fields(only=["users"], without=users_without(["braze_id"])) == ["braze_id"]


FIELDS: list[tuple[str, list[str]]] = [
    ("users", SCALARS),
    *((stream, sorted({stream, "braze_id"})) for stream in sorted(NESTED)),
    ("canvas_steps_received", ["braze_id", "canvases_received"]),
    ("segment_members", ["braze_id"]),
    ("export_files", ["braze_id"]),
    ("invalid_user_ids", ["braze_id"]),
]


def test_a_stream_asks_for_its_own_fields() -> None:
    """And for nothing that another stream needs."""
    for stream, fields in FIELDS:
        assert requested_fields(only=[stream]) == fields, (stream, fields)


@pytest.mark.parametrize("stream", sorted(NESTED - {"canvases_received"}))
def test_a_deselected_stream_is_not_asked_for(stream: str) -> None:
    """Its list makes the export bigger and slower."""
    assert requested_fields(without=[stream]) == [name for name in EVERYTHING if name != stream]


def test_canvases_are_asked_for_as_long_as_one_of_their_streams_is_selected() -> None:
    """Canvases and their steps come in the same list."""
    assert "canvases_received" in requested_fields(without=["canvases_received"])
    assert "canvases_received" in requested_fields(without=["canvas_steps_received"])
    assert "canvases_received" not in requested_fields(without=["canvases_received", "canvas_steps_received"])


def test_a_deselected_column_of_a_list_changes_nothing() -> None:
    """Braze sends its objects whole."""
    assert requested_fields(without=["devices.model", "purchases.count"]) == EVERYTHING


def test_a_deselected_field_is_not_asked_for() -> None:
    """One by one."""
    for name in [name for name in SCALARS if name not in ("braze_id", "push_subscribe", "email_subscribe")]:
        assert requested_fields(without=[f"users.{name}"]) == [field for field in EVERYTHING if field != name], name


@pytest.mark.parametrize("channel", ["push", "email"])
def test_the_times_of_a_subscription_come_with_it(channel: str) -> None:
    """They cannot be requested by name: any of the three asks for the first."""
    family = [f"{channel}_subscribe", f"{channel}_opted_in_at", f"{channel}_unsubscribed_at"]
    for name in family:
        assert requested_fields(only=["users"], without=users_without([name])) == ["braze_id", family[0]]
    assert family[0] not in requested_fields(without=[f"users.{name}" for name in family])


def test_extra_fields_are_added_unchecked() -> None:
    """Sorted in, once, whatever they are called."""
    assert requested_fields(only=["apps"], extra=["new_field", "apps", "Odd Name"]) == [
        *("Odd Name", "apps", "braze_id", "new_field")
    ]


# Custom attributes


def requested_attributes(**options: Any) -> tuple[bool, list[str]]:
    """True if all custom attributes are requested; and those requested by name."""
    fields = RequestedFields.of(selected(**options).values())
    return "custom_attributes" in fields.fields_to_export, [*fields.custom_attributes_to_export]


def test_typing_attributes_does_not_restrict() -> None:
    """While none is deselected all are requested."""
    assert requested_attributes(attributes={"b": "integer", "a": "string"}) == (True, [])


def test_deselecting_an_attribute_makes_a_closed_list() -> None:
    """Only the selected ones are requested, by name, sorted, and not the whole object."""
    typed = {"c": "string", "b": "integer", "a": "string"}
    assert requested_attributes(attributes=typed, without=["users.custom_attributes.b"]) == (False, ["a", "c"])


def test_deselecting_every_attribute_asks_for_none() -> None:
    """As does deselecting the column."""
    typed = {"a": "string", "b": "integer"}
    without = ["users.custom_attributes.a", "users.custom_attributes.b"]
    assert requested_attributes(attributes=typed, without=without) == (False, [])
    assert requested_attributes(attributes=typed, without=["users.custom_attributes"]) == (False, [])
    assert requested_attributes(attributes=typed, without=["users"]) == (False, [])


@pytest.mark.parametrize(
    ("names", "whole"), [(MOST_NAMED_ATTRIBUTES, False), (MOST_NAMED_ATTRIBUTES + 1, True), (2000, True)]
)
def test_more_than_500_attributes_are_requested_whole(names: int, whole: bool) -> None:  # noqa: FBT001
    """Braze takes no longer list; the others are dropped when they come."""
    typed = {f"a{number:04}": "string" for number in range(names + 1)}
    narrowed: dict[str, Any] = {"attributes": typed, "without": ["users.custom_attributes.a0000"]}
    assert requested_attributes(**narrowed) == (whole, [] if whole else [*typed][1:])
    assert selected(**narrowed)["users"].named_attributes == tuple(typed)[1:]


def test_what_is_asked_for_is_one_list() -> None:
    """Named attributes stand in it under their dotted name."""
    typed = {"a": "string", "b": "string"}
    fields = RequestedFields.of(
        selected(only=["users"], attributes=typed, without=["users.custom_attributes.a"]).values()
    )
    assert fields.requested_fields == (*(n for n in SCALARS if n != "custom_attributes"), "custom_attributes.b")


# Columns


def test_keys_and_exported_at_cannot_be_deselected() -> None:
    """Every other column can; their order is the catalog's."""
    for table in TABLES:
        nothing = [f"{table.stream}.{column.name}" for column in table.columns]
        left = selected(without=nothing)[table.stream].columns
        assert {column.name for column in left} == {*table.keys, "exported_at"}, table.stream
        everything = [column.name for column in selected()[table.stream].columns]
        assert [column.name for column in left] == [
            name for name in everything if name in {*table.keys, "exported_at"}
        ], table.stream


def test_a_column_that_the_catalog_lacks_is_deselected() -> None:
    """A catalog made by an older version does not know it, and neither does the SCHEMA message."""
    schema: dict[str, Any] = {"properties": {"braze_id": {}, "exported_at": {}, "email": {}}}
    mask: dict[tuple[str, ...], bool] = {("properties", name): True for name in USER_COLUMNS}
    assert Selection.of(USERS, mask, schema).names == {"braze_id", "exported_at", "email"}


# The whole tap


# Enough users for a control group.
pytestmark = pytest.mark.sandbox(users=200)


def run(
    sandbox: Sandbox, folder: Path, *, without: Iterable[str] = (), more: Iterable[str] = (), **options: Any
) -> tuple[list[Any], Run]:
    """Run with a selection; return the bodies of the POSTs that start exports, too."""
    config = settings(sandbox, folder, **options)
    catalog = json.loads(json.dumps(discover(config)))
    select(catalog, without, selected=False)
    select(catalog, more, selected=True)
    before = len(sandbox.calls)
    done = sync(config, catalog=catalog)
    return [call.body for call in sandbox.calls[before:] if "/users/export/" in call.path], done


def test_the_request_holds_what_the_catalog_selects(sandbox: Sandbox, tmp_path: Path) -> None:
    """Streams, columns and members; the SCHEMA and the rows hold the same columns."""
    sandbox.add_segment("mine", [{"braze_id": "u", "email": "e", "custom_attributes": {"a": "1", "b": 2, "c": 3}}])
    streams = ("devices", "canvases_received", "canvas_steps_received")
    (body,), done = run(
        sandbox,
        tmp_path,
        without=(*streams, "users.email", "users.push_subscribe", "users.custom_attributes.b"),
        segment_ids=["mine"],
        custom_attributes={"a": "integer", "b": "integer"},
    )
    gone = {"devices", "canvases_received", "email", "custom_attributes"}
    assert body["fields_to_export"] == [name for name in EVERYTHING if name not in gone]
    assert body["custom_attributes_to_export"] == ["a"]
    assert not {*done.schemas} & {*streams}
    (row,) = done.rows("users")
    assert set(row) == done.columns("users") == {*USER_COLUMNS} - {"email", "push_subscribe"}
    assert [*done.schemas["users"]["schema"]["properties"]["custom_attributes"]["properties"]] == ["a"]
    assert row["custom_attributes"] == {"a": 1}


def test_the_default_selection_asks_for_everything(sandbox: Sandbox, tmp_path: Path) -> None:
    """And names no attribute."""
    (body,), _ = run(sandbox, tmp_path)
    assert body["fields_to_export"] == EVERYTHING
    assert "custom_attributes_to_export" not in body


def test_extra_fields_are_rescued(sandbox: Sandbox, tmp_path: Path) -> None:
    """`extra_export_fields` are requested as they are written; their values land in `_rescued_data` of `users`."""
    sandbox.add_segment("mine", [{"braze_id": "u", "new_field": [1]}])
    (body,), done = run(sandbox, tmp_path, segment_ids=["mine"], extra_export_fields=["new_field"])
    assert body["fields_to_export"] == sorted([*EVERYTHING, "new_field"])
    assert [row["_rescued_data"] for row in done.rows("users")] == [{"new_field": [1]}]


@pytest.mark.parametrize("without", [(), ("users", "export_files")])
def test_the_control_group_is_asked_for_braze_ids_only(
    sandbox: Sandbox, tmp_path: Path, without: tuple[str, ...]
) -> None:
    """It gives memberships and the audit log, nothing else: its fewer fields would blank the others."""
    options = {"segment_ids": [], "global_control_group": True, "extra_export_fields": ["new_field"]}
    (body,), done = run(sandbox, tmp_path, without=without, more=["segment_members"], **options)
    assert body["fields_to_export"] == ["braze_id"]
    assert "custom_attributes_to_export" not in body
    assert {*done.counts} == {"segment_members", "export_files"} - {*without}
    members = {(row["segment_id"], row["is_member"]) for row in done.rows("segment_members")}
    assert members == {("global_control_group", True)}


def test_without_members_the_control_group_is_not_exported(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nothing would be left of it; the log says so."""
    bodies, done = run(sandbox, tmp_path, segment_ids=[], global_control_group=True)
    assert bodies == []
    assert [line for line in done.lines if "Global Control Group is not exported" in line]


def test_a_catalog_that_lists_no_members_deselects_none() -> None:
    """Another tool's catalog may call `engaged` an object and no more: only metadata deselects its members."""
    plain = {"properties": {"engaged": {"type": ["object", "null"]}}}
    (engaged,) = [
        column
        for column in Selection.of(CAMPAIGNS_RECEIVED, SelectionMask(), plain).columns
        if column.name == "engaged"
    ]
    assert {"opened_email", "clicked_in_app_message"} <= {member.name for member in engaged.members}
