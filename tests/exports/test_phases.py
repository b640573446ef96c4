"""The phases of an export: the table of its steps is whole, and nothing goes another way."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.exports.phases import STEPS, Phase, Record, step_between
from tests.support.fakes import FakeClock
from tests.support.runs import selecting, settings, sync
from tests.support.steps import braze, exports

if TYPE_CHECKING:
    from pathlib import Path

USERS = selecting(["users", "export_files"])


def test_each_step_stands_in_the_table_once() -> None:
    pairs = [(step.before, step.after) for step in STEPS]
    assert len(pairs) == len({*pairs})
    assert all(step_between(*pair) in STEPS for pair in pairs)


def test_a_step_that_the_table_does_not_have_is_an_error_at_once() -> None:
    """A mistake of the program, not of its user: it names both phases."""
    known = {(step.before, step.after) for step in STEPS}
    for before, after in itertools.product(Phase, Phase):
        if (before, after) not in known:
            with pytest.raises(RuntimeError, match=f"^no export goes from {before.name} to {after.name}$"):
                step_between(before, after)


def test_an_export_in_no_run_is_where_the_next_run_finds_it() -> None:
    """Every way from the request leads to an end, and no end to anything but what a next run makes of it."""
    ends = {Phase.EMPTY, Phase.INTERRUPTED, Phase.GIVEN_UP, Phase.CLEARED}
    after = {phase: {step.after for step in STEPS if step.before is phase} for phase in Phase}
    assert {phase for phase in Phase if not after[phase]} == ends
    for phase in Phase:
        reached = {phase}
        while more := {each for known in reached for each in after[known]} - reached:
            reached |= more
        assert reached & ends


def test_a_phase_waits_or_runs_or_has_ended() -> None:
    """And only the journal of an export that cannot be wanted any more is removed."""
    assert [phase for phase in Phase if sum((phase.waits, phase.runs, phase.is_complete)) > 1] == []
    gone = {step.after for step in STEPS if step.record is Record.REMOVED}
    assert gone == {Phase.REFUSED, Phase.GIVEN_UP, Phase.EMPTY, Phase.CLEARED}


def test_a_run_takes_the_steps_of_the_table(tmp_path: Path) -> None:
    """At its end the disk is as the table says: the journal has it that the export was read."""
    with braze(FakeClock(), tmp_path) as sandbox:
        run = sync(settings(sandbox, tmp_path, bucket_url=str(tmp_path / "bucket")), clock=FakeClock(), catalog=USERS)
    assert exports(run.states[-1])[0]["running"] is False
    (record,) = (tmp_path / "spool" / "journal").glob("*.json")
    assert b'"running":false' in record.read_bytes()
