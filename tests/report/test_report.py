"""report_path: each run, and --test, writes a page whose numbers are those of its log and its output."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import Clock
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.pages import Page
from tests.support.runs import (
    COMMAND,
    SECONDS,
    Run,
    command,
    environment,
    selecting,
    settings,
    sync,
    tap_class,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.tap import TapBrazeExport

STREAMS = ["users", "devices", "apps", "export_files"]


def reporting(sandbox: Sandbox, folder: Path, **more: Any) -> dict[str, Any]:
    """Settings with a page in a folder of its own."""
    (folder / "pages").mkdir(exist_ok=True)
    return settings(sandbox, folder, report_path=str(folder / "pages" / "run.html"), **more)


def page(folder: Path) -> Page:
    """The one page of a folder, private and whole."""
    (path,) = (folder / "pages").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return Page(path.read_text(encoding="utf-8"))


def logged(run: Run, name: str) -> list[str]:
    """The numbers of one line of the end table."""
    (line,) = [line for line in run.lines if line.startswith(f"  {name}  ")]
    return line.removeprefix(f"  {name}").split()


def test_its_numbers_are_those_of_the_end_table(tmp_path: Path) -> None:
    """By stream and by export; the members that a run rescues stand with their names."""
    with Sandbox(users=600, users_per_file=100, faults=["unrequested-fields"]) as sandbox:
        run = sync(reporting(sandbox, tmp_path), catalog=selecting(STREAMS))
    found = page(tmp_path)
    for stream in STREAMS:
        assert found.row(stream) == logged(run, stream)
    names = ("files", "lines", "users", "duplicates", "unchanged", "rejected")
    assert [found.figures[name] for name in names] == logged(run, "segment all-users")
    rescued = [row["_rescued_data"] for row in run.rows("users") if row["_rescued_data"]]
    assert found.row("brand_new_member") == ["users", str(sum("brand_new_member" in data for data in rescued))]
    assert found.facts["rows"] == sum(run.counts.values())
    assert run.rows("export_files")[0]["export_id"] in found.text
    assert run.warnings == []
    assert f"The page of this run: {tmp_path / 'pages' / 'run.html'}" in run.lines


@pytest.mark.parametrize("fault", ["rate-limited", "connection-reset", "damaged-once"])
def test_repetitions_are_counted(tmp_path: Path, fault: str) -> None:
    """Calls, transfers and whole downloads: as many as the log tells, on the page and in the end table."""
    with Sandbox(users=12, odd_users=False, faults=[fault]) as sandbox:
        run = sync(reporting(sandbox, tmp_path), catalog=selecting(STREAMS))
    told = sum(bool(re.search("; repeated in |is not fetched yet|; fetching it once more", line)) for line in run.lines)
    assert told > 0
    assert page(tmp_path).figures["retries"] == str(told)
    assert [line for line in run.lines if line.startswith(f"  retries {told}, peak memory ")]


def test_each_of_two_runs_at_a_time_counts_its_own_repetitions(tmp_path: Path) -> None:
    """Both in one process and at the same time; only the first has any."""
    threads = DaemonThreads(2)
    with Sandbox(users=50, faults=["rate-limited"]) as limited, Sandbox(users=50) as usual:
        taps: list[TapBrazeExport] = []
        for sandbox in (limited, usual):
            folder = tmp_path / f"{len(taps)}"
            folder.mkdir()
            taps.append(tap_class(FakeClock())(config=reporting(sandbox, folder)))
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            for ended in [threads.submit(tap.sync_all) for tap in taps]:
                ended.result()
    threads.shutdown()
    counts = [int(page(tmp_path / name).figures["retries"]) for name in ("0", "1")]
    assert counts[0] > 0 == counts[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_lines_that_cannot_be_read(tmp_path: Path, workers: int) -> None:
    """They stand by file, with the numbers of the first; the page of a run that fails has its ERROR line."""
    user = {"braze_id": "u"}
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("bad", files=[[user, b"{"], [user], [b"[" * 12, *[b"x"] * 11, user]])
        config = reporting(sandbox, tmp_path, segment_ids=["bad"], workers=workers)
        run = sync(config, catalog=selecting(STREAMS), fails=True)
    found = page(tmp_path)
    rejected = {row["file"]: row["rejected"] for row in run.rows("export_files") if row["rejected"]}
    assert sorted(rejected.values()) == [1, 12]
    first = {1: "2", 12: "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"}
    for file, count in rejected.items():
        assert found.row(file) == [str(count), first[count]]
    assert found.facts["outcome"] == "failed"
    assert found.facts["rejected"] == 13
    assert run.error in found.text


def test_a_run_that_fails_before_any_file(tmp_path: Path, sandbox: Sandbox) -> None:
    run = sync(reporting(sandbox, tmp_path, segment_ids=["gone"]), fails=True)
    found = page(tmp_path)
    assert "failed" in found.text
    assert run.error in found.text


@pytest.mark.sandbox(users=12, odd_users=False)
def test_a_state_that_nobody_understands_hides_no_error(tmp_path: Path, sandbox: Sandbox) -> None:
    """The page is written all the same."""
    state = {"bookmarks": {"export_files": {"version": 99, "exports": [7]}}}
    run = sync(reporting(sandbox, tmp_path, segment_ids=["gone"]), state=state, fails=True)
    assert "gone" in run.error
    assert run.error in page(tmp_path).text


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (["invalid_user_ids"], "the stream invalid_user_ids lists them"),
        ([], "select the stream invalid_user_ids to have them listed"),
    ],
)
def test_a_resync_counts_its_misses(tmp_path: Path, more: list[str], where: str) -> None:
    """And names none of them."""
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("some", files=[[{"braze_id": f"b{number}"} for number in range(20)]])
        config = reporting(sandbox, tmp_path, braze_ids=["b1", "b2", "nobody-1", "nobody-2"])
        run = sync(config, catalog=selecting([*STREAMS, *more]), clock=Clock())
    found = page(tmp_path)
    assert run.counts["invalid_user_ids"] == (2 if more else 0)
    assert found.row("users") == ["2", "0"]
    assert f"misses: 2 identifiers matched nobody; {where}" in found.text
    assert "Resync" in found.text
    assert found.facts["resync"] is True
    assert "nobody-" not in found.html


def test_runs_are_compared(tmp_path: Path) -> None:
    """A page takes the place of the last one, and compares the run with it; runs with a time in the name add up."""
    with Sandbox(users=30, odd_users=False) as sandbox:
        config = reporting(sandbox, tmp_path)
        sync(config, catalog=selecting(STREAMS))
        first = page(tmp_path).facts
        sync(config, catalog=selecting(STREAMS))
        second = page(tmp_path)
        assert "(this run)" in second.text
        assert sum(row[1:2] == ["done"] for row in second.rows) == 2
        assert first["users"] == second.facts["users"] == 30
        config["report_path"] = str(tmp_path / "pages" / "run-{started_at}.html")
        run = sync(config, catalog=selecting(STREAMS))
        assert not run.error
    (path,) = (tmp_path / "pages").glob("run-*.html")
    assert re.fullmatch(r"run-\d{8}T\d{6}Z\.html", path.name)
    assert sum(row[1:2] == ["done"] for row in Page(path.read_text()).rows) == 2


@pytest.mark.sandbox(users=12, odd_users=False)
def test_a_page_that_cannot_be_written_fails_no_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """The directory of the page goes while the run goes on: one warning."""
    config = reporting(sandbox, tmp_path)

    class Vandal(FakeClock):
        def now(self) -> float:
            if sandbox.calls and (tmp_path / "pages").exists():
                (tmp_path / "pages").rmdir()
            return super().now()

    run = sync(config, catalog=selecting(STREAMS), clock=Vandal())
    assert run.counts["users"] == 12
    path = tmp_path / "pages" / "run.html"
    assert run.warnings == [f"The page {path} is not written: No such file or directory"]


@pytest.mark.slow
@pytest.mark.sandbox(users=12, odd_users=False)
def test_the_command_refuses_a_directory_that_is_not_there(tmp_path: Path, sandbox: Sandbox) -> None:
    """In one line, before anything is asked of Braze; --test says the same."""
    config = written(tmp_path, settings(sandbox, tmp_path, report_path=str(tmp_path / "gone" / "run.html")))
    for arguments in (["--config", config], ["--test", "--config", config]):
        ended = command(*arguments)
        assert "report_path lies in" in ended.error
        assert ended.stdout == b""
    assert not sandbox.calls


@pytest.mark.slow
@pytest.mark.sandbox(users=12, odd_users=False)
def test_the_checklist_has_a_page(tmp_path: Path, sandbox: Sandbox) -> None:
    """With the remarks of its log, and the error of the last line."""
    good = command("--test", "--config", written(tmp_path, reporting(sandbox, tmp_path)))
    found = page(tmp_path)
    assert good.code == 0
    assert found.row("API key") == ["works", ""]
    assert found.row("Segment all-users") == ["works", "All users"]
    assert "no check fails" in found.text
    bad = command("--test", "--config", written(tmp_path, reporting(sandbox, tmp_path, segment_ids=["gone"])))
    found = page(tmp_path)
    assert found.row("Segment gone")[0] == "fails"
    assert bad.error in found.text


@pytest.mark.slow
@pytest.mark.sandbox(users=2000, users_per_file=100, odd_users=False)
def test_a_signal_leaves_time_for_the_page(tmp_path: Path, sandbox: Sandbox) -> None:
    """It says that the run was stopped, and when its export was requested."""
    config = written(tmp_path, reporting(sandbox, tmp_path))
    with subprocess.Popen(
        [COMMAND, "--config", config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as tap:
        assert tap.stdout
        while b'"RECORD"' not in os.read(tap.stdout.fileno(), 1000):
            pass
        tap.send_signal(signal.SIGTERM)
        _, log = tap.communicate(timeout=SECONDS)
    assert tap.returncode == 143, log
    found = page(tmp_path)
    assert found.facts["outcome"] == "stopped"
    assert "segment all-users" in found.text


@pytest.mark.slow
@pytest.mark.sandbox(users=12, odd_users=False)
@pytest.mark.parametrize("is_set", [False, True])
def test_jinja_is_imported_for_a_page_only(tmp_path: Path, sandbox: Sandbox, is_set: bool) -> None:  # noqa: FBT001
    """A run without report_path pays nothing for it."""
    config = reporting(sandbox, tmp_path) if is_set else settings(sandbox, tmp_path)
    program = (
        "import sys\nfrom tap_braze_export.tap import TapBrazeExport\n"
        "try:\n    TapBrazeExport.cli(sys.argv[1:])\n"
        "finally:\n    print('jinja2' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--config", written(tmp_path, config)],
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == str(is_set)
