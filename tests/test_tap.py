"""Whole syncs against the sandbox: the messages that a run emits, and the fields that it requests from Braze."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.user_object import TABLES
from tests.support.fakes import FakeClock
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_STREAMS = [table.stream for table in TABLES if table.selected_by_default]
CHILDREN = [stream for stream in DEFAULT_STREAMS if stream != "export_files"]
"""The streams of user data that are selected by default."""
ALL_FIELDS = [
    *("appboy_id", "apps", "attributed_ad", "attributed_adgroup", "attributed_campaign", "attributed_source"),
    *("braze_id", "campaigns_received", "canvases_received", "cards_clicked", "country", "created_at", "created_from"),
    *("custom_attributes", "custom_events", "devices", "dob", "email", "email_subscribe", "external_id"),
    *("first_name", "gender", "home_city", "language", "last_coordinates", "last_name", "phone", "purchases"),
    *("push_subscribe", "push_tokens", "random_bucket", "time_zone", "total_revenue", "uninstalled_at"),
    "user_aliases",
]


def requested(sandbox: Sandbox) -> list[Any]:
    """The bodies of the requests that started exports."""
    return [call.body for call in sandbox.calls if call.path.startswith("/users/export/") and call.status < 300]


def paths(sandbox: Sandbox) -> list[str]:
    """The REST calls so far."""
    return [call.path for call in sandbox.calls if call.service == "rest"]


# Messages


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over 2,000 users in ten files."""
    with Sandbox(users=2000, users_per_file=200) as sandbox:
        config = settings(sandbox, tmp_path_factory.mktemp("big"))
        return sync(config, catalog=selecting([*DEFAULT_STREAMS, "segment_members"]))


def test_one_schema_message_for_each_stream(big: Run) -> None:
    """Each selected stream is announced once, before its records."""
    assert sorted(big.schemas) == sorted([*DEFAULT_STREAMS, "segment_members"])
    announced: set[str] = set()
    for message in big.messages:
        announced |= {message["stream"]} if message["type"] == "SCHEMA" else set()
        assert message["type"] == "STATE" or message["stream"] in announced


def test_metrics_count_what_was_emitted(big: Run) -> None:
    """Each stream has one record_count, the number of its RECORD messages."""
    assert big.metrics == dict(big.counts)
    assert big.counts["users"] == 1999
    assert big.counts["segment_members"] == 1999
    assert big.counts["export_files"] == 10


def test_log_is_short(big: Run) -> None:
    """A run over ten files and 13 streams logs under 45 lines and names no user."""
    assert len(big.lines) < 45
    assert not big.warnings
    assert not [line for line in big.lines if any(user in line for user in big.ids())]


def test_keys_are_unique_and_never_null(big: Run) -> None:
    """Within a run no stream has two records of the same key; every key part is there."""
    for stream in big.schemas:
        keys = big.keys(stream)
        assert len(set(keys)) == len(keys), stream
        assert None not in {part for key in keys for part in key}, stream


def test_rows_have_exactly_the_columns_of_their_schema(big: Run) -> None:
    for stream in big.schemas:
        assert {frozenset(row) for row in big.rows(stream)} == {frozenset(big.columns(stream))}, stream


def test_exported_at_is_when_the_export_was_requested(big: Run) -> None:
    """All rows have one value, in one format; time_extracted is the same instant."""
    (value,) = {record["record"]["exported_at"] for record in big.of_type("RECORD")}
    assert value == "2027-01-15T08:00:00.000000Z"  # where the test's clock stands
    extracted = {datetime.fromisoformat(record["time_extracted"]) for record in big.of_type("RECORD")}
    assert extracted == {datetime.fromisoformat(value)}


def test_audit_log(big: Run) -> None:
    """export_files has a row for each file: its export, source and counts."""
    rows = big.rows("export_files")
    first = rows[0]
    export_id, name = first["export_id"], first["file"]
    assert name.startswith(tuple("0123456789abcdef"))
    assert name.endswith(".txt")
    assert ".zip!0-" in name
    assert first == {
        "export_id": export_id,
        "file": name,
        "source": "segment",
        "segment_id": "all-users",
        "exported_at": "2027-01-15T08:00:00.000000Z",
        "updated_since": None,
        "read_at": "2027-01-15T08:00:00.000000Z",
        "bytes": first["bytes"],
        "lines": 200,
        "users": 199,  # one of the odd users occurs twice
        "duplicates": 1,
        "unchanged": 0,
        "rejected": 0,
        "missed": None,
    }
    assert [row["file"].split("!")[1].split("-")[0] for row in rows] == [str(number) for number in range(10)]
    assert sum(row["users"] for row in rows) == big.counts["users"]
    assert all(row["bytes"] > 0 for row in rows)


