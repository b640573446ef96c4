"""A loader that fails after the tap has ended: the next run of the pipe starts no export, and loads every row."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.night import at_night
from tests.support.runs import COMMAND, SECONDS, Output, environment, settings, written
from tests.support.steps import posts

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.slow

TARGET = Path(__file__).parents[1] / "support" / "failing_target.py"
BEFORE = {"bookmarks": {"export_files": {"version": 1, "exports": [], "resync": []}}}
"""The STATE that the loader has confirmed before."""


@dataclass
class Pipe:
    """The tap piped into a target that keeps what it loads in a folder, with the last STATE that it has confirmed."""

    folder: Path
    config: Mapping[str, Any]

    def run(self, *, loader_fails: bool) -> str:
        """Run both to their ends; returns the tap's log."""
        arguments = ["--config", written(self.folder, self.config)]
        if (state := self.folder / "state.json").exists():
            arguments += ["--state", str(state)]
        with (self.folder / "log").open("wb") as log:
            tap = subprocess.Popen(
                [COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
            )
            assert tap.stdout
            target = subprocess.run(
                [sys.executable, str(TARGET), str(self.folder), *(["fails"] if loader_fails else [])],
                stdin=tap.stdout,
                env=environment(),
                timeout=SECONDS,
                check=False,
            )
            tap.stdout.close()
            assert (tap.wait(SECONDS), target.returncode) == (0, int(loader_fails))
        return (self.folder / "log").read_text("utf-8")

    def loaded(self) -> dict[str, set[str]]:
        """The users that were loaded, by the time of their export."""
        output = Output((self.folder / "loaded.jsonl").read_bytes())
        rows = batches.jsonl(output)["users"] if output.of_type("BATCH") else output.rows("users")
        exported_at = {row["exported_at"] for row in rows}
        return {at: {row["braze_id"] for row in rows if row["exported_at"] == at} for at in exported_at}


@pytest.mark.parametrize(
    "mode", at_night(["URL", "bucket", "BATCH", "BATCH, bucket", "BATCH, processes"], but=["BATCH, bucket"])
)
@pytest.mark.fault(
    "Loader and signals",
    "a loader that fails after the tap has ended",
    "the same rows in the next run, without another export",
)
def test_loader_that_fails_after_the_tap_has_ended(tmp_path: Path, mode: str) -> None:
    """The next run reads its export again; the one after that finds it confirmed, and starts another."""
    bucket: dict[str, Any] = {"bucket_url": str(tmp_path / "bucket")} if "bucket" in mode else {}
    (tmp_path / "bucket").mkdir()
    more: dict[str, Any] = bucket | {"settle_minutes": 0, "poll_interval_seconds": 1}
    if "BATCH" in mode:
        more["batch_config"] = batches.config(tmp_path / "batches")
    if "processes" in mode:
        more["workers"] = 2
    everybody = {f"b{number}" for number in range(600)}
    with Sandbox(users_per_file=100, delay=0, **bucket) as sandbox:
        sandbox.add_segment("all-users", [{"braze_id": braze_id} for braze_id in everybody])
        pipe = Pipe(tmp_path, settings(sandbox, tmp_path, **more))
        written(tmp_path, BEFORE, "state.json")
        logs = [pipe.run(loader_fails=True), pipe.run(loader_fails=False)]
        assert posts(sandbox) == [201]
        logs.append(pipe.run(loader_fails=False))
        assert posts(sandbox) == [201] * 2
    assert ["is read again, without a new one" in log for log in logs] == [False, True, False]
    loaded = pipe.loaded()
    assert len(loaded) == 2
    assert all(users == everybody for users in loaded.values())
