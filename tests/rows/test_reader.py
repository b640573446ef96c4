"""Lines become the rows of every stream: decoded, conformed, rescued, deduplicated."""

from __future__ import annotations

import json
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.files.archive import Block
from tap_braze_export.rows.reader import Reader
from tap_braze_export.schema.user_object import TABLES
from tests.support.rows import AT, Case, cases, parse, read, row_of, rows, selected, user_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.rows.reader import BlockRows

CASES = [*cases("odd_users.json"), *cases("samples.json")]
SAMPLES = Path(__file__).parents[2] / "tap_braze_export" / "sandbox" / "odd_users.jsonl"
KEYS = {table.stream: table.keys for table in TABLES}
HUGE = "1234567890" * 500


def devices(*found: dict[str, Any], without: tuple[str, ...] = ()) -> list[str]:
    """The keys of the devices of one user."""
    line = msgspec.json.encode({"braze_id": "u", "devices": found})
    return [row["device_key"] for row in rows(read(line, selections=selected(without=without)))["devices"]]


def nested(levels: int) -> str:
    """A user of so many lists and objects inside each other."""
    return '{"braze_id":"u","custom_attributes":{"x":' + "[" * (levels - 2) + "]" * (levels - 2) + "}}"


@pytest.mark.parametrize("case", CASES, ids=[case.behaviour for case in CASES])
def test_a_user_gives_the_expected_rows(case: Case) -> None:
    """Each user of the data files gives exactly the rows that stand beside it."""
    result = read(case.line, selections=case.selections)
    assert rows(result) == case.expected()
    assert (result.lines, result.users, result.duplicates, result.rejected) == (1, 1, 0, [])


@pytest.mark.parametrize("case", CASES, ids=[case.behaviour for case in CASES])
def test_rows_keep_what_the_schema_promises(case: Case) -> None:
    """Every row is valid against its stream's JSON schema, and no key occurs twice."""
    for stream, found in rows_as_loaded(read(case.line, selections=case.selections)):
        schema = next(table.json_schema for table in TABLES if table.stream == stream)
        for row in found:
            jsonschema.validate(row, schema)
        keys = [tuple(row[name] for name in KEYS[stream]) for row in found]
        assert len(set(keys)) == len(keys)


def rows_as_loaded(result: BlockRows) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows as a loader decodes them."""
    for stream, found in result.rows.items():
        yield stream, [json.loads(row) for row in found.jsonl.splitlines()]


def test_every_sample_has_expected_rows() -> None:
    """The sandbox's odd users are the samples that stand in the data file."""
    samples = [parse(line) for line in SAMPLES.read_bytes().splitlines()]
    assert [parse(case.user) for case in cases("samples.json")] == samples


def test_of_a_user_that_occurs_twice_the_last_one_wins() -> None:
    """The eight samples hold one user twice: seven are left, and none of the first one's rows."""
    result = read(*SAMPLES.read_bytes().splitlines())
    assert (result.lines, result.users, result.duplicates) == (8, 7, 1)
    last = list(cases("samples.json"))[-1].expected()["users"][0]
    found = [row for rows_ in rows(result).values() for row in rows_ if row["braze_id"] == last["braze_id"]]
    assert found == [last]


def test_each_repetition_is_a_duplicate() -> None:
    """A number and its text are the same user."""
    result = read('{"braze_id":7,"email":"1"}', '{"braze_id":"8"}', '{"braze_id":"7","email":"2"}', '{"braze_id":7}')
    assert (result.lines, result.users, result.duplicates) == (4, 2, 2)
    assert {row["braze_id"]: row["email"] for row in rows(result)["users"]} == {"7": None, "8": None}


ODD, PLAIN = (
    '{"braze_id":"u","random_bucket":"1","apps":[{"name":"odd"}]}',
    '{"braze_id":"u","apps":[{"name":"plain"}]}',
)


@pytest.mark.parametrize("lines", [[ODD, PLAIN], [PLAIN, ODD], [ODD, PLAIN, ODD], [PLAIN, ODD, PLAIN], [ODD, ODD]])
def test_the_last_one_wins_however_it_is_read(lines: list[str]) -> None:
    """An odd line replaces a plain one and the other way round."""
    result = read(*lines)
    last = json.loads(lines[-1])["apps"][0]["name"]
    assert [row["name"] for row in rows(result)["apps"]] == [last]
    assert len(rows(result)["users"]) == 1
    assert (result.lines, result.users, result.duplicates) == (len(lines), 1, len(lines) - 1)


