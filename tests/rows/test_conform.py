"""Values become what their column holds, without loss or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tap_braze_export.rows.conform import CONFORM, UNFIT
from tap_braze_export.schema.table import Type

TEXTS: list[Any] = [
    "text",
    "12 ",
    " 12",
    "+12",
    "0x12",
    "१२",
    "1२",
    "NaN",
    "Infinity",
    "null",
    "1_000",
    "1,5",
    "--1",
    "-",
]
OTHERS: list[Any] = [[], {}, [12], {"a": 12}]


def conform(to: Type, value: Any) -> Any:
    """The conformed value with its Python type, because 1, 1.0 and true are equal."""
    fitting = CONFORM[to](value)
    return fitting if fitting is UNFIT else (type(fitting), fitting)


def kept(value: Any) -> tuple[type, Any]:
    return type(value), value


SCALARS: list[tuple[Any, str]] = [
    ("", ""),
    ("ünïcode ✓", "ünïcode ✓"),
    (True, "true"),
    (False, "false"),
    (0, "0"),
    (-(10**30), "-1" + "0" * 30),
    (Decimal("12.50"), "12.50"),
]


def test_text_takes_scalars_as_json_writes_them() -> None:
    """A number or boolean in a text column keeps its digits and spelling."""
    for value, text in SCALARS:
        assert CONFORM[Type.STRING](value) == text, (value, text)


@pytest.mark.parametrize("value", [[], {}, ["text"], {"a": "text"}])
def test_text_takes_no_list_and_no_object(value: Any) -> None:
    """A list or object is not squeezed into text."""
    assert conform(Type.STRING, value) is UNFIT


INTEGERS: list[tuple[Any, int]] = [
    (12, 12),
    ("12", 12),
    ("-12", -12),
    ("0", 0),
    (Decimal("12.0"), 12),
    (Decimal("1.2E+1"), 12),
    (2**63 - 1, 2**63 - 1),
    (-(2**63), -(2**63)),
    (str(2**63 - 1), 2**63 - 1),
    (str(-(2**63)), -(2**63)),
    (Decimal(2**63 - 1), 2**63 - 1),
]


def test_integer_takes_whole_numbers_of_64_bits() -> None:
    """Also where it is written as text or with a fraction of zero."""
    for value, integer in INTEGERS:
        assert conform(Type.INTEGER, value) == kept(integer), (value, integer)


NO_INTEGERS: list[Any] = [
    *TEXTS,
    *OTHERS,
    *("", "12.5", "007", "-0", True, False, Decimal("12.5"), Decimal("1E-9"), Decimal("1E+300")),
    *(2**63, -(2**63) - 1, str(2**63), str(-(2**63) - 1), 10**40, "9" * 5000),
]


def test_integer_takes_nothing_else() -> None:
    """Neither other text, nor a boolean, nor a fraction, nor more than 64 bits."""
    for value in NO_INTEGERS:
        assert conform(Type.INTEGER, value) is UNFIT, value


NUMBERS: list[tuple[Any, Any]] = [
    (65, 65),
    (10**30, 10**30),
    (Decimal("129.950"), Decimal("129.950")),
    ("12", Decimal(12)),
    ("-12.50", Decimal("-12.50")),
    ("1e3", Decimal("1E+3")),
    ("0.0", Decimal("0.0")),
    (Decimal("5E-324"), Decimal("5E-324")),
    (Decimal("0.123456789012345678901234567890"), Decimal("0.123456789012345678901234567890")),
]


def test_number_keeps_all_digits() -> None:
    """Also where it is written as text."""
    for value, number in NUMBERS:
        fitting = conform(Type.NUMBER, value)
        assert fitting == kept(number), (value, number)
        assert str(fitting[1]) == str(number), (value, number)


NO_NUMBERS: list[Any] = [
    *TEXTS,
    *OTHERS,
    *("", ".5", "5.", "1e", "007", True, False, Decimal("1E+309"), Decimal("-1E+309"), 10**309, "1e309", "1e-400"),
    *("9" * 5000, "1e99999999999999999999", "0e99999999999", "1e-99999999999999999999"),
]


def test_number_takes_nothing_that_a_double_cannot_hold() -> None:
    """Neither other text, nor a boolean, nor what would become infinite or zero; and no exponent breaks it."""
    for value in NO_NUMBERS:
        assert conform(Type.NUMBER, value) is UNFIT, value


@pytest.mark.parametrize(
    ("value", "boolean"),
    [(True, True), (False, False), ("true", True), ("false", False), ("True", True), ("FALSE", False)],
)
def test_boolean_takes_its_words(value: Any, boolean: bool) -> None:  # noqa: FBT001
    """True and false, also where they are written as text."""
    assert CONFORM[Type.BOOLEAN](value) is boolean


NO_BOOLEANS: list[Any] = [*TEXTS, *OTHERS, "", "yes", "1", "0", "t", 0, 1, Decimal(1)]


def test_boolean_takes_nothing_else() -> None:
    """A number is no boolean, nor is another word."""
    for value in NO_BOOLEANS:
        assert conform(Type.BOOLEAN, value) is UNFIT, value


DATE_TIMES: list[tuple[str, str]] = [
    # Every literal of Braze's documentation and recorded answers.
    ("2020-07-10 15:00:00.000 UTC", "2020-07-10T15:00:00.000Z"),
    ("2023-03-17T20:51:58.297Z", "2023-03-17T20:51:58.297Z"),
    ("2020-01-26T22:45:53.953Z", "2020-01-26T22:45:53.953Z"),
    ("2021-07-07T20:45:24.000+00:00", "2021-07-07T20:45:24.000+00:00"),
    # Their relatives.
    ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
    ("2024-05-06 07:08:09 UTC", "2024-05-06T07:08:09Z"),
    ("2024-05-06 07:08:09UTC", "2024-05-06T07:08:09Z"),
    ("2024-05-06 07:08:09 +0000", "2024-05-06T07:08:09+00:00"),
    ("2024-05-06 07:08:09.5 -0330", "2024-05-06T10:38:09.5Z"),
    ("2024-05-06t07:08:09.123456789z", "2024-05-06T07:08:09.123456789Z"),
    ("2024-03-01T01:00:59+15:59", "2024-02-29T09:01:59Z"),
    ("2024-05-06T07:08:09.999999999+16:00", "2024-05-05T15:08:09.999999999Z"),
    ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
]


def test_dates_and_times_become_rfc_3339() -> None:
    """A blank becomes T, UTC becomes Z, UTC's offset gets its colon, any other becomes Z; no other digit is touched."""
    for (value, date_time), to in product(DATE_TIMES, [Type.DATE_TIME, Type.TIMESTAMP]):
        assert CONFORM[to](value) == date_time, (value, date_time, to)
        assert msgspec.convert(date_time, datetime).tzinfo is not None, (value, date_time, to)


