"""Nights that are killed anywhere, into a target that loads and confirms what it likes: it never lacks a change."""

from __future__ import annotations

import copy
import itertools
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.killed_runs import KilledOutput, Runner
from tests.support.nights import STREAMS, Nights, Target, user
from tests.support.runs import Output, selecting, sync

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = int(os.environ.get("KILL_SEEDS", "2"))
"""Histories of each mode."""
STRIDE = int(os.environ.get("KILL_STRIDE", "11"))
"""Steps between two kills: 1 for every step."""
FEWEST_STEPS = 40
"""A night has more steps than this."""
CITIES = ("Berlin", "Paris")
MODES: dict[str, dict[str, Any]] = {
    "url": {},
    "processes": {"workers": 3},
    "bucket": {"settle_minutes": 0, "poll_interval_seconds": 1},
    "batch": {},
}


class History:
    """A random history of one pipeline.

    Args:
        seed: Decides everything.
        mode: One of `MODES`.
        braze: The sandbox.
        folder: Receives all files.
    """

    def __init__(self, seed: int, mode: str, braze: Sandbox, folder: Path, runner: Runner) -> None:
        self.random = random.Random(f"{mode}-{seed}")
        self.braze = braze
        self.runner = runner
        config: dict[str, Any] = {"poll_interval_seconds": 1, **MODES[mode]}
        if mode == "bucket":
            config["bucket_url"] = str(folder / "bucket")
        if mode == "batch":
            config["batch_config"] = batches.config(folder / "out")
        self.nights = Nights(braze, folder, **config)
        self.people = {f"u{number}": user(f"u{number}", self.random.choice(CITIES)) for number in range(12)}
        self.segment_of = {name: self.random.choice("ab") for name in self.people}
        self.told: list[str] = []

    def change(self) -> None:
        """Change some users, also back to what they were, and let some move, leave or return."""
        for name in self.random.sample([*self.people], 6):
            self.people[name] = user(name, self.random.choice(CITIES))
        for name in self.random.sample([*self.people], 2):
            self.segment_of[name] = self.random.choice("abx")
        for segment_id in "ab":
            members = [self.people[name] for name in self.people if self.segment_of[name] == segment_id]
            self.random.shuffle(members)
            middle = len(members) // 2
            self.braze.add_segment(segment_id, files=[members[:middle], members[middle:]])

    def night(self, *, steps: int | None) -> KilledOutput:
        """Run the command, killed after some steps; the target loads a part of it, and confirms a part of that."""
        nights = self.nights
        config = {**nights.config, "segment_ids": ["a", "b"]}
        output = self.runner.run(config, nights.catalog, nights.state, steps=steps)
        lines = output.stdout.splitlines(keepends=True)
        loaded = self.random.choice([len(lines), len(lines), self.random.randint(0, len(lines))])
        part = Output(b"".join(lines[:loaded]))
        load(nights.target, part)
        confirmed = self.random.choice([len(part.states), len(part.states), self.random.randint(0, len(part.states))])
        if confirmed:
            nights.state = part.states[confirmed - 1]
        self.told.append(f"code {output.code}, {loaded} of {len(lines)} lines loaded, {confirmed} STATEs confirmed")
        return output

    def resync(self) -> None:
        """Emit two users from another pipeline into the same target."""
        wanted = self.random.sample([*self.people], 2)
        config = {**self.nights.config, "spool_dir": str(self.nights.folder / "resync"), "braze_ids": wanted}
        load(self.nights.target, self.runner.run(config, self.nights.catalog, None))
        self.told.append(f"resync of {wanted}")

    def last_night(self) -> None:
        """Run to the end; everything is loaded and confirmed."""
        config = {**self.nights.config, "segment_ids": ["a", "b"]}
        for _ in range(2):  # the first one may continue an export of an earlier night
            output = self.runner.run(config, self.nights.catalog, self.nights.state)
            assert output.code == 0, output.log
            load(self.nights.target, output)
            self.nights.state = output.states[-1]

    def truth(self) -> Target:
        """The target of a pipeline that emits everybody."""
        config = {**self.nights.config, "segment_ids": ["a", "b"], "fingerprints_url": None, "batch_config": None}
        config["spool_dir"] = str(self.nights.folder / "truth")
        truth = Target()
        truth.load(sync(config, catalog=selecting(STREAMS)))
        return truth


@pytest.mark.slow
@pytest.mark.parametrize("keeps_spool", [True, False])
@pytest.mark.parametrize("confirms", [True, False])
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
            target, state = Target(), first.states[-1]
            load(target, first)
            braze.add_segment("s", files=now)
            killed = runner.run(here, nights.catalog, state, steps=step)
            load(target, killed)
            if confirms and killed.states:
                state = killed.states[-1]
            if not keeps_spool:
                shutil.rmtree(folder / "spool", ignore_errors=True)
            braze.add_segment("s", files=before)
            for _ in range(2):  # the first one may continue the export with Paris
                output = runner.run(here, nights.catalog, state)
                assert output.code == 0, output.log
                load(target, output)
                state = output.states[-1]
            cities = {row["braze_id"]: row["home_city"] for row in target.current("users")}
            assert cities == {"a": "Berlin", "b": "Berlin", "c": "Berlin"}, f"killed at step {step}"
            if killed.code == 0:
                break
        assert step > FEWEST_STEPS


def load(target: Target, output: Output) -> None:
    """Upsert the records of a run, and those of its batch files."""
    target.load(output)
    keys = {message["stream"]: message["key_properties"] for message in output.of_type("SCHEMA")}
    for stream, rows in batches.jsonl(output).items():
        for row in rows:
            target.tables.setdefault(stream, {})[tuple(row[name] for name in keys[stream])] = row


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("mode", MODES)
def test_the_target_never_lacks_a_change(tmp_path: Path, mode: str, seed: int) -> None:
    (tmp_path / "bucket").mkdir()
    options: dict[str, Any] = {"bucket_url": str(tmp_path / "bucket")} if mode == "bucket" else {}
    with Sandbox(users=0, **options) as braze, Runner(tmp_path / "runs") as runner:
        history = History(seed, mode, braze, tmp_path, runner)
        history.change()
        history.night(steps=None)
        for _ in range(4):
            history.change()
            if history.random.random() < 0.3:
                history.resync()
            if history.random.random() < 0.5:  # a spool_dir that does not outlive its container
                shutil.rmtree(tmp_path / "spool", ignore_errors=True)
            for _ in range(history.random.randint(1, 2)):
                history.night(steps=history.random.choice([None, *range(80)]))
        history.last_night()
        target, truth = history.nights.target, history.truth()
        emitted = {row["braze_id"] for row in truth.tables["users"].values()}

        for stream in ("users", "apps", "custom_events"):
            found = [row for row in target.current(stream) if row["braze_id"] in emitted]
            assert found == truth.current(stream), history.told
        for segment_id in "ab":
            members = target.members(segment_id)
            if mode == "bucket":  # assumed to be complete, so nobody leaves
                members = [name for name in members if history.segment_of[name] == segment_id]
            assert members == truth.members(segment_id), history.told
        assert copy.deepcopy(history.nights.files("running")) == []
