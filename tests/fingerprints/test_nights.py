"""Night after night: exactly the users that changed are emitted, in every stream."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.nights import STREAMS, Nights, emitted, last_line, unchanged, user
from tests.support.runs import selecting

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ALL = ("apps", "custom_events", "segment_members", "users")


def every_stream(*braze_ids: str) -> dict[str, list[str]]:
    return {stream: [*braze_ids] for stream in ALL}


@pytest.fixture
def nights(sandbox: Sandbox, tmp_path: Path) -> Nights:
    return Nights(sandbox, tmp_path)


# Quiet about what did not change


def test_a_first_night_emits_everybody_and_says_why(nights: Nights) -> None:
    run = nights.run({"s": [user("a"), user("b")]})

    assert emitted(run) == every_stream("a", "b")
    assert "All users are emitted: STATE names no fingerprints of an earlier run" in run.lines
    assert last_line(run) == "  unchanged: 0 of 2 users were skipped, as the target has them"


def test_a_second_night_emits_exactly_the_changed_users(nights: Nights) -> None:
    """In every stream, and nothing else; a third night without a change emits nobody."""
    people = [user(f"u{number:02}") for number in range(20)]
    nights.run({"s": people})
    people[3], people[7] = user("u03", "Paris"), user("u07", apps=["Shop"])

    second = nights.run({"s": [*people, user("new")]})
    third = nights.run({"s": [*people, user("new")]})

    assert emitted(second) == every_stream("new", "u03", "u07")
    assert last_line(second) == "  unchanged: 18 of 21 users were skipped, as the target has them"
    assert unchanged(second) == 18
    assert (emitted(third), unchanged(third)) == ({}, 21)
    assert [row["name"] for row in nights.target.current("apps") if row["braze_id"] == "u07"] == ["Shop"]


def test_skipped_users_keep_their_time_together_with_their_children(nights: Nights) -> None:
    first = nights.run({"s": [user("a"), user("b")]})
    second = nights.run({"s": [user("a"), user("b", "Paris")]})
    times = {
        (row["braze_id"], row["exported_at"])
        for stream in ("users", "apps")
        for row in nights.target.tables[stream].values()
    }

    (a,), (b,) = (
        {row["exported_at"] for row in first.rows("users")},
        {row["exported_at"] for row in second.rows("users")},
    )
    assert times == {("a", a), ("b", b)}


def shuffled(value: Any, seed: random.Random, *, of_rows: bool = False) -> Any:
    """The same value with members in another order, and with those items that are rows of their own."""
    if isinstance(value, dict):
        members = [
            (name, shuffled(inner, seed, of_rows=isinstance(inner, list) and name in ROWS))
            for name, inner in value.items()
        ]
        return dict(seed.sample(members, len(members)))
    if isinstance(value, list):
        items = [shuffled(item, seed) for item in value]
        return seed.sample(items, len(items)) if of_rows else items
    return value


ROWS = {"apps", "custom_events", "campaigns_received"}
RICH = user(
    "rich",
    custom_attributes={"tags": ["b", "a"], "plan": {"name": "pro", "seats": 3}, "Größe": "é", "score": 1.5},
    last_coordinates=[13.4, 52.5],
    campaigns_received=[
        {"name": "c", "api_campaign_id": "1", "engaged": {"opened_email": True, "clicked_email": False}},
        {"name": "d", "api_campaign_id": "2"},
    ],
    unknown_member={"z": [1, 2], "a": None},
)


def raw(user: dict[str, Any]) -> bytes:
    """A line that holds also what nobody has asked for."""
    return json.dumps(user, ensure_ascii=False, separators=(",", ":")).encode()


def test_another_order_is_no_change(nights: Nights) -> None:
    """Of members and of rows, with blanks and escapes as another program would write them."""
    nights.run({"s": [raw(RICH | {"braze_id": f"rich-{seed}"}) for seed in range(5)]})
    lines = [
        json.dumps(shuffled(RICH | {"braze_id": f"rich-{seed}"}, random.Random(seed))).encode() for seed in range(5)
    ]

    second = nights.run({"s": lines})
    third = nights.run({"s": lines})

    assert (emitted(second), unchanged(second)) == ({}, 5)
    assert (emitted(third), unchanged(third)) == ({}, 5)


def test_another_order_in_a_value_is_a_change(sandbox: Sandbox, tmp_path: Path) -> None:
    """Wherever the list is, and however deep: only the items that become rows have no order."""
    nights = Nights(sandbox, tmp_path, streams=[*STREAMS, "campaigns_received"])
    flags = {"name": "c", "api_campaign_id": "1"}
    turned: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"last_coordinates": [13.4, 52.5]}, {"last_coordinates": [52.5, 13.4]}),
        ({"custom_attributes": {"tags": ["gold", "silver"]}}, {"custom_attributes": {"tags": ["silver", "gold"]}}),
        ({"custom_attributes": {"route": [[1, 2], [3, 4]]}}, {"custom_attributes": {"route": [[1, 2], [4, 3]]}}),
        ({"custom_attributes": {"a": {"b": [{"c": 1}, 2]}}}, {"custom_attributes": {"a": {"b": [2, {"c": 1}]}}}),
        ({"unknown": {"range": ["from", "to"]}}, {"unknown": {"range": ["to", "from"]}}),
        ({"unknown": [["a"], ["b"]]}, {"unknown": [["b"], ["a"]]}),
        ({"apps": [7, "seven"]}, {"apps": ["seven", 7]}),
    ]
    turned += [
        (
            {"campaigns_received": [flags | {name: {"new": [1, 2]}}]},
            {"campaigns_received": [flags | {name: {"new": [2, 1]}}]},
        )
        for name in ("engaged", "multiple_converted", "unknown")
    ]
    names = [f"user-{number}" for number in range(len(turned))]
    nights.run({"s": [raw(user(name) | before) for name, (before, _) in zip(names, turned, strict=True)]})

    again = nights.run({"s": [raw(user(name) | after) for name, (_, after) in zip(names, turned, strict=True)]})

    assert emitted(again)["users"] == names, turned


CHANGES: list[dict[str, Any]] = [
    {"home_city": None},
    {"email": "new@example.com"},
    {"custom_attributes": {"tags": ["a"]}},
    {"custom_attributes": {"tags": ["b", "a", "a"]}},
    {"apps": []},
    {"custom_events": [{"name": "login", "count": 4}]},
    {"custom_events": [{"name": "Login", "count": 3}]},
    {"unknown_member": {"z": [1, 2], "a": 0}},
    {"home_city": 7},
]


def test_every_change_of_a_row_is_one(nights: Nights) -> None:
    """And back."""
    before = {f"rich-{number}": RICH | {"braze_id": f"rich-{number}"} for number in range(len(CHANGES))}
    changed = [person | change for person, change in zip(before.values(), CHANGES, strict=True)]
    nights.run({"s": [*map(raw, before.values()), user("a")]})

    assert emitted(nights.run({"s": [*map(raw, changed), user("a")]}))["users"] == [*before]
    assert emitted(nights.run({"s": [*map(raw, before.values()), user("a")]}))["users"] == [*before]


def test_what_no_row_shows_is_no_change(sandbox: Sandbox, tmp_path: Path) -> None:
    """A member that is not selected, and a value that is conformed to the same one."""
    nights = Nights(sandbox, tmp_path, streams=["users", "export_files"])
    nights.run({"s": [user("a", random_bucket=12)]})

    assert emitted(nights.run({"s": [json.dumps(user("a", apps=[], random_bucket="12")).encode()]})) == {}


def test_rows_of_two_streams_are_not_mistaken(sandbox: Sandbox, tmp_path: Path) -> None:
    """An event that becomes a purchase of the same name has the same row but for the stream."""
    nights = Nights(sandbox, tmp_path)
    fields = {"custom_events": ["name"], "purchases": ["name"]}
    nights.catalog = selecting(["custom_events", "purchases"], fields)
    nights.run({"s": [{"braze_id": "a", "custom_events": [{"name": "x"}]}]})

    assert emitted(nights.run({"s": [{"braze_id": "a", "purchases": [{"name": "x"}]}]})) == {"purchases": ["a"]}


def test_a_to_b_to_a(nights: Nights) -> None:
    for city in ("Berlin", "Paris", "Berlin"):
        assert emitted(nights.run({"s": [user("a", city), user("b")]}))["users"][0] == "a"

    assert emitted(nights.run({"s": [user("a"), user("b")]})) == {}


# Duplicates


def test_the_last_line_of_a_user_decides(nights: Nights) -> None:
    """Also if it is the unchanged one, or the changed one stands before it."""
    nights.run({"s": [user("a"), user("b")]})

    unchanged_last = nights.run({"s": [user("a", "Paris"), user("b"), user("a")]})
    changed_last = nights.run({"s": [user("a"), user("b"), user("a", "Paris")]})

    assert emitted(unchanged_last) == {}
    assert [row["duplicates"] for row in unchanged_last.rows("export_files")] == [1]
    assert emitted(changed_last) == every_stream("a")


def test_a_user_of_two_files_has_what_was_emitted_last(sandbox: Sandbox, tmp_path: Path) -> None:
    """Changed in the first file and unchanged in the second one, it must be emitted twice."""
    nights = Nights(sandbox, tmp_path, segment_ids=["s"])
    for files in ([[user("a")], [user("b")]], [[user("a", "Paris")], [user("b"), user("a")]]):
        sandbox.add_segment("s", files=files)
        run = nights.run()

    assert [(row["braze_id"], row["home_city"]) for row in run.rows("users")] == [("a", "Paris"), ("a", "Berlin")]


# Segments


def test_segments_that_share_users(nights: Nights) -> None:
    """An unchanged user is skipped in both; a changed one is emitted by each, so that both know its membership."""
    nights.run({"s": [user("a"), user("b")], "t": [user("b"), user("c")]})

    assert emitted(nights.run({"s": [user("a"), user("b")], "t": [user("b"), user("c")]})) == {}
    changed = nights.run({"s": [user("a"), user("b", "Paris")], "t": [user("b", "Paris"), user("c")]})
    assert emitted(changed) == every_stream("b")
    assert emitted(nights.run({"s": [user("a"), user("b", "Paris")], "t": [user("b", "Paris"), user("c")]})) == {}


def test_a_user_that_moves_between_segments_and_back(nights: Nights) -> None:
    everybody = {"s": [user("a"), user("b")], "t": [user("c")]}
    nights.run(everybody)

    there = nights.run({"s": [user("a")], "t": [user("c"), user("b")]})
    assert [(row["segment_id"], row["braze_id"], row["is_member"]) for row in there.rows("segment_members")] == [
        ("t", "b", True),
        ("s", "b", False),
    ]
    back = nights.run(everybody)
    assert (nights.target.members("s"), nights.target.members("t")) == (["a", "b"], ["c"])
    assert {row["braze_id"] for row in back.rows("segment_members")} == {"b"}
    assert emitted(nights.run(everybody)) == {}


def test_a_segment_that_is_renamed_or_added(nights: Nights) -> None:
    """Its name is not its id. A new id is a new segment: only memberships differ, but whole users are emitted."""
    nights.run({"s": [user("a"), user("b")]})
    nights.sandbox.add_segment("s", [user("a"), user("b")], name="Another name")

    assert emitted(nights.run(segment_ids=["s"])) == {}
    assert emitted(nights.run({"s": [user("a"), user("b")], "t": [user("b")]})) == every_stream("b")


def test_without_memberships_a_new_segment_emits_nobody(sandbox: Sandbox, tmp_path: Path) -> None:
    nights = Nights(sandbox, tmp_path, streams=["users", "apps", "export_files"])
    nights.run({"s": [user("a"), user("b")]})

    assert emitted(nights.run({"t": [user("b")]})) == {}


def test_the_global_control_group(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its users have memberships only, and say nothing of profiles."""
    nights = Nights(sandbox, tmp_path, global_control_group=True)
    first = nights.run({"s": [user("a")]})
    members = [row["braze_id"] for row in first.rows("segment_members") if row["segment_id"] != "s"]

    assert members
    assert emitted(nights.run({"s": [user("a")]})) == {}
    assert emitted(nights.run({"s": [user(members[0]), user("a")]})) == every_stream(members[0])


