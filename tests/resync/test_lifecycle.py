"""Groups of responses, the STATE that covers each, and a resync that continues an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import Clock
from tests.support.fakes import FakeClock
from tests.support.resyncs import PEOPLE, emails, resync
from tests.support.runs import selecting, settings, sync
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tap_braze_export.braze.client import IdsResponse
    from tap_braze_export.sandbox import Sandbox

# A workspace with PEOPLE, and a limit that no test comes near.
pytestmark = pytest.mark.sandbox(users=0, ids_limit=1_000_000, segments={"people": PEOPLE})


def test_user_without_braze_id_is_rejected_not_lost(tmp_path: Path) -> None:
    """The rows' reader decides about lines that are no users, and keeps them."""
    braze = ScriptedBraze(FakeClock())
    braze.people["odd"] = [{"external_id": "odd"}]

    run = SimulatedRun(braze, tmp_path, external_ids=["odd", "user-1"])

    assert run.users == [{"external_id": "odd"}, {"braze_id": "b-1", "external_id": "user-1"}]


def test_rows_of_a_group_carry_the_time_of_its_first_response(tmp_path: Path) -> None:
    """Not a later one: no row may claim to be newer than it is."""
    clock = FakeClock(1_800_000_000.5)
    braze = ScriptedBraze(clock)

    run = SimulatedRun(braze, tmp_path, emails=emails(60), threads=SimulatedThreads(clock, latency=1.0))

    assert [name for name, _, _ in run.files] == ["requests 0-49", "requests 50-59"]
    assert run.files[0][1] == "2027-01-15T08:00:01.500000Z"
    assert run.files[1][1] > run.files[0][1]


@pytest.mark.parametrize("odd", [{"requests": "1"}, {"requests": -1}, {"requests": 1.5}, {"export_id": 7}])
def test_odd_progress_in_state_begins_anew(tmp_path: Path, odd: dict[str, Any]) -> None:
    """STATE has been in other programs' hands; nobody is left out because of it."""
    first = SimulatedRun(ScriptedBraze(FakeClock()), tmp_path, emails=emails(60), groups=1)
    state = {**first.state, "resync": [{**first.state["resync"][0], **odd}]}

    run = SimulatedRun(ScriptedBraze(FakeClock()), tmp_path, emails=emails(60), state=state)

    assert (run.error, [name for name, _, _ in run.files]) == ("", ["requests 0-49", "requests 50-59"])


def test_slow_limit_still_gets_a_checkpoint_every_half_minute(tmp_path: Path) -> None:
    """At 60 requests a minute, 50 would take longer."""
    braze = ScriptedBraze(FakeClock(), limit=60, seconds=60)

    run = SimulatedRun(braze, tmp_path, emails=emails(100))

    sizes = [count for _, _, count in run.files]
    assert len(sizes) >= 3
    assert max(sizes) <= 32


def test_never_more_than_100_requests_beyond_the_last_state(tmp_path: Path) -> None:
    """However fast Braze responds, and however late one response is: after a crash these requests are sent again."""
    clock = FakeClock()
    braze = ScriptedBraze(clock, limit=100_000, seconds=60)

    run = SimulatedRun(braze, tmp_path, emails=emails(1_000), threads=SimulatedThreads(clock, stuck=220))

    assert 90 <= max(run.sent_before_state) <= 100
    assert len(braze.bodies) == 1_000


# STATE


EXPORTS = [{"source": "segment", "segment_id": "all-users", "anything": [1, {"a": None}]}]


def test_state_of_segment_exports_is_handed_on_as_it_came(sandbox: Sandbox, tmp_path: Path) -> None:
    """In every STATE message of a resync, whatever it holds."""
    state = {"bookmarks": {"export_files": {"version": 1, "exports": EXPORTS, "resync": []}}}

    run = resync(sandbox, tmp_path, external_ids=["ada"], state=state)

    held = [state["bookmarks"]["export_files"] for state in run.states]
    assert [state["exports"] for state in held] == [EXPORTS] * len(held)
    assert [bool(state["resync"]) for state in held][-2:] == [True, False]


def test_state_follows_every_group_however_little_it_emits(sandbox: Sandbox, tmp_path: Path) -> None:
    """Requests are paid for: those that found nobody are not sent again either."""
    config = settings(sandbox, tmp_path, emails=emails(200))

    run = sync(config, catalog=selecting(["users"]), clock=Clock())

    held = [state["bookmarks"]["export_files"]["resync"] for state in run.states]
    assert [resync[0]["requests"] if resync else None for resync in held] == [50, 100, 150, 200, None]


def test_broken_resync_continues_at_its_last_checkpoint(tmp_path: Path) -> None:
    """With the next request, under the same id; no user is emitted again."""
    braze = ScriptedBraze(FakeClock())
    shared = {"braze_id": "shared"}
    braze.people = {"user-3@example.org": [shared], "user-299@example.org": [shared, {"braze_id": "last"}]}
    first = SimulatedRun(braze, tmp_path, emails=emails(300), groups=3)
    braze.bodies.clear()

    second = SimulatedRun(braze, tmp_path, emails=emails(300), state=first.state)

    assert first.state["resync"][0]["requests"] == 150
    assert [body["email_address"] for body in braze.bodies] == emails(300)[150:]
    assert second.files[0][0] == "requests 150-199"
    assert [user["braze_id"] for user in second.users[-2:]] == ["b-298@example.org", "last"]
    assert second.state["resync"] == []
    before, after = first.state["resync"][0]["export_id"], second.states[0]["resync"][0]["export_id"]
    assert before == after
    assert before.startswith("ids-")


