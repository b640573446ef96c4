"""No odd user stops a loader, and PostgreSQL holds what the tap promised: expected rows against tables."""

from __future__ import annotations

import contextlib
import io
import json
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.tap import TapBrazeExport
from tests.support.loaders import SCHEMA, load
from tests.support.postgres import Postgres
from tests.support.rows import HUGE, KEYS, Case, cases, parse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.postgres import Postgres

CASES = [case for case in (*cases("odd_users.json"), *cases("samples.json")) if case.is_plain]
FORMATS = {
    (table.stream, name): column.get("format")
    for table in TABLES
    for name, column in table.json_schema["properties"].items()
}
LONG = "ä" * 2**19
DEEP = 490

# Users that no data file can hold readably: a line, and what users' columns hold of it.
UNWRITABLE: dict[str, tuple[bytes, dict[str, Any]]] = {
    "surrogates": (
        b'{"braze_id":"surrogates","email":"\\ud800 \xed\xa0\x80","custom_attributes":{"\\udfff":["\\ud83d\\ude00"]}}',
        {"email": "\ufffd \ufffd", "custom_attributes": {"\ufffd": ["😀"]}},
    ),
    "5,000 digits": (
        f'{{"braze_id":"5,000 digits","random_bucket":{HUGE},"phone":{HUGE},"custom_attributes":[]}}'.encode(),
        {"phone": HUGE, "_rescued_data": {"random_bucket": HUGE, "custom_attributes": []}},
    ),
    "4,300 digits": (
        f'{{"braze_id":"4,300 digits","custom_attributes":{{"x":[{HUGE[:4300]}]}},"new":-{HUGE[:4300]}}}'.encode(),
        {"custom_attributes": {"x": [int(HUGE[:4300])]}, "_rescued_data": {"new": -int(HUGE[:4300])}},
    ),
    "exponents": (
        (
            b'{"braze_id":"exponents","total_revenue":1.7e308,"custom_attributes":'
            b'{"a":1e200000,"b":1e-20000,"c":1.5e300,"d":1e309,"e":1e99999999999999999999}}'
        ),
        {
            "total_revenue": Decimal("1.7E+308"),
            "custom_attributes": {
                "a": "1e200000",
                "b": "1e-20000",
                "c": Decimal("1.5E+300"),
                "d": "1e309",
                "e": "1e99999999999999999999",
            },
        },
    ),
    "deep": (
        b'{"braze_id":"deep","custom_attributes":{"x":%s%s}}' % (b"[" * DEEP, b"]" * DEEP),
        {"custom_attributes": {"x": json.loads("[" * DEEP + "]" * DEEP)}},
    ),
    "a megabyte": (
        json.dumps({"braze_id": "a megabyte", "email": LONG, "custom_attributes": {LONG: LONG}}).encode(),
        {"email": LONG, "custom_attributes": {LONG: LONG}},
    ),
    "borders of time": (
        b'{"braze_id":"borders of time","created_at":"0001-01-01T00:00:00Z","dob":"9999-12-31",'
        b'"uninstalled_at":253402300799999,"push_opted_in_at":"2024-05-06T07:08:09.%sZ"}' % (b"9" * 300),
        {
            "created_at": "0001-01-01T00:00:00Z",
            "dob": "9999-12-31",
            "uninstalled_at": "9999-12-31T23:59:59.999Z",
            "push_opted_in_at": f"2024-05-06T07:08:09.{'9' * 300}Z",
        },
    ),
}
REJECTED = [b"no json", b"{}", b'{"braze_id":"too deep","x":' + b"[" * 900 + b"]" * 900 + b"}"]


def exact(number: str) -> Any:
    """A number as one value whatever its spelling, and unlike true and false."""
    return ("number", Decimal(number))


def in_table(stream: str, column: str, value: Any) -> Any:
    """How a value that was sent is shown by a query: target-postgres keeps timestamps without an offset."""
    if FORMATS[stream, column] != "date-time" or value is None:
        return value
    return datetime.fromisoformat(value).replace(tzinfo=None)


def table_rows(server: Postgres, schema: str, stream: str) -> list[dict[str, Any]]:
    """All rows of a table, their numbers exact."""
    text = server.execute(f'select row_to_json(t) from "{schema}"."{stream}" as t;')
    found = [parse(line, exact) for line in text.split("\n") if line]
    return [
        {
            name: datetime.fromisoformat(value)
            if value is not None and FORMATS.get((stream, name)) == "date-time"
            else value
            for name, value in row.items()
            if name[:5] != "_sdc_"
        }
        for row in found
    ]


