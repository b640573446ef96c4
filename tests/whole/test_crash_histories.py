"""Random histories of kills, failing loaders and damage: the target has the truth after the next undisturbed night."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.histories import MODES, History, HistoryClock
from tests.support.incremental_histories import IncrementalHistory
from tests.support.killed_runs import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HISTORIES = int(os.environ.get("CRASH_HISTORIES", "1"))
"""Histories of each mode."""
FIRST = int(os.environ.get("CRASH_FIRST", "0"))
"""The first one's number."""
KIND = os.environ.get("CRASH_KIND", "")
"""For histories of one of `KINDS` alone; otherwise the seed draws it."""
KINDS = {"full": History, "incremental": IncrementalHistory}
CASES = [
    pytest.param(mode, fingerprints, id=f"{mode}, {'fingerprints' if fingerprints else 'plain'}")
    for mode in MODES
    for fingerprints in (True, False)
    if not (fingerprints and mode == "resync")  # which skips nobody
]


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runner, Runner]]:
    """Two makers of runs."""
    folder = tmp_path_factory.mktemp("runs")
    with Runner(folder / "first") as first, Runner(folder / "second") as second:
        yield first, second


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "fingerprints"), CASES)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
@pytest.mark.fault(
    "Loader and signals",
    "runs that are killed between any two steps, loaders that confirm late or never",
    "the target has the truth after the next run",
)
def test_the_target_has_the_truth(
    tmp_path: Path, runners: tuple[Runner, Runner], mode: str, seed: int, *, fingerprints: bool
) -> None:
    """After the next undisturbed night; no export is started twice, and no file is emitted again that STATE covers."""
    kind = KIND or random.Random(f"{mode} {fingerprints} {seed}").choice([*KINDS])
    options: dict[str, Any] = {"empty_polls": seed % 3}
    if mode == "bucket":
        (tmp_path / "bucket").mkdir()
        options = {"bucket_url": str(tmp_path / "bucket"), "delay": 0.005 * (seed % 2) * (kind == "full")}
    with Sandbox(users=0, clock=HistoryClock(), ids_limit=250_000, **options) as braze:
        history = KINDS[kind](seed, mode, braze, tmp_path, runners, fingerprints=fingerprints)
        for night in range(history.nights):
            if night:
                history.change()
            if history.random.random() < 0.5:
                history.disturb()
            for _ in range(history.random.randint(1, 3)):
                history.attempt()
            if night == history.nights - 1 or history.random.random() < 0.5:
                history.finish()
        history.quiet_night()