def test_children_belong_to_users(big: Run) -> None:
    """Every row of every child stream has a user of the same export."""
    users = set(big.ids())
    for stream in CHILDREN:
        assert set(big.ids(stream)) <= users


def test_state_is_one_bookmark(big: Run) -> None:
    """STATE holds bookmarks.export_files and nothing else: no address, no key, no user."""
    for state in big.states:
        assert list(state) == ["bookmarks"]
        assert list(state["bookmarks"]) == ["export_files"]
        assert set(state["bookmarks"]["export_files"]) == {"version", "exports", "resync", "fingerprints"}
        assert isinstance(state["bookmarks"]["export_files"]["exports"], list)
    text = json.dumps(big.states)
    assert "http" not in text
    assert "sandbox-key" not in text
    assert not [user for user in big.ids() if user in text]


def test_users_are_as_braze_has_them(sandbox: Sandbox, tmp_path: Path) -> None:
    """The members of a user arrive under Braze's names."""
    sandbox.add_segment("one", [{"braze_id": "b1", "email": "a@example.com", "random_bucket": 7, "apps": []}])
    run = sync(settings(sandbox, tmp_path, segment_ids=["one"]))
    (user,) = run.rows("users")
    assert {name: value for name, value in user.items() if value is not None} == {
        "braze_id": "b1",
        "email": "a@example.com",
        "random_bucket": 7,
        "exported_at": "2027-01-15T08:00:00.000000Z",
    }


def test_state_comes_before_the_waiting(tmp_path: Path) -> None:
    """The first STATE goes alone while Braze still works: loaders connect on SCHEMA, and idle connections die."""

    class ReadyOnceWaitedFor(FakeClock):
        """Braze finishes the exports during the first wait."""

        def sleep(self, seconds: float) -> None:
            held.finish_exports()
            super().sleep(seconds)

    with Sandbox(users=5, hold=True) as held:
        run = sync(settings(held, tmp_path), clock=ReadyOnceWaitedFor())
    assert run.kinds == ["STATE", "SCHEMA", "RECORD", "STATE"]
    (export,) = run.states[0]["bookmarks"]["export_files"]["exports"]
    assert export["export_id"] == run.rows("export_files")[0]["export_id"]


def test_empty_segment(sandbox: Sandbox, tmp_path: Path) -> None:
    """A segment without users gives SCHEMA messages without rows, and one row of export_files."""
    run = sync(settings(sandbox, tmp_path, segment_ids=["empty-segment"]))
    assert dict(run.counts) == {"export_files": 1}
    assert sorted(run.schemas) == sorted(DEFAULT_STREAMS)
    assert run.metrics == {stream: int(stream == "export_files") for stream in DEFAULT_STREAMS}


# Requested fields


def test_everything_is_asked_for_by_default(sandbox: Sandbox, tmp_path: Path) -> None:
    sync(settings(sandbox, tmp_path))
    assert requested(sandbox) == [
        {"segment_id": "all-users", "fields_to_export": ALL_FIELDS, "output_format": "zip"},
    ]


