"""A run on a terminal of 80 columns: a line for each running export, below a log of short lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.report.terminal import Terminal
from tap_braze_export.sandbox import Sandbox
from tests.support.runs import settings, written
from tests.support.screens import COLUMNS, Screen, on_terminal

if TYPE_CHECKING:
    from pathlib import Path

LOG_LINE = r"\d\d:\d\d:\d\d (WARNING: )?(tap-braze-export v|Requested |Done in |\w+\.zip is not fetched yet: )"
TABLE_LINE = r"  (\d.* reading|retries|export|segment|stream|\w+:?) .*"
SECONDS = r"\d+(\.\d)? s"
RATE = r"[\d,]+ users, [\d,]+/s"


def run(folder: Path, *, tells_size: bool = True, **variables: str) -> Screen:
    """A terminal after a run of two exports at a time, whose downloads first break and are slow then."""
    with Sandbox(users=600, users_per_file=60, delay=0.5, faults=["slow-download", "connection-reset"]) as sandbox:
        config = settings(
            sandbox, folder, segment_ids=["all-users", "vip-users"], concurrent_exports=2, poll_interval_seconds=1
        )
        screen, code = on_terminal(["--config", written(folder, config)], tells_size=tells_size, **variables)
    assert code == 0
    return screen


@pytest.mark.slow
def test_each_export_has_a_line(tmp_path: Path) -> None:
    """It waits, comes and is read, the other one at the same time; at the end log and table are all that is left."""
    screen = run(tmp_path, TERM="xterm")
    lines = {line for state in screen.states for line in state.splitlines()}
    phases = (
        f"waiting for Braze, {SECONDS}",
        rf"downloading [\d.]+ of [\d.]+ MB, [\d.]+ MB/s, {SECONDS} left \[#* *\]",
        rf"\d of \d+ files, {RATE}, {SECONDS} left \[#* *\]",
    )
    for phase in phases:
        assert [line for line in lines if re.fullmatch(f"all-users  {phase}", line)], phase
    both = [state for state in screen.states if "\nall-users  " in state and "\nvip-users  " in state]
    assert [state for state in both if state.count("waiting for Braze, ") == 2]
    assert_lines_stand_alone(screen)


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"TERM": "dumb", "LC_ALL": "C"}, {"TERM": "dumb", "NO_COLOR": "1"}])
def test_a_terminal_that_only_knows_the_return_of_its_carriage_has_one_line(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    """And no other signs than ASCII, nor a size that it tells."""
    screen = run(tmp_path, tells_size=False, **variables)
    lines = {line for state in screen.states for line in state.splitlines()}
    assert not screen.escapes
    assert [line for line in lines if re.match(f"Waiting for Braze since {SECONDS}: ", line)]
    assert [line for line in lines if re.match(rf"Read \d of \d+ files, {RATE[:-2]} a second", line)]
    assert_lines_stand_alone(screen)


@pytest.mark.parametrize("others", ["short\n", f"{'long ' * 30}end\n", f"{'x' * 60}\ny\n"])
def test_a_loader_with_the_same_terminal_has_lines_of_its_own(others: str) -> None:
    """Its text begins where a line begins, and the lines stand below it with nothing else beside them."""
    screen = Screen()
    with Terminal(screen) as terminal:
        terminal.show([("waiting", None), ("waiting, and longer than the line above it", None)])
        screen.write(others)
        terminal.show([("another", None), ("second", 0.25)])
        shown = screen.text.splitlines()
    assert shown[-2] == "another"
    assert re.fullmatch(r"second \[#+ +\]", shown[-1])
    for line in others.splitlines():
        assert [beginning for beginning in shown[:-2] if beginning.startswith(line[:COLUMNS].rstrip())]


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
