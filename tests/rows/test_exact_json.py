"""Numbers keep every digit, in whichever column, or become text where they would end a load."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec
import pytest

from tap_braze_export.rows.exact_json import MOST_DIGITS, read_number
from tests.support.rows import HUGE, read, row_of, rows, user_row


@pytest.mark.parametrize("text", ["1.10", "0.123456789012345678901234567890", "-0.0", "5e-324", "1.7e308"])
def test_a_number_keeps_every_digit(text: str) -> None:
    """Fractions and exponents are read as decimals, never as doubles."""
    number = read_number(text)
    assert isinstance(number, Decimal)
    assert str(number) == str(Decimal(text))


@pytest.mark.parametrize(
    "text",
    [
        *("1e309", "-1e309", "1e-400", "1e200000", "1e-20000", "0e500", "0e-500"),
        *("1e1000000000000000000", "1e-99999999999999999999", "0." + "1" * MOST_DIGITS, "9" * MOST_DIGITS + ".5"),
    ],
)
def test_a_number_that_would_end_a_load_stays_text(text: str) -> None:
    """No double and no jsonb holds it; as text, all its digits survive in every loader."""
    assert read_number(text) == text


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_4300_digits_stays_a_number(sign: str) -> None:
    """Python, and with it most loaders, reads so many; also in a line that must be repaired first."""
    digits = sign + HUGE[:4300]
    for more in ("1", '"\\u0000"'):
        row = user_row(f'{{"braze_id":"u","unknown":{digits},"custom_attributes":{{"x":[{digits}],"y":{more}}}}}')
        assert row["_rescued_data"] == {"unknown": f"<{digits}>"}
        assert row["custom_attributes"]["x"] == [f"<{digits}>"]


@pytest.mark.parametrize("number", [HUGE, f"-{HUGE}", "1e400", "-1E-20000", "1e200000", f"0.{HUGE}", "1e" + "9" * 30])
def test_a_number_that_ends_loads_is_kept_as_text(number: str) -> None:
    """All its digits survive, in columns of text too; in others it is rescued."""
    members = ("random_bucket", "total_revenue", "uninstalled_at", "unknown")
    given_ = "".join(f'"{name}":{number},' for name in members)
    row = user_row(f'{{{given_}"braze_id":"u","email":{number},"custom_attributes":{{"x":[{number}]}}}}')
    assert row["custom_attributes"] == {"x": [number]}
    assert row["email"] == number
    assert row["_rescued_data"] == dict.fromkeys(members, number)
    assert [row[name] for name in members[:3]] == [None] * 3


def test_a_huge_integer_harms_no_neighbour() -> None:
    """In whichever column: it is rescued, or its text is taken; the users around it are what they are."""
    for value, member in product(
        [HUGE, f"[{HUGE}]", f"[{HUGE},1.5]", f'{{"x":{HUGE}}}', f'["a",{{"x":[{HUGE}]}}]'],
        ["total_revenue", "last_coordinates", "random_bucket", "gender", "devices"],
    ):
        lines = [f'{{"braze_id":"{n}","{member}":{value if n == 2 else "null"}}}' for n in range(4)]
        result = read(*lines)
        found = {row["braze_id"]: row for row in rows(result)["users"]}
        assert (result.users, len(found)) == (4, 4), (value, member)
        assert HUGE in json.dumps(rows(result)), (value, member)
        assert [found[n]["_rescued_data"] for n in "013"] == [None] * 3, (value, member)


@pytest.mark.parametrize(
    "number", ["0.123456789012345678901234567890", "12345678901234567890123.10", "1.10", "100.0", "-0.0", "1E+30"]
)
def test_all_digits_of_a_fraction_survive(number: str) -> None:
    """In open objects and in columns of numbers."""
    line = f'{{"braze_id":"u","total_revenue":{number},"custom_attributes":{{"x":{number}}},"unknown":[{number}]}}'
    row = user_row(line)
    assert row["total_revenue"] == f"<{number}>"
    assert row["custom_attributes"] == {"x": f"<{number}>"}
    assert row["_rescued_data"] == {"unknown": [f"<{number}>"]}


@pytest.mark.parametrize(
    ("value", "column", "rescued"),
    [
        ("9223372036854775807", "<9223372036854775807>", None),
        ("9223372036854775808", None, "<9223372036854775808>"),
        ("-9223372036854775808", "<-9223372036854775808>", None),
        ("-9223372036854775809", None, "<-9223372036854775809>"),
        ("18446744073709551615", None, "<18446744073709551615>"),
        ('"9223372036854775808"', None, "9223372036854775808"),
        ("9223372036854775807.0", "<9223372036854775807>", None),
        ("12.0", "<12>", None),
        ("12.5", None, "<12.5>"),
        ("true", None, True),
        ('""', None, ""),
        ("null", None, None),
    ],
)
def test_integers_keep_to_64_bits(value: str, column: Any, rescued: Any) -> None:
    """The last that fits fits; the next one is rescued as it came."""
    expected = (column, None if rescued is None else {"random_bucket": rescued})
    assert row_of("random_bucket", value) == expected


def test_rows_come_back_as_objects() -> None:
    """For stream maps and flattening: the same rows, whatever numbers they hold."""
    line = f'{{"braze_id":"u","email":"\\u2028","custom_attributes":{{"x":[{HUGE},{"9" * 4300},1.10,1e400]}}}}'
    found = read(line, line.replace('"u"', '"v"')).rows["users"]
    assert {row["braze_id"] for row in found.objects()} == {"u", "v"}
    again = msgspec.json.Encoder(decimal_format="number")
    assert b"\n".join([*map(again.encode, found.objects()), b""]) == found.jsonl
