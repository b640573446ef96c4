"""Every edit that a person can make to a catalog is followed by SCHEMA and rows, or refused in one line."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from jsonschema import Draft202012Validator, FormatChecker

from fuzz.stand_ins import named
from tap_braze_export.errors import ConfigError
from tap_braze_export.rows.conform import as_loaded
from tap_braze_export.rows.rendered import membership_rows
from tap_braze_export.schema.table import Type
from tap_braze_export.schema.user_object import CAMPAIGNS_RECEIVED, EXPORT_FILES, SEGMENT_MEMBERS
from tap_braze_export.singer.given_files import read_catalog
from tap_braze_export.tap import TapBrazeExport
from tests.support.catalog_edits import EditedCatalog, edited_catalogs
from tests.support.hostile import few_examples
from tests.support.rows import AT, DATA, KEYS, SAMPLES, both_paths, read
from tests.support.runs import discover

if TYPE_CHECKING:
    from tap_braze_export.rows.reader import BlockRows
    from tap_braze_export.rows.rendered import Rows
    from tap_braze_export.schema.selection import Selection

    RowsByStream = dict[str, list[dict[str, Any]]]

CONFIG = {"custom_attributes": {"plan": "string", "score": "integer", "joined": "date-time", "tags": "array"}}
LINES = [line for path in (SAMPLES, DATA / "odd_values.jsonl") for line in path.read_bytes().splitlines()]
OF_TYPES = {Type.STRING: "text", Type.INTEGER: 9007199254740993, Type.DATE_TIME: AT}
AUDIT_ROW = {column.name: OF_TYPES[column.type] for column in EXPORT_FILES.columns} | {"segment_id": None}


@cache
def catalog(*, typed: bool = True) -> dict[str, Any]:
    """The catalog of discovery, with every stream selected, and with types of custom attributes unless told not to."""
    found = discover(CONFIG if typed else {})
    for entry in found["streams"]:
        for item in entry["metadata"]:
            if not item["breadcrumb"]:
                item["metadata"]["selected"] = True
    return found


def tap_of(edited: dict[str, Any]) -> TapBrazeExport:
    """The tap with a catalog that is given as a file."""
    given = read_catalog(named(json.dumps(edited).encode(), "catalog.json"))
    return TapBrazeExport(config=CONFIG, catalog=given, validate_config=False)


def parsed(rows: Rows) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal) for line in rows.jsonl.splitlines()]


def rows_of(selections: dict[str, Selection], read_rows: BlockRows) -> RowsByStream:
    """The rows of all streams, those that come from no line among them."""
    found = {stream: parsed(rows) for stream, rows in read_rows.rows.items()}
    if selection := selections.get(SEGMENT_MEMBERS.stream):
        members = membership_rows(selection, ["u"], segment_id="s", is_member=True, exported_at=AT)
        found[SEGMENT_MEMBERS.stream] = parsed(members)
    if selection := selections.get(EXPORT_FILES.stream):
        found[EXPORT_FILES.stream] = [as_loaded(selection.columns, AUDIT_ROW)]
    return found


def read_with(edited: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], RowsByStream]:
    """The JSON schemas that a tap announces with a catalog, and its rows, which both paths make alike."""
    tap = tap_of(edited)
    streams = [stream for stream in tap.streams.values() if stream.selected]
    selections = {stream.name: stream.selection for stream in streams}  # type: ignore[attr-defined]
    schemas = {name: schema for stream in streams for name, schema in stream.schemas.items()}  # type: ignore[attr-defined]
    of_users = {name: selection for name, selection in selections.items() if selection.table.path is not None}
    fast, careful = both_paths(of_users, [LINES])
    assert fast == careful
    return schemas, rows_of(selections, read(*LINES, selections=of_users))


@cache
def untouched() -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """The rows without an edit and without types of attributes, by stream and key."""
    _, found = read_with(catalog(typed=False))
    return {stream: {key_of(stream, row): row for row in rows} for stream, rows in found.items()}


def key_of(stream: str, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEYS[stream])


# Formats

FORMATS = FormatChecker(())


@FORMATS.checks("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value[:19] + "Z").tzinfo is not None


@FORMATS.checks("date", ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or datetime.strptime(value, "%Y-%m-%d").tzinfo is None  # noqa: DTZ007


# Losses


def meanings(value: Any) -> list[Any]:
    """All that a value can mean: a text that holds JSON, or a date, means that, too."""
    found = [value]
    if isinstance(value, str):
        try:
            found.append(
                json.loads(value.lower() if value.lower() in ("true", "false") else value, parse_float=Decimal)
            )
        except ValueError:
            found.append(value.replace(" UTC", "Z").replace(" ", "T"))
    return found


def means_the_same(one: Any, other: Any) -> bool:
    for mine in meanings(one):
        for theirs in meanings(other):
            if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
                if all(map(means_the_same, mine, theirs)):
                    return True
            elif (type(mine) is type(theirs) or not {bool} & {type(mine), type(theirs)}) and mine == theirs:
                return True
    return False


def rescued_in(row: dict[str, Any]) -> dict[str, Any]:
    found = row.get("_rescued_data")
    return dict(meanings(found)[-1] or {})


def lost(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of what one row holds, in its columns or rescued, and another does not."""
    held = rescued_in(after)
    missing = []
    for name, value in {**before, **rescued_in(before)}.items():
        if name == "_rescued_data" or value is None or (name not in after and name in before):
            continue  # a column that the catalog has removed
        if "_rescued_data" not in after and after.get(name) is None:
            continue  # what does not fit is rescued only where that column is there
        new = after.get(name) if after.get(name) is not None else held.get(name)
        texts = meanings(new)[-1]
        if isinstance(value, dict) and isinstance(texts, dict):
            inner = {member: texts.get(member, held.get(f"{name}.{member}")) for member in value}
            kept = {m: inner[m] if inner[m] is not None else held.get(f"{name}.{m}") for m in value}
            missing += [
                f"{name}.{member}"
                for member, item in value.items()
                if item is not None and not means_the_same(item, kept[member])
            ]
        elif not means_the_same(value, new):
            missing.append(name)
    return missing


def removed_members(edited: dict[str, Any]) -> set[str]:
    """Known members of `engaged` that a catalog lists no more, which deselects them."""
    (entry,) = [entry for entry in edited["streams"] if entry["tap_stream_id"] == CAMPAIGNS_RECEIVED.stream]
    declared = json.dumps(entry["schema"]["properties"].get("engaged", {}))
    (engaged,) = [column for column in CAMPAIGNS_RECEIVED.fields if column.name == "engaged"]
    return {f"engaged.{member.name}" for member in engaged.members if f'"{member.name}"' not in declared}


@settings(few_examples)
@given(edited_catalogs(catalog()))
def test_an_edit_is_followed_or_refused(edited: EditedCatalog) -> None:
    """Either an error for the one line, or rows as SCHEMA says, on both paths, that hold all that they held before."""
    try:
        schemas, found = read_with(edited.content)
    except ConfigError:
        return
    for stream, rows in found.items():
        validator = Draft202012Validator(schemas[stream], format_checker=FORMATS)
        for row in rows:
            plain = json.loads(json.dumps(row, default=float))
            problems = [*validator.iter_errors(plain)]
            assert not problems, (stream, problems[0].json_path, problems[0].message)
            assert row.keys() == schemas[stream]["properties"].keys()
            if before := untouched()[stream].get(key_of(stream, row)):
                missing = {*lost(before, row)} - removed_members(edited.content)
                assert not missing, (stream, missing, before, row)
