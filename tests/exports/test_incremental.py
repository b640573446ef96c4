"""Nights on which Braze is asked only for users that were updated since the last complete export."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import timestamp
from tap_braze_export.exports.scope import OTHER_ROWS
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.nights import DAY, Nights, user
from tests.support.runs import Run, selecting
from tests.support.steps import STARTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

HOUR = 3600.0
STREAMS = ("users", "apps", "segment_members", "export_files")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_796_000_000.0)


@pytest.fixture
def sandbox(clock: FakeClock) -> Iterator[Sandbox]:
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time) as sandbox:
        yield sandbox


@pytest.fixture
def nights(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> Nights:
    return incremental(sandbox, clock, tmp_path)


def incremental(sandbox: Sandbox, clock: FakeClock, folder: Path, **config: Any) -> Nights:
    """Nights without fingerprints."""
    given = {"fingerprints_url": None, "incremental": True, "segment_ids": ["s"], **config}
    return Nights(sandbox, folder, streams=STREAMS, clock=clock, **given)


def asked(sandbox: Sandbox) -> list[str | None]:
    """`user_last_updated_at` of each request for an export of a segment that Braze accepted."""
    calls = [call for call in sandbox.calls if call.path == STARTED and call.status == 201]
    return [call.body.get("user_last_updated_at") for call in calls]


def before(moment: float, seconds: float = HOUR) -> str:
    """The time that an export asks from which comes so many seconds after it, as Braze is told it."""
    return f"{timestamp(int(moment - seconds))[:19]}Z"


def entry(nights: Nights, segment_id: str = "s") -> dict[str, Any]:
    """The segment's entry in the last confirmed STATE."""
    assert nights.state
    (found,) = [
        each for each in nights.state["bookmarks"]["export_files"]["exports"] if each["segment_id"] == segment_id
    ]
    return dict(found)


def requested(nights: Nights) -> float:
    """When the segment's last export was requested, by the last confirmed STATE."""
    return datetime.fromisoformat(entry(nights)["requested_at"]).timestamp()


def people(*changed: str) -> list[dict[str, Any]]:
    """Five users; the named ones have moved."""
    return [user(name, "Paris" if name in changed else "Berlin") for name in "abcde"]


def first_night(nights: Nights) -> float:
    """A full night, a day after all users were updated; returns the time of its request."""
    nights.sandbox.add_segment("s", people())
    run = nights.run({"s": people()})
    assert sorted(run.ids()) == [*"abcde"]
    return requested(nights)


def test_only_who_changed(nights: Nights, sandbox: Sandbox) -> None:
    """Each night asks from an hour before the request of the last complete one, full or incremental."""
    first = first_night(nights)
    second = nights.run({"s": people("b")})
    at = nights.clock.time
    third = nights.run({"s": people("b", "c")})

    assert asked(sandbox) == [None, before(first), before(at)]
    assert (second.ids(), third.ids()) == (["b"], ["b", "c"])  # b was updated within the overlap
    assert [row["updated_since"] for row in third.rows("export_files")] == [timestamp(int(at - HOUR))]
    cities = {row["braze_id"]: row["home_city"] for row in nights.target.current("users")}
    assert cities == {"a": "Berlin", "b": "Paris", "c": "Paris", "d": "Berlin", "e": "Berlin"}


def test_a_full_export_is_due_after_a_week(nights: Nights, sandbox: Sandbox) -> None:
    """Once the last full one is a week old; then incremental ones go on."""
    first_night(nights)
    for _ in range(6):
        nights.run({"s": people()})
    assert asked(sandbox).count(None) == 1

    nights.clock.time += 1  # a week and a second after the first
    nights.run({"s": people()})
    nights.run({"s": people("a")})

    assert asked(sandbox)[7:] == [None, before(nights.clock.time - DAY)]


@pytest.mark.parametrize("how", ["failed", "not confirmed"])
def test_a_night_that_did_not_end_well_moves_no_time(nights: Nights, sandbox: Sandbox, how: str) -> None:
    first = first_night(nights)
    if how == "failed":
        sandbox.set_faults("truncated-file")
        nights.run({"s": people("a")}, fails=True)
        sandbox.set_faults()
    else:
        nights.run({"s": people("a")}, loads=False, confirms=False)
    nights.clock.time += DAY  # later than export_timeout_minutes: nothing is read again
    third = nights.run({"s": people("a", "b")})

    assert asked(sandbox) == [None, before(first), before(first)]
    assert sorted(third.ids()) == ["a", "b"]


