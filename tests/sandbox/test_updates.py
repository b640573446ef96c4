"""Exports of only the users that were updated since a time: `user_last_updated_at`."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.sandbox_client import EVERYTHING, NOW, exported, fetch, files_below, ids, members, post, start

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def since(sandbox: Sandbox, moment: float, segment: str = "all-users") -> list[str]:
    """The users that an export of those updated since a time holds."""
    users = exported(sandbox, segment, ["braze_id"], user_last_updated_at=iso(moment))
    return [user["braze_id"] for user in users]


def given(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"braze_id": name, **more} for name in names]


def names(lines: Iterable[bytes]) -> set[str]:
    return {json.loads(line)["braze_id"] for line in lines}


# The parameter


def test_time_of_update_may_be_any_date_time_with_an_offset(sandbox: Sandbox) -> None:
    """All of these are 12:30 UTC, at which one of two users was updated."""
    moment = datetime(2024, 1, 1, 12, 30, tzinfo=UTC).timestamp()
    sandbox.add_segment("mine", given("earlier", "then"), updated_at={"earlier": moment - 1, "then": moment})
    for text in (
        "2024-01-01T12:30:00Z",
        "2024-01-01T12:30:00.000Z",
        "2024-01-01T12:29:59.9999999Z",
        "2024-01-01T12:30:00+00:00",
        "2024-01-01T07:00:00-05:30",
        "2024-01-02T02:30:00+14:00",
    ):
        assert exported(sandbox, "mine", user_last_updated_at=text) == given("then"), text


def test_what_is_no_date_time_is_refused(sandbox: Sandbox) -> None:
    """A time without offset too: Braze does not say what it would mean."""
    nonsense: tuple[Any, ...] = (
        *("", "yesterday", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00 UTC", "2024-01-01 00:00:00Z"),
        *("2024-02-30T00:00:00Z", "2024-01-01T24:00:01Z", "2024-01-01T00:00:00+99:00", "0000-01-01T00:00:00Z"),
        *("20240101T000000Z", "2024-W01-1T00:00:00Z", "2024-01-01T00:00:00Z\n", "٢٠٢٤-01-01T00:00:00Z"),
        *(1704067200, 1704067200.5, True, [], ["2024-01-01T00:00:00Z"], {}),
    )
    for value in nonsense:
        refused = start(sandbox, user_last_updated_at=value)
        assert refused.status_code == 400, value
        assert refused.json() == {
            "message": "The user_last_updated_at parameter must be a date-time with Z or an offset"
        }
    assert sandbox.workspace.exports == []


def test_null_is_no_limit(sandbox: Sandbox) -> None:
    assert len(exported(sandbox, user_last_updated_at=None)) == 30


def test_limits_far_away(sandbox: Sandbox) -> None:
    assert len(exported(sandbox, user_last_updated_at="0001-01-01T00:00:00+14:00")) == 30
    assert exported(sandbox, user_last_updated_at="9999-12-31T23:59:59-14:00") == []


def test_other_exports_do_not_know_it(sandbox: Sandbox) -> None:
    """The Global Control Group and the ids export ignore it, as they do every unknown parameter."""
    sandbox.add_segment("mine", given("one"), updated_at={"one": NOW - 1})
    for value in ("nonsense", iso(NOW)):
        body = {"fields_to_export": ["braze_id"], "user_last_updated_at": value}
        url = post(sandbox, "/users/export/global_control_group", body).json()["url"]
        assert len(members(fetch(url).content)[0]) == 1
        assert ids(sandbox, braze_id="one", user_last_updated_at=value).json()["users"] == given("one")


def test_what_was_asked_is_recorded(sandbox: Sandbox) -> None:
    start(sandbox)
    start(sandbox, user_last_updated_at=iso(NOW))
    asked = [call.body.get("user_last_updated_at") for call in sandbox.calls if call.path == "/users/export/segment"]
    assert asked == [None, "2026-09-21T14:13:20Z"]
    assert [export.updated_since for export in sandbox.workspace.exports] == [None, NOW]


def test_log_has_a_line_for_each_export() -> None:
    log: list[str] = []
    with Sandbox(users=1200, odd_users=False, changed=5, clock=lambda: NOW, log=log.append) as sandbox:
        start(sandbox)
        start(sandbox, user_last_updated_at=iso(NOW - 3600))
        start(sandbox, user_last_updated_at="nonsense")
        post(sandbox, "/users/export/global_control_group", {"fields_to_export": ["braze_id"]})
        sandbox.set_faults("queued-202")
        start(sandbox)
    began = "2026-09-21T14:13:20Z export of segment"
    assert log == [
        f"{began} all-users: 1,200 of 1,200 users",
        f"{began} all-users: 62 of 1,200 users, asked for those updated since 2026-09-21T13:13:20Z",
        f"{began} global-control-group-segment: 60 of 60 users",
    ]


def test_responses_are_dated_by_the_clock_of_the_sandbox(sandbox: Sandbox) -> None:
    """A tap whose clock is wrong asks from a time by Braze's clock."""
    assert start(sandbox).headers["Date"] == "Mon, 21 Sep 2026 14:13:20 GMT"