@pytest.mark.parametrize("to", [Type.DATE_TIME, Type.TIMESTAMP, Type.DATE])
def test_an_empty_date_is_null(to: Type) -> None:
    """Braze's "" in a date means that there is none."""
    assert CONFORM[to]("") is None


NO_INSTANTS: list[Any] = [
    *OTHERS,
    *("yesterday", " ", "2024-05-06", "07:08:09Z", "2024-05-06T07:08Z", True, False),
    *("2024-05-06T07:08:09", "2024-05-06 07:08:09.000", "2024-05-06T07:08:09 PST", "2024-05-06T07:08:09 utc"),
    *("2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "2024-05-06T24:00:00Z", "2024-05-06T07:60:00Z"),
    *("2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "2024-05-06T07:08:09.Z", "2024-05-06T07:08:09,5Z"),
    *("2024-05-06T07:08:09+24:00", "2024-05-06T07:08:09+01:60"),
    *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "12024-05-06T07:08:09Z", "-024-05-06T07:08:09Z"),
    *("٢٠٢٤-05-06T07:08:09Z", " 2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z\n", "2024-05-06  07:08:09Z"),
]


def test_no_instant_is_made_up() -> None:
    """A text that names no instant, one that does not exist or one beyond what databases take is unfit."""
    for value, to in product(NO_INSTANTS, [Type.DATE_TIME, Type.TIMESTAMP]):
        assert conform(to, value) is UNFIT, (value, to)


@pytest.mark.parametrize("value", [0, 1_694_250_549, Decimal("1694250549.5")])
def test_a_number_is_no_date_time(value: Any) -> None:
    """Only `uninstalled_at` may be an epoch."""
    assert conform(Type.DATE_TIME, value) is UNFIT


EPOCHS: list[tuple[Any, str]] = [
    (1_694_250_549, "2023-09-09T09:09:09.000Z"),
    (1_694_250_549_009, "2023-09-09T09:09:09.009Z"),
    ("1694250549", "2023-09-09T09:09:09.000Z"),
    ("1694250549009", "2023-09-09T09:09:09.009Z"),
    (Decimal("1694250549.009"), "2023-09-09T09:09:09.009Z"),
    (Decimal("1694250549009.123"), "2023-09-09T09:09:09.009123Z"),
    (Decimal("1.694250549E+9"), "2023-09-09T09:09:09.000Z"),
    (0, "1970-01-01T00:00:00.000Z"),
    (-1, "1969-12-31T23:59:59.000Z"),
    (99_999_999_999, "5138-11-16T09:46:39.000Z"),  # the last that is seconds
    (100_000_000_000, "1973-03-03T09:46:40.000Z"),  # the first that is milliseconds
    (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
]


def test_an_epoch_is_seconds_below_10_to_the_11_and_milliseconds_from_there() -> None:
    """`uninstalled_at` as a number, or as a number's text."""
    for value, instant in EPOCHS:
        assert CONFORM[Type.TIMESTAMP](value) == instant, (value, instant)


UNFIT_EPOCHS: list[Any] = [
    *(253_402_300_800_000, -99_999_999_999, 10**17, 10**30, Decimal("1E+300"), "1e99999999999999999999"),
    *(Decimal("1694250549.0000001"), Decimal("1694250549009.0001")),
]


def test_an_epoch_loses_nothing() -> None:
    """One beyond the year 9999, or finer than a microsecond, is unfit."""
    for value in UNFIT_EPOCHS:
        assert conform(Type.TIMESTAMP, value) is UNFIT, value


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([1, 1000]))
def test_every_instant_comes_back_from_its_epoch(instant: datetime, per_second: int) -> None:
    """Microseconds included, wherever the number says whether it is seconds or milliseconds."""
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = Decimal(since.days * 86400 + since.seconds) + Decimal(since.microseconds) / 1_000_000
    value = seconds * per_second
    if (per_second == 1000) != (abs(value) >= 10**11):
        return
    assert msgspec.convert(CONFORM[Type.TIMESTAMP](value), datetime) == instant


@pytest.mark.parametrize("value", ["1980-12-21", "2024-02-29", "0001-01-01", "9999-12-31"])
def test_a_day_stays_as_it_is(value: str) -> None:
    """`dob` is YYYY-MM-DD."""
    assert CONFORM[Type.DATE](value) == value


NO_DAYS: list[Any] = [
    *OTHERS,
    *("2023-02-29", "0000-01-01", "1980-1-2", "19801221", "1980-W51-7", "1980-12-21T00:00:00Z", "21.12.1980"),
    *("1980/12/21", "١٩٨٠-12-21", " 980-12-21", 1980, True),
]


def test_a_day_must_exist() -> None:
    """Another form, or a day that no calendar has, is unfit."""
    for value in NO_DAYS:
        assert conform(Type.DATE, value) is UNFIT, value


COORDINATES: list[tuple[Any, bytes]] = [
    ([Decimal("41.84157636433568"), Decimal("-87.83520818508256")], b"[41.84157636433568,-87.83520818508256]"),
    ([13, Decimal("52.50")], b"[13.0,52.50]"),
    ([0, -0], b"[0.0,0.0]"),
    ([Decimal("1E+2"), Decimal("1E-7")], b"[100.0,0.0000001]"),
    ([Decimal("0E+5"), Decimal("-0.0")], b"[0.0,-0.0]"),
    (["13", "52.5"], b"[13.0,52.5]"),
    ([2**64, 1], b"[18446744073709551616.0,1.0]"),
    ([1, 2, 3], b"[1.0,2.0,3.0]"),
]


def test_coordinates_always_have_a_decimal_point() -> None:
    """Some loaders type an array by its first element: 13 would make the column integers."""
    for value, written in COORDINATES:
        assert msgspec.json.encode(CONFORM[Type.COORDINATES](value)) == written, (value, written)


def test_no_coordinates_are_null() -> None:
    """Empty means absent."""
    assert CONFORM[Type.COORDINATES]([]) is None


NO_COORDINATES: list[Any] = [
    *(*TEXTS, {}, {"lat": 1}, 13, True, ""),
    *([1, None], [True, 1], ["x", 1], [[1], 2], [Decimal("1E+309"), 1], [10**5000, 1], ["0e99999999999", 1]),
]


def test_coordinates_take_numbers_only() -> None:
    """One element that is no number makes the whole unfit."""
    for value in NO_COORDINATES:
        assert conform(Type.COORDINATES, value) is UNFIT, value


def test_lists_and_objects_stay_what_they_are() -> None:
    """Typed custom attributes may be lists or objects; nothing else is made one."""
    assert CONFORM[Type.ARRAY]([1, "a", None]) == [1, "a", None]
    assert CONFORM[Type.OBJECT]({"a": [1]}) == {"a": [1]}
    for value in ("[]", "{}", "", 1, True, Decimal(1)):
        assert conform(Type.ARRAY, value) is UNFIT
        assert conform(Type.OBJECT, value) is UNFIT
    assert conform(Type.ARRAY, {}) is UNFIT
    assert conform(Type.OBJECT, []) is UNFIT
