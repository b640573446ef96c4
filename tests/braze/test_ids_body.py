"""Ids responses whose body is odd: one odd user costs no other, and each broken body is told in its own words."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import BrazeError
from tap_braze_export.schema.storable_text import storable
from tests.support import odd_lines
from tests.support.braze_calls import KEY, export_ids, refused
from tests.support.fakes import FakeClock, Server
from tests.support.rows import HUGE, read, rows

if TYPE_CHECKING:
    from tap_braze_export.rows.reader import BlockRows

pytestmark = pytest.mark.slow

ODD_VALUES = {
    "a lone surrogate": rb'"\ud83d"',
    "a lone surrogate at the end": rb'"Ada \udc00"',
    "surrogates the wrong way round": rb'"\udc00\ud800"',
    "raw surrogate bytes": b'"\xed\xa0\xbd"',
    "invalid UTF-8": b'"\xff\xfe"',
    "a cut off character": b'"\xf0\x9f\x98"',
    "NUL": rb'"\u0000"',
    "an escaped backslash before a quote": rb'"\\"',
    "brackets in text": rb'"}],[{\""',
    "5,000 digits": HUGE.encode(),
    "1e400": b"1e400",
    "an endless exponent": b"1e99999999999999999999",
    "600 levels": b"[" * 600 + b"]" * 600,
    "a duplicate key": b'{"a":1,"a":2}',
    "duplicate members": b'"x","braze_id":"other","last_name":"y"',
}
NO_JSON = {
    "a raw control character": b'"\x01\x00"',
    "no escape": rb'"\x"',
    "a cut off escape": rb'"\u12"',
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a leading zero": b"007",
    "a bare word": b"undefined",
    "100,000 levels": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a trailing comma": b"[1,]",
}
MEMBERS = [b'"last_name":@', b'"custom_attributes":{"plan":@}', b'"new":[{"deep":@}]', b'"devices":[{"model":@}]']


def plain(number: int) -> bytes:
    """A user without any oddity."""
    return json.dumps({"braze_id": f"u{number}", "external_id": f"e{number}", "last_name": "Ünal"}).encode()


def body(users: list[bytes], invalid: bytes = b"[]") -> bytes:
    """The body of an ids response."""
    return b'{"message":"success","users":[' + b",".join(users) + b'], "invalid_user_ids": ' + invalid + b"}\n"


def contents(result: BlockRows) -> Any:
    """Rows, in whatever order, counts and rejected lines, in which repaired text stands for their own."""
    by_stream = {stream: sorted(found, key=str) for stream, found in rows(result).items()}
    rejected = [(number, storable(line)) for number, line in result.rejected]
    return by_stream, result.lines, result.users, result.duplicates, rejected


def check_equal_to_a_file(server: Server, braze: Braze, users: list[bytes]) -> None:
    """Users of a response give what the same bytes give as lines of a file."""
    server.answers = [(201, {}, body(users))]

    assert contents(read(*export_ids(braze).users)) == contents(read(*users))


def test_one_odd_user_of_fifty_costs_no_other(server: Server, braze: Braze) -> None:
    """The other 49 are emitted; the odd one is conformed, rescued or rejected as a line of a file is."""
    for value, member in product(ODD_VALUES.values(), MEMBERS):
        users = [plain(number) for number in range(50)]
        users[17] = b'{"braze_id":"odd",' + member.replace(b"@", value) + b"}"

        check_equal_to_a_file(server, braze, users)
        expected = {f"u{number}" for number in range(50) if number != 17}
        assert expected <= {row["braze_id"] for row in rows(read(*export_ids(braze).users))["users"]}, (value, member)


@pytest.mark.parametrize("name", [rb"\ud83d", b"\xff", rb"\u0000"])
@pytest.mark.parametrize("around", [b'{"braze_id":"odd","@":1}', b'{"braze_id":"odd","custom_attributes":{"@":1}}'])
def test_odd_names_of_members_cost_no_other_user(server: Server, braze: Braze, name: bytes, around: bytes) -> None:
    check_equal_to_a_file(server, braze, [plain(1), around.replace(b"@", name), plain(2)])


def test_odd_braze_ids_cost_no_other_user(server: Server, braze: Braze) -> None:
    for value in [*ODD_VALUES.values(), b"null", b"7", b"[]"]:
        check_equal_to_a_file(server, braze, [plain(1), b'{"braze_id":' + value + b"}", plain(2)])


@pytest.mark.parametrize("user", [b"null", b"7", b'"text"', b"[]", rb'"\ud83d"'])
def test_what_is_no_user_is_rejected_alone(server: Server, braze: Braze, user: bytes) -> None:
    check_equal_to_a_file(server, braze, [plain(1), user, rb'{"braze_id":"x","email":"\ud83d"}'])


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_odd_identifiers_without_a_user_cost_no_user(server: Server, braze: Braze, value: bytes) -> None:
    """Braze repeats identifiers as it got them."""
    if b'"braze_id"' in value:
        value = b'"x"'
    invalid = b'["4711",' + value + b',{"alias_name":"a","alias_label":' + value + b"}]"
    server.answers = [(201, {}, body([plain(1), plain(2)], invalid))]

    response = export_ids(braze)

    assert response.users == [plain(1), plain(2)]
    assert response.invalid_user_ids[0] == "4711"
    assert len(response.invalid_user_ids) == 3


def test_identifiers_keep_their_text(server: Server, braze: Braze) -> None:
    """They are compared with those of the request, in which no lone surrogate stands."""
    invalid = rb'["\ud83d","ada",{"alias_name":"\n","alias_label":"l"}]'
    server.answers = [(201, {}, body([], invalid))]

    assert export_ids(braze).invalid_user_ids == ["\ufffd", "ada", {"alias_name": "\n", "alias_label": "l"}]


@pytest.mark.parametrize(
    "other",
    [
        rb'"note":"\ud83d"',
        rb'"mess\u0061ge":"success","note":"\ud83d"',
        rb'"\ud83d":1',
        b'"n":1e400',
    ],
)
def test_odd_members_beside_the_users_cost_no_user(server: Server, braze: Braze, other: bytes) -> None:
    server.answers = [(201, {}, b"{" + other + b',"us\\u0065rs" : [ ' + plain(1) + b" , " + plain(2) + b" ] }")]

    assert export_ids(braze).users == [plain(1), plain(2)]


@pytest.mark.parametrize("listed", [b'"text"', b"7", b"{}", b"null", rb'"\ud83d"'])
def test_invalid_user_ids_that_are_no_list_count_as_none(server: Server, braze: Braze, listed: bytes) -> None:
    server.answers = [(201, {}, body([plain(1)], listed))]

    assert export_ids(braze).users == [plain(1)]
    assert export_ids(braze).invalid_user_ids == []


WHOLE = body([plain(1), rb'{"braze_id":"x","email":"\ud83d"}'])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b" ", b"<html>Welcome</html>", b"\xff", b"{", b'{"users":[', b"[1,", b'"text', b"{]", b"[}"),
        *(b'{"users"}', b'{"users":[]} []', b'{"users":[] 7}', b"{users:[]}", b'{"a":"b\\"}', b"\x1f\x8b\x08"),
        *(body([plain(1), b'{"braze_id":"odd","x":' + value + b"}"]) for value in NO_JSON.values()),
        *(WHOLE[:end] for end in range(1, len(WHOLE) - 1, 7)),
    ],
)
def test_unreadable_json_is_told_as_such(server: Server, braze: Braze, content: bytes) -> None:
    """No JSON, or only its beginning: never "without users", and nobody in it counts as missing."""
    server.answers = [(201, {}, content)]

    message = refused(export_ids, braze, BrazeError)
    assert f"Braze responded 201 with unreadable JSON ({len(content)} bytes)" in message
    assert "; run again later; if that happens again, check that api_url is" in message
    assert "without users" not in message
    assert "Welcome" not in message


@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"[1]", b"7", b'"text"', b"null", b'[{"users":[]}]', b"{}", b'{"message":"queued"}'),
        *(b'{"users":7}', b'{"users":"text"}', b'{"users":{}}', b'{"data":{"users":[]}}', rb'{"message":"\ud83d"}'),
    ],
)
def test_json_without_users_is_told_as_such(server: Server, braze: Braze, content: bytes) -> None:
    server.answers = [(201, {}, content)]

    assert "Braze responded 201 without users" in refused(export_ids, braze, BrazeError)


def test_a_byte_order_mark_is_no_part_of_the_body(server: Server, braze: Braze) -> None:
    server.answers = [(201, {}, b"\xef\xbb\xbf" + body([plain(1)]))]

    assert export_ids(braze).users == [plain(1)]


def is_json(text: bytes) -> bool:
    """True if it is JSON but for its characters: else the whole response is none."""
    try:
        json.loads(text.decode(errors="replace"), parse_constant=int, parse_int=str)
    except ValueError:
        return False
    return True


_USERS = odd_lines.objects().map(lambda text: text.encode("utf-8", "surrogateescape")).filter(is_json)
_VALUES = st.sampled_from([*ODD_VALUES.values()])


@st.composite
def users_with_an_odd_member(draw: st.DrawFn) -> bytes:
    """Draw a user with an odd value put into it."""
    user, member = draw(_USERS), draw(st.sampled_from(MEMBERS)).replace(b"@", draw(_VALUES))
    return user[:-1] + (b"," if len(user) > 2 else b"") + member + b"}"


def test_users_of_a_response_give_the_rows_of_the_same_lines_in_a_file() -> None:
    with Server() as server:
        braze = Braze(server.url, KEY, clock=FakeClock())

        @given(st.lists(_USERS | users_with_an_odd_member(), max_size=6))
        @settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=80,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        def check(users: list[bytes]) -> None:
            check_equal_to_a_file(server, braze, users)

        check()
