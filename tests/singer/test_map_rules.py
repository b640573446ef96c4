"""Rules of stream maps that hit nothing are refused where they take something away, and named in every case."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from singer_sdk.mapper import RemoveRecordTransform

from tap_braze_export.errors import ConfigError, Problem, problems_in_words
from tap_braze_export.schema.user_object import TABLES
from tap_braze_export.singer.expressions import MappedStream
from tap_braze_export.singer.map_rules import MapRules
from tests.support.fakes import FakeClock
from tests.support.hostile import few_examples
from tests.support.runs import command, refusal, selecting, settings, sync, tap_class, written

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

STREAMS = {
    table.stream: MappedStream(
        table.stream,
        table.json_schema["properties"],
        {*table.json_schema["properties"]},
        is_selected=table.selected_by_default,
    )
    for table in TABLES
}
MISSPELT = {
    "user": {"email": "__NULL__", "phone": "__NULL__"},
    "users": {"e_mail": "__NULL__", "emails": None},
}
"""A case from the field: the addresses of everybody were exported."""
CLOCK = {
    "users": {"__filter__": "datetime.datetime.utcnow().isoformat() > '2026-12-01T12:30:00'"},
    "apps": {"days": "int((datetime.datetime.utcnow() - datetime.datetime(2020, 1, 1)).total_seconds())"},
}
"""Another one: with fingerprints, rows that became due were never sent."""
USES = "the expression of x for users uses a name that does not exist"
LEAVES = "users has no column emial (did you mean email?), so that email leaves as it is"
REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"user": None}, "there is no stream user (did you mean users?)"),
    ({"user": {"email": None}}, "there is no stream user (did you mean users?)"),
    ({"user": {"email": "email[:3]"}}, "there is no stream user (did you mean users?)"),
    ({"user": {"x": "md5(email)"}}, "there is no stream user (did you mean users?)"),
    ({"user": {"__filter__": "country == 'DE'"}}, "there is no stream user (did you mean users?)"),
    ({"devise*": {"idfa": None}}, "there is no stream devise* (did you mean devices?)"),
    ({"people": {"__source__": "user", "email": None}}, "there is no stream user (did you mean users?)"),
    ({"__els__": None}, "__els__ (did you mean __else__?) is no stream and no operator"),
    ({"users": {"emial": None}}, "users has no column emial (did you mean email?) to remove"),
    ({"users": {"emial": "__NULL__"}}, "users has no column emial (did you mean email?) to remove"),
    ({"*": {"emial": None}}, "* has no column emial (did you mean email?) to remove"),
    ({"users": {"idfa": None}}, "users has no column idfa to remove"),
    ({"users": {"x": "email", "email_hash": None}}, "users has no column email_hash"),
    ({"people": {"__source__": "users", "emial": None}}, "people has no column emial (did you mean email?) to remove"),
    ({"users": {"custom_attributes__plan": None}}, "maps see custom_attributes as one object: deselect its member"),
    ({"users": {"custom_attributes.plan": None}}, "maps see custom_attributes as one object: deselect its member"),
    ({"users": {"custom_attributes__plan": "'x'"}}, "so that custom_attributes leaves as it is"),
    (
        {"users": {"emial": "md5(email)"}},
        LEAVES,
    ),
    (
        {"users": {"emial": "'hidden'"}},
        LEAVES,
    ),
    ({"users": {"emial": "None"}}, LEAVES),
    ({"users": {"__fliter__": "email"}}, "__fliter__ (did you mean __filter__?) of users is no operator"),
    (
        {"a": {"__source__": "apps", "__alias__": "b"}},
        "a has __source__, so __alias__ would be a column",
    ),
    ({"users": {"__key_properties__": ["brazeid"]}}, "names no column: brazeid (did you mean braze_id?)"),
    (
        {"users": {"__filter__": "emial"}},
        "the expression of __filter__ for users uses a name that does not exist: emial",
    ),
    ({"users": {"x": "md5(emial)"}}, f"{USES}: emial (did you mean email?)"),
    ({"user*": {"x": "emial"}}, f"{USES}: emial (did you mean email?)"),
    ({"p": {"__source__": "users", "x": "emial"}}, "the expression of x for p uses a name that does not exist: emial"),
    ({"*": {"x": "braze_id"}}, "the expression of x for export_files uses a name that does not exist: braze_id"),
    ({"users": {"x": "email.lower("}}, "the expression of x for users cannot be read ('(' was never closed)"),
    # The SDK uses the last of the maps that match a stream, and no other.
    ({"users": {"email": None}, "u*": {}}, "only the last one, u*, is used: repeat email there"),
    ({"*": {"_rescued_data": None}, "users": {"x": "1"}}, "only the last one, users, is used: repeat _rescued_data"),
    ({"users": {"email": "md5(email)"}, "u*": {}}, "only the last one, u*, is used: repeat email there"),
    ({"users": {"__filter__": "email"}, "u*": {}}, "only the last one, u*, is used: repeat __filter__ there"),
    ({"users": {"__else__": None}, "u*": {}}, "only the last one, u*, is used: repeat __else__ there"),
    ({"users": None, "u*": {}}, "only the last one, u*, is used: repeat users: null there"),
)
WARNED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"user": {"x": "email"}}, "there is no stream user (did you mean users?), so its rules are not used"),
    ({"user": {"__alias__": "people"}}, "there is no stream user (did you mean users?)"),
    ({"users": {"frist_name": "first_name[:1]"}}, "users has no column frist_name (did you mean first_name?)"),
    ({"users": {"emial": None, "x": "email", "__else__": None}}, "users has no column emial (did you mean email?)"),
)
FINE: tuple[dict[str, Any], ...] = (
    {},
    {"__else__": None},
    {"users": {}, "__else__": None},
    {"users": "__NULL__", "apps": None},
    {"users": {"email": None, "phone": "__NULL__", "dob": "None"}},
    {"users": {"email_hash": "md5(email) if email else None", "email": None}},
    {"users": {"email_hash": "md5(email) if email else None"}},
    {"users": {"mail": "email", "email": None}},
    {"users": {"mail": "email"}},
    {"users": {"emial": "md5(email)", "email": None}},
    {"users": {"emial": "md5(email)", "__else__": None}},
    {"users": {"größe": "'é'", "custom_attributes": "{}"}},
    {"*": {"_rescued_data": None}},
    {"*s": {"braze_id": "braze_id"}, "export_files": {}},
    {"*": None, "users": {"email": None}},
    {"*": {"_rescued_data": None}, "users": {"_rescued_data": None, "email": None}},
    {"*": {"_rescued_data": None}, "users": {"email": "email", "__else__": None}},
    {"*": {"_rescued_data": None}, "users": None},
    {"people": {"__source__": "users", "braze_id": "braze_id", "__else__": None}},
    {"people": {"__source__": "users", "email": None, "__key_properties__": ["braze_id"]}, "users": {"phone": None}},
    {"users": {"id": "braze_id", "__key_properties__": ["id"], "__alias__": "people"}},
    {"segment_members": {"x": "unheard_of"}},  # not selected
)


def problems(maps: dict[str, Any], **more: Any) -> list[Problem]:
    return [*MapRules({"stream_maps": maps, **more}, STREAMS.values()).problems()]


def words(found: list[Problem]) -> str:
    return problems_in_words(found)


def test_rules_that_take_away_and_hit_nothing_are_refused() -> None:
    for maps, told in REFUSED:
        found = problems(maps)
        assert told in words(found), (maps, found)
        assert any(problem.is_refused for problem in found), maps


def test_other_rules_that_hit_nothing_are_named() -> None:
    for maps, told in WARNED:
        found = problems(maps)
        assert told in words(found), (maps, found)
        assert not any(problem.is_refused for problem in found), maps


def test_rules_that_hit_something_raise_no_alarm() -> None:
    for maps in FINE:
        assert not problems(maps), maps
        assert not problems(maps, fingerprints_url="x"), maps


COLUMNS = [(stream.name, column) for stream in STREAMS.values() for column in stream.columns]


@few_examples
@given(
    place=st.sampled_from(COLUMNS), edit=st.integers(0, 3), at=st.integers(0, 30), rule=st.sampled_from([None, "''"])
)
def test_any_misspelt_column_is_refused(place: tuple[str, str], edit: int, at: int, rule: str | None) -> None:
    """A letter too many, one too few, two turned, or another case: a removal is refused, a constant at least named."""
    stream, column = place
    at %= len(column)
    misspelt = (
        column[:at] + column[at] * 2 + column[at + 1 :],
        column[:at] + column[at + 1 :],
        column[:at] + column[at + 1 : at + 2] + column[at] + column[at + 2 :],
        column.upper(),
    )[edit]
    if misspelt in STREAMS[stream].known or not misspelt:
        return
    found = problems({stream: {misspelt: rule}})
    if rule is None:
        assert any(problem.is_refused and misspelt in problem.text for problem in found)
    elif edit != 3 and len(column) > 4:
        assert any(misspelt in problem.text for problem in found)


@few_examples
@given(place=st.sampled_from(COLUMNS))
def test_any_column_can_be_removed(place: tuple[str, str]) -> None:
    stream, column = place
    assert not problems({stream: {column: None}, f"copy of {stream}": {"__source__": stream, column: None}})


KEYS = st.sampled_from(["users", "user", "user*", "*", "devices", "dev*", "users_", "copy"])
RULES = st.dictionaries(
    st.sampled_from(["email", "emial", "_rescued_data", "model", "idfa", "custom_attributes", "custom_attributes__a"]),
    st.sampled_from([None, "__NULL__"]),
    max_size=3,
)


@few_examples
@given(maps=st.dictionaries(KEYS, RULES | st.none(), min_size=1, max_size=4))
def test_whatever_is_removed_is_gone_or_refused(maps: dict[str, Any]) -> None:
    """As the SDK applies the maps: in their order, by pattern, the last one of a stream alone."""
    config = {"api_url": "https://rest.iad-01.braze.com", "api_key": "k", "segment_ids": ["s"], "stream_maps": maps}
    try:
        tap = tap_class(FakeClock())(config=config)
    except ConfigError:
        return
    for key, rules in maps.items():
        matching = [stream for stream in STREAMS if fnmatch(stream, key)]
        assert matching or not rules, key
        for column in rules or ():
            assert any(column in STREAMS[stream].known for stream in matching), column
            for stream in matching:
                stream_map = tap.mapper.stream_maps[stream][0]
                is_gone = isinstance(stream_map, RemoveRecordTransform)
                assert is_gone or column not in stream_map.transformed_schema["properties"], (stream, column)


def test_clock_with_fingerprints_names_stream_and_column() -> None:
    told = words(problems(CLOCK, fingerprints_url="x"))
    assert "the expression of __filter__ for users looks at the clock (datetime.datetime.utcnow)" in told
    assert "the expression of days for apps looks at the clock (datetime.datetime.utcnow)" in told
    assert told.count("unset fingerprints_url") == 1
    assert not problems(CLOCK)


def test_log_of_files_may_look_at_the_clock() -> None:
    """Fingerprints skip none of its rows."""
    now = {"x": "datetime.datetime.utcnow().isoformat()"}
    assert not problems({"export_files": now}, fingerprints_url="x")
    assert problems({"segment_members": now, "apps": now}, fingerprints_url="x")


# The whole tap


def test_run_is_refused_before_anything_is_started(sandbox: Sandbox, tmp_path: Path) -> None:
    calls = len(sandbox.calls)
    error = refusal("--config", written(tmp_path, settings(sandbox, tmp_path, stream_maps=MISSPELT)))
    assert error == (
        "stream_maps: there is no stream user (did you mean users?): what its rules take away would be exported; "
        "stream_maps: users has no column e_mail (did you mean email?) to remove; "
        "stream_maps: users has no column emails (did you mean email?) to remove"
    )
    given_clock = settings(sandbox, tmp_path, stream_maps=CLOCK, fingerprints_url=str(tmp_path / "prints"))
    assert "looks at the clock" in refusal("--config", written(tmp_path, given_clock))
    assert len(sandbox.calls) == calls
    assert not (tmp_path / "prints").exists()


def test_checklist_is_refused_too(sandbox: Sandbox, tmp_path: Path) -> None:
    for wrong in (
        {"stream_maps": MISSPELT},
        {"stream_maps": {"users": {"x": "fake.first_name()"}}},
        {"stream_maps": {"users": {"x": "md5(emial)"}}},
        {"stream_maps": CLOCK, "fingerprints_url": str(tmp_path / "prints")},
    ):
        error = refusal("--test", "--config", written(tmp_path, settings(sandbox, tmp_path, **wrong)))
        assert error.startswith("stream_maps: "), wrong


def test_discovery_names_them_and_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = command("--discover", "--config", written(tmp_path, settings(sandbox, tmp_path, stream_maps=MISSPELT)))
    assert ended.code == 0
    assert "WARNING" in ended.stderr
    assert "users has no column e_mail (did you mean email?) to remove" in ended.stderr
    assert json.loads(ended.stdout)["streams"]


def test_column_that_the_catalog_deselects(sandbox: Sandbox, tmp_path: Path) -> None:
    """It may be removed, and no expression may use it."""
    catalog = selecting(["users"], {"users": ["country"]})
    run = sync(settings(sandbox, tmp_path, stream_maps={"users": {"email": None}}), catalog=catalog)
    assert run.rows("users")
    with pytest.raises(ConfigError, match="x for users uses email, which the catalog deselects"):
        sync(settings(sandbox, tmp_path, stream_maps={"users": {"x": "md5(email)"}}), catalog=catalog)


def test_members_of_settings_that_nothing_uses(sandbox: Sandbox, tmp_path: Path) -> None:
    maps = {"users": {"x": "md5((email or '') + (config.get('slat') or ''))"}}
    given_settings = settings(
        sandbox, tmp_path, stream_maps=maps, stream_map_config={"salt": "s"}, faker_config={"sede": 1}
    )
    run = sync(given_settings, catalog=selecting(["users"]), clock=FakeClock())
    assert run.warnings[:3] == [
        "stream_map_config: no expression uses salt (did you mean slat?)",
        "faker_config: no expression uses fake",
        "faker_config: there is no member sede (did you mean seed?)",
    ]


@pytest.mark.slow
def test_fake_of_a_country(sandbox: Sandbox, tmp_path: Path) -> None:
    """The package faker, which is not installed here, makes some things for one country only."""
    (tmp_path / "faker.py").write_text(
        "class Faker:\n    def __init__(self, locale='en_US'):\n        {'pl_PL': 1, 'de_DE': 1, 'en_US': 1}[locale]\n"
        "        if locale == 'pl_PL': self.nip = lambda: '1'\n"
    )
    maps = {"users": {"x": "fake.nip()"}}
    for faker, told in (({"locale": "pl_PL"}, 0), ({"locale": "de_DE"}, 1), ({}, 1)):
        given_settings = settings(sandbox, tmp_path, stream_maps=maps, faker_config=faker)
        ended = command("--discover", "--config", written(tmp_path, given_settings), PYTHONPATH=str(tmp_path))
        assert ended.code == 0
        assert ended.stderr.count("uses an attribute that does not exist: nip") == told, faker
    given_settings = settings(sandbox, tmp_path, stream_maps=maps, faker_config={"locale": "xx"})
    ended = command("--config", written(tmp_path, given_settings), PYTHONPATH=str(tmp_path))
    assert ended.error.endswith("faker_config: there is no such locale")


def test_whole_config_may_use_every_member(sandbox: Sandbox, tmp_path: Path) -> None:
    given_settings = settings(
        sandbox, tmp_path, stream_maps={"users": {"x": "str(config)"}}, stream_map_config={"a": 1}
    )
    tap = tap_class(FakeClock())(config=given_settings)
    assert not [*tap.unmatched_names()]
