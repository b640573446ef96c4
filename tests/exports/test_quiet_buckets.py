"""The wait for the end of an export in a quiet bucket is told as such in log, end table and page: Braze has ended."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import ports
from tests.support.fakes import FakeClock
from tests.support.pages import Page
from tests.support.runs import Run, selecting, settings, sync
from tests.support.steps import Steps, braze, nothing

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.clock import Clock
    from tap_braze_export.sandbox import Sandbox

USERS = selecting(["users"])
QUIET = re.compile(
    r"The bucket is quiet, and all its files are read\. Complete after (\d+ min|[\d.]+ s) more without a new file"
    r" \(settle_minutes\), or when Braze calls back \(callback_url\): [\da-f-]+"
)
ASSUMED = re.compile(
    r"Export [\da-f-]+ of segment all-users: no new file in the bucket for \d+ min \(settle_minutes\), so it is assumed"
    r" to be complete; with callback_url Braze would say so"
)


def sync_bucket(sandbox: Sandbox, folder: Path, clock: Clock, **more: Any) -> Run:
    config = settings(sandbox, folder, bucket_url=str(folder / "bucket"), report_path=str(folder / "run.html"), **more)
    return sync(config, clock=clock, catalog=USERS)


def page(folder: Path) -> Page:
    return Page((folder / "run.html").read_text(encoding="utf-8"))


def test_the_wait_for_quiet_is_not_one_for_braze(tmp_path: Path) -> None:
    """Files that are all read at once, then ten minutes without one: nobody is to look for the fault in Braze."""
    with braze(FakeClock(), tmp_path) as sandbox:
        run = sync_bucket(sandbox, tmp_path, FakeClock())
    assert not [line for line in run.lines if line.startswith("Waiting for Braze")]
    left = [found[1] for line in run.lines if (found := QUIET.fullmatch(line))]
    assert len(left) > 5
    assert left[0] == "10 min"
    assert len([line for line in run.lines if ASSUMED.fullmatch(line)]) == 1
    assert "  10 min waiting for more files in a quiet bucket (settle_minutes)" in run.lines
    assert [line for line in run.lines if re.fullmatch(r"Done in 10 min: \d.\d s waiting for Braze", line)]


def test_the_page_shows_the_quiet(tmp_path: Path) -> None:
    """Neither the time of the run nor the bar of the export has a part that nothing explains."""
    with braze(FakeClock(), tmp_path) as sandbox:
        sync_bucket(sandbox, tmp_path, FakeClock())
    found = page(tmp_path)
    assert "waiting for Braze: 0.0 s" in found.text
    assert "waiting for more files in a quiet bucket (settle_minutes): 10 min" in found.text
    assert "assumed complete after 10 min" in found.text
    start = found.html.index("Timeline of")
    bar = found.html[start : found.html.index("</svg>", start)]
    ((x, width),) = re.findall(r'class="settling" x="([\d.]+)" y="0" width="([\d.]+)"', bar)
    assert float(x) < 10
    assert float(x) + float(width) == pytest.approx(1000, abs=1)


def test_the_page_of_a_run_whose_clock_is_set(tmp_path: Path) -> None:
    """Its durations are those that passed, and the run began when its clock said so then."""
    durations = {}
    for jump in (0, -365 * 86_400, -3_600, 3_600, 365 * 86_400):
        folder, clock = tmp_path / str(jump), Steps()
        folder.mkdir()
        with braze(clock, folder, hold=True) as sandbox:
            clock.steps = [partial(setattr, clock, "ahead", jump), nothing, sandbox.finish_exports, nothing]
            sync_bucket(sandbox, folder, clock)
        text = page(folder).text
        assert "Began 2027-01-15 08:00:00 UTC" in text, jump
        durations[jump] = re.findall(r"(?:after|took|\(settle_minutes\):) (\d+ min|[\d.]+ s)", text)
    assert durations[0] == ["11 min", "10 min", "48 s", "48 s", "48 s", "11 min"]
    for jump, shown in durations.items():
        assert shown[:2] == ["11 min", "10 min"], jump
        assert set(shown) <= {*durations[0], "0.0 s", "10 min"}, (jump, shown)  # a request in the future counts as now


def test_the_page_shows_the_quiet_of_a_single_poll(tmp_path: Path) -> None:
    """With `settle_minutes` 0 the export ends at the first poll without a new file, which is a wait, too."""
    with braze(FakeClock(), tmp_path) as sandbox:
        sync_bucket(sandbox, tmp_path, FakeClock(), settle_minutes=0)
    seconds = re.search(r"took ([\d.]+ s)", page(tmp_path).text)
    assert seconds
    assert f"waiting for more files in a quiet bucket (settle_minutes): {seconds[1]}" in page(tmp_path).text
    assert f"assumed complete after {seconds[1]}" in page(tmp_path).text


def test_with_a_callback_nothing_is_assumed(tmp_path: Path) -> None:
    """An export that Braze says is complete is no guess."""
    address, clock = f"127.0.0.1:{ports.free_port()}", Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        clock.steps = [sandbox.finish_exports, nothing]
        run = sync_bucket(sandbox, tmp_path, clock, callback_url=f"http://{address}", callback_listen=address)
    assert not [line for line in run.lines if "assumed" in line or "quiet" in line]
    assert "assumed complete" not in page(tmp_path).text


def test_an_export_without_any_file_is_waited_for(tmp_path: Path) -> None:
    """A bucket in which nothing has come is not quiet: Braze may still be at work."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        clock.steps = [*[nothing] * 8, sandbox.finish_exports, nothing]
        run = sync_bucket(sandbox, tmp_path, clock, settle_minutes=0)
    waits = [line for line in run.lines if line.startswith("Waiting for Braze since ")]
    assert len(waits) > 3
    assert not [line for line in run.lines if QUIET.fullmatch(line)]
