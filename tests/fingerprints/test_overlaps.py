"""Two pipelines share `fingerprints_url`, and one runs while the other does: neither ends the other."""

from __future__ import annotations

import itertools
import os
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.columns import UnreadableError
from tap_braze_export.fingerprints.lifecycle import Fingerprints
from tap_braze_export.fingerprints.store import Store, new_run_id, run_of
from tests.support.fakes import FakeClock
from tests.support.nights import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Users = Mapping[str, bytes]

pytestmark = pytest.mark.slow

NIGHTS = 2
STRIDE = int(os.environ.get("KILL_STRIDE", "6"))
"""Steps between two tries: 1 for every step."""
KEPT_DAYS = 14
MOST_VERSIONS = 4
"""Two of each pipeline."""


def nothing() -> None:
    """Let the run go on."""


class Stepping(Store):
    """A store that does something else before it does one of its steps, in the order of the steps."""

    step: Callable[[], object] = staticmethod(nothing)
    steps = 0
    at = -1

    def __getattribute__(self, name: str) -> Any:
        if name in {"names", "mark", "live_runs", "part", "version", "create", "remove", "unmark"}:
            if self.steps == self.at:
                self.at = -1
                self.step()
            self.steps += 1
        return super().__getattribute__(name)


class Pipeline:
    """Night after night of one pipeline, with a STATE of its own; the rows land in a target that both share."""

    def __init__(self, url: str, folder: Path, target: dict[str, bytes], clock: FakeClock) -> None:
        self.url = url
        self.spool = Spool(str(folder), clock=clock)
        self.spool.open()
        self.target = target
        self.clock = clock
        self.state: Any = []

    def night(self, users: Users, *, at: int = -1, step: Callable[[], object] = nothing) -> tuple[list[str], int]:
        """Run once and confirm it; returns the users that are emitted, and the number of steps."""
        self.clock.time += DAY
        store = Stepping(self.url, {}, self.spool, self.clock)
        store.step, store.at = step, at
        emitted: list[str] = []
        with Fingerprints(store, signature="x", state=self.state, clock=self.clock, is_resync=False) as run:
            export_id = str(uuid.uuid4())
            for braze_id, content in users.items():  # each in a file of its own
                line = b'{"braze_id":"%s","content":"%s"}' % (braze_id.encode(), content)
                check = run.known.check([line], member_of="s", has_profiles=True)
                if check.same_lines[0]:
                    check.skip_line(0)
                elif not check.unchanged({braze_id: (0, content)}):
                    emitted.append(braze_id)
                run.record(check.result(), export_id=export_id)
                self.target.update({each: users[each] for each in emitted[-1:] if each == braze_id})
            list(run.leavers(export_id, "s", len(users)))
            run.finish(only_own=False)
            self.state = run.state()
        return emitted, store.steps

    def remove_all(self) -> None:
        Store(self.url, {}, self.spool, self.clock).remove(self.files)

    @property
    def files(self) -> list[str]:
        return Store(self.url, {}, self.spool, self.clock).names()


@pytest.fixture(params=["directory", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory, and a storage without locks."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)  # each of hundreds of stores would read it
    return str(tmp_path / "shared") if request.param == "directory" else "memory://prints"


def both(url: str, folder: Path) -> tuple[Pipeline, Pipeline]:
    """Two pipelines in a place that nobody else uses."""
    name, target, clock = uuid.uuid4().hex, dict[str, bytes](), FakeClock()
    outer, inner = (Pipeline(f"{url}-{name}", folder / name / each, target, clock) for each in ("outer", "inner"))
    return outer, inner


def test_one_run_inside_the_other_at_every_step(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Night after night, whichever step it is: none fails, no change is lost, and nothing is left behind."""
    for at in itertools.count(0, STRIDE):
        outer, inner = both(url, tmp_path)
        for night in range(NIGHTS):
            mine = {"a": b"Berlin", "b": b"%d" % night}
            yours = {"a": b"Paris", "c": b"%d" % night}
            _, steps = outer.night(mine, at=at, step=partial(inner.night, yours))
            inner.night(yours)
        quiet = {"a": b"Berlin", "b": b"Rome"}
        for _ in range(2):
            outer.night(quiet)
        assert outer.target == quiet | {"c": b"%d" % (NIGHTS - 1)}, at
        assert outer.night(quiet)[0] == [], at
        inner.night({"a": b"Paris"})
        assert outer.target["a"] == b"Paris", at
        outer.clock.time += KEPT_DAYS * DAY
        for pipeline in (outer, inner, outer, inner):
            pipeline.night({})
        left = [name for name in outer.files if name.endswith((".json", "running"))]
        assert len(left) <= MOST_VERSIONS, (at, left)
        assert "gone" not in caplog.text, at
        outer.remove_all()
        if at > steps:
            break
    assert at > 20


def test_files_of_another_run_that_are_gone_are_not_known(url: str, tmp_path: Path) -> None:
    """Whoever removes them, and whenever: the run goes on, and the next one emits whatever is not sure."""
    users = {"a": b"Berlin", "b": b"Rome"}
    for at in itertools.count(0, STRIDE):
        outer, inner = both(url, tmp_path)
        outer.night(users)
        inner.night({"a": b"Paris"})

        def remove(outer: Pipeline = outer) -> None:
            files = outer.files
            own = max(map(run_of, files))
            Store(outer.url, {}, outer.spool, outer.clock).remove([name for name in files if run_of(name) != own])

        _, steps = outer.night({"b": b"Rome"}, at=at, step=remove)
        assert outer.target["a"] == b"Paris", at
        outer.night(users)
        assert outer.target == users, at
        outer.night(users)
        assert outer.night(users)[0] == [], at
        outer.remove_all()
        if at > steps:
            break
    assert at > 10


def test_what_a_killed_run_may_have_read_goes(url: str, tmp_path: Path) -> None:
    """In a directory its lock is free; elsewhere a mark says for a week that it goes on."""
    outer, _ = both(url, tmp_path)
    outer.night({"a": b"Berlin"})
    killed = Store(outer.url, {}, outer.spool, outer.clock)
    killed.mark(new_run_id(outer.clock))
    if killed._lock is not None:  # it dies with the process
        killed._lock.release()
    kept = outer.files

    for night in range(KEPT_DAYS + 2):
        outer.night({"a": b"%d" % night})

    assert not {*kept} & {*outer.files}


def test_nothing_goes_while_another_run_may_read_it(url: str, tmp_path: Path) -> None:
    outer, _ = both(url, tmp_path)
    outer.night({"a": b"Berlin"})
    live, run_id = Store(outer.url, {}, outer.spool, outer.clock), new_run_id(outer.clock)
    live.mark(run_id)
    before = outer.files

    for city in (b"Paris", b"Rome", b"Oslo"):
        outer.night({"a": city})
    assert {*before} <= {*outer.files}

    live.unmark(run_id)
    for night in range(KEPT_DAYS):
        outer.night({"a": b"%d" % night})
    assert not {*before} & {*outer.files}


def test_what_another_run_was_faster_to_remove(url: str, tmp_path: Path) -> None:
    """Reading it says that it is gone, removing it is no error, and the others are removed all the same."""
    outer, _ = both(url, tmp_path)
    outer.night({"a": b"Berlin", "b": b"Rome"})
    store = Store(outer.url, {}, outer.spool, outer.clock)
    first, *others = store.names()
    store.remove([first])

    with pytest.raises(UnreadableError):
        Store(outer.url, {}, Spool(str(tmp_path / "other"), clock=outer.clock), outer.clock).part(first)
    store.remove([first, *others])
    assert store.names() == []
