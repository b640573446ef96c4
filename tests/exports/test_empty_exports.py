"""Incremental exports that have no user, that nothing proves to be complete, or that another run continues."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from tests.exports.test_incremental import HOUR, asked, before, entry, first_night, incremental, people, requested
from tests.support.nights import DAY, Nights
from tests.support.ports import free_port
from tests.support.steps import Steps, braze, crash, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tests.support.fakes import FakeClock

pytestmark = pytest.mark.slow

MINUTE = 60.0


@pytest.fixture
def clock() -> Steps:
    return Steps(now=1_796_000_000.0)


@pytest.fixture
def hosted(clock: FakeClock) -> Iterator[Sandbox]:
    with braze(clock, users=0, users_per_file=5000) as sandbox:
        yield sandbox


@pytest.fixture
def bucket(clock: FakeClock, tmp_path: Path) -> Iterator[Sandbox]:
    with braze(clock, tmp_path, users=0, users_per_file=5000) as sandbox:
        yield sandbox


def in_bucket(sandbox: Sandbox, clock: FakeClock, folder: Path, **config: Any) -> Nights:
    return incremental(sandbox, clock, folder, bucket_url=str(folder / "bucket"), **config)


@pytest.mark.parametrize("fault", ["", "empty-archive"])
def test_an_archive_without_users_is_complete(hosted: Sandbox, clock: FakeClock, tmp_path: Path, fault: str) -> None:
    """The time moves on: nothing was updated until then."""
    nights = incremental(hosted, clock, tmp_path)
    first_night(nights)
    hosted.set_faults(*filter(None, [fault]))
    run = nights.run({"s": people()})
    second = clock.time

    assert (run.ids(), run.warnings) == ([], [])
    assert [line.partition(": ")[2] for line in run.lines if line.startswith("Export ")] == ["no user was updated"]
    nights.run({"s": people()})
    assert asked(hosted)[2] == before(second)
    assert entry(nights)["last_users"] == 5


def test_a_quiet_bucket_proves_nothing(bucket: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The run ends well ten minutes after the request, with one line, and the next one asks from the same time."""
    nights = in_bucket(bucket, clock, tmp_path)
    first = first_night(nights)
    bucket.set_faults("empty-bucket")
    began = clock.time + DAY
    run = nights.run({"s": people()})

    assert 10 * MINUTE <= clock.time - began <= 12 * MINUTE
    (line,) = run.warnings
    assert "no file has come, so perhaps no user was updated; nothing proves it" in line
    assert (run.ids(), run.error) == ([], "")
    bucket.set_faults()
    third = nights.run({"s": people("a")})
    assert asked(bucket) == [None, before(first), before(first)]
    assert third.ids() == ["a"]