@pytest.mark.parametrize(
    ("streams", "fields", "asked"),
    [
        (["users"], {"users": ["email", "phone"]}, ["braze_id", "email", "phone"]),
        (["users"], {"users": ["push_opted_in_at"]}, ["braze_id", "push_subscribe"]),
        (["users"], {"users": ["email_unsubscribed_at", "_rescued_data"]}, ["braze_id", "email_subscribe"]),
        (["users"], {"users": ["custom_attributes"]}, ["braze_id", "custom_attributes"]),
        (["users"], {"users": []}, ["braze_id"]),
        (["devices", "export_files"], {}, ["braze_id", "devices"]),
        (["devices"], {"devices": ["model"]}, ["braze_id", "devices"]),
        (["canvas_steps_received"], {}, ["braze_id", "canvases_received"]),
        (["apps", "canvases_received", "canvas_steps_received"], {}, ["apps", "braze_id", "canvases_received"]),
        (["segment_members"], {}, ["braze_id"]),
        (["export_files"], {}, ["braze_id"]),
    ],
)
def test_only_what_the_catalog_selects_is_asked_for(
    sandbox: Sandbox, tmp_path: Path, streams: list[str], fields: dict[str, list[str]], asked: list[str]
) -> None:
    """fields_to_export follows the selection and always holds braze_id."""
    run = sync(settings(sandbox, tmp_path), catalog=selecting(streams, fields))
    (body,) = requested(sandbox)
    assert body["fields_to_export"] == asked
    assert sorted(run.schemas) == sorted(streams)
    assert set(run.counts) == set(streams)
    for stream in streams:
        assert {frozenset(row) for row in run.rows(stream)} == {frozenset(run.columns(stream))}


def test_extra_fields_are_asked_for_and_rescued(sandbox: Sandbox, tmp_path: Path) -> None:
    """An unknown name is requested as it is; its values are in _rescued_data of users."""
    sandbox.add_segment("one", [{"braze_id": "b1", "horoscope": "Leo"}])
    config = settings(sandbox, tmp_path, segment_ids=["one"], extra_export_fields=["horoscope"])
    run = sync(config, catalog=selecting(["users"], {"users": ["_rescued_data"]}))
    assert requested(sandbox)[0]["fields_to_export"] == ["braze_id", "horoscope"]
    (user,) = run.rows("users")
    assert user["_rescued_data"] == {"horoscope": "Leo"}


def test_deselected_members_are_dropped_even_if_they_come(tmp_path: Path) -> None:
    """Of members that Braze sends without request, known ones are dropped and unknown ones rescued."""
    with Sandbox(users=12, odd_users=False, faults=["unrequested-fields"]) as sandbox:
        catalog = selecting(["users"], {"users": ["email", "_rescued_data"]})
        run = sync(settings(sandbox, tmp_path), catalog=catalog)
    rescued = [row["_rescued_data"] for row in run.rows("users")]
    assert rescued == [{"brand_new_member": {"since": 2026}}] * 12
    assert run.columns("users") == {"braze_id", "email", "exported_at", "_rescued_data"}


def test_single_members_can_be_deselected(sandbox: Sandbox, tmp_path: Path) -> None:
    """A deselected member of an object is neither in SCHEMA nor in records; its siblings are."""
    engaged = {"opened_email": True, "clicked_email": True, "opened_push": False}
    campaigns = [{"api_campaign_id": "c1", "engaged": engaged}]
    sandbox.add_segment("one", [{"braze_id": "b1", "campaigns_received": campaigns}])
    catalog = selecting(["campaigns_received"])
    (entry,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "campaigns_received"]
    for item in entry["metadata"]:
        if item["breadcrumb"][-1:] == ["clicked_email"]:
            item["metadata"]["selected"] = False
    run = sync(settings(sandbox, tmp_path, segment_ids=["one"]), catalog=catalog)
    (row,) = run.rows("campaigns_received")
    assert row["engaged"] == {"opened_email": True, "opened_push": False}
    assert row["_rescued_data"] is None
    announced = run.schemas["campaigns_received"]["schema"]["properties"]["engaged"]["properties"]
    assert "clicked_email" not in announced


def test_single_custom_attributes_are_asked_for_by_name(sandbox: Sandbox, tmp_path: Path) -> None:
    """Once a typed attribute is deselected, only the selected ones are requested and emitted."""
    attributes = {"plan": "gold", "score": "12", "secret": "x", "untyped": 1}
    sandbox.add_segment("one", [{"braze_id": "b1", "custom_attributes": attributes}])
    types = {"plan": "string", "score": "integer", "secret": "string"}
    config = settings(sandbox, tmp_path, segment_ids=["one"], custom_attributes=types)
    catalog = selecting(["users"], {"users": ["custom_attributes"]}, config)
    whole = sync(config, catalog=catalog)
    assert whole.rows("users")[0]["custom_attributes"] == {"plan": "gold", "score": 12, "secret": "x", "untyped": 1}
    (entry,) = [entry for entry in catalog["streams"] if entry["tap_stream_id"] == "users"]
    for item in entry["metadata"]:
        if item["breadcrumb"][-1:] == ["secret"]:
            item["metadata"]["selected"] = False
    some = sync(config, catalog=catalog)
    assert some.rows("users")[0]["custom_attributes"] == {"plan": "gold", "score": 12}
    assert [(body["fields_to_export"], body.get("custom_attributes_to_export")) for body in requested(sandbox)] == [
        (["braze_id", "custom_attributes"], None),
        (["braze_id"], ["plan", "score"]),
    ]