# Made-up users


def test_made_up_users_were_updated_within_two_years_before() -> None:
    """By the seed: neither the sandbox's start nor its time zone matters, if it starts after 2026-09-01."""
    newest = datetime(2026, 9, 1, tzinfo=UTC)
    counts, found = [], []
    for now in (NOW, NOW + 90 * 86_400):
        with Sandbox(users=1000, clock=lambda now=now: now) as sandbox:
            counts.append(
                [len(since(sandbox, (newest - timedelta(days=ago)).timestamp())) for ago in (-1, 0, 73, 365, 730)]
            )
            found.append(since(sandbox, (newest - timedelta(days=73)).timestamp()))
    (nobody, odd, tenth, half, everybody), again = counts
    assert again == counts[0]
    assert found[0] == found[1]
    assert (nobody, odd, everybody) == (0, 8, 1000)  # the odd users were all updated last
    assert 80 <= tenth <= 140
    assert 450 <= half <= 550


def test_no_made_up_user_was_updated_after_an_early_start() -> None:
    start_of_2020 = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    with Sandbox(users=100, clock=lambda: start_of_2020) as sandbox:
        assert since(sandbox, start_of_2020 - 86_399) == []
        assert len(since(sandbox, start_of_2020 - 86_400)) == 8


@pytest.mark.parametrize("overlap", [0, 3600])
def test_the_night_after_has_the_changed_users_only(overlap: float) -> None:
    """Minutes after the first night, in a sandbox of its own; of a segment with leavers and joiners, too."""
    clock = FakeClock(NOW)
    with Sandbox(users=1000, odd_users=False, clock=clock.now) as first:
        before = {name: set(first.lines(name, EVERYTHING)) for name in ("all-users", "vip-users")}
        members_before = names(first.lines("vip-users", ["braze_id"]))
        asked = clock.now()
        start(first)
    clock.sleep(120)
    with Sandbox(users=1000, odd_users=False, changed=20, clock=clock.now) as second:
        for name, unchanged in before.items():
            differing = names(set(second.lines(name, EVERYTHING)) - unchanged)
            came = since(second, asked - overlap, name)
            assert set(came) == differing
            assert len(came) == len(differing) > 0
        joined = names(second.lines("vip-users", ["braze_id"])) - members_before
        left = members_before - names(second.lines("vip-users", ["braze_id"]))
    assert joined
    assert joined <= set(came)
    assert left
    assert left.isdisjoint(came)


# Given users


def test_given_users_are_updated_when_they_are_given() -> None:
    """Those that are the same as before keep their time, in another segment too."""
    clock = FakeClock(NOW)
    with Sandbox(users=0, clock=clock.now) as sandbox:
        raw = b'{"braze_id":"raw","level":1}'
        sandbox.add_segment("one", [*given("a", "b", "c"), raw])
        assert since(sandbox, NOW, "one") == ["a", "b", "c", "raw"]
        clock.sleep(60)
        sandbox.add_segment("one", [*given("a"), *given("b", level=2), *given("d"), raw])
        assert since(sandbox, NOW + 1, "one") == ["b", "d"]
        clock.sleep(60)
        sandbox.add_segment("two", [*given("a"), *given("b", level=3), *given("c", "d"), raw.replace(b"1", b"2")])
        assert since(sandbox, NOW + 61, "two") == ["b", "raw"]
        assert since(sandbox, NOW + 60, "two") == ["b", "d", "raw"]
        clock.sleep(60)
        sandbox.add_segment("one", given("b"))  # as it once was, and yet changed
        assert since(sandbox, NOW + 121, "one") == ["b"]


def test_times_of_given_users_can_be_named(sandbox: Sandbox) -> None:
    sandbox.add_segment("mine", given("a", "b", "c"), updated_at={"a": NOW - 10, "b": NOW + 10})
    assert [since(sandbox, NOW + seconds, "mine") for seconds in (-10, -9, 1, 11)] == [
        ["a", "b", "c"],
        ["b", "c"],
        ["b"],
        [],
    ]
    with pytest.raises(ValueError, match="updated_at names users that are not given: z"):
        sandbox.add_segment("mine", given("a"), updated_at={"z": NOW})


