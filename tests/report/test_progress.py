"""Progress: at most one log line every ten seconds, and where the seconds of a run went."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from typing import Any

import pytest

from tap_braze_export.report.export_status import ExportStatus, ReadSoFar, status_line
from tap_braze_export.report.progress import Progress
from tap_braze_export.report.units import duration
from tests.support.fakes import FakeClock

LOGGER = logging.getLogger("test-progress")


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def export(name: str, **facts: Any) -> ExportStatus:
    """An export of a segment, requested when the fake clock begins."""
    return ExportStatus(export_id=name, name=f"segment {name}", waits_since=FakeClock().elapsed, **facts)


def test_log_lines_come_at_most_every_ten_seconds(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(clock, LOGGER)
    progress.files_left = 30
    for _ in range(30):
        clock.sleep(1)
        progress.read("a", users=100, seconds=1, waited=0)
    assert caplog.messages == [
        "Read 10 of 30 files, 1,000 users, 100 a second, 20 s left",
        "Read 20 of 30 files, 2,000 users, 100 a second, 10 s left",
        "Read 30 of 30 files, 3,000 users, 100 a second",
    ]


def test_waiting_names_three_exports(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each further ten seconds, with the time since the first request."""
    progress = Progress(clock, LOGGER)
    since = clock.monotonic()
    for _ in range(25):
        clock.sleep(1)
        progress.running(export(name) for name in "abcd")
        progress.waiting(since)
    assert caplog.messages == ["Waiting for Braze since 10 s: a, b, c, …", "Waiting for Braze since 20 s: a, b, c, …"]


