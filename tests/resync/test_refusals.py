"""Identifiers that Braze refuses: each is found, left out and named by its row, and takes nobody along."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes import FakeClock
from tests.support.resyncs import emails
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

LEFT_OUT = "refused by Braze and left out"
ADVICE = "; everybody else was asked for. Correct or remove these rows, all of which stand in the log's warnings"


def external_ids(count: int) -> list[str]:
    return [f"user-{number}" for number in range(count)]


def found(run: SimulatedRun) -> list[str]:
    """The external ids of the users, in the order in which they come."""
    return [user["external_id"] for user in run.users]


def test_one_refused_identifier_takes_no_neighbour_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """49 good people in the same request: all of them come, in their order, and the run names the row at its end."""
    braze = ScriptedBraze(FakeClock())
    wanted = external_ids(50)
    wanted[5] = "bad id"
    braze.refused = {"bad id"}

    run = SimulatedRun(braze, tmp_path, external_ids=wanted)

    assert found(run) == [name for name in wanted if name != "bad id"]
    assert run.invalid == []
    assert run.resync.failures == [f"1 identifier was {LEFT_OUT} (external_ids row 6): refused with 400{ADVICE}"]
    assert run.state["resync"] == []
    assert "1 identifier was refused by Braze: refused with 400; left out: external_ids row 6" in caplog.messages
    assert "bad id" not in caplog.text
    assert len(braze.bodies) <= 14


def test_refused_identifiers_never_stop_those_behind_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever their number, also if they are the first: each takes two requests until Braze has accepted one."""
    for before, refused in ((20, 25), (0, 25), (0, 300)):
        braze = ScriptedBraze(FakeClock())
        bad = [f"bad-{number}@example.org" for number in range(refused)]
        braze.refused = set(bad)

        run = SimulatedRun(braze, tmp_path, emails=[*emails(before), *bad, *emails(before + 20)[before:]])

        assert len(run.users) == before + 20, (before, refused)
        assert run.error == ""
        (told,) = run.resync.failures
        assert told.startswith(f"{refused} identifiers were refused by Braze and left out (emails row"), told
        assert run.state["resync"] == []
    assert "left out: emails rows 21 to 45" in caplog.text


def test_refused_identifiers_are_done_in_a_later_run(tmp_path: Path) -> None:
    """The run that continues asks for none of them again, and tells at its end how many there were before."""
    clock = FakeClock()
    bad = [f"bad-{number}@example.org" for number in range(60)]
    wanted = [*bad, *emails(20), "worse@example.org"]
    first_braze, braze = ScriptedBraze(clock), ScriptedBraze(clock)
    first_braze.refused = braze.refused = {*bad, "worse@example.org"}
    first = SimulatedRun(first_braze, tmp_path, emails=wanted, groups=1)

    second = SimulatedRun(braze, tmp_path, emails=wanted, state=first.state)

    assert (first.state["resync"][0]["requests"], first.state["resync"][0]["refused"]) == (50, 50)
    assert not {body["email_address"] for body in braze.bodies} & set(bad[:50])
    assert len(second.users) == 20
    rows = "emails rows 51 to 60, emails row 81, 50 in an earlier run"
    assert second.resync.failures == [f"61 identifiers were {LEFT_OUT} ({rows}): refused with 400{ADVICE}"]


def test_a_run_that_only_continues_tells_of_earlier_refusals(tmp_path: Path) -> None:
    """The run that met them had no end: the one that ends fails, lest nobody learns of them."""
    clock = FakeClock()
    first_braze = ScriptedBraze(clock)
    first_braze.refused = {"user-7@example.org"}
    first = SimulatedRun(first_braze, tmp_path, emails=emails(60), groups=1)

    second = SimulatedRun(ScriptedBraze(clock), tmp_path, emails=emails(60), state=first.state)

    (told,) = second.resync.failures
    assert told.startswith("1 identifier was refused by Braze and left out (1 in an earlier run); everybody else")


def test_refused_fields_are_told_from_refused_identifiers(tmp_path: Path) -> None:
    """The run ends soon, with nobody left out: the next one, with other fields, asks for all of them."""
    braze = ScriptedBraze(FakeClock())
    braze.refused_fields = {"external_id"}

    run = SimulatedRun(braze, tmp_path, external_ids=external_ids(5_000))

    assert run.error == (
        "BrazeError: refused with 400, but not if only braze_id is asked for: check extra_export_fields, and deselect"
        " what Braze does not know"
    )
    assert (run.users, run.states) == ([], [])
    assert len(braze.times) < 150


def test_the_cases_of_the_field(tmp_path: Path) -> None:
    """One bad id among eleven; 25 phones without a country code between 40 good ones."""
    folder = Path(__file__).parent / "cases"
    for name, bad in (("one-refused", ["bad id"]), ("25-refused", None)):
        config = json.loads((folder / f"{name}.json").read_text())
        ((_, wanted),) = config.items()
        braze = ScriptedBraze(FakeClock())
        braze.refused = set(bad or [phone for phone in wanted if not phone.startswith("+")])
        braze.people = {each: [{"braze_id": each, "external_id": each}] for each in wanted}

        run = SimulatedRun(braze, tmp_path, **config)

        assert [user["braze_id"] for user in run.users] == [each for each in wanted if each not in braze.refused], name
        assert len(run.resync.failures) == 1, name


@pytest.mark.slow
@settings(derandomize=True, deadline=None, database=None, max_examples=25)
@given(st.data())
def test_whoever_is_refused_everybody_else_comes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Of any number and order, in runs that break off after any group: each person once, each refused one counted."""
    tmp_path = tmp_path_factory.mktemp("refused")
    count = data.draw(st.integers(1, 400))
    chance = random.Random(data.draw(st.integers(0, 1_000)))
    share = data.draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
    by_id, by_email = external_ids(count), emails(data.draw(st.integers(0, 80)))
    refused = {each for each in [*by_id, *by_email] if chance.random() < share}
    clock, users = FakeClock(), []
    state: dict[str, Any] = {}
    for groups in [*data.draw(st.lists(st.integers(1, 2), max_size=2)), None]:
        braze = ScriptedBraze(clock, limit=100_000, seconds=60)
        braze.refused = refused
        run = SimulatedRun(
            braze,
            tmp_path,
            state=state,
            external_ids=by_id,
            emails=by_email,
            groups=groups,
            threads=SimulatedThreads(clock, jitter=1.0),
        )
        assert run.error == ""
        state = run.state or state
        users += [user["external_id"] for user in run.users]

    assert users == [each for each in [*by_id, *by_email] if each not in refused]
    assert state["resync"] == []
    if refused:
        (told,) = run.resync.failures
        assert told.startswith(f"{len(refused)} identifier")