def test_rejected_lines_move_no_time(nights: Nights, sandbox: Sandbox) -> None:
    """A line that could not be read may be the change of somebody."""
    first = first_night(nights)
    nights.run({"s": [*people("a"), b"no JSON"]}, fails=True)
    nights.run({"s": people("a")}, max_rejected_lines=1)
    at = nights.clock.time
    nights.run({"s": people("a")})

    assert asked(sandbox) == [None, before(first), before(first), before(at)]


def test_rejected_lines_within_the_limit(nights: Nights, sandbox: Sandbox) -> None:
    first_night(nights)
    nights.run({"s": [*people("a"), b"no JSON"]}, max_rejected_lines=1)
    second = nights.clock.time
    nights.run({"s": people("a")})

    assert asked(sandbox)[2] == before(second)


def test_another_selection_asks_for_everybody(nights: Nights, sandbox: Sandbox) -> None:
    first_night(nights)
    nights.catalog = selecting(["users", "export_files"])
    run = nights.run({"s": people()})

    assert asked(sandbox) == [None, None]
    (line,) = [line for line in run.lines if "full export" in line]
    assert line.endswith(f"; full export ({OTHER_ROWS})")


def test_state_from_before_incremental_exports(nights: Nights, sandbox: Sandbox) -> None:
    """It says nothing of what was complete; a STATE that is lost says nothing at all."""
    first_night(nights)
    assert nights.state
    for each in nights.state["bookmarks"]["export_files"]["exports"]:
        for name in ("updated_since", "full", "accepted_at", "rejected", "complete"):
            del each[name]
    nights.run({"s": people()})
    nights.state = None
    nights.run({"s": people()})

    assert asked(sandbox) == [None, None, None]


def test_switching_it_on_costs_no_full_export(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The full export of a night without the setting counts, too; and switched off everybody comes."""
    nights = incremental(sandbox, clock, tmp_path)
    nights.run({"s": people()}, incremental=False)
    first = clock.time
    nights.run({"s": people("a")})
    nights.run({"s": people("a")}, incremental=False)

    assert asked(sandbox) == [None, before(first), None]


def test_the_control_group_is_always_full(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    nights = incremental(sandbox, clock, tmp_path, global_control_group=True, start_date="2026-11-01")
    first_night(nights)
    run = nights.run({"s": people()})

    calls = [call for call in sandbox.calls if call.path == "/users/export/global_control_group"]
    assert len(calls) == 2
    assert all("user_last_updated_at" not in call.body for call in calls)
    assert {row["source"]: row["updated_since"] is None for row in run.rows("export_files")} == {
        "segment": False,
        "global_control_group": True,
    }


def test_start_date_bounds_every_export(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """Also full ones, and those of a tap that is not incremental."""
    nights = incremental(sandbox, clock, tmp_path, start_date=timestamp(clock.time + DAY - 60))
    sandbox.add_segment("s", people(), updated_at=dict.fromkeys("abc", 0.0))
    start = f"{timestamp(clock.time + DAY - 60)[:19]}Z"
    clock.time += DAY
    sandbox.add_segment("s", people("d"))
    clock.time -= DAY
    first = nights.run()
    second = nights.run(incremental=False)

    assert asked(sandbox) == [start, start]
    assert (first.ids(), second.ids()) == (["d"], ["d"])
    assert nights.run().error == ""
    assert asked(sandbox)[2] == before(clock.time - DAY)


# Clocks, and times that tell exports apart


@pytest.mark.parametrize("hours", [-30, -3, 3, 30])
def test_braze_has_another_time(clock: FakeClock, tmp_path: Path, hours: int) -> None:
    """Its clock counts, as it compares the times of its users with it."""
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time + hours * HOUR) as sandbox:
        nights = incremental(sandbox, clock, tmp_path)
        first = first_night(nights)
        second = nights.run({"s": people("b")})

        assert asked(sandbox) == [None, before(first + hours * HOUR)]
        assert second.ids() == ["b"]
        assert second.rows("users")[0]["exported_at"] == timestamp(clock.time)  # which is this machine's


def test_a_wrong_time_of_braze_counts_for_one_night(clock: FakeClock, tmp_path: Path) -> None:
    """As soon as `Date` is right again, the next complete export has the right time, though it is the earlier one."""
    ahead = [0.0]
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time + ahead[0]) as sandbox:
        nights = incremental(sandbox, clock, tmp_path)
        first_night(nights)
        ahead[0] = 20 * HOUR
        nights.run({"s": people()})
        second = clock.time
        ahead[0] = 0
        nights.clock.time -= 12 * HOUR
        nights.run({"s": people()})
        third = clock.time
        nights.run({"s": people()})
        assert asked(sandbox)[2:] == [before(second + 20 * HOUR), before(third)]


def test_a_clock_that_differs_by_seconds_is_right(clock: FakeClock, tmp_path: Path) -> None:
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time + 50) as sandbox:
        nights = incremental(sandbox, clock, tmp_path)
        first = first_night(nights)
        nights.run({"s": people()})
        assert asked(sandbox) == [None, before(first)]


def test_a_clock_that_was_ahead_for_one_run(clock: FakeClock, tmp_path: Path) -> None:
    """The next request counts as later than that run's in all rows, and yet asks from when Braze accepted it."""
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.true_time) as sandbox:
        nights = incremental(sandbox, clock, tmp_path)
        clock.ahead = 2 * DAY
        first_night(nights)
        clock.ahead = 0.0
        nights.run({"s": people()}, incremental=False)
        second = clock.time
        run = nights.run({"s": people("b")})

        assert asked(sandbox)[2] == before(second)
        assert run.ids() == ["b"]