# Catalogs


def test_catalog_of_some_streams_leaves_out_the_others(sandbox: Sandbox, tmp_path: Path) -> None:
    """A stream that the catalog does not list is not synced; export_files may be missing, too."""
    catalog = selecting(["devices", "users"])
    catalog["streams"] = [entry for entry in catalog["streams"] if entry["tap_stream_id"] in ("devices", "users")]
    run = sync(settings(sandbox, tmp_path), catalog=catalog)
    assert sorted(run.schemas) == ["devices", "users"]
    assert run.counts["users"] == 39
    assert run.counts["devices"] > 0
    assert run.states[-1]["bookmarks"]["export_files"]["exports"]


def test_deselecting_export_files_touches_no_other_stream(sandbox: Sandbox, tmp_path: Path) -> None:
    """Only its own rows are left out; STATE is written all the same."""
    whole = sync(settings(sandbox, tmp_path))
    run = sync(settings(sandbox, tmp_path), catalog=selecting(CHILDREN))
    assert sorted(run.schemas) == sorted(CHILDREN)
    assert {stream: run.counts[stream] for stream in DEFAULT_STREAMS} == {**whole.counts, "export_files": 0}
    assert run.states[-1]["bookmarks"]["export_files"]["exports"]


def test_catalog_made_by_hand(sandbox: Sandbox, tmp_path: Path) -> None:
    """A catalog that lacks keys, exported_at and metadata of fields still gives complete messages."""
    catalog = {
        "streams": [
            {
                "tap_stream_id": "users",
                "stream": "users",
                "schema": {"type": "object", "properties": {"email": {"type": ["string", "null"]}}},
                "metadata": [
                    {"breadcrumb": [], "metadata": {"selected": True}},
                    {"breadcrumb": ["properties", "email"], "metadata": {"selected": True}},
                ],
            }
        ]
    }
    run = sync(settings(sandbox, tmp_path), catalog=catalog)
    assert run.schemas["users"]["key_properties"] == ["braze_id"]
    assert run.columns("users") == {"braze_id", "email", "exported_at"}
    assert {frozenset(row) for row in run.rows("users")} == {frozenset({"braze_id", "email", "exported_at"})}
    assert requested(sandbox)[0]["fields_to_export"] == ["braze_id", "email"]


def test_state_of_other_streams_is_not_passed_on(sandbox: Sandbox, tmp_path: Path) -> None:
    """The tap's STATE holds one bookmark, even if an orchestrator merged others into the STATE it was given."""
    run = sync(settings(sandbox, tmp_path), state={"bookmarks": {"users": {"partitions": []}, "old": {"a": 1}}})
    assert {tuple(state["bookmarks"]) for state in run.states} == {("export_files",)}


# Stream maps, flattening, limits


def comparable(run: Run) -> dict[str, list[dict[str, Any]]]:
    """All rows by stream, without the columns that differ between two runs."""
    own = {"export_id", "file"}
    records = [record for record in run.of_type("RECORD") if record["stream"] != "export_files"]
    rows = {stream: run.rows(stream) for stream in {record["stream"] for record in records}}
    audit = [{name: value for name, value in row.items() if name not in own} for row in run.rows("export_files")]
    return {**rows, "export_files": audit}


def test_both_paths_give_the_same_records(sandbox: Sandbox, tmp_path: Path) -> None:
    """Rows that go through the SDK's objects equal the rendered ones, number for number."""
    neutral = {stream: {"__filter__": "True"} for stream in DEFAULT_STREAMS}
    plain = sync(settings(sandbox, tmp_path))
    mapped = sync(settings(sandbox, tmp_path, stream_maps=neutral))
    assert comparable(mapped) == comparable(plain)
    assert mapped.metrics == plain.metrics
    times = [{message["time_extracted"] for message in run.of_type("RECORD")} for run in (plain, mapped)]
    assert [{datetime.fromisoformat(time) for time in found} for found in times] == [
        {datetime(2027, 1, 15, 8, tzinfo=UTC)}
    ] * 2
    assert raw_users(mapped) == raw_users(plain)


