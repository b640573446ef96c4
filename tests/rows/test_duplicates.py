"""Of a user that occurs twice in a file the last line wins, unless it is unreadable."""

from __future__ import annotations

import json
from itertools import product

import pytest

from tap_braze_export.rows.reader import Reader
from tests.support.rows import AT, SAMPLES, cases, read, read_block, rows, selected


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


SPOILT: list[str] = [
    "email",
    "total_revenue",
    "last_coordinates",
    "engaged",
    "custom_attributes",
    "devices",
    "new_field",
]


def test_an_unreadable_repetition_does_not_win() -> None:
    """A line that is rejected takes nothing away, whichever member spoils it and however often that was seen."""
    for value, without, member in product(
        BROKEN_VALUES, [[], ["users.email", "users.total_revenue", "users.custom_attributes", "devices"]], SPOILT
    ):
        often = [b'{"braze_id":"%d","new_field":1,"email":"e","devices":[],"total_revenue":1.5}' % n for n in range(20)]
        broken = b'{"braze_id":"7","%s":%s}' % (member.encode(), value)
        reader = Reader(selected(without=without), exported_at=AT, segment_id="s")
        for _ in range(2):
            result = read_block(reader, [*often, broken])
            assert result.rejected == [(21, broken)], (value, without, member)
            assert (result.lines, result.users, result.duplicates) == (21, 20, 0), (value, without, member)
            assert {stream: found.count for stream, found in result.rows.items()} == {
                "users": 20,
                "segment_members": 20,
            }, (value, without, member)


@pytest.mark.parametrize("value", BROKEN_VALUES, ids=range(len(BROKEN_VALUES)))
def test_an_unreadable_repetition_does_not_win_inside_a_list(value: bytes) -> None:
    """Nor where a member of a list's objects spoils it that was seen often."""
    user = b'{"braze_id":"%d","devices":[{"device_id":"d","new_field":%s}]}'
    often = [user % (number, b"1") for number in range(20)]
    reader = Reader(selected(), exported_at=AT, segment_id="")
    for _ in range(2):
        result = read_block(reader, [*often, user % (7, value)])
        assert result.rejected == [(21, user % (7, value))]
        assert (result.lines, result.users, result.duplicates) == (21, 20, 0)
