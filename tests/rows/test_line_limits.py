"""Lines at and beyond their limits, on both paths, and the rows of dense lines: in parts that are small each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tap_braze_export.files.archive import Block
from tap_braze_export.rows.decode import MAX_ESCAPES, MAX_LINE_BYTES, MAX_OBJECTS, MAX_VALUES, can_be_user
from tap_braze_export.rows.reader import Reader
from tests.support.rows import AT, read, read_block, rows, selected

if TYPE_CHECKING:
    from tap_braze_export.rows.reader import BlockRows

pytestmark = pytest.mark.slow

USERS = selected(only=["users"])


def listing(member: str, item: str, count: int) -> bytes:
    """A user with a list of equal items."""
    return f'{{"braze_id":"u","{member}":[{",".join([item] * count)}]}}'.encode()


def text(item: str, count: int) -> bytes:
    """A user with a long text."""
    return f'{{"braze_id":"u","first_name":"{item * count}"}}'.encode()


def user_of(length: int) -> bytes:
    """A user whose line has exactly this length."""
    return text("x", length - len(text("", 0)))


def both_paths(*lines: bytes) -> list[BlockRows]:
    return [read_block(Reader(USERS, exported_at=AT, segment_id="", strict=strict), lines) for strict in (True, False)]


@pytest.mark.parametrize(
    "line",
    [
        user_of(MAX_LINE_BYTES),
        listing("new", '{"a":1}', MAX_OBJECTS - 1),
        listing("new", "[]", MAX_VALUES - 1),
        listing("new", "1", MAX_VALUES),
        text("\\u00e9", MAX_ESCAPES + 1),
        b'{"braze_id":1}',
    ],
    ids=["bytes", "objects", "lists", "values", "escapes", "short"],
)
def test_line_within_the_limits_is_read(line: bytes) -> None:
    for result in both_paths(line):
        assert (result.users, result.rejected) == (1, [])


@pytest.mark.parametrize(
    "line",
    [
        user_of(MAX_LINE_BYTES + 1),
        listing("new", "{}", MAX_OBJECTS),
        listing("devices", "{}", MAX_OBJECTS),
        listing("new", "[]", MAX_VALUES + 1),
        listing("last_coordinates", "1", MAX_VALUES + 2),
        listing("new", "[[[[[[]]]]]]", MAX_VALUES // 6 + 1),
        text("\\u0000", MAX_ESCAPES + 1),
        text("\\ud800\\u0000", MAX_ESCAPES // 2 + 1),
        b'{"braze_id":}',
        b"{}",
        b"0",
    ],
    ids=["bytes", "objects", "rows", "lists", "values", "depth", "NULs", "surrogates", "short", "empty", "number"],
)
def test_line_beyond_a_limit_is_rejected_and_the_next_is_read(line: bytes) -> None:
    """It is kept as it is, as every line that is no user."""
    for result in both_paths(line, b'{"braze_id":"next"}'):
        assert result.rejected == [(1, line)]
        assert [row["braze_id"] for row in rows(result)["users"]] == ["next"]


@given(st.binary(max_size=60), st.sampled_from([b"", b'{"braze_id":"u",', b'{"braze_id":1', b'{"email":"']))
@example(b"\xed\xa0\x80", b'{"braze_id":"')
@settings(max_examples=120, deadline=None)
def test_any_bytes_are_a_user_or_a_rejected_line(content: bytes, head: bytes) -> None:
    """Nothing else, and the same on both paths."""
    line = (head + content).replace(b"\n", b"")

    fast, careful = both_paths(line)

    assert (fast.users, fast.rejected) == (careful.users, careful.rejected)
    assert rows(fast) == rows(careful)
    assert fast.users + len(fast.rejected) == (0 if not line or line.isspace() else 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(
    ["braze_id", "devices", "apps", "email", "last_coordinates", "custom_attributes", "dob", "new"]
)


@given(st.dictionaries(MEMBERS, JSON))
@settings(max_examples=120, deadline=None)
def test_any_members_are_read_alike_by_both_paths(user: dict[str, object]) -> None:
    line = json.dumps({"braze_id": "u"} | user).encode()
    everything = selected()
    readers = (Reader(everything, exported_at=AT, segment_id="s", strict=strict) for strict in (True, False))

    fast, careful = (read_block(each, [line]) for each in readers)

    assert (rows(fast), fast.rejected) == (rows(careful), careful.rejected)


def test_short_lines_cannot_reach_a_limit() -> None:
    """So nothing is counted in them: ordinary lines cost nothing."""

    class Uncounted(bytes):
        def count(self, *_: object) -> int:
            raise AssertionError

    assert can_be_user(Uncounted(b"{" * 3 * MAX_OBJECTS))
    assert 2 * MAX_VALUES > 3 * MAX_OBJECTS


# Rows in parts


def parts(lines: list[bytes], part_bytes: int) -> list[BlockRows]:
    """The rows of a block whose first line is the seventh, handed out when they exceed the lines by so many bytes."""
    reader = Reader(selected(), exported_at=AT, segment_id="s", part_bytes=part_bytes)
    return [*reader.read(Block(7, [*lines]))]


def test_rows_of_a_dense_block_come_in_parts() -> None:
    """Together they are the rows of the block, and the last line of a user wins across parts."""
    lines = [b'{"braze_id":"u%d","devices":[%s]}' % (n % 900, b",".join([b"{}"] * (n % 50))) for n in range(1_000)]
    whole = read(*lines, segment_id="s")

    found = parts(lines, 100_000)

    assert len(found) > 10
    assert all(part.users <= 64 for part in found)
    assert sum(part.users for part in found) == whole.users == 900
    assert sum(part.duplicates for part in found) == whole.duplicates == 100
    assert sum(part.size for part in found) == sum(map(len, lines))
    for stream, expected in rows(whole).items():
        come = [row for part in found for row in rows(part).get(stream, [])]
        assert sorted(come, key=str) == sorted(expected, key=str)


def test_rejected_lines_come_in_parts_with_their_numbers() -> None:
    found = parts([b"{}", b'{"braze_id":1}'] * 5_000, 100_000)

    assert len(found) > 5
    assert max(len(part.rejected) for part in found) < 1_000
    assert sorted(number for part in found for number, _ in part.rejected) == [*range(7, 10_007, 2)]


def test_ordinary_blocks_come_at_once() -> None:
    lines = [b'{"braze_id":"u%d","email":"%s"}' % (n, b"x" * 500) for n in range(5_000)]

    assert len([*Reader(selected(), exported_at=AT, segment_id="s").read(Block(1, lines))]) == 1


def test_long_lines_are_read_a_few_at_a_time() -> None:
    """Their objects need a hundred times their bytes until they are rendered."""
    long, longer, short = text("x", 200_000), text("x", 3_000_000), b'{"braze_id":1}'

    found = parts([long, long, long, longer, *[short] * 100], part_bytes=-(10**9))

    assert [part.lines for part in found] == [64, 36, 1, 1, 1, 1]
