"""The content of a user: equal if the rows are, whatever the order in the line and whichever path has read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.files.archive import Block
from tap_braze_export.fingerprints.known import Known
from tap_braze_export.rows.reader import Reader
from tap_braze_export.schema.selection import RequestedFields
from tests.support.rows import read_block, rows, selected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.sandbox import Sandbox

REQUESTED = RequestedFields.of(selected().values()).fields_to_export
AT = "2026-11-25T00:00:00.000000Z"


def contents(lines: Iterable[bytes], *, strict: bool = True, exported_at: str = AT) -> dict[bytes, int]:
    """The digest of each user's content."""
    reader = Reader(selected(), exported_at=exported_at, segment_id="", strict=strict, known_users=Known(None))
    found = read_block(reader, lines).fingerprints
    return dict(zip(found.ids.tolist(), found.contents.tolist(), strict=True))


def line(**members: Any) -> bytes:
    return json.dumps({"braze_id": "a"} | members).encode()


@pytest.mark.sandbox(users=300)
def test_both_paths_give_the_same_content(sandbox: Sandbox) -> None:
    lines = [*sandbox.lines("all-users", REQUESTED)]

    assert contents(lines) == contents(lines, strict=False)
    assert len(contents(lines)) > 290


def test_each_part_of_a_block_has_the_fingerprints_of_its_users() -> None:
    """They are written before its rows are, so those of a later part would come too late."""
    users = [line(braze_id=f"u{n}", devices=[{}] * (n % 50)) for n in range(1_000)]
    reader = Reader(selected(), exported_at=AT, segment_id="", known_users=Known(None), part_bytes=100_000)

    parts = [*reader.read(Block(1, users))]

    assert len(parts) > 10
    for part in parts:
        assert sorted(part.fingerprints.ids.tolist()) == sorted(row["braze_id"].encode() for row in rows(part)["users"])
        assert part.fingerprints.users == part.users


def test_time_is_no_content() -> None:
    lines = [line(apps=[{"name": "x"}])]

    assert contents(lines) == contents(lines, exported_at="2027-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"email": None}, {"email": "a@example.com"}),
        ({"apps": [{"name": "x"}]}, {"apps": [{"name": "x"}, {"name": "y"}]}),
        ({"apps": [{"name": "x"}]}, {"cards_clicked": [{"name": "x"}]}),
        ({"custom_attributes": {"a": 1}}, {"custom_attributes": {"a": "1"}}),
        ({"custom_attributes": {"a": [1, 2]}}, {"custom_attributes": {"a": [1, 2, 2]}}),
        ({"custom_attributes": {"a": [[1, 2]]}}, {"custom_attributes": {"a": [[1], [2]]}}),
        ({"custom_attributes": {"a": {"b": 1}}}, {"custom_attributes": {"a": {"c": 1}}}),
        ({"last_coordinates": [1.5, 2.5]}, {"last_coordinates": [2.5, 1.5]}),
        ({"new": {"a": 1}}, {"new": {"a": 2}}),
        ({"first_name": "ab", "last_name": "c"}, {"first_name": "a", "last_name": "bc"}),
        ({"home_city": "x"}, {"country": "x"}),
    ],
)
def test_other_rows_are_another_content(one: dict[str, Any], other: dict[str, Any]) -> None:
    for strict in (True, False):
        assert contents([line(**one)], strict=strict) != contents([line(**other)], strict=strict)


def test_an_array_nested_too_deeply_to_sort_is_compared_as_it_is() -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]

    assert contents([line(custom_attributes={"a": deep})]).keys() == {b"a"}
