"""Flattening: no column that SCHEMA lacks, and nothing lost; untyped members stay together in one column."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.helpers._flattening import FlatteningOptions

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.singer.flattening import Flattening
from tests.support import batches
from tests.support.batches import comparable, records
from tests.support.night import at_night
from tests.support.runs import Run, settings, sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TYPES = {"loyalty_points": "integer", "plan": "string", "address": "object", "tags": "array", "a__b": "number"}
FLAT = {"flattening_enabled": True, "flattening_max_depth": 3}
PEOPLE: list[dict[str, Any]] = [
    {"braze_id": "b1", "custom_attributes": {"loyalty_points": 5, "score_016": 1.5, "address": {"city": "é"}}},
    {"braze_id": "b2", "custom_attributes": None, "campaigns_received": [{"api_campaign_id": "c1", "engaged": None}]},
    {"braze_id": "b3", "custom_attributes": {}, "campaigns_received": [{"api_campaign_id": "c1", "engaged": {}}]},
    {"braze_id": "b4", "campaigns_received": [{"api_campaign_id": "c1", "engaged": {"opened_email": True, "x": [1]}}]},
    {"braze_id": "b5", "custom_attributes": {"loyalty_points": "many", "Plan": 1, "a": {"b": 1}, "a__b": 2}},
]
KEYS = {"braze_id": "braze_id", "api_campaign_id": "api_campaign_id"}
MAPS: dict[str, dict[str, Any]] = {
    "no maps": {},
    "neutral maps": {"users": {"__filter__": "True"}, "campaigns_received": {}},
    "maps that make objects": {
        "users": {"whole": "record", "again": "custom_attributes", "made": "{'a': {'b': [1]}}", "email": None},
        "campaigns_received": {"engaged": "{'opened_email': True, 'made': {'deep': 1}}"},
    },
    "maps that change types": {"users": {"custom_attributes": "'text'", "plan": "custom_attributes", "n": "5"}},
    "aliases": {
        "users": {"__alias__": "people"},
        "copies": {"__source__": "campaigns_received", "both": "engaged", **KEYS, "__else__": None},
    },
    "else": {"users": {"kept": "custom_attributes", "braze_id": "braze_id", "__else__": None}, "__else__": None},
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Odd users, and people whose open objects hold what no schema knows."""
    with Sandbox(users=40) as sandbox:
        sandbox.add_segment("people", PEOPLE)
        yield sandbox


def flattened(sandbox: Sandbox, spool: Path, **more: Any) -> Run:
    """A run over all users and people."""
    given = {"segment_ids": ["all-users", "people"], "concurrent_exports": 1, "custom_attributes": TYPES, **FLAT}
    return sync(settings(sandbox, spool, **given | more))


def strangers(run: Run) -> dict[str, set[str]]:
    """Columns of records that SCHEMA lacks, by stream."""
    found = {stream: set().union(*run.rows(stream)) - run.columns(stream) for stream in run.schemas}
    return {stream: names for stream, names in found.items() if names}


def by_id(run: Run, stream: str = "users") -> dict[str, dict[str, Any]]:
    return {row["braze_id"]: row for row in run.rows(stream)}


def test_typed_members_are_columns_and_the_others_stay_together(sandbox: Sandbox, tmp_path: Path) -> None:
    run = flattened(sandbox, tmp_path)
    rows = by_id(run)
    typed = {f"custom_attributes__{name}" for name in TYPES}
    assert {name for name in run.columns("users") if name.startswith("custom_attributes")} == {
        "custom_attributes",
        *typed,
    }
    first = rows["b1"]
    assert first["custom_attributes__loyalty_points"] == 5
    assert json.loads(first["custom_attributes__address"]) == {"city": "é"}
    assert json.loads(first["custom_attributes"]) == {"score_016": 1.5}
    assert {rows["b2"][name] for name in ("custom_attributes", *typed)} == {None}
    assert rows["b3"]["custom_attributes"] == "{}"
    assert json.loads(rows["b5"]["custom_attributes"]) == {"Plan": 1, "a": {"b": 1}}
    assert rows["b5"]["custom_attributes__a__b"] == 2
    assert json.loads(rows["b5"]["_rescued_data"]) == {"custom_attributes.loyalty_points": "many"}
    campaigns = by_id(run, "campaigns_received")
    assert campaigns["b4"]["engaged__opened_email"] is True
    assert campaigns["b4"]["engaged"] == '{"x":[1]}'
    assert campaigns["b2"]["engaged"] is campaigns["b2"]["engaged__opened_email"] is None


