"""Progress: at most one log line every ten seconds, and where the seconds of a run went."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from typing import Any

import pytest

from tap_braze_export.report.facts import RunFacts
from tap_braze_export.report.progress import ExportStatus, Progress
from tap_braze_export.report.units import duration
from tests.support.fakes import FakeClock
from tests.support.reports import emit, export

LOGGER = logging.getLogger("test-progress")


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def progress(clock: FakeClock) -> Progress:
    return Progress(RunFacts(clock), clock, LOGGER)


def status(name: str, **more: Any) -> ExportStatus:
    """A running export of a segment."""
    return ExportStatus(export=export(name, name), **more)


def wait(progress: Progress, clock: FakeClock, seconds: float, *not_started: str) -> None:
    """Wait since the fake clock's begin."""
    with progress.waiting(FakeClock().elapsed, not_started):
        clock.sleep(seconds)


def read(progress: Progress, users: int = 100, seconds: float = 1.0, blocked: float = 0.0) -> None:
    """Read a file."""
    emit(progress.facts, users=users, seconds=seconds, blocked=blocked)
    progress.read()


def test_log_lines_come_at_most_every_ten_seconds(
    progress: Progress, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    progress.running([status("a", files_left=20), status("b", files_left=10)])
    for _ in range(30):
        clock.sleep(1)
        read(progress)
    assert caplog.messages == [
        "Read 10 of 30 files, 1,000 users, 100 a second, 20 s left",
        "Read 20 of 30 files, 2,000 users, 100 a second, 10 s left",
        "Read 30 of 30 files, 3,000 users, 100 a second",
    ]


def test_waiting_names_three_exports(progress: Progress, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each further ten seconds, with the time since the first request."""
    for _ in range(25):
        progress.running(status(name) for name in "abcd")
        wait(progress, clock, 1)
    assert caplog.messages == ["Waiting for Braze since 10 s: a, b, c, …", "Waiting for Braze since 20 s: a, b, c, …"]


def test_an_export_that_braze_is_at_is_told_before_quiet_ones(
    progress: Progress, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While one of several still has to come from Braze, the run waits for Braze."""
    quiet = status("a", quiet_until=clock.elapsed + 600)
    clock.sleep(10)
    progress.running([quiet, status("b")])
    wait(progress, clock, 10)
    progress.running([quiet])
    wait(progress, clock, 10, "segment b")
    assert caplog.messages == ["Waiting for Braze since 10 s: b", "Waiting for Braze since 20 s: segment b"]
    assert progress.facts.seconds_quiet == 0


def test_the_end_of_a_quiet_bucket_is_waited_for(
    progress: Progress, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told and counted apart from the time that Braze needs."""
    quiet = [status("a", quiet_until=clock.elapsed + 300), status("b", quiet_until=clock.elapsed + 600)]
    clock.sleep(10)
    progress.running(quiet)
    wait(progress, clock, 60)
    (line,) = caplog.messages
    assert line == (
        "The bucket is quiet, and all its files are read. Complete after 10 min more without a new file"
        " (settle_minutes), or when Braze calls back (callback_url): a, b"
    )
    progress.facts.finish({})
    assert progress.facts.seconds_quiet == 60
    assert progress.facts.seconds_for_braze == 10


def test_download_under_way_is_reported_by_its_bytes(
    progress: Progress, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for received, expected in ((15_200_000, 38_000_000), (300_000, 4_000_000), (2_000_000, 0), (0, 38_000_000)):
        for _ in range(10):
            clock.sleep(1)
            progress.running([status("a", received=received, expected=expected), status("b")])
            progress.downloading()
    assert caplog.messages == [
        "Downloading 15 of 38 MB: a",
        "Downloading 0.3 of 4.0 MB: a",
        "Downloading 2.0 MB so far: a",
        "Downloading 38 MB: a",
    ]


def test_the_rate_leaves_out_the_time_that_the_loader_took(progress: Progress, clock: FakeClock) -> None:
    """Users a second are the tap's own; the loader's time stands beside it, and what is left was spent waiting."""
    read(progress, users=1000, seconds=12, blocked=2)
    clock.sleep(60)
    progress.facts.finish({})
    assert progress.facts.users_a_second == 100
    assert progress.facts.seconds == 60
    assert progress.facts.seconds_waiting == 48


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_instead_of_log_lines(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """It has the same facts; what others log meanwhile stands on lines of its own."""
    with contextlib.redirect_stderr(Terminal()) as terminal:
        other = logging.StreamHandler(terminal)
        logging.getLogger().addHandler(other)
        with Progress(RunFacts(clock), clock, LOGGER) as progress:
            assert progress.longest_wait == 1
            wait(progress, clock, 60, "segment a", "segment b")
            wait(progress, clock, 60, "segment a", "segment b")
            progress.running([status("a", files_left=4)])
            logging.getLogger().warning("from elsewhere")
            read(progress, users=500)
        logging.getLogger().removeHandler(other)
    shown = terminal.getvalue()
    assert "Waiting for Braze since 60 s: segment a, segment b" in shown
    assert re.search(r"Read 1 of 4 files, 500 users, 500 a second, 3.0 s left \[#+ +\]", shown)
    assert re.search(r"(^|\r *\r)from elsewhere\n", shown)
    assert shown.endswith("\r")
    assert caplog.messages == ["from elsewhere"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (75, "75 s"),
        (120, "2 min"),
        (719, "12 min"),
        (7199, "2 h 0 min"),
        (11_100, "3 h 5 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