def test_two_exports_never_have_one_time(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The clock stands still, and is then set back: a child row is current if it is as old as its user."""
    nights = incremental(sandbox, clock, tmp_path)
    first = nights.run({"s": people(), "t": people()})
    clock.time -= 2 * DAY
    second = nights.run({"s": people(), "t": people()}, incremental=False)

    times = [sorted({row["exported_at"] for row in run.rows("users")}) for run in (first, second)]
    now = clock.time + DAY
    assert times == [
        [timestamp(now), timestamp(now + 1e-6)],
        [timestamp(now + 2e-6), timestamp(now + 3e-6)],
    ]


# What an incremental export does not prove


def test_nobody_leaves_and_nothing_is_deleted(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """Nor is its count compared with Braze's estimate, or with the last full export; the next full one is."""
    fingerprints = str(tmp_path / "fingerprints")
    nights = incremental(sandbox, clock, tmp_path, fingerprints_url=fingerprints)
    first_night(nights)
    run = nights.run({"s": people("b")[:2]})  # c, d and e have left

    assert (run.ids(), run.warnings) == (["b"], [])
    assert [row["is_member"] for row in run.rows("segment_members")] == [True]
    assert (entry(nights)["users"], entry(nights)["last_users"]) == (1, 5)

    clock.time += 7 * DAY
    full = nights.run({"s": people("b")[:3]})
    assert {row["braze_id"] for row in full.rows("segment_members") if not row["is_member"]} == {"d", "e"}


def test_nothing_is_deleted(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    nights = incremental(sandbox, clock, tmp_path, emit_activate_version_messages=True)
    assert first_night(nights)
    run = nights.run({"s": people("b")})

    assert run.of_type("ACTIVATE_VERSION") == []
    (line,) = run.warnings
    assert line.endswith(": segment s was asked only for users that were updated since a time")


def test_fingerprints_of_users_that_were_not_asked_for_stay(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    nights = incremental(sandbox, clock, tmp_path, fingerprints_url=str(tmp_path / "fingerprints"))
    first_night(nights)
    nights.run({"s": people("b")})
    third = nights.run({"s": people("b", "c")}, incremental=False)

    assert (third.ids(), sum(row["unchanged"] for row in third.rows("export_files"))) == (["c"], 4)


# Braze refuses the parameter, or ignores it


def test_a_refused_filter(nights: Nights, sandbox: Sandbox) -> None:
    """Everybody is exported in the same run, with one warning for all segments; the next night tries again."""
    for segment in ("s", "t"):
        sandbox.add_segment(segment, people())
    nights.run({"s": people(), "t": people()})
    sandbox.set_faults("filter-refused")
    run = nights.run({"s": people("a"), "t": people()})

    assert asked(sandbox) == [None] * 4
    assert len(run.ids()) == 10
    (line,) = run.warnings
    assert line == (
        "Everybody is exported, as Braze refuses user_last_updated_at: POST /users/export/segment (segment s) was "
        "refused with 400 (The user_last_updated_at parameter is not permitted)"
    )
    assert {row["updated_since"] for row in run.rows("export_files")} == {None}
    second = nights.clock.time
    sandbox.set_faults()
    nights.run({"s": people("a")})
    assert asked(sandbox)[4] == before(second)


def test_a_refused_segment_is_no_refused_filter(nights: Nights, sandbox: Sandbox) -> None:
    first_night(nights)
    del sandbox.workspace.segments["s"]
    run = nights.run(fails=True)

    assert "there is no such segment" in run.error
    assert run.warnings == []


@pytest.mark.parametrize("changed", ["", "abcd"])
def test_an_ignored_filter(nights: Nights, sandbox: Sandbox, changed: str) -> None:
    first_night(nights)
    sandbox.set_faults("filter-ignored")
    run = nights.run({"s": people(*changed)})

    assert len(run.ids()) == 5
    (line,) = [line for line in run.warnings if "no effect" in line]
    told = "5 users came, and 5 in the last full export: user_last_updated_at seems to have no effect in this workspace"
    assert line.endswith(f"of segment s: {told}")


def test_many_changes_are_no_ignored_filter(nights: Nights) -> None:
    first_night(nights)
    run = nights.run({"s": people("a", "b", "c", "d")})
    assert (len(run.ids()), run.warnings) == (4, [])


def rows_by_file(run: Run) -> list[tuple[str, int | None]]:
    """Kind and `missed` of each delivered file."""
    return [("updated" if row["updated_since"] else "all", row["missed"]) for row in run.rows("export_files")]


# The filter is measured


def test_the_full_export_measures_the_filter(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The incremental one comes first; whom it lacks and the full one finds changed is emitted and counted."""
    nights = incremental(sandbox, clock, tmp_path, fingerprints_url=str(tmp_path / "fingerprints"))
    first = first_night(nights)
    nights.clock.time += 7 * DAY
    changed = people("a", "b", "c")
    sandbox.add_segment("s", changed, updated_at={"c": first - DAY, "d": first - DAY, "e": first - DAY})
    run = nights.run()

    assert asked(sandbox) == [None, before(first), None]
    assert rows_by_file(run) == [("updated", None), ("all", 1)]
    assert sorted(run.ids()) == ["a", "b", "c"]
    assert [line.strip() for line in run.lines if "missed" in line] == [
        "missed: 1 of 3 changed users were not named by the filter (user_last_updated_at)"
    ]
    at = nights.clock.time
    assert nights.run().ids() == []
    assert asked(sandbox)[3] == before(at)


def test_without_fingerprints_nothing_is_measured(nights: Nights, sandbox: Sandbox) -> None:
    first_night(nights)
    nights.clock.time += 7 * DAY
    run = nights.run({"s": people("a")})
    assert asked(sandbox) == [None, None]
    assert rows_by_file(run) == [("all", None)]


def test_fingerprints_that_are_lost_measure_nothing(sandbox: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """All users would count as missed."""
    nights = incremental(sandbox, clock, tmp_path, fingerprints_url=str(tmp_path / "fingerprints"))
    first_night(nights)
    nights.clock.time += 7 * DAY
    for path in nights.files("version.json"):
        path.unlink()
    run = nights.run({"s": people("a")})
    assert rows_by_file(run) == [("all", None)]


@pytest.mark.parametrize("fault", ["filter-refused", "truncated-file"])
def test_an_incremental_export_that_fails_measures_nothing(
    sandbox: Sandbox, clock: FakeClock, tmp_path: Path, fault: str
) -> None:
    """The full one is due all the same, but for a Braze that has just sent everybody."""
    nights = incremental(sandbox, clock, tmp_path, fingerprints_url=str(tmp_path / "fingerprints"))
    first_night(nights)
    nights.clock.time += 7 * DAY
    sandbox.set_faults(fault)
    run = nights.run({"s": people("a")}, fails=fault == "truncated-file")
    if fault == "filter-refused":
        assert (asked(sandbox), run.ids(), rows_by_file(run)) == ([None, None], ["a"], [("all", None)])
    else:
        assert [since is None for since in asked(sandbox)] == [True, False, True]
