"""The fast path gives the rows of the careful path, and reads whatever is common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from tap_braze_export.rows.fast_path import FastPath
from tap_braze_export.rows.reader import Reader
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.selection import RequestedFields
from tests.support import odd_lines
from tests.support.rows import AT, HUGE, both_paths, parse, read_block, rows, selected, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_braze_export.rows.reader import BlockRows

FIELDS = RequestedFields.of(selected().values()).fields_to_export


class Counting(Reader):
    """A reader that counts the users that took the careful path."""

    def __init__(self, without: tuple[str, ...] = (), attributes: Mapping[str, str] | None = None) -> None:
        super().__init__(selected(without=without, attributes=attributes), exported_at=AT, segment_id="")
        self.careful = 0

    def read_carefully(self, braze_id: str, user: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        self.careful += 1
        return super().read_carefully(braze_id, user)

    def users(self, members: str, count: int = 1000) -> BlockRows:
        """Read `count` users that all hold the same members; an `@` is the user's number."""
        lines = [f'{{"braze_id":"u{n}",{members.replace("@", str(n))}}}'.encode() for n in range(count)]
        return read_block(self, lines)


@pytest.mark.slow
@given(odd_lines.catalogs(), odd_lines.exports())
@settings(
    derandomize=True, database=None, deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow]
)
def test_both_paths_give_the_same(catalog: dict[str, Any], blocks: list[list[bytes]]) -> None:
    """Rows, counts and rejected lines, whatever the users hold, the catalog selects and the reader has learned."""
    fast, careful = both_paths(selected(**catalog), blocks)
    assert fast == careful


@pytest.mark.slow
def test_both_paths_give_the_same_for_the_users_of_the_sandbox() -> None:
    """Over several chunks of users, some of them twice."""
    with Sandbox(users=700) as sandbox:
        lines = [*sandbox.lines("all-users", FIELDS)]
    fast, careful = both_paths(selected(), [[*lines, *lines[::100]], lines[::-1]])
    assert fast == careful


# Lines that take the fast path


@pytest.mark.parametrize(
    "members",
    [
        '"created_at":"2020-07-10T15:00:00.000Z"',
        '"created_at":"2020-07-10T15:00:00+00:00"',
        '"created_at":"2020-07-10 15:00:00.000 UTC"',
        '"created_at":""',
        '"created_at":null,"dob":"","uninstalled_at":"","custom_events":[{"name":"e","first":"","last":null}]',
        '"uninstalled_at":1592236800,"apps":[{"name":"a","sessions":"12"}]',
        '"uninstalled_at":1592236800123',
        '"purchases":[{"name":"p","count":"7"}],"last_coordinates":[1,2]',
        '"total_revenue":"12.50","last_coordinates":[]',
        '"custom_attributes":{"a":1.10,"b":[{"c":"\\u00e9"}],"n":12345678901234567890},"random_bucket":12',
        '"devices":[{"model":"m"},{"model":"m"},{"idfa":"i"},{"idfa":"i"}],"cards_clicked":[{"name":"c"},{"name":"c"}]',
        '"canvases_received":[{"api_canvas_id":"c","steps_received":[{"api_canvas_step_id":"s"},{"name":"t"}]}]',
    ],
)
def test_what_is_common_takes_the_fast_path(members: str) -> None:
    """Every well-known form of a value, in every line."""
    reader = Counting()
    assert reader.users(members).users == 1000
    assert reader.careful == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "without",
    [
        ("users.email",),
        ("users",),
        ("devices",),
        ("devices.device_id", "devices.idfv"),
        ("campaigns_received.engaged",),
        ("campaigns_received.engaged.opened_push", "campaigns_received.converted"),
        ("custom_events.first", "custom_events.count"),
        ("canvases_received",),
        ("users._rescued_data", "devices._rescued_data"),
        ("users.custom_attributes",),
    ],
)
def test_what_the_catalog_deselects_takes_the_fast_path(without: tuple[str, ...]) -> None:
    """Braze sends lists whole, and more than was asked for to a run that adopts an export."""
    with Sandbox(users=300, odd_users=False) as sandbox:
        lines = [*sandbox.lines("all-users", FIELDS)]
    reader, whole = Counting(without), Counting()
    for _ in range(2):
        careful = reader.careful
        read_block(reader, lines)
    assert reader.careful == careful
    read_block(whole, lines)
    assert whole.careful == 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ('"x"', "string"),
        ("12", "integer"),
        ("true", "boolean"),
        ("[1.10]", "array"),
        ("{}", "object"),
        ('{"a":1}', "any"),
    ],
)
def test_typed_attributes_take_the_fast_path(value: str, kind: str) -> None:
    """Where their values fit."""
    reader = Counting(attributes={"plan": kind})
    reader.users(f'"custom_attributes":{{"plan":{value},"free":[@]}}')
    assert reader.careful == 0


