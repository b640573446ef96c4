"""Nights that measure Braze's filter: which exports name the changed users, and which users count as missed."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.exports.scope import TOO_OLD
from tap_braze_export.sandbox import Sandbox
from tests.exports.test_incremental import HOUR, asked, before, entry, first_night, incremental, people, rows_by_file
from tests.exports.test_waiting import start
from tests.support.nights import DAY, Nights, user
from tests.support.ports import free_port
from tests.support.steps import STARTED, Steps, braze, crash, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.runs import Run


@pytest.fixture
def clock() -> Steps:
    return Steps(now=1_796_000_000.0)


@pytest.fixture
def sandbox(clock: Steps) -> Iterator[Sandbox]:
    with braze(clock, users=0, users_per_file=5000) as sandbox:
        yield sandbox


def measured(sandbox: Sandbox, clock: Steps, folder: Path, **config: Any) -> Nights:
    """Nights with fingerprints."""
    return incremental(sandbox, clock, folder, fingerprints_url=str(folder / "fingerprints"), **config)


def a_week_later(nights: Nights, *changed: str, not_named: str) -> None:
    """A full export is due; of the users that changed, the filter does not name some, as Braze sees no update."""
    nights.clock.time += 7 * DAY
    old = dict.fromkeys({*"abcde"} - {*changed} | {*not_named}, nights.clock.time - 30 * DAY)
    nights.sandbox.add_segment("s", people(*changed), updated_at=old)


def told(run: Run) -> list[str]:
    """The line on what the filter has missed."""
    return [line.strip() for line in run.lines if "missed" in line]


@pytest.mark.parametrize("fault", ["", "empty-archive"])
def test_a_filter_that_names_nobody(sandbox: Sandbox, clock: Steps, tmp_path: Path, fault: str) -> None:
    """An incremental export without users is compared as well: it would hide most."""
    nights = measured(sandbox, clock, tmp_path)
    first_night(nights)
    a_week_later(nights, "a", "b", not_named="ab")
    sandbox.set_faults(*filter(None, [fault]))
    run = nights.run()

    assert rows_by_file(run)[-1] == ("all", 2)
    assert told(run) == ["missed: 2 of 2 changed users were not named by the filter (user_last_updated_at)"]


def test_late_files_name_nobody(clock: Steps, tmp_path: Path) -> None:
    """A file that came after the last full export ended says nothing of the filter."""
    with braze(clock, tmp_path, users=0, users_per_file=5000) as sandbox:
        nights = measured(sandbox, clock, tmp_path, bucket_url=str(tmp_path / "bucket"))
        first_night(nights)
        folder = next((tmp_path / "bucket").rglob(entry(nights)["export_id"]))
        with zipfile.ZipFile(folder / "late.zip", "w") as late:
            late.writestr("late.txt", json.dumps(user("e", "Rome")))
        a_week_later(nights, "a", "b", not_named="b")
        run = nights.run()

    assert rows_by_file(run) == [("all", None), ("updated", None), ("all", 2)]  # e is back in Berlin, without an update
    assert told(run) == ["missed: 2 of 3 changed users were not named by the filter (user_last_updated_at)"]


def test_an_export_of_everybody_that_is_continued_names_nobody(sandbox: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """It is the full export that was due, so none follows; the other segment is measured by its own filter."""
    nights = measured(sandbox, clock, tmp_path)
    sandbox.add_segment("t", [user("x"), user("y")])
    nights.run({"s": people(), "t": [user("x"), user("y")]})
    nights.clock.time += 7 * DAY
    clock.steps = [crash]
    sandbox.workspace.options.hold = True
    nights.run({"s": people("a")}, fails=True, incremental=False)
    sandbox.workspace.options.hold = False
    sandbox.finish_exports()
    clock.steps = [nothing]
    nights.clock.time -= DAY - HOUR
    sandbox.add_segment("t", [user("x", "Rome"), user("y", "Rome")], updated_at={"y": nights.clock.time - 30 * DAY})
    run = nights.run(segment_ids=["s", "t"])

    assert [since is None for since in asked(sandbox)] == [True, True, True, False, True]
    assert told(run) == ["missed: 1 of 2 changed users were not named by the filter (user_last_updated_at)"]


def test_the_incremental_export_is_not_taken_for_the_full_one(clock: Steps, tmp_path: Path) -> None:
    """A callback ends it so soon that both have nearly one time; the response to the second request is lost."""
    (tmp_path / "bucket").mkdir()
    bucket_url, port = str(tmp_path / "bucket"), free_port()
    callback = {"callback_url": f"http://127.0.0.1:{port}/", "callback_listen": f"127.0.0.1:{port}"}
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time, bucket_url=bucket_url) as bucket:
        nights = measured(bucket, clock, tmp_path, bucket_url=bucket_url, **callback)
        first_night(nights)
        a_week_later(nights, "a", "b", not_named="b")
        bucket.workspace.options.hold = True

        def end_the_incremental_one() -> None:
            bucket.finish_exports()
            bucket.set_faults("lost-response")

        clock.steps = [end_the_incremental_one, crash]
        nights.run(fails=True, confirms=False)
        clock.steps = [bucket.finish_exports, nothing]
        clock.time -= DAY - 60
        run = nights.run()

    assert {row["updated_since"] for row in run.rows("export_files")} == {None}
    assert sorted(run.ids()) == ["a", "b"]


def test_a_segment_that_braze_still_exports_is_asked_for_once(sandbox: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """The full export that is due would be refused as well: it waits for the next run."""
    nights = measured(sandbox, clock, tmp_path, on_running_export="fail")
    first_night(nights)
    a_week_later(nights, "a", not_named="")
    sandbox.workspace.options.hold = True
    start(sandbox, "s")
    run = nights.run(fails=True)

    assert run.error.count("Braze is already exporting it") == 1
    assert [call.status for call in sandbox.calls if call.path == STARTED] == [201, 201, 429]


def test_the_log_says_that_a_full_export_follows(sandbox: Sandbox, clock: Steps, tmp_path: Path) -> None:
    nights = measured(sandbox, clock, tmp_path)
    first = first_night(nights)
    a_week_later(nights, "a", not_named="")
    run = nights.run()

    told = [line.partition("fields; ")[2] for line in run.lines if line.startswith("Requested")]
    assert told == [f"incremental since {before(first)}; a full one follows", f"full export ({TOO_OLD})"]