def test_files_that_come_after_a_bucket_was_quiet(bucket: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The next run reads them before anything else."""
    nights = in_bucket(bucket, clock, tmp_path)
    first = first_night(nights)
    bucket.workspace.options.hold = True
    empty = nights.run({"s": people("a")})
    bucket.workspace.options.hold = False
    bucket.finish_exports()
    third = nights.run()

    assert (empty.ids(), third.ids()) == ([], ["a", "a"])
    assert len({row["export_id"] for row in third.rows("export_files")}) == 2
    assert asked(bucket) == [None, before(first), before(first)]


def test_rejected_lines_in_a_bucket(bucket: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """They move no time. That the next run looks for late files of that export undoes nothing."""
    nights = in_bucket(bucket, clock, tmp_path)
    first = first_night(nights)
    nights.run({"s": [*people("a"), b"no JSON"]}, fails=True)
    nights.run({"s": people("a")})
    third = clock.time - 20 * MINUTE
    nights.run({"s": people("a")})

    assert asked(bucket)[:3] == [None, before(first), before(first)]
    assert (asked(bucket)[3] or "") > before(third)


def test_rejected_lines_of_late_files(bucket: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """The export had counted as complete: everybody is asked for again."""
    nights = in_bucket(bucket, clock, tmp_path)
    first_night(nights)
    folder = next((tmp_path / "bucket").rglob(entry(nights)["export_id"]))
    with gzip.open(folder / "late.gz", "wb") as late:
        late.write(b"no JSON\n")
    nights.run({"s": people("a")}, fails=True)
    nights.run({"s": people("a")})

    assert [since is None for since in asked(bucket)] == [True, False, True]


def test_a_short_settle_time_is_no_reason_for_haste(bucket: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """A minute without any file is the least that counts as empty."""
    nights = in_bucket(bucket, clock, tmp_path, settle_minutes=0)
    first_night(nights)
    bucket.set_faults("empty-bucket")
    began = clock.time + DAY
    nights.run({"s": people()})
    assert MINUTE <= clock.time - began <= 3 * MINUTE


def test_a_callback_proves_that_nobody_was_updated(bucket: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """No estimate, and no count of the last export, is held against it."""
    port = free_port()
    callback = {"callback_url": f"http://127.0.0.1:{port}/", "callback_listen": f"127.0.0.1:{port}"}
    nights = in_bucket(bucket, clock, tmp_path, **callback)
    first_night(nights)
    bucket.set_faults("empty-bucket")
    bucket.workspace.options.hold = True
    clock.steps = [nothing, bucket.finish_exports, nothing]
    run = nights.run({"s": people()})
    second = requested(nights)
    nights.run({"s": people()})

    assert run.warnings == []
    assert asked(bucket)[2] == before(second)


@pytest.mark.parametrize("is_called_back", [True, False])
def test_files_elsewhere_prove_that_users_were_updated(
    bucket: Sandbox, clock: Steps, tmp_path: Path, *, is_called_back: bool
) -> None:
    """The wrong bucket_url is no empty export: the next run asks from the same time."""
    port = free_port()
    callback: dict[str, Any] = {
        "callback_url": f"http://127.0.0.1:{port}/",
        "callback_listen": f"127.0.0.1:{port}",
    }
    nights = in_bucket(bucket, clock, tmp_path, settle_minutes=0)
    first = first_night(nights)
    given = callback if is_called_back else {}
    run = nights.run({"s": people("a")}, fails=True, bucket_url=str(tmp_path), **given)
    assert f"no file has come to bucket_url: {tmp_path}/bucket/segment-export/ has its files" in run.error

    third = nights.run({"s": people("a")})
    assert third.ids() == ["a"]
    assert asked(bucket) == [None, before(first), before(first)]


def test_a_link_that_is_never_ready(hosted: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    """At the deadline the export ends well, as there may be nobody; the next run asks from the same time."""
    nights = incremental(hosted, clock, tmp_path, export_timeout_minutes=30)
    first = first_night(nights)
    hosted.set_faults("empty-never-ready")
    run = nights.run({"s": people()})

    assert 30 * MINUTE <= clock.time - first - DAY <= 33 * MINUTE
    (line,) = run.warnings
    assert "no file has come, so perhaps no user was updated" in line
    hosted.set_faults()
    third = nights.run({"s": people("a")})
    assert asked(hosted) == [None, before(first), before(first)]
    assert third.ids() == ["a"]


def test_a_full_export_that_is_never_ready_fails(hosted: Sandbox, clock: FakeClock, tmp_path: Path) -> None:
    hosted.set_faults("never-ready")
    nights = incremental(hosted, clock, tmp_path, export_timeout_minutes=30)
    run = nights.run({"s": people()}, fails=True)
    assert "its download is still not there" in run.error


# Continued by the next run


def test_a_running_export_is_continued(hosted: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """It has asked from the time that is needed now, as no export was complete since."""
    nights = incremental(hosted, clock, tmp_path)
    first = first_night(nights)
    hosted.workspace.options.hold = True
    clock.steps = [crash]
    nights.run({"s": people("a")}, fails=True)
    clock.steps = [nothing]
    hosted.finish_exports()
    clock.time -= DAY - HOUR
    third = nights.run()

    assert asked(hosted) == [None, before(first)]
    assert third.ids() == ["a"]
    hosted.workspace.options.hold = False
    second = requested(nights)
    nights.run({"s": people("a")})
    assert asked(hosted)[2] == before(second)


@pytest.mark.parametrize("change", [{"overlap_minutes": 90}, {"incremental": False}])
def test_a_running_export_that_asked_for_less_is_left_to_end(
    hosted: Sandbox, clock: Steps, tmp_path: Path, change: dict[str, Any]
) -> None:
    nights = incremental(hosted, clock, tmp_path)
    first = first_night(nights)
    hosted.workspace.options.hold = True
    clock.steps = [crash]
    nights.run({"s": people("a")}, fails=True)
    hosted.workspace.options.hold = False
    clock.steps = [hosted.finish_exports, nothing]
    clock.time -= DAY - HOUR
    third = nights.run(**change)

    needed = before(first, 90 * MINUTE) if "overlap_minutes" in change else None
    assert asked(hosted) == [None, before(first), needed]
    (line,) = [line for line in third.warnings if "is not continued" in line]
    assert line.endswith("it was asked only for users updated since a later time than is needed now")


def test_a_running_export_of_everybody_will_do(hosted: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """It has asked for more, and becomes the last full one."""
    nights = incremental(hosted, clock, tmp_path)
    first_night(nights)
    hosted.workspace.options.hold = True
    clock.steps = [crash]
    nights.run({"s": people("a")}, fails=True, incremental=False)
    clock.steps = [nothing]
    hosted.finish_exports()
    clock.time -= DAY - HOUR
    third = nights.run()

    assert asked(hosted) == [None, None]
    assert sorted(third.ids()) == [*"abcde"]
    (complete,) = entry(nights)["complete"]
    assert complete["full_at"] == entry(nights)["requested_at"]


def test_a_loader_that_failed(hosted: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """The same incremental export is read again without asking Braze, as it was handed the same STATE."""
    nights = incremental(hosted, clock, tmp_path)
    first = first_night(nights)
    nights.run({"s": people("a")}, loads=False, confirms=False)
    clock.time -= DAY - HOUR
    third = nights.run()

    assert asked(hosted) == [None, before(first)]
    assert third.ids() == ["a"]
    nights.run({"s": people("a")})
    assert len(asked(hosted)) == 3


def test_an_answer_that_was_lost(bucket: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """The export is found in the bucket by its time, and counts as what was asked for."""
    nights = in_bucket(bucket, clock, tmp_path, settle_minutes=1)
    first = first_night(nights)
    bucket.set_faults("lost-response")
    run = nights.run({"s": people("a")})

    lost = [call.body.get("user_last_updated_at") for call in bucket.calls if call.status == 0]
    assert lost == [before(first)]
    assert run.ids() == ["a"]
    assert {row["updated_since"] is None for row in run.rows("export_files")} == {False}


def test_only_state_knows_what_was_complete(hosted: Sandbox, clock: Steps, tmp_path: Path) -> None:
    """The journal of a run that was handed STATE is continued without one: what that run knew, the target may lack."""
    nights = incremental(hosted, clock, tmp_path)
    first_night(nights)
    hosted.workspace.options.hold = True
    clock.steps = [crash]
    nights.run({"s": [*people("a"), b"no JSON"]}, fails=True, incremental=False)
    hosted.workspace.options.hold = False
    hosted.finish_exports()
    clock.steps = [nothing]
    clock.time -= DAY - HOUR
    nights.state = None
    continued = nights.run(fails=True)
    nights.run({"s": people("a")})

    assert len(continued.ids()) == 5
    assert asked(hosted) == [None, None, None]
