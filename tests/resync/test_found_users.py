"""Which users a resync finds, and which identifiers it reports as misses, in the local Braze."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.clock import Clock
from tests.support.resyncs import PEOPLE, bodies, resync
from tests.support.runs import selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

# A workspace with PEOPLE, and a limit that no test comes near.
pytestmark = pytest.mark.sandbox(users=0, ids_limit=1_000_000, segments={"people": PEOPLE})


def test_users_come_in_the_order_of_the_identifiers(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever the order in Braze's response, and whatever characters an id has."""
    run = resync(sandbox, tmp_path, external_ids=["kurt", "José-日本-😀", 'al,an "T"', "ada"])

    assert run.ids() == ["b5", "b3", "b2", "b1"]
    assert run.rows("invalid_user_ids") == []
    assert len(bodies(sandbox)) == 1


def test_csv_with_commas_quotes_and_unicode(sandbox: Sandbox, tmp_path: Path) -> None:
    """From the file to the row."""
    path = tmp_path / "people.csv"
    path.write_text('external_id\nJosé-日本-😀\n"al,an ""T"""\n', encoding="utf-8")

    assert resync(sandbox, tmp_path, identifiers_url=str(path)).ids() == ["b3", "b2"]


def test_each_kind_of_identifier_finds_its_user(sandbox: Sandbox, tmp_path: Path) -> None:
    """External ids and aliases share a request, every other kind has one of its own, named as Braze names it."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "crm"}],
        braze_ids=["b5"],
        emails=["team@example.org"],
        phones=["+4411"],
        device_ids=["d4"],
    )

    assert run.ids() == ["b1", "b4", "b5", "b2", "b3"]
    sent = sorted(bodies(sandbox), key=str)
    assert sent == [
        {"braze_id": "b5"},
        {"device_id": "d4"},
        {"email_address": "team@example.org"},
        {"external_ids": ["ada"], "user_aliases": [{"alias_name": "lead-4", "alias_label": "crm"}]},
        {"phone": "+4411"},
    ]


def test_all_profiles_of_one_address_are_emitted(sandbox: Sandbox, tmp_path: Path) -> None:
    """An e-mail address may belong to several; none of them is a miss."""
    run = resync(sandbox, tmp_path, emails=["team@example.org"])

    assert run.ids() == ["b2", "b3"]
    assert run.rows("invalid_user_ids") == []


def test_profile_that_is_found_several_times_is_emitted_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """By the same identifier, by two in one request and by two in different ones; none of them is a miss."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["kurt", "kurt", "ada"],
        user_aliases=[{"alias_name": "lead-5", "alias_label": "crm"}],
        emails=["ada@example.org"],
    )

    assert run.ids() == ["b5", "b1"]
    assert run.rows("invalid_user_ids") == []
    assert run.warnings == ["Identifiers left out: external_ids: 1 duplicate (row 2)"]


def test_misses_are_rows_by_type(sandbox: Sandbox, tmp_path: Path) -> None:
    """Computed: the sandbox, like Braze, lists external ids only. An alias is missed with another label."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["nobody", "ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "other"}, {"alias_name": "lead-4", "alias_label": "crm"}],
        braze_ids=["b9"],
        emails=["nobody@example.org"],
        phones=["+99"],
        device_ids=["d9"],
    )

    misses = run.rows("invalid_user_ids")
    assert [(row["identifier_type"], row["identifier"], row["alias_label"]) for row in misses] == [
        ("external_id", "nobody", ""),
        ("user_alias", "lead-4", "other"),
        ("braze_id", "b9", ""),
        ("email", "nobody@example.org", ""),
        ("phone", "+99", ""),
        ("device_id", "d9", ""),
    ]
    assert {row["exported_at"] for row in misses} == {row["exported_at"] for row in run.rows("users")}
    assert run.ids() == ["b1", "b4"]


def test_nobody_is_found(sandbox: Sandbox, tmp_path: Path) -> None:
    """A response without users is no failure."""
    run = resync(sandbox, tmp_path, external_ids=["nobody"])

    assert run.ids() == []
    (file,) = run.rows("export_files")
    assert (file["source"], file["segment_id"], file["file"], file["users"]) == ("ids", None, "requests 0-0", 0)


def test_no_request_without_identifiers(sandbox: Sandbox, tmp_path: Path) -> None:
    """A list without entries ends well."""
    path = tmp_path / "nobody.csv"
    path.write_text("external_id\n")

    run = resync(sandbox, tmp_path, identifiers_url=str(path))

    assert bodies(sandbox) == []
    assert run.states[-1]["bookmarks"]["export_files"]["resync"] == []


def test_no_segment_is_exported_in_a_resync(sandbox: Sandbox, tmp_path: Path) -> None:
    """The sandbox's configuration names a segment."""
    run = resync(sandbox, tmp_path, external_ids=["ada"])

    assert [call.path for call in sandbox.calls] == ["/users/export/ids"]
    assert "Identifiers are given, so this run is a resync: no segment is exported" in run.lines


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (["invalid_user_ids"], "the stream invalid_user_ids lists them"),
        ([], "select the stream invalid_user_ids to have them listed"),
    ],
)
def test_identifiers_stand_in_records_only(sandbox: Sandbox, tmp_path: Path, more: list[str], where: str) -> None:
    """Neither STATE nor the log nor `export_files` holds one; misses are counted in the log."""
    config = settings(sandbox, tmp_path, emails=["ada@example.org", "nobody@example.org"], external_ids=["x-miss"])

    run = sync(config, catalog=selecting(["users", "export_files", *more]), clock=Clock())

    text = "\n".join([*run.lines, json.dumps(run.states), json.dumps(run.rows("export_files"))])
    assert not [word for word in ("ada@", "nobody@", "x-miss", "example") if word in text]
    assert f"Identifiers that matched nobody: 1 external_id, 1 email ({where})" in run.lines


def test_no_activate_version(sandbox: Sandbox, tmp_path: Path) -> None:
    """A resync exports single users only, so loaders must keep the others."""
    run = resync(sandbox, tmp_path, external_ids=["ada"], emit_activate_version_messages=True)

    assert run.of_type("ACTIVATE_VERSION") == []
