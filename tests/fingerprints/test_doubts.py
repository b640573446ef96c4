"""The target may have only some rows of a user, or have deleted them, though the content is the one it had before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.lifecycle import Fingerprints
from tap_braze_export.fingerprints.store import Store, new_run_id
from tests.support.nights import DAY, Nights, emitted, user
from tests.support.runs import Output

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tests.support.fakes import FakeClock

pytestmark = pytest.mark.slow

A, B, C, PARIS = user("a"), user("b"), user("c"), user("a", "Paris")


@pytest.fixture
def nights(sandbox: Sandbox, tmp_path: Path) -> Nights:
    return Nights(sandbox, tmp_path)


# Some rows of a user


@pytest.mark.parametrize("loaded", ["users", "apps", "custom_events"])
def test_a_user_of_whom_the_target_loaded_some_rows(nights: Nights, loaded: str) -> None:
    """Emitted for a new membership only; the loader got one table of it, whose time fits no other, and failed."""
    nights.run({"s": [A, B], "t": [C]})
    broken = nights.run({"s": [A, B], "t": [C, A]}, loads=False, confirms=False)
    nights.target.load(only(broken, loaded))

    back = nights.run({"s": [A, B], "t": [C]})

    assert emitted(back)["users"] == ["a"]
    assert [row["name"] for row in nights.target.current("apps") if row["braze_id"] == "a"] == ["News", "Shop"]
    assert emitted(nights.run({"s": [A, B], "t": [C]})) == {}


def only(output: Output, stream: str) -> Output:
    """The records of one stream."""
    lines = output.stdout.splitlines(keepends=True)
    kinds = [(message["type"], message.get("stream")) for message in output.messages]
    return Output(
        b"".join(
            line for line, kind in zip(lines, kinds, strict=True) if kind in {("SCHEMA", stream), ("RECORD", stream)}
        )
    )


# Deleted users


@pytest.mark.parametrize("confirms", [True, False])
def test_a_user_that_loaders_have_deleted(sandbox: Sandbox, tmp_path: Path, *, confirms: bool) -> None:
    """Nobody was skipped, so ACTIVATE_VERSION deleted who was not emitted; then the user returns as it was."""
    nights = Nights(sandbox, tmp_path, streams=["users"], emit_activate_version_messages=True)
    nights.run({"s": [A, B]})
    activating = nights.run({"s": [PARIS]}, confirms=confirms)
    assert "users" in {message["stream"] for message in activating.of_type("ACTIVATE_VERSION")}
    assert [row["braze_id"] for row in nights.target.current("users")] == ["a"]

    back = nights.run({"s": [PARIS, B]})

    assert "b" in emitted(back)["users"]
    assert [row["braze_id"] for row in nights.target.current("users")] == ["a", "b"]


def test_a_user_that_was_deleted_by_a_run_that_was_not_confirmed(sandbox: Sandbox, tmp_path: Path) -> None:
    """The setting is removed then; the next version must not say that the target has the user."""
    nights = Nights(sandbox, tmp_path, streams=["users"])
    nights.run({"s": [A, B]})
    nights.run({"s": [PARIS]}, confirms=False, emit_activate_version_messages=True)
    after = nights.run({"s": [PARIS]})

    assert after.warnings == ["All users are emitted: a run that was not confirmed may have had loaders delete users"]
    assert emitted(nights.run({"s": [PARIS, B]})) == {"users": ["b"]}


def test_a_membership_that_the_target_may_have(nights: Nights) -> None:
    """A run that was not confirmed emitted a new member; who is none the night after leaves, whatever was loaded."""
    nights.run({"s": [A, B], "t": [C]})
    nights.run({"s": [A, B], "t": [C, B]}, confirms=False)
    assert nights.target.members("t") == ["b", "c"]

    nights.run({"s": [A, B], "t": [C]})

    assert nights.target.members("t") == ["c"]


# Runs that go on


def test_a_run_that_goes_on_for_many_nights(nights: Nights, clock: FakeClock) -> None:
    """Two versions that saw it begin leave its files alone, so that it can end; and its mark, until it has."""
    store = Store(str(nights.fingerprints), {}, Spool(str(nights.folder), clock=clock), clock)
    with Fingerprints(store, signature="x", state=None, clock=clock, is_resync=False) as live:
        emit(live, b"a")
        for city in ("Paris", "Rome", "Oslo"):
            nights.run({"s": [user("a", city), B]})
        emit(live, b"a")
        last = emitted(nights.run({"s": [user("a", "Oslo"), B]}))["users"]
        live.finish(only_own=False)

    assert last == ["a"]
    assert emitted(nights.run({"s": [user("a", "Oslo"), B]}))["users"] == ["a"]


def test_what_a_killed_run_was_writing_goes(nights: Nights) -> None:
    nights.run({"s": [A]})
    killed = nights.fingerprints / "20270115T080000Z-0123456789ab"
    killed.mkdir()
    for name in ("running", ".000000.npz"):
        (killed / name).touch()

    for _ in range(2):
        nights.run({"s": [PARIS]})

    nights.run({"s": [A]})
    assert not killed.exists()


def test_files_that_go_during_a_run_are_not_known(nights: Nights, clock: FakeClock) -> None:
    """It goes on; STATE names nothing then, so that the next run emits everybody."""
    store = Store(str(nights.fingerprints), {}, Spool(str(nights.folder), clock=clock), clock)
    with Fingerprints(store, signature="x", state=None, clock=clock, is_resync=False) as run:
        emit(run, b"a")
        assert run.state()[0]["parts"][0][1] == 1
        for path in nights.files("*.npz"):
            path.unlink()

        assert [*run.leavers("e", "s", 1)] == []
        run.finish(only_own=False)
        assert run.state() == []


def emit(run: Fingerprints, braze_id: bytes) -> None:
    """Record the emission of a user."""
    check = run.known.check([braze_id], member_of="s", has_profiles=True)
    check.unchanged({braze_id.decode(): (0, b"content")})
    run.record(check.result(), export_id="e")


def test_which_runs_go_on(tmp_path: Path, clock: FakeClock) -> None:
    """In a directory locks say it; elsewhere a run is over after a week."""
    for url, ended in ((str(tmp_path), 0.0), ("memory://fingerprints", 8 * DAY)):
        spool = Spool(str(tmp_path / "spool"), clock=clock)
        spool.open()
        store = Store(url, {}, spool, clock)
        run_id = new_run_id(clock)
        store.mark(run_id)
        assert store.live_runs([f"{run_id}/running"]) == {run_id}
        clock.time += ended
        if not ended:
            store.unmark(run_id)
        assert store.live_runs([f"{run_id}/running"]) == frozenset()
