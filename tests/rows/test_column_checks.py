"""Bulk checks find every value that is not in its final form."""

from __future__ import annotations

import pytest

from tap_braze_export.rows.column_checks import attributes_check
from tap_braze_export.rows.raw_json import unfit
from tap_braze_export.schema.table import Field, Type


@pytest.mark.parametrize(
    ("contents", "odd"),
    [
        (["1.5", "1e400", "-1e-400", "2"], [1, 2]),
        (['{"a":1e400}', '{"a": -1.5E+400}', '{"a":[0, 1e400]}', '{"a":\\t1e400}'], [0, 1, 2, 3]),
        (['{"id":"5e1234"}', '{"id":"a5e-1234"}', '{"a5e400":1e22}', '"1e999"'], []),
        (["9" * 309, f'{{"a":{"9" * 309}.5}}', "9" * 300], [0, 1]),
        ([f"{'9' * 250}e99", f'{{"a":0.{"0" * 250}1E-99}}', f'"{"9" * 250}"'], [0, 1]),
    ],
)
def test_numbers_that_no_double_holds_are_found(contents: list[str], odd: list[int]) -> None:
    """Wherever they begin; a text that looks like one is none."""
    raw = [content.replace("\\t", "\t").encode() for content in contents]
    assert unfit(raw) == odd
    assert [index for index, content in enumerate(raw) if unfit([content])] == odd


@pytest.mark.parametrize(
    ("types", "content", "final"),
    [
        ([Type.ANY], '{"a0":"x","other":[1]}', True),
        ([Type.ANY, Type.ANY], "{}", True),
        ([Type.ANY], "[]", False),
        ([Type.ANY, Type.STRING], '{"a0":{},"a1":"x"}', True),
        ([Type.ANY, Type.STRING], '{"a0":{},"a1":7}', False),
        ([Type.ANY, Type.STRING], '{"a0":7,"a1":null}', True),
    ],
)
def test_open_attributes_are_checked_in_bulk_with_others(types: list[Type], content: str, final: bool) -> None:  # noqa: FBT001
    """Any value of an open member is final: it sends no user to be conformed alone."""
    members = tuple(Field(f"a{number}", type_, "") for number, type_ in enumerate(types))
    column = Field("custom_attributes", Type.OBJECT, "", members=members)
    are_final = attributes_check(column)
    assert are_final
    assert are_final([b"{}", content.encode()]) is final
