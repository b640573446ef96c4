"""Rescued members are counted by name on either path, under names that cannot be personal data."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.rows.rescued_members import OTHER, add, count_rows
from tests.support.rows import read, rows, selected

if TYPE_CHECKING:
    from tap_braze_export.schema.selection import Selection

PERSONAL_NAMES = (
    "jane@example.com",
    "+49151000111",
    "0151 000111",
    "Jane Doe",
    "user_123456",
    "é",
    "a" * 65,
    "",
    "a.b.c",
)
NAMES = ("new_field", "NewField", "_x", "custom_attributes.nick", "year_2026", "a" * 64)


def counted(rescued: dict[str, object]) -> dict[str, int]:
    """The numbers of rows by member, of one row."""
    counts: Counter[tuple[str, str]] = Counter()
    count_rows("users", [rescued], counts)
    return {name: rows for (_, name), rows in counts.items()}


@pytest.fixture(scope="module")
def selections() -> dict[str, Selection]:
    return selected()


def test_members_of_the_careful_path(selections: dict[str, Selection]) -> None:
    """A value that does not fit, a new member of a profile, and one of a device."""
    result = read(
        '{"braze_id":"u","push_subscribe":{"a":1},"new_field":1,"devices":[{"os":"x","new_os":1},{"new_os":2}]}',
        '{"braze_id":"v","new_field":1,"jane@example.com":1,"joe@example.com":1}',
        '{"braze_id":"w"}',
        selections=selections,
    )
    assert result.rescued == {"users": 2, "devices": 2}
    assert result.rescued_members == {
        ("users", "push_subscribe"): 1,
        ("users", "new_field"): 2,
        ("users", OTHER): 1,
        ("devices", "new_os"): 2,
    }


def test_members_of_the_fast_path(selections: dict[str, Selection]) -> None:
    """Members that it has learned: the numbers are those of the rows, whichever path a row took."""
    lines = [
        json.dumps({"braze_id": f"u{n}", "new": 1, "jane@example.com": 2, **({"odd": 3} if n % 2 else {})})
        for n in range(600)
    ]
    result = read(*lines, selections=selections)
    assert result.careful < 200  # most took the fast path
    found = [row["_rescued_data"] for row in rows(result)["users"]]
    assert Counter(name for data in found for name in data) == {"new": 600, "jane@example.com": 600, "odd": 300}
    assert result.rescued_members == {("users", "new"): 600, ("users", OTHER): 600, ("users", "odd"): 300}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_fields_are_kept(name: str) -> None:
    assert counted({name: 1}) == {name: 1}


@pytest.mark.parametrize("name", PERSONAL_NAMES)
def test_names_that_may_be_personal_are_only_counted(name: str) -> None:
    """Such as an address or number that somebody made the name of an attribute."""
    assert counted({"new": 1, name: 2, name + "@": 3}) == {"new": 1, OTHER: 1}


def test_a_row_of_very_many_members_costs_little() -> None:
    """Only the first hundred are read, all others are one."""
    names = [f"a{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(10_000)]
    assert counted(dict.fromkeys(names, 1)) == dict.fromkeys([*names[:100], OTHER], 1)


def test_as_many_names_are_counted_as_a_page_can_show() -> None:
    """The rows of further members are added up; known names go on."""
    counts: Counter[tuple[str, str]] = Counter()
    names = [f"{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(150)]
    for name in (*names, names[0]):
        add(counts, [(("users", name), 2)])
    assert counts["users", names[0]] == 4
    assert counts["users", OTHER] == 100
    assert len(counts) == 101
