"""Lines are decoded into users, or rejected; text and open objects pass as they are, made storable."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.schema.user_object import TABLES
from tests.support.rows import HUGE, KEYS, read, rows, rows_as_loaded, user_row


def nested(levels: int) -> str:
    """A user with this many lists and objects inside each other."""
    return '{"braze_id":"u","custom_attributes":{"x":' + "[" * (levels - 2) + "]" * (levels - 2) + "}}"


NO_USERS: list[str | bytes] = [
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
]


def test_a_line_that_is_no_user_is_rejected() -> None:
    """It is counted, handed over with its number as it was, and harms none of its neighbours."""
    for line in NO_USERS:
        result = read('{"braze_id":"before"}', "", line, '{"braze_id":"after"}')
        assert result.rejected == [(3, line.encode() if isinstance(line, str) else line)], line
        assert [row["braze_id"] for row in rows(result)["users"]] == ["before", "after"], line
        assert (result.lines, result.users, result.duplicates) == (3, 2, 0), line


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


SURROGATES: list[tuple[str | bytes, str]] = [
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


def test_lone_surrogates_and_nul_become_the_replacement_character() -> None:
    """At any depth, in names too, escaped or raw; pairs, escaped backslashes and all else stay."""
    for text, stored in SURROGATES:
        raw = text.encode() if isinstance(text, str) else text
        line = b'{"braze_id":"u","email":%s,%s:%s,"custom_attributes":{"x":[{%s:[%s]}]},"devices":[{"idfa":%s}]}'
        user = rows(read(line.replace(b"%s", raw)))
        assert user["users"][0]["email"] == stored, (text, stored)
        assert user["users"][0]["_rescued_data"] == {stored: stored}, (text, stored)
        assert user["users"][0]["custom_attributes"] == {"x": [{stored: [stored]}]}, (text, stored)
        assert user["devices"][0]["device_key"] == stored, (text, stored)


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
