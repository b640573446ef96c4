"""Bulk checks find every value that is not in its final form."""

from __future__ import annotations

import pytest

from tap_braze_export.rows.column_checks import unstorable_numbers


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
    assert [*unstorable_numbers(raw)] == odd
    assert [index for index, content in enumerate(raw) if [*unstorable_numbers([content])]] == odd