@pytest.mark.parametrize("others", [("7",), ("7", "null"), ("null",), ("7", "null", "true")])
def test_integers_as_text_become_integers_among_others(others: tuple[str, ...]) -> None:
    """Whatever the other users of the file have there; one that is no integer is rescued."""
    counts = ['"12"', *others] * 20
    lines = [f'{{"braze_id":"u{n}","purchases":[{{"name":"p","count":{c}}}]}}'.encode() for n, c in enumerate(counts)]
    fast, careful = both_paths(selected(), [lines])
    assert fast == careful
    read = rows(read_block(Reader(selected(), exported_at=AT, segment_id=""), lines))["purchases"]
    assert [row["count"] for row in read if int(row["braze_id"][1:]) % (len(others) + 1) == 0] == [shown("12")] * 20


REPEATED = [
    ('{"a":1,"a":2}', {"a": "<2>"}),
    ('{"a":1,"b":[{"c":{"d":1,"d":[]}}],"a":null}', {"a": None, "b": [{"c": {"d": []}}]}),
    ('{"a" :1,"a":2}', {"a": "<2>"}),
    ('{"a"\t:{},"a":2}', {"a": "<2>"}),
    ('{"pl\\u0061n":1,"plan":2}', {"plan": "<2>"}),
    ('{"a":"\\u0022:","b":1,"b":2}', {"a": '":', "b": "<2>"}),
    ('{"a":"\\"\\u003a","b":1,"b":2}', {"a": '":', "b": "<2>"}),
    ('{"a":"\\":","b":{"":1}}', {"a": '":', "b": {"": "<1>"}}),
    ('{"a":[[{"b":1},{"b":1,"b":3}]]}', {"a": [[{"b": "<1>"}, {"b": "<3>"}]]}),
]
"""Objects in which a member stands twice, or seems to, and the object that is meant: the last one wins."""


@pytest.mark.parametrize("member", ["custom_attributes", "new"])
def test_of_a_member_that_stands_twice_the_last_one_wins(member: str) -> None:
    """At any depth, on both paths, also where the tap has learned the member."""
    for value, meant in REPEATED:
        plain = [f'{{"braze_id":"p{n}","{member}":{{"a":1,"b":"10:30"}}}}'.encode() for n in range(20)]
        line = f'{{"braze_id":"u","{member}":{value}}}'.encode()
        fast, careful = both_paths(selected(), [plain, [*plain, line]])
        assert fast == careful, value
        reader = Reader(selected(), exported_at=AT, segment_id="")
        read_block(reader, plain)
        found = rows(read_block(reader, [*plain, line]))["users"]
        (row,) = [row for row in found if row["braze_id"] == "u"]
        held = row["custom_attributes"] if member == "custom_attributes" else row["_rescued_data"]["new"]
        assert held == meant, value


# Members that are learned


