"""Somebody sets the machine's clock while a run goes on: nothing takes longer, nothing is given up, no row is lost."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.runs import Run, selecting, sync
from tests.support.runs import settings as settings_of
from tests.support.simulation import ScriptedBraze, SimulatedRun
from tests.support.steps import Steps, braze, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.braze.client import IdsResponse

pytestmark = pytest.mark.slow

HOUR, YEAR = 3_600.0, 365 * 86_400.0
FIRST_STEPS = 60
JUMPS = [-YEAR, -HOUR, -600.0, 600.0, HOUR, YEAR]
RUNS = int(os.environ.get("SET_CLOCKS", "12"))
"""Runs of each kind; SET_CLOCKS=1000 tries as many."""
OF_A_RUN = ["export_id", "file", "bytes", "exported_at", "read_at"]
STREAMS = selecting(["users", "segment_members", "export_files"])


class SetClock(Steps):
    """A clock whose time of day is set at some of its steps: a reading, or a wait.

    Args:
        jumps: Seconds ahead, by the number of the step.
        most: Steps after which the run has gone on for too long.
    """

    def __init__(self, jumps: Mapping[int, float], most: int = 10**6) -> None:
        self.count = 0
        self._jumps = jumps
        self._most = most
        super().__init__()

    def now(self) -> float:
        self._step()
        return super().now()

    def monotonic(self) -> float:
        self._step()
        return super().monotonic()

    def sleep(self, seconds: float) -> None:
        self._step()
        super().sleep(seconds)

    def _step(self) -> None:
        self.count += 1
        assert self.count < self._most, f"still at it: {self._jumps}"
        self.ahead += self._jumps.get(self.count, 0.0)


def jumps(steps: int) -> st.SearchStrategy[Mapping[int, float]]:
    """One to three jumps in a run of this many steps, many of them near its beginning, where most is done.

    Not back and then ahead in its first steps: an export that is requested between the two seems as old as the second
    jump is long, and may be given up.
    """
    drawn = st.dictionaries(
        st.integers(1, min(FIRST_STEPS, steps)) | st.integers(1, steps), st.sampled_from(JUMPS), min_size=1, max_size=3
    )
    return drawn.filter(lambda jumps: not _is_back_and_ahead([jumps[at] for at in sorted(jumps) if at <= FIRST_STEPS]))


def _is_back_and_ahead(jumps: list[float]) -> bool:
    return any(back < 0 < ahead for back, ahead in itertools.combinations(jumps, 2))


def rows(run: Run) -> list[Any]:
    """The rows, less the times of day in them and the names that are another in each run."""
    kept = [{**message["record"], **dict.fromkeys(OF_A_RUN)} for message in run.of_type("RECORD")]
    return sorted(kept, key=str)


def synced(folder: Path, clock: SetClock, *, has_bucket: bool) -> dict[str, Any]:
    """The facts of a run that do not depend on the time of day."""
    folder.mkdir()
    with braze(clock, folder if has_bucket else None, hold=True) as sandbox:
        clock.steps = [*[nothing] * 9, sandbox.finish_exports, nothing]
        more = {"bucket_url": str(folder / "bucket")} if has_bucket else {}
        config = settings_of(sandbox, folder, export_timeout_minutes=60, **more)
        run = sync(config, clock=clock, catalog=STREAMS)
        return {
            "rows": rows(run),
            "requests": [(call.service, call.method, call.status) for call in sandbox.calls],
            "waits": clock.slept,
            "ends at": clock.true_time,
            "log": len([line for line in run.lines if line.startswith(("Waiting for", "The bucket is quiet"))]),
        }


@pytest.mark.fault("Loader and signals", "the clock is set while an export runs", "the same rows after the same time")
@pytest.mark.parametrize("has_bucket", [False, True])
def test_an_export_does_not_notice(tmp_path: Path, *, has_bucket: bool) -> None:
    """The same rows, requests, waits and length as in the run that nobody disturbs, whichever step it happens at."""
    clock = SetClock({})
    undisturbed = synced(tmp_path / "undisturbed", clock, has_bucket=has_bucket)
    assert len(undisturbed["waits"]) >= 10
    assert len(undisturbed["rows"]) > 18
    number = iter(range(10**6))

    @settings(max_examples=RUNS, deadline=None, database=None)
    @given(jumps(clock.count))
    def check(jumps: Mapping[int, float]) -> None:
        facts = synced(tmp_path / str(next(number)), SetClock(jumps, 10 * clock.count), has_bucket=has_bucket)
        for name, fact in undisturbed.items():
            assert facts[name] == fact, (name, jumps)

    check()


def resynced(folder: Path, clock: SetClock, *, has_date: bool) -> dict[str, Any]:
    """A resync at 250 requests a minute, of which others use half."""

    class Shared(ScriptedBraze):
        def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
            self.others_use(1)
            return super().export_ids(body)

    workspace = Shared(clock, limit=250, seconds=60, has_date=has_date)
    run = SimulatedRun(workspace, folder, emails=[f"user-{number}@example.org" for number in range(300)])
    assert run.error == ""
    return {"users": run.users, "requests": workspace.times, "seconds": run.seconds}


@pytest.mark.fault("Loader and signals", "the clock is set while a resync runs", "the same rows after the same time")
@pytest.mark.parametrize("has_date", [True, False])
def test_a_resync_does_not_notice(tmp_path: Path, *, has_date: bool) -> None:
    """Where Braze does not tell its own time ours must do: a jump costs no more than the longest window there is."""
    clock = SetClock({})
    undisturbed = resynced(tmp_path / "undisturbed", clock, has_date=has_date)
    number = iter(range(10**6))

    @settings(max_examples=RUNS, deadline=None, database=None)
    @given(jumps(clock.count))
    def check(jumps: Mapping[int, float]) -> None:
        facts = resynced(tmp_path / str(next(number)), SetClock(jumps, 40 * clock.count), has_date=has_date)
        assert facts["users"] == undisturbed["users"], jumps
        if has_date:
            assert facts["requests"] == undisturbed["requests"], jumps
        assert facts["seconds"] <= undisturbed["seconds"] + (not has_date) * 3_720 * len(jumps), jumps

    check()