@pytest.mark.parametrize("maps", [*MAPS])
def test_no_record_has_a_column_that_its_schema_lacks(sandbox: Sandbox, tmp_path: Path, maps: str) -> None:
    """Whatever stream maps make."""
    run = flattened(sandbox, tmp_path, stream_maps=MAPS[maps])
    assert run.of_type("RECORD")
    assert not strangers(run)
    for stream, message in run.schemas.items():
        types = {name: definition["type"] for name, definition in message["schema"]["properties"].items() if definition}
        assert not [name for name, kinds in types.items() if {"object", "array"} & {*kinds}]
        assert set(message["key_properties"]) <= types.keys()
        assert not [value for row in run.rows(stream) for value in row.values() if isinstance(value, (dict, list))]


@pytest.mark.parametrize("seed", at_night(range(12), but=range(3)))
def test_any_depth_separator_and_length_of_names(sandbox: Sandbox, tmp_path: Path, seed: int) -> None:
    """Names that would be alike stay apart, keys keep theirs, and every row has every column."""
    choice = random.Random(seed)
    given = {
        "flattening_max_depth": choice.choice([1, 2, 5]),
        "flattening_separator": choice.choice(["__", "_", ".", "-", " ", "/"]),
        "flattening_max_key_length": choice.choice([8, 12, 20, 30, 255]),
        "custom_attributes": {f"{choice.choice('aAbB')}_{n % 5}{'_x' * (n % 3)}": "string" for n in range(20)},
    }
    run = flattened(sandbox, tmp_path, **given)
    for stream, message in run.schemas.items():
        columns = run.columns(stream)
        assert len({name.lower() for name in columns}) == len(columns)
        assert {frozenset(row) for row in run.rows(stream)} <= {frozenset(columns)}
        assert set(message["key_properties"]) <= columns
    plain = sync(settings(sandbox, tmp_path, segment_ids=["all-users", "people"], concurrent_exports=1))
    assert run.counts == plain.counts


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("maps", at_night(MAPS, but=[*MAPS][-2:]))
def test_batch_files_hold_the_flattened_records(sandbox: Sandbox, tmp_path: Path, maps: str, file_format: str) -> None:
    expected = flattened(sandbox, tmp_path, stream_maps=MAPS[maps])
    batch = batches.config(tmp_path / "out", file_format)
    run = flattened(sandbox, tmp_path, stream_maps=MAPS[maps], batch_config=batch)
    assert run.of_type("SCHEMA") == expected.of_type("SCHEMA")
    if file_format == "jsonl":
        assert comparable(batches.jsonl(run)) == comparable(records(expected))
        return
    for stream, rows in batches.parquet(run).items():
        assert len(rows) == expected.counts[stream]
        assert {frozenset(row) for row in rows} == {frozenset(expected.columns(stream))}