def by_key(stream: str, found: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows by their key; two with the same one are a mistake."""
    keyed = {tuple(row[name] for name in KEYS[stream]): row for row in found}
    assert len(keyed) == len(found)
    return keyed


def export(sandbox: Sandbox, spool: Path) -> bytes:
    """The messages of one run."""
    settings = {"segment_ids": ["odd"], "spool_dir": str(spool), "max_rejected_lines": len(REJECTED)}
    written = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(written, encoding="utf-8", write_through=True)):
        TapBrazeExport(config=sandbox.config | settings).sync_all()
        return written.getvalue()


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The messages of a run over one file with all odd users, and lines that are no users."""
    lines = [case.line for case in CASES] + [line for line, _ in UNWRITABLE.values()]
    with Sandbox(users=1) as sandbox:
        sandbox.add_segment("odd", files=[[*REJECTED[:1], *lines, *REJECTED[1:]]])
        return export(sandbox, tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module", params=["copy", "insert"])
def loaded(
    request: pytest.FixtureRequest, messages: bytes, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Postgres, str]:
    """The server and the schema that target-postgres has loaded the messages into, either way that it can."""
    schema = f"{SCHEMA}_odd_{request.param}"
    config = {**postgres.target_config, "default_target_schema": schema, "use_copy": request.param == "copy"}
    done = load("target-postgres", config, messages, tmp_path_factory.mktemp("target"))
    assert done.returncode == 0, done.stderr[-3000:]
    return postgres, schema


def expected_of(stream: str, exported_at: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a stream as a query shows them: of users that occur twice only the last one's."""
    last: dict[str, Case] = {parse(case.user, str)["braze_id"]: case for case in CASES}
    sent = [row for case in last.values() for row in case.expected(exact).get(stream, [])]
    if stream == "users":
        columns = dict.fromkeys(sent[0])
        sent += [columns | {"braze_id": name} | row for name, (_, row) in UNWRITABLE.items()]
    shown = [
        {name: in_table(stream, name, value) for name, value in (row | {"exported_at": exported_at}).items()}
        for row in sent
    ]
    return by_key(stream, shown)


def exact_in(value: Any) -> Any:
    """A Python value with its numbers as `exact` reads them; not recursive where it need not be."""
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return ("number", Decimal(value))
    if isinstance(value, dict):
        return {name: exact_in(item) for name, item in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return [exact_in(item) for item in value]
    return value


def records(messages: bytes) -> dict[str, list[dict[str, Any]]]:
    """The rows that the tap emitted, by stream."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in messages.splitlines():
        message = parse(line, exact)
        if message["type"] == "RECORD":
            found[message["stream"]].append(message["record"])
    return found


def test_the_audit_log_counts_them_all(messages: bytes) -> None:
    """Lines, users, those that occur twice, and those that could not be read."""
    (row,) = records(messages)["export_files"]
    lines = len(CASES) + len(UNWRITABLE) + len(REJECTED)
    users = len({parse(case.user, str)["braze_id"] for case in CASES}) + len(UNWRITABLE)
    counts = {name: int(row[name][1]) for name in ("lines", "users", "duplicates", "unchanged", "rejected")}
    assert counts == {
        "lines": lines,
        "users": users,
        "duplicates": lines - users - len(REJECTED),
        "unchanged": 0,
        "rejected": len(REJECTED),
    }


@pytest.mark.parametrize("stream", [table.stream for table in TABLES if table.path is not None])
def test_tables_hold_the_expected_rows(messages: bytes, loaded: tuple[Postgres, str], stream: str) -> None:
    """Row for row and column for column: numbers of any size, replaced text, megabytes, dates, rescued data."""
    exported_at = records(messages)["users"][0]["exported_at"]
    found = by_key(stream, table_rows(*loaded, stream))
    expected = expected_of(stream, exported_at)
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key] == {name: exact_in(value) for name, value in row.items()}, key


def test_no_row_is_lost_or_added_by_the_loader(messages: bytes, loaded: tuple[Postgres, str]) -> None:
    """Each table has as many rows as the tap emitted: no two of them have the same key."""
    server, schema = loaded
    assert {stream: n for stream, n in server.counts(schema).items() if n} == {
        stream: len(found) for stream, found in records(messages).items()
    }


def test_a_child_row_is_current_when_its_user_is(loaded: tuple[Postgres, str]) -> None:
    """The join of the contract: every child row carries its user's `exported_at`."""
    server, schema = loaded
    for table in TABLES:
        if table.path:
            stale = server.rows(
                f'select * from "{schema}"."{table.stream}" as child where not exists (select * from "{schema}".users '
                "where users.braze_id = child.braze_id and users.exported_at = child.exported_at)"
            )
            assert stale == [], table.stream