BROKEN_VALUES = [
    b'"\xe9"',
    b"[" * 600 + b"]" * 600,
    b'{"x":"\xe9"}',
    b'{"x":' + b"[" * 600 + b"]" * 600 + b"}",
    b"NaN",
    b'"',
]


@pytest.mark.parametrize("value", BROKEN_VALUES, ids=range(len(BROKEN_VALUES)))
@pytest.mark.parametrize("without", [[], ["users.email", "users.total_revenue", "users.custom_attributes", "devices"]])
@pytest.mark.parametrize(
    "member", ["email", "total_revenue", "last_coordinates", "engaged", "custom_attributes", "devices", "new_field"]
)
def test_an_unreadable_repetition_does_not_win(member: str, without: list[str], value: bytes) -> None:
    """A line that is rejected takes nothing away, whichever member spoils it and however often that was seen."""
    often = [b'{"braze_id":"%d","new_field":1,"email":"e","devices":[],"total_revenue":1.5}' % n for n in range(20)]
    broken = b'{"braze_id":"7","%s":%s}' % (member.encode(), value)
    reader = Reader(selected(without=without), exported_at=AT, segment_id="s")
    for _ in range(2):
        result = reader.read(Block(1, [*often, broken]))
        assert result.rejected == [(21, broken)]
        assert (result.lines, result.users, result.duplicates) == (21, 20, 0)
        assert {stream: found.count for stream, found in result.rows.items()} == {"users": 20, "segment_members": 20}


@pytest.mark.parametrize("value", BROKEN_VALUES, ids=range(len(BROKEN_VALUES)))
def test_an_unreadable_repetition_does_not_win_inside_a_list(value: bytes) -> None:
    """Nor where a member of a list's objects spoils it that was seen often."""
    user = b'{"braze_id":"%d","devices":[{"device_id":"d","new_field":%s}]}'
    often = [user % (number, b"1") for number in range(20)]
    reader = Reader(selected(), exported_at=AT, segment_id="")
    for _ in range(2):
        result = reader.read(Block(1, [*often, user % (7, value)]))
        assert result.rejected == [(21, user % (7, value))]
        assert (result.lines, result.users, result.duplicates) == (21, 20, 0)


@pytest.mark.parametrize("value", ["1e400", "-1e-400", HUGE, "[1e400]", "0." + HUGE])
def test_a_member_that_is_seen_often_is_rescued_like_a_new_one(value: str) -> None:
    """Though the tap has learned to expect it."""
    reader = Reader(selected(), exported_at=AT, segment_id="")
    lines = [f'{{"braze_id":"u{n}","new_field":{value}}}'.encode() for n in range(20)]
    for _ in range(2):
        found = rows(reader.read(Block(1, [*lines])))["users"]
        assert [row["_rescued_data"] for row in found] == [{"new_field": rescued_of(value)}] * 20


def rescued_of(value: str) -> Any:
    """A value whose numbers have become text, because no loader holds them."""
    return parse(value, str)


@pytest.mark.parametrize(
    "line",
    [
        *("[]", '["braze_id"]', '"u"', "7", "null", "true", "{}", "users", "{", "}"),
        *('{"email":"e"}', '{"braze_id":null}', '{"braze_id":""}', '{"braze_id":["u"]}', '{"braze_id":{"id":"u"}}'),
        *('{"braze_id":"u"', '{"braze_id":"u","ema', '{"braze_id":"u"}{"braze_id":"v"}', '{"braze_id":"u"},'),
        *('{"braze_id":"u","total_revenue":NaN}', '{"braze_id":"u","custom_attributes":{"x":[Infinity]}}'),
        *('{"braze_id":"u","total_revenue":-Infinity}', "{'braze_id':'u'}", '{"braze_id":"u",}', '{"braze_id":"\\x"}'),
        *('{"braze_id":"u","x":01}', '{"braze_id":"u","x":1.}', '{"braze_id":"a\nb"}', '{"braze_id":"a\0b"}'),
        *('{"braze_id":"u","x":"\\ud8"}', '{"braze_id":"\\u000"}', "\\ud800", '\\u0000{"braze_id":"u"}'),
        *(b'{"braze_id":"u","email":"\xe9"}', b'{"braze_id":"u","email":"\xc0\x80"}', b"\xff", b"PK\x03\x04"),
        *('{"braze_id":"u"}'.encode("utf-16"), '{"braze_id":"u"}'.encode("utf-32-le")),
        *(nested(501), nested(990), nested(1_000), nested(100_000), "[" * 100_000, '{"a":' * 100_000),
        nested(990).replace("[]", '["\\u0000"]'),
    ],
)
def test_a_line_that_is_no_user_is_rejected(line: str | bytes) -> None:
    """It is counted, handed over with its number as it was, and harms none of its neighbours."""
    result = read('{"braze_id":"before"}', "", line, '{"braze_id":"after"}')
    assert result.rejected == [(3, line.encode() if isinstance(line, str) else line)]
    assert [row["braze_id"] for row in rows(result)["users"]] == ["before", "after"]
    assert (result.lines, result.users, result.duplicates) == (3, 2, 0)


