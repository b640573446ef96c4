"""Lines become the rows of every stream: expected rows, valid and complete, and memberships."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

import jsonschema

from tap_braze_export.schema.user_object import TABLES
from tests.support.rows import AT, KEYS, SAMPLES, cases, parse, read, rows, rows_as_loaded, selected

CASES = [*cases("odd_users.json"), *cases("samples.json")]


def test_a_user_gives_the_expected_rows() -> None:
    """Each user of the data files gives exactly the rows that stand beside it."""
    for case in CASES:
        result = read(case.line, selections=case.selections)
        assert rows(result) == case.expected(), case.behaviour
        assert (result.lines, result.users, result.duplicates, result.rejected) == (1, 1, 0, []), case.behaviour


def test_rows_keep_what_the_schema_promises() -> None:
    """Every row is valid against its stream's JSON schema, and no key occurs twice."""
    for case in CASES:
        for stream, found in rows_as_loaded(read(case.line, selections=case.selections)):
            schema = next(table.json_schema for table in TABLES if table.stream == stream)
            for row in found:
                jsonschema.validate(row, schema)
            keys = [tuple(row[name] for name in KEYS[stream]) for row in found]
            assert len(set(keys)) == len(keys), case.behaviour


def test_every_sample_has_expected_rows() -> None:
    """The sandbox's odd users are the samples that stand in the data file."""
    samples = [parse(line) for line in SAMPLES.read_bytes().splitlines()]
    assert [parse(case.user) for case in cases("samples.json")] == samples


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
