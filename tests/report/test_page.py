"""The page of a run shows its facts, whatever names they hold, without scripts and without profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import TapError
from tap_braze_export.report.facts import BEGUN, READY, REQUESTED, RunFacts
from tap_braze_export.report.history import PastRun
from tap_braze_export.report.page import Ending, render_checks, render_run
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.pages import Page, in_browser
from tests.support.reports import emit, export

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.export import Export


HOSTILE = '</script><script src="//x.example">alert(1)</script><img src=x onerror=alert(1)>"\'&\u202e\x07'
START = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def facts(of: Export | None = None, clock: FakeClock | None = None) -> RunFacts:
    """A run of one export: ready after 60 seconds, read from 70 on, done after 90 seconds."""
    clock, of = clock or FakeClock(START), of or export()
    found = RunFacts(clock, compares=True)
    clock.sleep(2)
    for _ in range(60):
        found.reached(REQUESTED, [of])
        clock.sleep(1)
    found.reached(READY, [of])
    clock.sleep(10)
    found.reached(BEGUN, [of])
    for _ in range(20):
        clock.sleep(1)
        found.emitted(100)
    emit(found, of, lines=2003, users=2000, duplicates=1, unchanged=1234, rejected=2)
    for _ in range(2):
        emit(found, of)
    emit(found, of, seconds=22, blocked=2, misses=3, rescued={"users": 7})
    found.finish({"users": 766, "devices": 1503})
    found.retries = 5
    found.peak_memory = 123_400_000
    return found


def nothing(*, lines: int = 0) -> RunFacts:
    """A run that read nothing, or only some lines."""
    found = RunFacts(FakeClock(START))
    if lines:
        emit(found, lines=lines, users=lines)
    return found


def test_the_numbers_of_a_run() -> None:
    """Figures, streams, rescued members, rejected lines and times; next to each other, the facts and what is read."""
    found = facts()
    found.rescued_members.update({("users", "new_field"): 5, ("users", ""): 2, ("devices", "os"): 1})
    found.rejected("a.zip!0-x.txt", 2, [17, 19])
    page = Page(render_run(Ending(), found, resync=False))
    assert page.figures == {
        "users": "2,000",
        "unchanged users": "1,234",
        "rows": "2,269",
        "files": "4",
        "users a second of reading": "100",
        "retries": "5",
        "peak memory": "123 MB",
        "lines": "2,003",
        "duplicates": "1",
        "unchanged": "1,234",
        "rejected": "2",
    }
    assert page.row("users") == ["766", "7"]
    assert page.row("devices") == ["1,503", "0"]
    assert page.row("new_field") == ["users", "5"]
    assert page.row("os") == ["devices", "1"]
    assert page.row("other members") == ["users", "2"]
    assert page.row("a.zip!0-x.txt") == ["2", "17, 19"]
    for text in (
        "Began 2027-01-15 08:00:00 UTC · took 92 s",
        "waiting for Braze: 70 s",
        "reading and writing: 20 s",
        "waiting for the loader: 2.0 s",
        "requested 2027-01-15 08:00:02",
        "ready after 60 s",
        "reading began after 70 s",
        "done after 90 s",
        "from 2027-01-15 08:00:00 to 2027-01-15 08:01:32",
        "Users a second of the whole run, averaged, waits included: at most 100",
        "duplicates: 1 of 2,003 lines",
        "unchanged: 1,234 of 2,000 users were skipped",
        "misses: 3 identifiers matched nobody",
        "rescued: rows with values that fit no column",
        "No page of an earlier run",
    ):
        assert text in page.text, text
    assert page.facts == {
        "kind": "run",
        "version": 1,
        "started_at": "2027-01-15T08:00:00.000000Z",
        "outcome": "done",
        "resync": False,
        "seconds": 92.0,
        "seconds_waiting": 70.0,
        "users": 2000,
        "unchanged": 1234,
        "rows": 2269,
        "rescued": 7,
        "rejected": 2,
        "memory": 123_400_000,
    }


def test_the_bar_of_an_export_has_its_steps() -> None:
    """Of 1,000 units for 92 seconds: 60 seconds of waiting from the second one on, 10 ready, 20 of reading."""
    html = render_run(Ending(), facts(), resync=False)
    start = html.index("Timeline of")
    bar = html[start : html.index("</svg>", start)]
    assert [line.strip() for line in bar.splitlines() if "<rect" in line] == [
        '<rect class="waiting" x="21.7" y="0" width="652.2" height="10"/>',
        '<rect class="queued" x="673.9" y="0" width="108.7" height="10"/>',
        '<rect class="reading" x="782.6" y="0" width="217.4" height="10"/>',
    ]


def test_names_are_text_whatever_they_hold() -> None:
    """Of segments, exports, files, members and errors: no element, attribute or control character comes of them."""
    plain = Page(render_run(Ending("failed", "x"), facts(), resync=False))
    hostile = facts(export(HOSTILE, HOSTILE))
    hostile.rejected(HOSTILE, 2, [1])
    hostile.rescued_members["users", HOSTILE] = 1
    page = Page(render_run(Ending("failed", HOSTILE), hostile, resync=False))
    assert page.tags == plain.tags
    assert page.html.count("<script") == 1
    assert not {*page.html} & {"\u202e", "\x07"}
    assert 'alert(1)</script><img src=x onerror=alert(1)>"' in page.text
    checks = Page(render_checks(Ending("failed", HOSTILE), START, 1.0, [("works", HOSTILE, "works", HOSTILE)]))
    assert checks.html.count("<script") == 0
    assert "img" not in checks.tags


def test_a_page_stays_small() -> None:
    """Names are cut off, and long lists end with the number of the others."""
    found = facts()
    for number in range(1000):
        found.rejected(f"{number}-{'x' * 5000}", 20, [*range(10)])
        found.reached(READY, [export(f"export-{number}", f"segment-{number % 500}")])
    found.rescued_members.update({("users", f"m{number}"): number for number in range(1, 101)})
    page = Page(render_run(Ending(), found, resync=False))
    assert len(page.html) < 500_000
    assert page.row("950 more files") == ["", ""]
    assert page.row("m100") == ["users", "100"]
    assert page.row("other members") == ["users", "2,485"]  # 1 to 70
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …" in page.text


@pytest.mark.parametrize(
    ("problem", "outcome", "error"),
    [
        (TapError("the bucket is gone"), "failed", "the bucket is gone"),
        (Interruption(), "stopped", ""),
        (BrokenPipeError(), "stopped", ""),
        (GeneratorExit(), "stopped", ""),
    ],
)
def test_how_a_run_ended(problem: BaseException, outcome: str, error: str) -> None:
    """A failure shows its ERROR line; a signal, or a loader that reads no more, only stops a run."""
    ending = Ending.of(problem, str)
    assert ending == Ending(outcome, error)
    page = Page(render_run(ending, facts(), resync=False))
    assert page.facts["outcome"] == outcome
    assert error in page.text


def test_a_run_that_read_nothing() -> None:
    """It has a page without charts of speed, and says that nothing was kept aside."""
    page = Page(render_run(Ending(), nothing(), resync=True))
    assert page.figures["users"] == "0"
    assert "Resync of Braze profiles" in page.text
    assert "Nothing: every line was read" in page.text


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (0, "Nothing, as the run ended before any line was read."),
        (5, "Nothing of the files that were read; the run ended before it had read all."),
    ],
)
def test_a_run_that_failed_does_not_say_that_every_line_was_read(lines: int, said: str) -> None:
    page = Page(render_run(Ending("failed", "x"), nothing(lines=lines), resync=False))
    assert said in page.text
    assert "every line was read" not in page.text


def test_earlier_runs_stand_below_this_one() -> None:
    earlier = PastRun(
        started_at="2027-01-14T08:00:00.000000Z",
        outcome="failed",
        resync=False,
        seconds=240,
        seconds_waiting=180,
        users=1,
        unchanged=2,
        rows=3,
        rescued=4,
        rejected=5,
        memory=6_000_000,
    )
    page = Page(render_run(Ending(), facts(), resync=False, earlier=[earlier]))
    assert page.row("2027-01-15 08:00:00 (this run)") == [
        "done",
        *("92 s", "70 s", "2,000", "1,234", "2,269", "7", "2", "123 MB"),
    ]
    assert page.row("2027-01-14 08:00:00") == ["failed", "4 min", "3 min", "1", "2", "3", "4", "5", "6.0 MB"]


def test_a_checklist() -> None:
    checks = [("works", "API key", "works", ""), ("fails", "Segment gone", "fails", "refused with 400")]
    page = Page(render_checks(Ending("failed", "Segment gone: refused with 400"), START, 1.25, checks))
    assert page.row("API key") == ["works", ""]
    assert page.row("Segment gone") == ["fails", "refused with 400"]
    assert "a check fails" in page.text
    assert "took 1.2 s" in page.text


@pytest.mark.external
@pytest.mark.parametrize("kind", at_night(["run", "checklist", "hostile"], but=["hostile"]))
def test_in_a_browser(tmp_path: Path, kind: str) -> None:
    """It shows its numbers, fits 400 and 1,400 pixels, asks for nothing and writes no error to the console."""
    long = "x" * 150
    if kind == "checklist":
        html = render_checks(Ending(), START, 1.0, [("unknown", long, "cannot be checked", long)])
        shown = ["cannot be checked", long]
    else:
        name = HOSTILE if kind == "hostile" else long
        found = facts(export(name, name))
        found.rejected(name, 2, [10**6] * 10)
        found.rescued_members["custom_events", "m" * 64] = 10**9
        earlier = PastRun(
            started_at="2027-01-14T08:00:00.000000Z",
            outcome="stopped",
            resync=False,
            seconds=10**6,
            seconds_waiting=10**6,
            users=10**10,
            unchanged=10**10,
            rows=10**11,
            rescued=10**9,
            rejected=10**7,
            memory=10**12,
        )
        html = render_run(Ending("failed", name), found, resync=False, earlier=[earlier])
        shown = ["2,000", "2,269", "1,503", "10,000,000,000", "1000000, 1000000"]
    seen = in_browser(html, tmp_path, widths=(400, 1400))
    assert seen.overflow == {400: 0, 1400: 0}
    for text in seen.texts.values():
        assert not [number for number in shown if number not in text]
    assert [line for line in seen.console if '"measured"' not in line] == []
    assert len(seen.console) == 1
    assert seen.requested == {"/", "/page.html"}