def test_blank_lines_are_nothing() -> None:
    """Neither counted nor rejected."""
    result = read("", "  ", "\t\r")
    assert (result.lines, result.users, result.rejected, result.rows) == (0, 0, [], {})


@pytest.mark.parametrize("end", ["[]", '["\\u0000"]', '["\\ud800"]', f"[{HUGE}]"])
def test_five_hundred_levels_are_not_too_deep(end: str) -> None:
    """Whatever stands at the bottom, and whichever way it is read."""
    result = read(nested(500).replace("[]", end))
    assert result.rejected == []
    assert result.rows["users"].count == 1


def test_many_objects_are_not_deep() -> None:
    """A long list is not mistaken for a deep one."""
    result = read(json.dumps({"braze_id": "u", "custom_attributes": {"x": [{"y": [n]} for n in range(5000)]}}))
    assert result.rejected == []


# Text

SURROGATES = [
    ('"\\ud800"', "\ufffd"),
    ('"\\uDFFF"', "\ufffd"),
    ('"a\\uD83Dz"', "a\ufffdz"),
    ('"\\udE00\\uD83d"', "\ufffd\ufffd"),
    ('"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
    ('"\\ud83d\\ude00"', "😀"),
    ('"\\\\ud800"', "\\ud800"),
    ('"\\\\\\ud800"', "\\\ufffd"),
    ('"\\u0000\\ud800"', "\ufffd\ufffd"),
    ('"\\\\u0000 \\u00e9 \\ud800 \\n \\/"', "\\u0000 é \ufffd \n /"),
    ('"\\\\\\\\u0000"', "\\\\u0000"),
    ('"\\u00000"', "\ufffd0"),
    (b'"\xed\xa0\x80"', "\ufffd"),
    (b'"\xed\xbf\xbf \xed\x9f\xbf \xee\x80\x80"', "\ufffd \ud7ff \ue000"),
]


@pytest.mark.parametrize(("text", "stored"), SURROGATES)
def test_lone_surrogates_and_nul_become_the_replacement_character(text: str | bytes, stored: str) -> None:
    """At any depth, in names too, escaped or raw; pairs, escaped backslashes and all else stay."""
    raw = text.encode() if isinstance(text, str) else text
    line = b'{"braze_id":"u","email":%s,%s:%s,"custom_attributes":{"x":[{%s:[%s]}]},"devices":[{"idfa":%s}]}'
    user = rows(read(line.replace(b"%s", raw)))
    assert user["users"][0]["email"] == stored
    assert user["users"][0]["_rescued_data"] == {stored: stored}
    assert user["users"][0]["custom_attributes"] == {"x": [{stored: [stored]}]}
    assert user["devices"][0]["device_key"] == stored


@pytest.mark.parametrize(
    ("stream", "member"),
    [
        ("users", '"first_name":"\\u0000"'),
        ("users", '"custom_attributes":{"x":["\\u0000"]}'),
        ("users", '"custom_attributes":{"\\u0000":1}'),
        ("devices", '"devices":[{"model":"\\u0000"}]'),
        ("campaigns_received", '"campaigns_received":[{"multiple_converted":{"\\u0000":true}}]'),
        ("canvas_steps_received", '"canvases_received":[{"steps_received":[{"name":"\\u0000"}]}]'),
    ],
)
def test_nul_is_replaced_where_nothing_else_is_odd(stream: str, member: str) -> None:
    """In every kind of place, once for each."""
    rendered = read(f'{{"braze_id":"u",{member}}}').rows[stream].jsonl
    assert rendered.count("\ufffd".encode()) == 1
    assert b"u0000" not in rendered


def test_a_braze_id_is_made_storable() -> None:
    """Or none of the user's rows would load."""
    assert user_row('{"braze_id":"a\\u0000\\udfff"}')["braze_id"] == "a\ufffd\ufffd"


def test_a_long_line_is_read_like_a_short_one() -> None:
    """A megabyte in one value."""
    text = "ä" * 2**19
    assert user_row(json.dumps({"braze_id": "u", "email": text}, ensure_ascii=False))["email"] == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_values)