def test_an_export_that_braze_is_at_is_told_before_quiet_ones(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While one of several still has to come from Braze, the run waits for Braze."""
    progress, since = Progress(clock, LOGGER), clock.monotonic()
    progress.running([export("a", quiet_until=since + 600), export("b")])
    clock.sleep(10)
    progress.waiting(since)
    progress.waited(10)
    progress.running([export("a", quiet_until=since + 600)], not_started=1)
    clock.sleep(10)
    progress.waiting(since, ["segment b"])
    progress.waited(10)
    assert caplog.messages == ["Waiting for Braze since 10 s: b", "Waiting for Braze since 20 s: segment b"]
    assert progress.seconds_quiet == 0


@pytest.mark.parametrize(
    ("received", "expected", "told"),
    [(15_200_000, 38_000_000, "15 of 38 MB"), (300_000, 4_000_000, "0.3 of 4.0 MB"), (2_000_000, 0, "2.0 MB so far")],
)
def test_download_under_way_is_reported_by_its_bytes(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, received: int, expected: int, told: str
) -> None:
    progress = Progress(clock, LOGGER)
    for _ in range(15):
        clock.sleep(1)
        progress.running([export("a", received=received, expected=expected)])
        progress.downloading()
    assert caplog.messages == [f"Downloading {told}: a"]


def test_the_pace_leaves_out_the_time_that_the_loader_took(clock: FakeClock) -> None:
    """Users a second are the tap's own; the loader's time stands beside it, and what is left was spent waiting."""
    progress = Progress(clock, LOGGER)
    assert progress.pace() == "0.0 s reading, 0.0 s waiting for the loader"
    progress.read("a", users=1000, seconds=12, waited=2)
    clock.sleep(60)
    assert progress.pace() == "10 s reading (100 users a second), 2.0 s waiting for the loader"
    assert progress.seconds == 60
    assert progress.seconds_waiting == 48


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_instead_of_log_lines(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """It has the same facts; what others log meanwhile stands on lines of its own."""
    since = clock.monotonic()
    with contextlib.redirect_stderr(Terminal()) as terminal:
        other = logging.StreamHandler(terminal)
        logging.getLogger().addHandler(other)
        with Progress(clock, LOGGER) as progress:
            progress.waiting(since, ["segment a", "segment b"])
            clock.sleep(60)
            progress.waiting(since, ["segment a", "segment b"])
            progress.files_left = 4
            logging.getLogger().warning("from elsewhere")
            progress.read("a", users=500, seconds=1, waited=0)
        logging.getLogger().removeHandler(other)
    shown = terminal.getvalue()
    assert "Waiting for Braze since 60 s: segment a, segment b" in shown
    assert "Read 1 of 4 files, 500 users, 500 a second, 3.0 s left" in shown
    assert re.search(r"(^|\r *\r)from elsewhere\n", shown)
    assert shown.endswith("\r")
    assert caplog.messages == ["from elsewhere"]


SEGMENT = "7be1c3f0-52b1-4c19-9d26-0f6a4a2d8f11"


@pytest.mark.parametrize(
    ("facts", "files_read", "line", "share"),
    [
        ({}, 0, "waiting for Braze, 12 min", None),
        ({"waits_for_space": True}, 0, "waiting for room on the disk of spool_dir", None),
        ({"received": 4_000_000}, 0, "downloading 4.0 MB so far, 0.3 MB/s", None),
        ({"expected": 38_000_000}, 0, "downloading 38 MB", None),
        (
            {"received": 4_000_000, "expected": 40_000_000},
            0,
            "downloading 4.0 of 40 MB, 0.3 MB/s, 2 min left",
            0.1,
        ),
        ({"files_left": 40}, 0, "0 of 40 files", 0.0),
        ({"files_left": 30}, 10, "10 of 40 files, 50,000 users, 5,000/s, 30 s left", 0.25),
        ({"received": 10, "files_left": 30}, 10, "10 of 40 files, 50,000 users, 5,000/s, 30 s left", 0.25),
        ({}, 10, "10 of 10 files so far, 50,000 users, 5,000/s", None),
        ({"quiet_until": FakeClock().elapsed + 1020}, 10, "10 files, quiet, ends in 5 min (settle_minutes)", None),
        ({"quiet_until": FakeClock().elapsed + 700}, 10, "10 files, quiet, ends in 0.0 s (settle_minutes)", None),
    ],
)
def test_the_line_of_an_export(facts: dict[str, Any], files_read: int, line: str, share: float | None) -> None:
    """Twelve minutes after its request, ten seconds after the first of its bytes."""
    status, read = export("a", **facts), ReadSoFar()
    read.receives(1_000_000 if status.received else 0, status.waits_since + 710)
    read.receives(status.received, status.waits_since + 720)
    for _ in range(files_read):
        read.add(5_000, 1.0, 0.0)
    assert status_line(status, read, status.waits_since + 720) == (line, share)


def test_a_transfer_that_begins_anew_has_a_new_speed() -> None:
    read = ReadSoFar()
    for second, received in enumerate([0, 1_000_000, 9_000_000, 2_000_000, 3_000_000]):
        read.receives(received, FakeClock().elapsed + second)
    line, _ = status_line(export("a", received=3_000_000), read, FakeClock().elapsed + 4)
    assert line == "downloading 3.0 MB so far, 1.0 MB/s"


def test_of_many_exports_four_have_lines(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are counted, those that are not started among them; a usual id fits 80 columns, with its beginning."""
    monkeypatch.setenv("TERM", "xterm")
    with contextlib.redirect_stderr(Terminal()) as terminal, Progress(clock, LOGGER) as progress:
        assert progress.longest_wait == 1
        progress.running([export(f"{number}{SEGMENT}", files_left=400) for number in range(6)], not_started=3)
        for number in range(6):
            progress.read(f"{number}{SEGMENT}", users=1_234_567, seconds=100, waited=0)
        shown = terminal.getvalue().replace("\x1b[A", "").replace("\n", "\r")
    last = [line for line in shown.split("\r") if line.strip()][-5:]
    label, facts = "7be1c3f0-52b1-4c...", "1 of 400 files, 1,234,567 users, 12,346/s, 11 h 5 min left"
    assert [line.partition(" [")[0].rstrip() for line in last] == [
        *[f"{number}{label}  {facts}"[:80] for number in range(4)],
        "and 5 more",
    ]
    assert max(map(len, last)) <= 80


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