def restored(flat: dict[str, Any], names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """The row that a flattened one was made from; `names` are the paths of the columns."""
    row: dict[str, Any] = {}
    for column, path in names.items():
        value = flat.get(column)
        if value is None:
            continue
        at = row
        for name in path[:-1]:
            at = at.setdefault(name, {})
        if isinstance(value, str) and value.startswith("{"):
            at.setdefault(path[-1], {}).update(json.loads(value))
        else:
            at[path[-1]] = value
    return row


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_row_can_be_restored_at_any_depth(depth: int) -> None:
    """Objects inside objects, each with members that the schema does not know."""
    leaf = {"type": ["integer", "null"]}
    inner = {"type": ["object", "null"], "properties": {"c": leaf, "d": {"type": "object", "properties": {"e": leaf}}}}
    schema = {"properties": {"k": leaf, "a": {"type": ["object", "null"], "properties": {"b": inner}}}}
    row = {"k": 1, "a": {"x": 1.5, "b": {"c": 3, "y": {"z": None}, "d": {"e": 4, "w": [5, {}]}}}}
    flattening = Flattening.of(schema, FlatteningOptions(enabled=True, max_level=depth), ["k"])
    paths = [("k",), ("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "d"), ("a", "b", "d", "e")]
    flat = flattening.flatten(row)
    assert set(flat) == set(flattening.schema["properties"])
    assert restored(flat, {"__".join(path): path for path in paths}) == row


def test_values_of_open_columns_are_json_text() -> None:
    """A text that stands where other types may stand keeps its quotes; one from an expression stays as it is."""
    properties = {"open": {}, "either": {"type": ["string", "object", "null"]}, "object": {"type": ["object", "null"]}}
    flattening = Flattening.of({"properties": properties}, FlatteningOptions(enabled=True, max_level=1), [])
    assert flattening.flatten({"open": "x", "either": "5", "object": "text"}) == {
        "open": '"x"',
        "either": '"5"',
        "object": "text",
    }
    assert flattening.flatten({"open": None, "either": 5, "object": 5}) == {
        "open": None,
        "either": "5",
        "object": "5",
    }
    assert {kind["type"][0] for kind in flattening.schema["properties"].values()} == {"string"}


def columns_of(names: list[str], **options: Any) -> list[str]:
    """The columns of the members of an object, in the order of their names."""
    members = {name: {"type": ["string", "null"]} for name in names}
    schema = {"properties": {"a": {"type": ["object", "null"], "properties": members}}}
    flattening = Flattening.of(schema, FlatteningOptions(enabled=True, max_level=1, **options), [])
    assert flattening.flatten({"a": {name: name for name in names}}).keys() == flattening.schema["properties"].keys()
    return [*flattening.schema["properties"]][1:]


def test_a_name_that_looks_like_a_hashed_one_keeps_its_column() -> None:
    """The hash of the other one is longer then."""
    plain = columns_of(["Plan", "plan"])
    assert plain == ["a__Plan_788ad2", "a__plan_54eb7b"]
    assert columns_of(["Plan", "plan", "pLAN_788ad2"]) == ["a__Plan_788ad21", plain[1], "a__pLAN_788ad2"]


def test_quotes_never_stand_in_a_column() -> None:
    """Loaders put names between quotes and do not double those inside."""
    assert columns_of(['say "hi"', "it's"]) == ["a__say _hi_", "a__it's"]
    assert len(set(columns_of(['"a"', "_a_", '_a"']))) == 3


@pytest.mark.parametrize("name", ["x" * 100, "X" * 100, "日" * 21, "🎂" * 100, "a b" * 40])
@pytest.mark.parametrize("limit", [20, 63])
def test_no_column_is_longer_than_the_limit(name: str, limit: int) -> None:
    """In bytes, as databases count; two that begin alike stay apart."""
    found = columns_of([name, f"{name}y", f"{name}Y"], max_key_length=limit)
    assert len({column.lower() for column in found}) == 3
    assert max(len(column.encode()) for column in found) < limit


def test_no_name_is_cut_in_vain() -> None:
    """One that the SDK shortens enough, or that is short, has no hash."""
    assert columns_of(["日" * 6, "camelCaseNameOfManyLetters"], max_key_length=24) == ["a__日日日日日日", "a__ccnoml"]
