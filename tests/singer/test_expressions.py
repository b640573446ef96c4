"""Names in expressions that do not exist are found without a row; what they read besides their row is found, too."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from singer_sdk.mapper import CustomStreamMap

from tap_braze_export.schema.user_object import USERS
from tap_braze_export.singer.expressions import GIVEN_NAMES, MappedStream, Row, parsed, reads_besides_its_row

COLUMNS: dict[str, Any] = USERS.json_schema["properties"]
RIGHT = (
    "email",
    "md5(email) if email else None",
    "sha256((email or '') + config['salt'])",
    "config.get('pepper') or 'x'",
    "(custom_attributes or {}).get('some name')",
    "custom_attributes['plan']",
    "custom_attributes.plan.tier",
    "{k: v for k, v in (custom_attributes or {}).items() if k != 'address'}",
    "[float(c) for c in last_coordinates if c]",
    "[a + b for a, b in [(1, 2)]]",
    "last_coordinates[0] if last_coordinates else None",
    "email.split('@')[1].lower() if email else None",
    "int(email)",
    "random_bucket + email",
    "json.dumps(record)",
    "json.loads(email).get('a').b",
    "record['email'] or _.phone or record.get('emial')",
    "datetime.datetime.fromisoformat(created_at).date()",
    "datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc).isoformat()",
    "f'{first_name} {last_name:>10}'",
    "__stream_name__ + __original_stream_name__",
    "bool(total_revenue) and str(total_revenue)",
    "list(set([email, phone]))",
    "tuple(dict(a=1).items())",
    "'x' in (email or '')",
    "None",
    "not email is None",
)
"""Expressions that some row satisfies, whatever a made-up one does."""
WRONG = (
    ("md5(emial)", "uses a name that does not exist: emial (did you mean email?)"),
    ("md5(email) if email else emial", "uses a name that does not exist: emial (did you mean email?)"),
    ("[md5(emial) for each in []]", "uses a name that does not exist: emial (did you mean email?)"),
    ("sha265(email)", "calls a function that does not exist: sha265 (did you mean sha256?); there are bool, datetime"),
    ("len(email)", "calls a function that does not exist: len"),
    ("email(1)", "calls a function that does not exist: email"),
    ("fake.first_name()", "uses fake, which needs the package faker"),
    ("self", "uses self, but a row has no x"),
    ("y + 1", "uses y, which this map makes: an expression sees the row as it was before the map"),
    ("hidden", "uses hidden, which the catalog deselects"),
    ("record['emial']", "uses a name that does not exist: emial (did you mean email?)"),
    ("_.emial", "uses a name that does not exist: emial (did you mean email?)"),
    ("config['slat']", "uses a member that stream_map_config does not have: slat (did you mean salt?)"),
    ("email.lowr()", "uses an attribute that does not exist: lowr (did you mean lower?)"),
    ("email.strip().lowr()", "uses an attribute that does not exist: lowr (did you mean lower?)"),
    ("1 if email else datetime.datetime.fromisofromat(email)", "fromisofromat (did you mean fromisoformat?)"),
    ("random_bucket.lower()", "uses an attribute that does not exist: lower"),
    ("'{}'.format(email)", "uses .format, which expressions do not have"),
    ("None if email else ''.__class__", "uses .__class__, which expressions do not have"),
    ("lambda: 1", "uses Lambda, which expressions do not have"),
    ("(x := email)", "uses NamedExpr, which expressions do not have"),
    ("{each for each in email}", "uses SetComp, which expressions do not have"),
)
UNREADABLE = (
    ("", "it is empty"),
    ("# email", "it is empty"),
    ("email.lower(", "'(' was never closed"),
    ("email = 1", "it is a statement"),
    ("email; phone", "it is a statement"),
    ("import os", "it is a statement"),
)
STEADY = (
    *(text for text in RIGHT if "config.get" not in text),
    "exported_at[:10]",
    "custom_attributes.today",
    "record['now']",
    "config['salt'].lower()",
    "datetime.datetime.strptime(created_at, '%Y')",
)
UNSTEADY = (
    ("datetime.datetime.utcnow().isoformat()", "the clock (datetime.datetime.utcnow)"),
    ("datetime.datetime.now(datetime.timezone.utc)", "the clock (datetime.datetime.now)"),
    ("(datetime.date.today() - datetime.date(2020, 1, 1)).days", "the clock (datetime.date.today)"),
    ("[each.now() for each in [datetime.datetime]]", "the clock (each.now)"),
    ("rand() < 0.1", "chance (rand)"),
    ("randint(5)", "chance (randint)"),
    ("fake.seed_instance(email) or fake.first_name()", "chance (fake)"),
    ("config['seen'].append(email)", "other rows (config['seen'].append)"),
    ("[each.append(email) for each in [config['seen']]]", "other rows (each.append)"),
    ("config.setdefault('first', email)", "other rows (config.setdefault)"),
)


def row(column: str = "x") -> Row:
    config = {"salt": "s", "seen": []}
    stream = MappedStream("users", COLUMNS, {*COLUMNS, "hidden"}, is_selected=True)
    return Row(stream, column, made=["x", "y"], config=config)


def faults(text: str, of: Row | None = None) -> list[str]:
    return [*(of or row()).faults(parsed(text))]


def test_right_expressions_raise_no_alarm() -> None:
    found = {text: problems for text in RIGHT if (problems := faults(text))}
    assert not found


def test_names_that_do_not_exist_are_named() -> None:
    for text, told in WRONG:
        problems = faults(text)
        assert any(told in problem for problem in problems), (text, problems)


def test_own_column_is_self() -> None:
    assert not faults("md5(self or '')", row("email"))


def test_long_expression_raises_no_alarm() -> None:
    """One that the SDK's evaluator still can follow."""
    assert not faults("+".join(["1"] * 400))


def test_what_cannot_be_read_says_why() -> None:
    for text, told in UNREADABLE:
        with pytest.raises(ValueError, match=re.escape(told)):
            parsed(text)


def test_trying_changes_no_config() -> None:
    """The setting `stream_map_config` is one object for all rows."""
    own = row()
    assert not faults("config.pop('salt').upper().lower()", own)
    assert own.config == {"salt": "s", "seen": []}


def test_own_row_is_no_clock() -> None:
    found = {text: told for text in STEADY if (told := reads_besides_its_row(parsed(text), COLUMNS, is_filter=False))}
    assert not found


def test_clock_chance_and_other_rows() -> None:
    for text, told in UNSTEADY:
        assert reads_besides_its_row(parsed(text), COLUMNS, is_filter=False) == told, text


def test_filter_that_compares_with_the_time_of_export() -> None:
    """A column made of `exported_at` stays true for its row; a user that becomes due must not be skipped."""
    for text in ("created_at < exported_at", "record['exported_at'] > created_at", "_.exported_at"):
        assert reads_besides_its_row(parsed(text), COLUMNS, is_filter=True) == "the clock (exported_at)", text
        assert not reads_besides_its_row(parsed(text), COLUMNS, is_filter=False), text


def test_names_are_those_of_the_sdk() -> None:
    source = inspect.getsource(CustomStreamMap._eval)
    for name in GIVEN_NAMES:
        assert f'names["{name}"]' in source
    assert source.count("names[") == len({*GIVEN_NAMES, "fake", "self"})
    for name in ("md5", "sha256", "datetime", "json", "rand", "randint"):
        assert not faults(name)
