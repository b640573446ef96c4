"""The end of a run is one table: what was read, what was emitted, why numbers differ, and where the seconds went."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.report.facts import RunFacts
from tap_braze_export.report.summary import log_table
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.schema.user_object import TABLES
from tests.support.fakes import FakeClock
from tests.support.reports import emit, export
from tests.support.runs import Run, command, selecting, settings, sync, written

if TYPE_CHECKING:
    from pathlib import Path

LOGGER = logging.getLogger("test-summary")


def table(run: Run) -> list[str]:
    """The log of a run from its table on."""
    lines = [line.rstrip() for line in run.lines]
    (start,) = [index for index, line in enumerate(lines) if line.startswith(("Done in ", "Not complete, "))]
    return lines[start:]


def row(lines: list[str], name: str) -> list[int]:
    """The numbers of one line of a table."""
    (line,) = [line for line in lines if line.startswith(f"  {name}  ")]
    return [int(number.replace(",", "")) for number in line.removeprefix(f"  {name}").split()]


def test_the_table(caplog: pytest.LogCaptureFixture) -> None:
    """One line says where the seconds went; then exports, streams, and notes on what may surprise."""
    caplog.set_level(logging.INFO, LOGGER.name)
    clock = FakeClock()
    facts = RunFacts(clock)
    emit(facts, lines=2000, users=1999, duplicates=1, rescued={"users": 3}, seconds=12, blocked=2)
    emit(facts, lines=1001, users=1000, rejected=1, rescued={"users": 4, "apps": 2})
    emit(facts, export("gcg", "", "global_control_group"), lines=7, users=7)
    clock.sleep(600)
    facts.finish({"users": 2999, "apps": 12345})
    facts.retries = 3
    facts.peak_memory = 92_400_000
    log_table(LOGGER, facts, done=True)
    assert caplog.messages == [
        "Done in 10 min: 10 min waiting for Braze",
        "  10 s reading (301 users a second), 2.0 s waiting for the loader",
        "  retries 3, peak memory 92 MB",
        "  export                files  lines  users  duplicates  unchanged  rejected",
        "  segment all               2  3,001  2,999           1          0         1",
        "  Global Control Group      1      7      7           0          0         0",
        "  stream    rows  rescued",
        "  users    2,999        7",
        "  apps    12,345        2",
        "  duplicates: 1 of 3,008 lines; the last line of a user in a file counts",
        "  rejected: lines that are no user objects, kept in spool_dir",
        "  rescued: rows with values that fit no column, kept in their _rescued_data",
    ]


def test_the_table_of_a_night_with_a_million_users_fits_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    """80 columns, also with a segment's usual id, and all streams on one screen."""
    caplog.set_level(logging.INFO, LOGGER.name)
    segment = "7be1c3f0-52b1-4c19-9d26-0f6a4a2d8f11"
    facts, users = RunFacts(FakeClock(), compares=True), 1_234_566
    emit(facts, export("1", segment), lines=users + 1, users=users, duplicates=1, unchanged=1_000_000)
    emit(facts, export("2", "vip"), lines=1, rejected=1, rescued={"users": 1})
    facts.finish({table.stream: 123_456_789 for table in TABLES})
    facts.retries = 12_345
    log_table(LOGGER, facts, done=False)
    assert max(map(len, caplog.messages)) <= 80
    assert len(caplog.messages) <= 26
    assert caplog.messages[3:7] == [
        "  export       files      lines      users  duplicates  unchanged  rejected",
        f"  segment {segment}",
        "                   1  1,234,567  1,234,566           1  1,000,000         0",
        "  segment vip      1          1          0           0          0         1",
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_table_of_a_run(tmp_path: Path, workers: int) -> None:
    """Its numbers are those of the output, however many processes read: also the rescued ones, of either path."""
    with Sandbox(users=600, users_per_file=100, faults=["unrequested-fields"]) as sandbox:
        catalog = selecting(["users", "apps", "devices", "export_files"])
        run = sync(settings(sandbox, tmp_path, workers=workers), catalog=catalog)
    lines = table(run)
    for stream in run.schemas:
        rescued = sum(row.get("_rescued_data") is not None for row in run.rows(stream))
        assert row(lines, stream) == [run.counts[stream], rescued]
    assert row(lines, "users")[1] > 0
    audit = run.rows("export_files")
    counts = ("lines", "users", "duplicates", "unchanged", "rejected")
    assert row(lines, "segment all-users") == [len(audit), *(sum(row[count] for row in audit) for count in counts)]


@pytest.mark.sandbox(users=500, odd_users=False, faults=["unrequested-fields"])
def test_members_that_braze_adds_are_counted_as_rescued(tmp_path: Path, sandbox: Sandbox) -> None:
    """A member that every user has is learned by the fast path, which rescues it without the careful one."""
    run = sync(settings(sandbox, tmp_path), catalog=selecting(["users"]))
    assert row(table(run), "users") == [500, 500]


@pytest.mark.sandbox(users=12, odd_users=False)
def test_the_table_of_all_streams_is_logged_by_the_tap(tmp_path: Path, sandbox: Sandbox) -> None:
    """Not by one of its streams."""
    run = sync(settings(sandbox, tmp_path), catalog=selecting(["users"]))
    shown = ("Done in", "  segment all-users", "  users")
    assert {record.name for record in run.log if record.getMessage().startswith(shown)} == {"tap-braze-export"}


def test_a_duplicate_is_explained(tmp_path: Path) -> None:
    """Whoever expects 2,000 users and finds 1,999 reads why."""
    with Sandbox(users=2000) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=selecting(["users"]))
    assert row(table(run), "users")[0] == 1999
    assert [line for line in table(run) if "duplicates: 1 of 2,000 lines" in line]