def test_loader_that_lags_behind_gets_everything_after_its_state(tmp_path: Path) -> None:
    """Rows after the STATE that it has confirmed may be lost, so they are emitted again."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(300), groups=4)

    second = SimulatedRun(braze, tmp_path, emails=emails(300), state=first.states[1])

    assert first.states[1]["resync"][0]["requests"] == 100
    assert [user["braze_id"] for user in second.users] == [f"b-{email[5:]}" for email in emails(300)[100:]]


def test_finished_resync_can_be_run_again(tmp_path: Path) -> None:
    """Its STATE holds nothing of it, and its users count as new."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(10))

    second = SimulatedRun(braze, tmp_path, emails=emails(10), state=first.state)

    assert first.state == {"version": 1, "exports": [], "resync": []}
    assert second.users == first.users
    assert len(braze.bodies) == 20


@pytest.mark.parametrize(
    "change", [{"emails": [*emails(199), "new@example.org"]}, {"rows_signature": "another"}, {"api_key": "another"}]
)
def test_changed_source_or_selection_starts_over(tmp_path: Path, change: dict[str, Any]) -> None:
    """Even if only the last identifier, which was not requested yet, is another one."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(200), groups=2)
    braze.bodies.clear()

    second = SimulatedRun(braze, tmp_path, **{"emails": emails(200), "state": first.state, **change})

    assert len(braze.bodies) == 200
    assert [user["braze_id"] for user in second.users[:199]] == [f"b-{email[5:]}" for email in emails(199)]


@pytest.mark.parametrize("left", [{"requests": "x"}, [], [None, 7], "text", {"source": None}, [{"source": None}]])
@pytest.mark.fault("STATE", "STATE of a resync that somebody has edited", "it starts over")
def test_senseless_state_starts_over(tmp_path: Path, left: Any) -> None:
    """A STATE that somebody has edited is no reason to fail."""
    braze = ScriptedBraze(FakeClock())

    run = SimulatedRun(braze, tmp_path, emails=emails(3), state={"version": 1, "exports": [], "resync": left})

    assert len(run.users) == 3


# As an earlier version of the tap wrote the member.


def test_null_and_the_bare_object_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """A resync that it left goes on; null means that there is none."""
    first = SimulatedRun(ScriptedBraze(FakeClock()), tmp_path, emails=emails(60), groups=1)
    braze = ScriptedBraze(FakeClock())

    second = SimulatedRun(braze, tmp_path, emails=emails(60), state={**first.state, "resync": first.state["resync"][0]})
    third = SimulatedRun(ScriptedBraze(FakeClock()), tmp_path, emails=emails(60), state={**first.state, "resync": None})

    assert [body["email_address"] for body in braze.bodies] == emails(60)[50:]
    assert second.state["resync"] == []
    assert len(third.users) == 60


def test_member_is_a_list_in_every_state_also_of_segment_exports(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever kind an earlier version left there: orchestrators merge STATE, and a kind that changes ends them."""
    progress = {"export_id": "ids-1", "source": "1-x", "rows_signature": "y", "requests": 50}
    for left, kept in ((None, []), (progress, [progress]), ([progress], [progress]), ([], [])):
        state = {"bookmarks": {"export_files": {"version": 1, "exports": [], "resync": left}}}
        whole = sync(settings(sandbox, tmp_path), catalog=selecting(["users"]), state=state, clock=Clock())
        single = resync(sandbox, tmp_path, external_ids=["ada"], state=state)

        exported = [state["bookmarks"]["export_files"]["resync"] for state in whole.states]
        assert exported, left
        assert exported == [kept] * len(exported), left
        resynced = [state["bookmarks"]["export_files"]["resync"] for state in single.states]
        assert all(type(member) is list and len(member) <= 1 for member in resynced), left
        assert resynced[-1] == [], left


class Meanwhile(ScriptedBraze):
    """Another run begins and ends while this one waits for its response of that number."""

    def __init__(self, clock: FakeClock, number: int, other: Callable[[], SimulatedRun]) -> None:
        super().__init__(clock)
        self.number = number
        self.other = other
        self.ended: SimulatedRun | None = None

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        if len(self.bodies) == self.number:
            self.ended = self.other()
        return super().export_ids(body)


@pytest.mark.parametrize("number", [0, 30, 70, 119])
@pytest.mark.parametrize("groups", [0, 1])
def test_runs_of_the_same_second_or_state_do_not_disturb_each_other(tmp_path: Path, number: int, groups: int) -> None:
    """Two loaders, one spool_dir: what one run removes at its end the other one does not need."""
    clock = FakeClock()
    given: dict[str, Any] = {"emails": emails(120)}
    if groups:  # both continue an earlier one
        given["state"] = SimulatedRun(ScriptedBraze(clock), tmp_path, **given, groups=groups).state
    time = clock.time

    def other() -> SimulatedRun:
        now, clock.time = clock.time, time
        ended = SimulatedRun(ScriptedBraze(clock), tmp_path, **given)
        clock.time = max(clock.time, now)
        return ended

    first = Meanwhile(clock, min(number, 119 - 50 * groups), other)
    run = SimulatedRun(first, tmp_path, **given)

    assert first.ended
    assert (run.error, first.ended.error) == ("", "")
    assert run.users == first.ended.users
    assert len(run.users) == 120 - 50 * groups


def test_without_spool_directory_nothing_is_lost(tmp_path: Path) -> None:
    """A user may then be emitted twice, once by each run."""
    braze = ScriptedBraze(FakeClock())
    braze.people = {email: [{"braze_id": "one"}] for email in emails(100)}
    first = SimulatedRun(braze, tmp_path / "1", emails=emails(100), groups=1)

    second = SimulatedRun(braze, tmp_path / "2", emails=emails(100), state=first.state)

    assert (first.users, second.users) == ([{"braze_id": "one"}], [{"braze_id": "one"}])
