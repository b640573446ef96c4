"""Typed custom attributes are conformed or rescued; a closed list drops the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.rows import parse, row_of, selected, user_row


def test_more_than_500_attributes_stay_a_closed_list() -> None:
    """Braze is asked for all of them then; those that are not selected are dropped here."""
    names = [f"a{number}" for number in range(600)]
    narrowed = selected(without=["users.custom_attributes.a0"], attributes=dict.fromkeys(names, "integer"))
    sent = dict.fromkeys([*names, "untyped"], 1)
    row = user_row(json.dumps({"braze_id": "u", "custom_attributes": sent}), selections=narrowed)
    assert row["custom_attributes"] == dict.fromkeys(names[1:], "<1>")
    assert row["_rescued_data"] is None


TYPED: list[tuple[str, str, Any]] = [
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
    ("any", '"2020-07-10"', "2020-07-10"),
    ("any", "123456789012345678901234567890", "<123456789012345678901234567890>"),
    ("any", "12.50", "<12.50>"),
    ("any", "false", False),
    ("any", '[1.10,{"a":[]}]', ["<1.10>", {"a": []}]),
    ("any", '{"a":1.10}', {"a": "<1.10>"}),
    ("any", '["\\u0000","\\ud800"]', ["\ufffd", "\ufffd"]),
    ("any", "1e999", "1e999"),
]


def test_a_typed_attribute_fits_or_is_rescued() -> None:
    """Under `custom_attributes.<name>`, also where the name has dots itself; null stays null."""
    for kind, value, fitting in TYPED:
        narrowed = selected(attributes={"x.y": kind, "z": kind})
        column, rescued = row_of("custom_attributes", f'{{"x.y":{value},"z":null}}', selections=narrowed)
        assert column == {"x.y": fitting, "z": None}, (kind, value, fitting)
        assert rescued == (None if fitting is not None else {"custom_attributes.x.y": parse(value)}), (
            kind,
            value,
            fitting,
        )


@pytest.mark.parametrize("value", ['"x"', "7", "1.50", "true", "null", "[1,{}]", '{"a":12345678901234567890123}'])
def test_an_open_attribute_survives_a_closed_list(value: str) -> None:
    """With any value; the deselected one and those that no catalog names are dropped, by contract."""
    narrowed = selected(without=["users.custom_attributes.b"], attributes={"a": "any", "b": "any"})
    column, rescued = row_of("custom_attributes", f'{{"a":{value},"b":1,"c":2}}', selections=narrowed)
    assert column == {"a": parse(value)}
    assert rescued is None