def test_an_empty_segment_has_a_table_too(tmp_path: Path, sandbox: Sandbox) -> None:
    """A run that did what it should and found nobody says so."""
    run = sync(settings(sandbox, tmp_path, segment_ids=["empty-segment"]), catalog=selecting(["users"]))
    assert table(run)[0].startswith("Done in ")
    assert row(table(run), "users") == [0, 0]


@pytest.mark.sandbox(users=12, odd_users=False)
@pytest.mark.parametrize("more", [{"segment_ids": ["gone"]}, {"api_key": "wrong"}, {"api_url": "http://127.0.0.1:9"}])
def test_a_run_that_failed_before_any_file_has_no_table(tmp_path: Path, sandbox: Sandbox, more: dict[str, Any]) -> None:
    """Nothing is called done, and no line says 0 files."""
    run = sync(settings(sandbox, tmp_path, **more), fails=True)
    assert not [line for line in run.lines if re.search(r"^Done|^Not complete|0 files|^  \w", line)]


@pytest.mark.sandbox(users=12, odd_users=False)
def test_an_error_is_told_once(tmp_path: Path, sandbox: Sandbox) -> None:
    """One ERROR line at the end, without a warning of the same words before it."""
    ended = command("--config", written(tmp_path, settings(sandbox, tmp_path, segment_ids=["gone"])))
    assert "gone" in ended.error
    assert "WARNING" not in ended.stderr
    assert ended.stderr.count(ended.error[-60:]) == 1
    assert ended.error.startswith("POST /users/export/segment (segment gone) was refused with 400 ")


@pytest.mark.sandbox(users=12, odd_users=False)
def test_a_run_that_goes_on_says_so_in_short(tmp_path: Path, sandbox: Sandbox) -> None:
    """Where other exports go on, a warning names the export that is given up; the reason comes once, at the end."""
    run = sync(settings(sandbox, tmp_path, segment_ids=["gone", "all-users"]), fails=True)
    assert run.warnings == ["The export of segment gone is given up, the others go on; the end of this log says why"]
    assert "was refused with 400" in run.error
    assert table(run)[0].startswith("Not complete, ended after ")
    assert row(table(run), "users")[0] == 12


@pytest.mark.sandbox(users=12, odd_users=False)
@pytest.mark.slow
def test_metric_lines_are_for_who_asks(tmp_path: Path, sandbox: Sandbox) -> None:
    """They stand at level DEBUG, each with the name of its stream."""
    config = written(tmp_path, settings(sandbox, tmp_path))
    usual = command("--config", config)
    asked = command("--config", config, TAP_BRAZE_EXPORT_LOGLEVEL="DEBUG")
    assert "METRIC" not in usual.stderr
    assert len(re.findall(r'METRIC: .*"record_count".*"stream":"\w+"', asked.stderr)) == len(usual.schemas)