# Leavers


def test_leavers_are_no_members_any_more(nights: Nights) -> None:
    nights.run({"s": [user("a"), user("b"), user("c"), user("d")]})

    second = nights.run({"s": [user("b"), user("d")]})

    assert [(row["braze_id"], row["is_member"]) for row in second.rows("segment_members")] == [
        ("a", False),
        ("c", False),
    ]
    assert {row["exported_at"] for row in second.rows("segment_members")} == {
        row["exported_at"] for row in second.rows("export_files")
    }
    assert emitted(nights.run({"s": [user("b"), user("d")]})) == {}
    assert emitted(nights.run({"s": [user("b"), user("c"), user("d")]})) == every_stream("c")
    assert nights.target.members("s") == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("left", "reason"),
    [(0, "segment s had no user"), (2, "segment s had 5 users before and 2 now")],
)
def test_nobody_leaves_an_export_that_has_far_fewer_users(nights: Nights, left: int, reason: str) -> None:
    """Rows are kept for the same reason; the export is compared with the last one that had users."""
    people = [user(name) for name in "abcde"]
    nights.run({"s": people})

    run = nights.run({"s": people[:left]})

    assert run.rows("segment_members") == []
    assert [line for line in run.lines if "leaves" in line] == [f"No user leaves segment s in this run: {reason}"]
    again = nights.run({"s": people[:left]})
    assert len(again.rows("segment_members")) == (3 if left else 0)


def test_nobody_leaves_in_a_run_with_rejected_lines(nights: Nights) -> None:
    """The line may be that of a member."""
    nights.run({"s": [user("a"), user("b")]})

    run = nights.run({"s": [user("b"), b"no JSON"]}, max_rejected_lines=1)

    assert emitted(run) == {}
    assert [row["braze_id"] for row in nights.run({"s": [user("b")]}).rows("segment_members")] == ["a"]


def test_nobody_leaves_an_export_that_is_only_assumed_to_be_complete(tmp_path: Path) -> None:
    """After `settle_minutes` of quiet a file may still come."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with Sandbox(users=0, bucket_url=str(bucket)) as braze:
        nights = Nights(braze, tmp_path, bucket_url=str(bucket), settle_minutes=1)
        nights.run({"s": [user("a"), user("b")]})

        assert emitted(nights.run({"s": [user("b")]})) == {}


def test_nobody_leaves_if_an_export_fails(nights: Nights) -> None:
    nights.run({"s": [user("a"), user("b")], "t": [user("c")]})

    nights.sandbox.workspace.segments.pop("t")
    run = nights.run({"s": [user("b")]}, segment_ids=["s", "t"], fails=True)

    assert emitted(run) == {}
