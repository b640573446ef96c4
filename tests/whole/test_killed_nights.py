"""A night that is killed at every step in turn: the target never lacks a change."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.killed_runs import Runner
from tests.support.model_loader import ModelLoader
from tests.support.night import at_night
from tests.support.nights import Nights, user

if TYPE_CHECKING:
    from pathlib import Path

STRIDE = int(os.environ.get("KILL_STRIDE", "29"))
"""Steps between two kills: 1 for every step."""
FEWEST_STEPS = 40
"""A night has more steps than this."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("confirms", "keeps_spool"),
    at_night([(True, True), (True, False), (False, True), (False, False)], but=[(True, True), (False, False)]),
)
@pytest.mark.fault("Loader and signals", "kill -9 at any step of a run with fingerprints", "no change is lost")
def test_killed_at_every_step(tmp_path: Path, *, confirms: bool, keeps_spool: bool) -> None:
    """Berlin is confirmed; a night with Paris is killed and all that it wrote is loaded; then it is Berlin again."""
    with Sandbox(users=0) as braze, Runner(tmp_path / "runs") as runner:
        nights = Nights(braze, tmp_path / "first", poll_interval_seconds=1)
        before, now = ([[user("a", city), user("b")], [user("c", city)]] for city in ("Berlin", "Paris"))
        config = {**nights.config, "segment_ids": ["s"]}
        braze.add_segment("s", files=before)
        first = runner.run(config, nights.catalog, None)
        for step in itertools.count(0, STRIDE):
            folder = tmp_path / f"step {step}"
            shutil.copytree(tmp_path / "first", folder)
            here = {**config, "spool_dir": str(folder / "spool"), "fingerprints_url": str(folder / "fingerprints")}
            loader = ModelLoader()
            loader.read_all(first)
            braze.add_segment("s", files=now)
            killed = runner.run(here, nights.catalog, loader.state, steps=step)
            loader.read_all(killed, confirms=confirms)
            if not keeps_spool:
                shutil.rmtree(folder / "spool", ignore_errors=True)
            braze.add_segment("s", files=before)
            for _ in range(2):  # the first one may continue the export with Paris
                output = runner.run(here, nights.catalog, loader.state)
                assert output.code == 0, output.log
                loader.read_all(output)
            cities = {row["braze_id"]: row["home_city"] for row in loader.current("users")}
            assert cities == {"a": "Berlin", "b": "Berlin", "c": "Berlin"}, f"killed at step {step}"
            if killed.code == 0:
                break
        assert step > FEWEST_STEPS