@pytest.mark.parametrize(
    ("stream", "members", "rescued"),
    [
        ("users", '"new":{"since":@}', {"new": {"since": "<9>"}}),
        ("users", '"learned_0":@,"other":1.50', {"learned_0": "<9>", "other": "<1.50>"}),
        ("devices", '"devices":[{"device_id":"d","new":[@]}]', {"new": ["<9>"]}),
        ("canvas_steps_received", '"canvases_received":[{"steps_received":[{"new":@}]}]', {"new": "<9>"}),
        ("users", '"exported_at":"@","_rescued_data":null', {"exported_at": "9", "_rescued_data": None}),
    ],
)
def test_a_member_that_keeps_coming_is_learned(stream: str, members: str, rescued: dict[str, Any]) -> None:
    """It costs the careful path the first users that are read at once and none of the next file."""
    reader = Counting()
    for careful in (64, 64):
        found = rows(reader.users(members))[stream]
        assert reader.careful <= careful or "exported_at" in rescued
        assert next(row for row in found if row["braze_id"] == "u9")["_rescued_data"] == rescued


@pytest.mark.parametrize(
    "name", ['quo\\"ted', "back\\\\slash", "\\n", "", "__init__", "class", "a.b", "é", "x" * 10_000]
)
def test_a_name_that_no_struct_can_have_is_rescued(name: str) -> None:
    """Whichever path it takes."""
    reader = Counting()
    for _ in range(2):
        found = rows(reader.users(f'"{name}":@', 50))["users"]
        assert [row["_rescued_data"] for row in found] == [
            {parse(f'"{name}"'): f"<{n}>"} for n in map(int, (row["braze_id"][1:] for row in found))
        ]


def test_only_64_members_are_learned() -> None:
    """Names that are values would make the decoder endless."""
    reader = Counting()
    for start in range(0, 100, 10):
        names = ",".join(f'"n{number}":{number}' for number in range(start, start + 10))
        for row in rows(reader.users(names, 20))["users"]:
            assert len(row["_rescued_data"]) == 10
    assert reader.careful >= 3 * 20


def test_an_anonymous_device_with_an_unknown_member_keeps_its_key() -> None:
    """The key is made of all that the device holds, so the careful path makes it."""
    line = b'{"braze_id":"%d","devices":[{"model":"m","new":1}]}'
    fast, careful = both_paths(selected(), [[line % number for number in range(300)]] * 2)
    assert fast == careful


@pytest.mark.parametrize(
    "line",
    [
        b'{"braze_id":""}',
        b"{}",
        b"[]",
        b'{"braze_id":"u","email":"\\u0000"}',
        b'{"braze_id":"u","custom_attributes":{"a":\r1}}',
        b'{"braze_id":"u","custom_attributes":{"a":"\xff"}}',
        b'{"braze_id":"u","custom_attributes":{"a":' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"braze_id":"u","apps":[{"name":1}]}',
    ],
)
def test_a_line_that_needs_the_careful_path_is_refused(line: bytes) -> None:
    """Lines without an id, with text that is not storable as it is, or with what a loader may take for a line's end."""
    by_path = {s.table.path: s for s in selected().values() if s.table.path is not None}
    good = b'{"braze_id":"good"}'
    users = FastPath(by_path, exported_at=AT).decode([good, line, good])
    assert [user and user.braze_id for user in users] == ["good", None, "good"]


@pytest.mark.parametrize("value", ["1e400", "-1e-400", HUGE, "[1e400]", "0." + HUGE])
def test_a_member_that_is_seen_often_is_rescued_like_a_new_one(value: str) -> None:
    """Though the tap has learned to expect it."""
    reader = Reader(selected(), exported_at=AT, segment_id="")
    lines = [f'{{"braze_id":"u{n}","new_field":{value}}}'.encode() for n in range(20)]
    for _ in range(2):
        found = rows(read_block(reader, lines))["users"]
        assert [row["_rescued_data"] for row in found] == [{"new_field": rescued(value)}] * 20


def rescued(value: str) -> Any:
    """A value whose numbers have become text, because no loader holds them."""
    return parse(value, str)