def test_what_is_open_passes_as_it_is(value: Any) -> None:
    """Any JSON value survives inside `custom_attributes` and `_rescued_data`; only NUL does not."""
    line = json.dumps({"braze_id": "u", "custom_attributes": {"x": value}, "unknown": value})
    stored = json.loads(json.dumps(value).replace("\\u0000", "\\ufffd"))
    row = json.loads(read(line).rows["users"].jsonl)
    assert row["custom_attributes"] == {"x": stored}
    assert row["_rescued_data"] == {"unknown": stored}


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([f.name for f in TABLES[0].fields] + list(KEYS)), json_values))
def test_whatever_a_user_holds_its_rows_are_valid(members: dict[str, Any]) -> None:
    """No value in any member breaks the tap, its own schema or its keys."""
    result = read(json.dumps(members | {"braze_id": "u"}))
    assert result.users == 1
    for stream, found in rows_as_loaded(result):
        schema = next(table.json_schema for table in TABLES if table.stream == stream)
        for row in found:
            jsonschema.validate(row, schema)
        keys = [tuple(row[name] for name in KEYS[stream]) for row in found]
        assert len(set(keys)) == len(keys)


# Numbers


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_4300_digits_stays_a_number(sign: str) -> None:
    """Python, and with it most loaders, reads so many; also in a line that must be repaired first."""
    digits = sign + HUGE[:4300]
    for more in ("1", '"\\u0000"'):
        row = user_row(f'{{"braze_id":"u","unknown":{digits},"custom_attributes":{{"x":[{digits}],"y":{more}}}}}')
        assert row["_rescued_data"] == {"unknown": f"<{digits}>"}
        assert row["custom_attributes"]["x"] == [f"<{digits}>"]


@pytest.mark.parametrize("number", [HUGE, f"-{HUGE}", "1e400", "-1E-20000", "1e200000", f"0.{HUGE}", "1e" + "9" * 30])
def test_a_number_that_ends_loads_is_kept_as_text(number: str) -> None:
    """All its digits survive, in columns of text too; in others it is rescued."""
    members = ("random_bucket", "total_revenue", "uninstalled_at", "unknown")
    given_ = "".join(f'"{name}":{number},' for name in members)
    row = user_row(f'{{{given_}"braze_id":"u","email":{number},"custom_attributes":{{"x":[{number}]}}}}')
    assert row["custom_attributes"] == {"x": [number]}
    assert row["email"] == number
    assert row["_rescued_data"] == dict.fromkeys(members, number)
    assert [row[name] for name in members[:3]] == [None] * 3


@pytest.mark.parametrize("value", [HUGE, f"[{HUGE}]", f"[{HUGE},1.5]", f'{{"x":{HUGE}}}', f'["a",{{"x":[{HUGE}]}}]'])
@pytest.mark.parametrize("member", ["total_revenue", "last_coordinates", "random_bucket", "gender", "devices"])
def test_a_huge_integer_harms_no_neighbour(member: str, value: str) -> None:
    """In whichever column: it is rescued, or its text is taken; the users around it are what they are."""
    lines = [f'{{"braze_id":"{n}","{member}":{value if n == 2 else "null"}}}' for n in range(4)]
    result = read(*lines)
    found = {row["braze_id"]: row for row in rows(result)["users"]}
    assert (result.users, len(found)) == (4, 4)
    assert HUGE in json.dumps(rows(result))
    assert [found[n]["_rescued_data"] for n in "013"] == [None] * 3


