"""A run on a terminal of 80 columns: one line that changes, below a log of short lines."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.report.facts import RunFacts
from tap_braze_export.report.progress import ExportStatus, Progress
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.reports import export
from tests.support.runs import settings, written
from tests.support.screens import COLUMNS, Screen, on_terminal

if TYPE_CHECKING:
    from pathlib import Path

LOG_LINE = r"\d\d:\d\d:\d\d (WARNING: )?(tap-braze-export v|Requested |Done in |\w+\.zip is not fetched yet: )"
TABLE_LINE = r"  (\d.* reading|retries|export|segment|stream|\w+:?) .*"
SECONDS = r"\d+(\.\d)? s"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tells_size", "variables"),
    [(True, {"TERM": "xterm"}), (False, {"TERM": "dumb", "LC_ALL": "C"})],
    ids=["usual", "dumb"],
)
def test_a_line_says_what_the_run_does(tmp_path: Path, tells_size: bool, variables: dict[str, str]) -> None:  # noqa: FBT001
    """It waits, downloads and reads, in ASCII on any terminal; at the end log and table are all that is left."""
    with Sandbox(users=600, users_per_file=60, delay=0.5, faults=["slow-download", "connection-reset"]) as sandbox:
        config = settings(
            sandbox, tmp_path, segment_ids=["all-users", "vip-users"], concurrent_exports=2, poll_interval_seconds=1
        )
        screen, code = on_terminal(["--config", written(tmp_path, config)], tells_size=tells_size, **variables)
    assert code == 0
    assert not screen.escapes
    lines = {line for state in screen.states for line in state.splitlines()}
    for line in (
        f"Waiting for Braze since {SECONDS}: .*",
        r"Downloading [\d.]+ of [\d.]+ MB: .* \[#* *\]",
        rf"Read \d of \d+ files, [\d,]+ users, [\d,]+ a second, {SECONDS} left \[#* *\]",
    ):
        assert [shown for shown in lines if re.fullmatch(line, shown)], line
    assert_lines_stand_alone(screen)


@pytest.mark.parametrize("others", ["short\n", f"{'long ' * 30}end\n", f"{'x' * 60}\ny\n"])
def test_a_loader_with_the_same_terminal_has_lines_of_its_own(others: str) -> None:
    """Its text begins where a line begins, and the tap's line stands below it with nothing else beside it."""
    screen, clock = Screen(), FakeClock()
    with contextlib.redirect_stderr(screen), Progress(RunFacts(clock), clock, logging.getLogger("x")) as progress:
        with progress.waiting(clock.elapsed, ["an export whose name is longer than the line that comes after it"]):
            screen.write(others)
        progress.running([ExportStatus(export=export(), received=1_000_000, expected=4_000_000)])
        progress.downloading()
        shown = screen.text.splitlines()
    assert re.fullmatch(r"Downloading 1.0 of 4.0 MB: export-1 \[#+ +\]", shown[-1])
    for line in others.splitlines():
        assert [beginning for beginning in shown[:-1] if beginning.startswith(line[:COLUMNS].rstrip())]


def assert_lines_stand_alone(screen: Screen) -> None:
    """Check that at the end nothing but whole log lines is there, the table last."""
    log = screen.text.splitlines()
    table = next(number for number, line in enumerate(log) if " Done in " in line)
    assert len(log) - table <= 22
    assert [line for line in log[table + 1 :] if not re.fullmatch(TABLE_LINE, line)] == []
    wrapped = re.sub(r"(?m)^(.{80})\n", r"\1", "\n".join(log[:table]) + "\n")
    assert [line for line in wrapped.splitlines() if not re.match(LOG_LINE, line)] == []


OWN_FORMAT = """
version: 1
formatters: {own: {format: "own %(levelname)s %(message)s"}}
handlers: {own: {class: logging.StreamHandler, formatter: own, stream: ext://sys.stderr}}
root: {level: INFO, handlers: [own]}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "beginning"), [("", r"\d\d:\d\d:\d\d ERROR: "), (OWN_FORMAT, "own ERROR ")], ids=["usual", "own"]
)
def test_a_format_that_was_chosen_stays(tmp_path: Path, chosen: str, beginning: str) -> None:
    """Only the SDK's default one is shortened; the level of an error is named."""
    variables = {}
    if chosen:
        (tmp_path / "log.yml").write_text(chosen)
        variables["SINGER_SDK_LOG_CONFIG"] = str(tmp_path / "log.yml")
    screen, code = on_terminal(["--config", "none.json"], tells_size=True, **variables)
    assert code == 1
    assert re.match(f"{beginning}--config: none.json cannot be read", screen.text)
