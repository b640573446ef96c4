"""The option `--changed`: users that differ from the same seed's, as if a day had passed."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_braze_export.sandbox import Sandbox
from tests.support.sandbox_client import EVERYTHING, fetch, post

if TYPE_CHECKING:
    from pathlib import Path

USERS = 1000
ALL_SCALARS = (
    *("country", "email", "first_name", "home_city", "language", "last_name", "phone", "push_subscribe"),
    *("email_subscribe", "time_zone", "total_revenue"),
)


@functools.cache
def night(percent: float, fields: tuple[str, ...] = tuple(EVERYTHING), *, users: int = USERS) -> list[bytes]:
    """The lines of all made-up users."""
    with Sandbox(users=users, odd_users=False, changed=percent) as sandbox:
        return list(sandbox.lines("all-users", fields))


def changed(before: list[bytes], after: list[bytes]) -> set[int]:
    """The numbers of the lines that differ."""
    assert len(before) == len(after)
    return {number for number, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}


def vips(percent: float) -> set[str]:
    with Sandbox(users=USERS, odd_users=False, changed=percent) as sandbox:
        return {json.loads(line)["braze_id"] for line in sandbox.lines("vip-users", ["braze_id"])}


def test_a_share_of_the_users_differs() -> None:
    """The others are the same to the last byte, whether as whole objects or not."""
    for percent, share in ((0, {0}), (0.5, range(2, 9)), (5, range(35, 66)), (100, {USERS})):
        assert len(changed(night(0), night(percent))) in share, percent


def test_a_larger_share_adds_users() -> None:
    """Each of them changes in the same way for every share."""
    before, some, more = night(0), night(5), night(20)
    few, many = changed(before, some), changed(before, more)
    assert few < many
    assert few.isdisjoint(changed(some, more))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "least"),
    [
        (("apps",), 100),
        (("custom_events",), 85),
        (("purchases",), 70),
        (("campaigns_received",), 45),
        (("custom_attributes",), 55),
        (("devices",), 20),
        (("user_aliases",), 10),
        (ALL_SCALARS, 75),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_a_few_fields_show_most_changes(fields: tuple[str, ...], least: int) -> None:
    """At least so many of a hundred changed users differ in these fields."""
    differing = changed(night(0, fields, users=400), night(100, fields, users=400))
    assert len(differing) >= 400 * least / 100


def test_a_selection_shows_a_part_of_the_same_user() -> None:
    fields = ("braze_id", "custom_events", "push_subscribe")
    companions = {"push_opted_in_at", "push_unsubscribed_at"}
    for whole, part in zip(night(50, users=200), night(50, fields, users=200), strict=True):
        assert {n: v for n, v in json.loads(whole).items() if n in {*fields, *companions}} == json.loads(part)


def test_changes_are_those_of_a_day() -> None:
    """Counts grow and dates are later; names and keys stay unique; what is not changed stays as it is."""
    for one, other in zip(night(0, users=400), night(100, users=400), strict=True):
        before, after = json.loads(one), json.loads(other)
        assert after["braze_id"] == before["braze_id"]
        assert int(after["apps"][0]["sessions"]) == int(before["apps"][0]["sessions"]) + 1
        assert type(after["apps"][0]["sessions"]) is type(before["apps"][0]["sessions"])
        assert after["apps"][1:] == before["apps"][1:]
        assert after["total_revenue"] >= before["total_revenue"]
        for member, key in (
            ("custom_events", "name"),
            ("purchases", "name"),
            ("campaigns_received", "api_campaign_id"),
            ("devices", "device_id"),
            ("push_tokens", "token"),
        ):
            old, new = _by_key(before, member, key), _by_key(after, member, key)
            assert len(old.keys() - new.keys()) <= 1
            assert len(new.keys() - old.keys()) <= 1
            for item in (new[each] for each in new if new[each] != old.get(each, new[each])):
                assert item.get("count", 2) > 1
                assert (item.get("last") or item["last_received"]) > "2026-08"


def _by_key(user: dict[str, Any], member: str, key: str) -> dict[Any, dict[str, Any]]:
    items = [item for item in user.get(member, ()) if key in item]
    found = {item[key]: item for item in items}
    assert len(found) == len(items)
    return found


def test_some_leave_and_some_join_a_segment() -> None:
    """Of the changed members about a half leaves, and as many join; with a larger share others follow them."""
    before, some, more = vips(0), vips(20), vips(40)
    assert len(before) == 100
    assert 4 <= len(before - some) <= 20
    assert 4 <= len(some - before) <= 20
    assert before - some < before - more
    assert some - before < more - before


def test_ids_export_knows_the_changed_user() -> None:
    """Also by an identifier that is new."""
    with Sandbox(users=200, odd_users=False, changed=100) as sandbox:
        users = [json.loads(line) for line in sandbox.lines("all-users", EVERYTHING)]
        carded = next(user for user in users if "loyalty_card" in json.dumps(user))
        alias = next(each for each in carded["user_aliases"] if each["alias_label"] == "loyalty_card")
        body = {"user_aliases": [alias], "fields_to_export": EVERYTHING}
        found = post(sandbox, "/users/export/ids", body).json()["users"]
    assert [user["braze_id"] for user in found] == [carded["braze_id"]]
    assert found[0]["apps"] == carded["apps"]


def _exported_by_a_process(folder: Path, *options: str) -> list[bytes]:
    ready_file = folder / f"ready{''.join(options)}.json"
    command = [sys.executable, "-m", "tap_braze_export.sandbox", "--users", "60", "--delay", "0", *options]
    with subprocess.Popen([*command, "--ready-file", str(ready_file)], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr
            while b"Ctrl+C" not in process.stderr.readline():
                assert process.poll() is None
            ready = json.loads(ready_file.read_text("utf-8"))
            response = requests.post(
                f"{ready['api_url']}/users/export/segment",
                json={"segment_id": "all-users", "fields_to_export": EVERYTHING},
                headers={"Authorization": f"Bearer {ready['api_key']}"},
                timeout=60,
            )
            with zipfile.ZipFile(io.BytesIO(fetch(response.json()["url"]).content)) as archive:
                return archive.read(archive.namelist()[0]).splitlines()
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "percent"), [((), 0), (("--changed", "25"), 25)], ids=["first", "second"])
def test_processes_tell_of_nights(options: tuple[str, ...], percent: float, tmp_path: Path) -> None:
    """The lines of a process depend on its options alone, to the last byte; the odd users never change."""
    with Sandbox(users=60, changed=percent) as sandbox:
        expected = list(sandbox.lines("all-users", EVERYTHING))
    assert _exported_by_a_process(tmp_path, *options) == expected
    odd = 8
    assert (changed(night(0, users=60 - odd), expected[odd:]) == set()) == (not percent)
    with Sandbox(users=odd) as sandbox:
        assert list(sandbox.lines("all-users", EVERYTHING)) == expected[:odd]