@pytest.mark.parametrize(
    "number", ["0.123456789012345678901234567890", "12345678901234567890123.10", "1.10", "100.0", "-0.0", "1E+30"]
)
def test_all_digits_of_a_fraction_survive(number: str) -> None:
    """In open objects and in columns of numbers."""
    line = f'{{"braze_id":"u","total_revenue":{number},"custom_attributes":{{"x":{number}}},"unknown":[{number}]}}'
    row = user_row(line)
    assert row["total_revenue"] == f"<{number}>"
    assert row["custom_attributes"] == {"x": f"<{number}>"}
    assert row["_rescued_data"] == {"unknown": [f"<{number}>"]}


@pytest.mark.parametrize(
    ("value", "column", "rescued"),
    [
        ("9223372036854775807", "<9223372036854775807>", None),
        ("9223372036854775808", None, "<9223372036854775808>"),
        ("-9223372036854775808", "<-9223372036854775808>", None),
        ("-9223372036854775809", None, "<-9223372036854775809>"),
        ("18446744073709551615", None, "<18446744073709551615>"),
        ('"9223372036854775808"', None, "9223372036854775808"),
        ("9223372036854775807.0", "<9223372036854775807>", None),
        ("12.0", "<12>", None),
        ("12.5", None, "<12.5>"),
        ("true", None, True),
        ('""', None, ""),
        ("null", None, None),
    ],
)
def test_integers_keep_to_64_bits(value: str, column: Any, rescued: Any) -> None:
    """The last that fits fits; the next one is rescued as it came."""
    expected = (column, None if rescued is None else {"random_bucket": rescued})
    assert row_of("random_bucket", value) == expected


def test_rows_come_back_as_objects() -> None:
    """For stream maps and flattening: the same rows, whatever numbers they hold."""
    line = f'{{"braze_id":"u","email":"\\u2028","custom_attributes":{{"x":[{HUGE},{"9" * 4300},1.10,1e400]}}}}'
    found = read(line, line.replace('"u"', '"v"')).rows["users"]
    assert {row["braze_id"] for row in found.objects()} == {"u", "v"}
    again = msgspec.json.Encoder(decimal_format="number")
    assert b"\n".join([*map(again.encode, found.objects()), b""]) == found.jsonl


# Devices


def test_a_device_keeps_its_key_from_run_to_run() -> None:
    """Neither the order of its members and of the devices nor members without a value change it."""
    (key,) = devices({"model": "Pixel", "os": "14", "new": {"a": 1, "b": 1.50}})
    assert key == "anonymous-953c83243cf04c43"
    same = {"carrier": None, "idfa": "", "new": {"b": 1.50, "a": 1}, "os": "14", "model": "Pixel"}
    assert devices({"model": "Other"}, same)[1] == key


def test_equal_devices_are_counted_per_profile() -> None:
    """The ordinal starts anew with each user."""
    device = {"model": "Galaxy S21"}
    (key,) = devices(device)
    assert devices(device, device, {"model": "x"}, device) == [key, f"{key}-2", devices({"model": "x"})[0], f"{key}-3"]
    lines = [json.dumps({"braze_id": name, "devices": [device]}) for name in "uv"]
    assert [row["device_key"] for row in rows(read(*lines))["devices"]] == [key, key]


def test_very_many_equal_devices_take_little_time() -> None:
    """Each gets its own ordinal, without a look at all the others."""
    line = b'{"braze_id":"u","devices":[' + b",".join([b"{}"] * 20_000) + b"]}"
    found = rows(read(line))["devices"]
    assert len({row["device_key"] for row in found}) == 20_000
    assert found[-1]["device_key"].endswith("-20000")


def test_devices_differ_in_what_is_deselected_or_unknown() -> None:
    """The hash takes the whole content, not only the selected columns."""
    found = ({"os": "1"}, {"os": "2"}, {"new": 1}, {"new": 2})
    assert len({*devices(*found, without=("devices.os", "devices._rescued_data"))}) == 4


def test_a_hashed_id_is_stable_and_no_plain_text() -> None:
    """Equal ids give equal keys for every user; only the deselected one is hashed."""
    plain = devices({"device_id": "d", "idfv": "v"}, {"idfv": "v"})
    hashed = devices({"device_id": "d", "idfv": "v"}, {"idfv": "v"}, without=("devices.device_id",))
    assert plain == ["d", "v"]
    assert hashed[0] not in ("d", "v")
    assert hashed[1] == "v"
    assert hashed == devices({"device_id": "d"}, {"idfv": "v"}, without=("devices.device_id",))


