"""`meltano config test` runs the tap until its first RECORD: that costs no export, or the next run adopts it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.night import at_night
from tests.support.runs import COMMAND, SECONDS, Ended, command, environment, settings, written

if TYPE_CHECKING:
    from pathlib import Path

MELTANO = """
import subprocess, sys
tap = subprocess.Popen(sys.argv[sys.argv.index("--") + 1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
for line in tap.stdout:
    sys.stdout.buffer.write(line)
    if line.startswith(b'{"type":"RECORD"'):
        tap.terminate()
        break
tap.wait()
"""
"""What Meltano 4 does: log and messages through one pipe, and the end at the first RECORD message."""

pytestmark = pytest.mark.sandbox(users=12, odd_users=False)


def called(sandbox: Sandbox, folder: Path, *words: str, **more: Any) -> list[str]:
    """Have a stand-in for Meltano with these words in its command line call the tap; the lines that it read."""
    meltano = folder / "bin" / "meltano"
    meltano.parent.mkdir(exist_ok=True)
    meltano.write_text(MELTANO, encoding="utf-8")
    tap = [COMMAND, "--config", written(folder, settings(sandbox, folder, poll_interval_seconds=1, **more))]
    done = subprocess.run(
        [sys.executable, str(meltano), *words, "--", *tap],
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
        check=True,
    )
    return done.stdout.decode().splitlines()


def requested(sandbox: Sandbox) -> list[str]:
    """The calls that started exports."""
    return [call.path for call in sandbox.calls if call.method == "POST"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    at_night(
        [
            "config test tap-braze-export",
            "--environment=prod config --no-install test tap-braze-export",
            "config tap-braze-export test",
        ],
        but=["--environment=prod config --no-install test tap-braze-export"],
    ),
)
def test_it_costs_no_export(sandbox: Sandbox, tmp_path: Path, words: str) -> None:
    """It gets the checklist of --test, a line that says so, and the record that it waits for."""
    lines = called(sandbox, tmp_path, *words.split())
    assert json.loads(lines[-1])["type"] == "RECORD"
    assert not requested(sandbox)
    assert len([line for line in lines if "starts no export" in line]) == 1
    assert [line for line in lines if line.endswith("API key: works")]


@pytest.mark.slow
def test_settings_that_fail_the_checks(sandbox: Sandbox, tmp_path: Path) -> None:
    """Meltano shows the last line: it is the error, and no record is there that would call the settings good."""
    lines = called(sandbox, tmp_path, "config", "test", "tap-braze-export", segment_ids=["gone"])
    assert "Segment gone: " in lines[-1]
    assert "ERROR" in lines[-1]
    assert not [line for line in lines if '"RECORD"' in line]


@pytest.mark.slow
def test_other_calls_start_the_export_that_they_ask_for(sandbox: Sandbox, tmp_path: Path) -> None:
    """`meltano invoke` with log and messages in one pipe is a run; a line says that it is one."""
    lines = called(sandbox, tmp_path, "invoke", "tap-braze-export")
    assert requested(sandbox) == ["/users/export/segment"]
    assert len([line for line in lines if "it starts a real export" in line]) == 1


@pytest.mark.slow
def test_the_next_run_adopts_the_export_of_a_test(tmp_path: Path) -> None:
    """Where the caller cannot be noticed, what it started is read by the next run: no second export is requested."""
    with Sandbox(users=2000, odd_users=False, users_per_file=100) as sandbox:
        called(sandbox, tmp_path, "invoke", "tap-braze-export")
        ended: Ended = command("--config", str(tmp_path / "config.json"))
        assert requested(sandbox) == ["/users/export/segment"]
    assert ended.code == 0, ended.stderr
    assert "Continuing export" in ended.stderr
    assert ended.counts["users"] == 2000


def test_a_usual_run_says_nothing_of_tests(sandbox: Sandbox, tmp_path: Path) -> None:
    """Messages and log in pipes of their own, as every pipeline has them."""
    ended = command("--config", written(tmp_path, settings(sandbox, tmp_path)))
    assert "test" not in ended.stderr
    assert ended.counts["users"] == 12