def raw_users(run: Run) -> list[Any]:
    """The rows of users in the output, with every digit of a number (1e-07 and 1E-7 are the same)."""
    lines = [line for line in run.stdout.splitlines() if line.startswith(b'{"type":"RECORD","stream":"users"')]
    assert lines
    return [json.loads(line, parse_float=lambda text: Decimal(text).as_tuple())["record"] for line in lines]


def test_stream_maps(sandbox: Sandbox, tmp_path: Path) -> None:
    """Renaming, removing, filtering, an alias and a copy of a stream are the SDK's."""
    maps = {
        "users": {"mail": "email", "email": None, "__filter__": "random_bucket is not None and random_bucket < 5000"},
        "apps": {"__alias__": "installations"},
        "people": {"__source__": "users", "braze_id": "braze_id", "__else__": None},
    }
    whole = sync(settings(sandbox, tmp_path))
    run = sync(settings(sandbox, tmp_path, stream_maps=maps))
    expected = [row for row in whole.rows("users") if row["random_bucket"] is not None and row["random_bucket"] < 5000]
    assert 0 < len(expected) < 39
    assert [row["mail"] for row in run.rows("users")] == [row["email"] for row in expected]
    assert not [row for row in run.rows("users") if "email" in row]
    assert "mail" in run.columns("users")
    assert run.counts["installations"] == whole.counts["apps"] > 0
    assert "apps" not in run.schemas
    assert run.rows("people") == [{"braze_id": user} for user in whole.ids()]


def test_else_null_keeps_only_what_is_mapped(sandbox: Sandbox, tmp_path: Path) -> None:
    """The one child is synced even though all other streams, export_files among them, are removed."""
    config = settings(sandbox, tmp_path, stream_maps={"devices": {}, "__else__": None})
    whole = sync(settings(sandbox, tmp_path))
    run = sync(config)
    assert dict(run.counts) == {"devices": whole.counts["devices"]}
    assert list(run.schemas) == ["devices"]
    assert {stream: count for stream, count in run.metrics.items() if count} == dict(run.counts)
    assert run.states[-1]["bookmarks"]["export_files"]["exports"]


def test_stream_map_of_a_deselected_stream(sandbox: Sandbox, tmp_path: Path) -> None:
    """The map is no error and has no effect."""
    maps = {"apps": {"title": "name"}, "segment_members": {"__filter__": "is_member"}}
    run = sync(settings(sandbox, tmp_path, stream_maps=maps), catalog=selecting(["users"]))
    assert dict(run.counts) == {"users": 39}


def test_flattening(sandbox: Sandbox, tmp_path: Path) -> None:
    """Flattened rows have the columns that the flattened schema announces."""
    campaigns = [{"api_campaign_id": "c1", "engaged": {"opened_email": True}}]
    user = {"braze_id": "b1", "custom_attributes": {"a": {"b": 1.10}}, "campaigns_received": campaigns}
    sandbox.add_segment("one", [user])
    config = settings(sandbox, tmp_path, segment_ids=["one"], flattening_enabled=True, flattening_max_depth=2)
    run = sync(config)
    (campaign,) = run.rows("campaigns_received")
    assert campaign["engaged__opened_email"] is True
    assert "engaged__opened_email" in run.columns("campaigns_received")
    (row,) = run.rows("users")
    assert set(row) <= run.columns("users")
    assert json.loads(row["custom_attributes"]) == {"a": {"b": 1.1}}


@pytest.mark.parametrize("limit", [1, 5])
def test_dry_run_stops_at_its_limit(sandbox: Sandbox, tmp_path: Path, limit: int) -> None:
    """No stream has more records than the limit; streams with fewer are complete."""
    run = sync(settings(sandbox, tmp_path), limit=limit)
    assert run.counts["users"] == limit
    assert max(run.counts.values()) == limit
    assert set(run.schemas) == {table.stream for table in TABLES}
    assert run.metrics == {stream: run.counts[stream] for stream in run.schemas}