# Memberships

MEMBER = {"segment_id": "s", "is_member": True, "exported_at": AT}


def test_each_user_of_a_segment_is_a_member() -> None:
    """Once, however often it stands in the file; a rejected line is nobody."""
    lines = ['{"braze_id":"u"}', '{"braze_id":7}', "{}", '{"braze_id":"u"}']
    found = rows(read(*lines, segment_id="s"))["segment_members"]
    assert sorted(found, key=itemgetter("braze_id")) == [MEMBER | {"braze_id": "7"}, MEMBER | {"braze_id": "u"}]


def test_without_a_segment_nobody_is_a_member() -> None:
    """A resync exports identifiers, not a segment."""
    assert "segment_members" not in rows(read('{"braze_id":"u"}', segment_id=""))


def test_memberships_follow_the_selection() -> None:
    """A deselected stream has no rows, a deselected column no value; keys stay."""
    assert "segment_members" not in rows(
        read('{"braze_id":"u"}', segment_id="s", selections=selected(without=["segment_members"]))
    )
    narrowed = selected(only=["segment_members"], without=["segment_members.is_member", "segment_members.segment_id"])
    found = rows(read('{"braze_id":"u","email":"e"}', segment_id="s", selections=narrowed))
    assert found == {"segment_members": [{"segment_id": "s", "braze_id": "u", "exported_at": AT}]}


def in_no_order(found: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in found)


def test_streams_do_not_need_each_other() -> None:
    """Each stream alone gives the same rows as all together."""
    lines = SAMPLES.read_bytes().splitlines()
    together = rows(read(*lines))
    for stream, expected in together.items():
        (alone,) = rows(read(*lines, selections=selected(only=[stream]))).items()
        assert (alone[0], in_no_order(alone[1])) == (stream, in_no_order(expected))


def test_nothing_selected_gives_nothing() -> None:
    """Lines are still counted, and bad ones rejected."""
    result = read('{"braze_id":"u","devices":[{}]}', "{", selections={})
    assert (result.rows, result.lines, result.users, len(result.rejected)) == ({}, 2, 1, 1)


# Custom attributes


def test_more_than_500_attributes_stay_a_closed_list() -> None:
    """Braze is asked for all of them then; those that are not selected are dropped here."""
    names = [f"a{number}" for number in range(600)]
    narrowed = selected(without=["users.custom_attributes.a0"], attributes=dict.fromkeys(names, "integer"))
    sent = dict.fromkeys([*names, "untyped"], 1)
    row = user_row(json.dumps({"braze_id": "u", "custom_attributes": sent}), selections=narrowed)
    assert row["custom_attributes"] == dict.fromkeys(names[1:], "<1>")
    assert row["_rescued_data"] is None


@pytest.mark.parametrize(
    ("kind", "value", "fitting"),
    [
        ("string", "12.50", "12.50"),
        ("string", "true", "true"),
        ("string", "[1]", None),
        ("integer", "12.0", "<12>"),
        ("integer", "9223372036854775808", None),
        ("number", '"12.50"', "<12.50>"),
        ("number", "true", None),
        ("boolean", '"FALSE"', False),
        ("boolean", "0", None),
        ("date-time", '"2020-07-10 15:00:00.000 UTC"', "2020-07-10T15:00:00.000Z"),
        ("date-time", '"2020-07-10"', None),
        ("date-time", "1592236800000", None),
        ("array", "[1.10]", ["<1.10>"]),
        ("array", "{}", None),
        ("object", '{"a":1.10}', {"a": "<1.10>"}),
        ("object", "[]", None),
    ],
)
def test_a_typed_attribute_fits_or_is_rescued(kind: str, value: str, fitting: Any) -> None:
    """Under `custom_attributes.<name>`, also where the name has dots itself; null stays null."""
    narrowed = selected(attributes={"x.y": kind, "z": kind})
    column, rescued = row_of("custom_attributes", f'{{"x.y":{value},"z":null}}', selections=narrowed)
    assert column == {"x.y": fitting, "z": None}
    assert rescued == (None if fitting is not None else {"custom_attributes.x.y": parse(value)})
