"""Standard output that is closed, full or not read: one line at most, and the exit code says it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.night import at_night
from tests.support.runs import COMMAND, SECONDS, environment, settings, written

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

TOLD = {"closed": "Bad file descriptor", "full": "No space left on device"}
REDIRECTIONS = {"closed": ">&-", "full": ">/dev/full"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A configuration for a Braze whose export is larger than any buffer."""
    folder = tmp_path_factory.mktemp("run")
    with Sandbox(users=2_000, odd_users=False) as sandbox:
        yield written(folder, settings(sandbox, folder))


def ended(arguments: list[str], redirections: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a shell starts it."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {redirections}', COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize("output", TOLD)
@pytest.mark.parametrize("argument", at_night(["--config", "--discover", "--about"], but=["--config"]))
@pytest.mark.fault("Loader and signals", "standard output that is closed or full", "one line, exit 1")
def test_output_that_cannot_be_written_is_one_line(config: str, argument: str, output: str) -> None:
    """Also where Python itself would tell it, with a traceback and exit code 120."""
    arguments = [argument, config] if argument == "--config" else [argument]
    done = ended(arguments, REDIRECTIONS[output])

    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].partition("standard output")[2] == (
        f" cannot be written ({TOLD[output]}): run again with an output that works, the next run continues from the"
        " last STATE"
    )
    assert done.stderr.count(b"| ERROR ") == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_checks_need_no_output(config: str) -> None:
    """Their checklist goes to standard error."""
    done = ended(["--config", config, "--test"], ">&-")

    assert done.returncode == 0
    assert b"API key: works" in done.stderr


@pytest.mark.parametrize("redirections", at_night(["2>&-", "<&-", "<&- 2>&-"], but=["<&- 2>&-"]))
@pytest.mark.fault("Loader and signals", "standard error or standard input that is closed", "the same rows")
def test_a_run_needs_neither_input_nor_log(config: str, redirections: str) -> None:
    """The files that it opens instead of them do not get what is written to them."""
    done = ended(["--config", config], redirections)

    assert done.returncode == 0
    assert done.stdout.count(b'"stream":"users"') >= 2_000
    assert b"INFO" not in done.stdout


@pytest.mark.parametrize("argument", ["--config", "--about"])
def test_pipe_that_nobody_reads_ends_it_quietly(config: str, argument: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [COMMAND, *([argument, config] if argument == "--config" else [argument])],
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert b"ERROR" not in done.stderr
    assert b"Traceback" not in done.stderr