def test_one_user_given_twice_keeps_both_times() -> None:
    clock = FakeClock(NOW)
    with Sandbox(users=0, clock=clock.now) as sandbox:
        twice = [*given("a"), *given("a", level=2)]
        sandbox.add_segment("mine", twice)
        clock.sleep(60)
        sandbox.add_segment("mine", twice)
        assert since(sandbox, NOW + 1, "mine") == []
        sandbox.add_segment("mine", [*given("a"), *given("a", level=3)])
        assert exported(sandbox, "mine", ["braze_id", "level"], user_last_updated_at=iso(NOW + 1)) == given(
            "a", level=3
        )


def test_lines_that_are_no_users_are_updated_when_they_are_given() -> None:
    clock = FakeClock(NOW)
    with Sandbox(users=0, clock=clock.now) as sandbox:
        strange = [b"[", b"7", b'{"braze_id":null}', b"{}", b"\xff", b"[" * 100_000]
        sandbox.add_segment("mine", strange)
        content = fetch(start(sandbox, "mine", output_format="gzip", user_last_updated_at=iso(NOW)).json()["url"])
        assert gzip.decompress(content.content).split(b"\n")[:-1] == strange
        clock.sleep(60)
        sandbox.add_segment("mine", [*strange, b"{"])
        content = fetch(start(sandbox, "mine", output_format="gzip", user_last_updated_at=iso(NOW + 1)).json()["url"])
        assert gzip.decompress(content.content) == b"{\n"


def test_given_files_without_an_updated_user_are_left_out(tmp_path: Path) -> None:
    files = [given("a", "b"), given("c"), given("d")]
    with Sandbox(users=0, clock=lambda: NOW, bucket_url=str(tmp_path)) as sandbox:
        sandbox.add_segment("mine", files=files, updated_at={"a": NOW - 9, "c": NOW - 9})
        start(sandbox, "mine", user_last_updated_at=iso(NOW))
        found = sorted(str(members((tmp_path / file).read_bytes())[0]) for file in files_below(tmp_path))
    assert found == [str(given("b")), str(given("d"))]


def test_export_without_users_is_an_archive_with_an_empty_member(tmp_path: Path) -> None:
    """Of a download and in a bucket, of a segment with given files and without."""
    for bucket_url in (None, str(tmp_path)):
        with Sandbox(users=20, odd_users=False, clock=lambda: NOW, bucket_url=bucket_url) as sandbox:
            sandbox.add_segment("mine", files=[given("a"), given("b")])
            for number, segment in enumerate(("all-users", "mine"), 1):
                url = start(sandbox, segment, user_last_updated_at=iso(NOW + 1)).json()["url"]
                contents = [fetch(url).content] if url else [(tmp_path / f).read_bytes() for f in files_below(tmp_path)]
                assert [members(content) for content in contents] == [[[]]] * (number if bucket_url else 1)


def test_command_takes_the_share_that_the_filter_misses(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    command = [sys.executable, "-m", "tap_braze_export.sandbox", "--users", "60", "--delay", "0", "--changed", "100"]
    command += ["--filter-misses", "100", "--ready-file", str(ready_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            while "Ctrl+C" not in (line := process.stderr.readline()):
                assert line, process.wait(60)
            ready = json.loads(ready_file.read_text("utf-8"))
            body = {"segment_id": "all-users", "fields_to_export": ["braze_id"]}
            for limit in ({}, {"user_last_updated_at": iso(NOW)}):
                requests.post(
                    f"{ready['api_url']}/users/export/segment",
                    json=body | limit,
                    headers={"Authorization": f"Bearer {ready['api_key']}"},
                    timeout=60,
                )
        finally:
            process.terminate()
        log = process.stderr.read().splitlines()
    assert [line.partition("all-users: ")[2] for line in log] == [
        "60 of 60 users",
        "0 of 60 users, asked for those updated since 2026-09-21T14:13:20Z",
    ]


@pytest.mark.slow
def test_filter_misses_a_share_of_the_users() -> None:
    """The same ones each time; only where the request has a limit."""
    with Sandbox(users=1000, odd_users=False, changed=50, clock=lambda: NOW) as sandbox:
        named = since(sandbox, NOW)
        shares = []
        for percent in (0, 10, 40, 100):
            sandbox.workspace.options.filter_misses = percent
            shares.append(set(named) - set(since(sandbox, NOW)))
            assert len(exported(sandbox)) == 1000
        sandbox.add_segment("mine", given(*named))
        sandbox.workspace.options.filter_misses = 40
        missed_of_given = set(named) - set(since(sandbox, 0, "mine"))
    none, few, many, everybody = shares
    assert none == set()
    assert 0.05 < len(few) / len(named) < 0.15
    assert 0.35 < len(many) / len(named) < 0.45
    assert few < many < everybody == set(named)
    assert missed_of_given == many
