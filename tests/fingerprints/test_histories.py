"""Random histories: runs that are killed, loaders that often fail, resyncs, and two pipelines with the same tables."""

from __future__ import annotations

import os
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.lifecycle import Fingerprints
from tap_braze_export.fingerprints.store import Store
from tests.support.fakes import FakeClock
from tests.support.nights import DAY

if TYPE_CHECKING:
    from pathlib import Path

HISTORIES = int(os.environ.get("FINGERPRINT_HISTORIES", "4"))
PEOPLE = 24
NIGHTS = 12
FILES = 4
KEPT_DAYS = 14


class History:
    """Pipelines whose loaders confirm late or never, and the resyncs of another.

    Args:
        seed: Decides everything.
        folder: Receives the files.
        pipelines: Number of pipelines; each exports a segment, and all load the same tables.
        longest: Days that may be between two nights; where it is more than files are kept, members may be lost.

    Attributes:
        read: Users that were read.
        needless: Users that were emitted as the target had them.
    """

    def __init__(self, seed: int, folder: Path, pipelines: int, longest: int) -> None:
        self.random = random.Random(f"{seed} {pipelines} {longest}")
        self.longest = longest
        self.clock = FakeClock()
        self.url = str(folder / "shared")
        self.spool = Spool(str(folder / "spool"), clock=self.clock)
        self.spool.open()
        self.people = {f"u{number:02}": 0 for number in range(PEOPLE)}
        self.segments = ["s", "t"][:pipelines]
        self.members = {segment: {*self.people} for segment in self.segments}
        self.target: dict[str, int] = {}
        self.target_members: dict[str, set[str]] = {segment: set() for segment in self.segments}
        self.states: dict[str, Any] = {segment: [] for segment in self.segments}
        self.read = self.needless = 0

    def night(self) -> None:
        """Change some users, run until a run succeeds, and compare."""
        segment = self.random.choice(self.segments)
        self.clock.time += DAY * self.random.choice([1, 1, 1, 1, self.longest])
        for name in self.random.sample([*self.people], self.random.randint(0, 4)):
            self.people[name] = self.random.randrange(3)
        self.members[segment] ^= {*self.random.sample([*self.people], self.random.randint(0, 2))}
        if self.random.random() < 0.2:
            self.resync()
        while self.random.random() < 0.5:
            self.run(self.random.choice(self.segments), fails=True)
        self.run(segment)
        for name in self.members[segment]:
            assert self.target[name] == self.people[name], name
        assert self.longest > KEPT_DAYS or self.target_members[segment] == self.members[segment]

    def resync(self) -> None:
        """Another pipeline emits some users, whatever is known of them."""
        with self.opened([], is_resync=True) as run:
            for name in self.random.sample([*self.people], 3):
                self.emit(run, [name], member_of="", export_id="resync")
                if self.random.random() < 0.7:
                    self.target[name] = self.people[name]

    def run(self, segment: str, *, fails: bool = False) -> None:
        """One run over all files; one that fails is killed somewhere, and its loader has loaded and confirmed less."""
        self.clock.time += 600
        names = self.random.sample(sorted(self.members[segment]), len(self.members[segment]))
        files = [names[number::FILES] for number in range(FILES)]
        steps, loaded, confirmed = FILES + 2, FILES + 2, FILES + 2
        if fails:
            steps = self.random.randint(0, FILES + 2)
            loaded = self.random.randint(0, steps)
            confirmed = self.random.randint(0, loaded)
        export_id = uuid.uuid4().hex
        run = self.opened(self.states[segment])
        run.__enter__()
        states = [self.states[segment]]
        for step in range(steps):
            if step < FILES:
                emitted = self.emit(run, files[step], member_of=segment, export_id=export_id)
                if step < loaded:
                    for name in emitted:
                        self.target[name] = self.people[name]
                        self.target_members[segment].add(name)
            elif step == FILES:
                left = {name for names in run.leavers(export_id, segment, len(names)) for name in names}
                assert not left & self.members[segment]
                if step < loaded:
                    self.target_members[segment] -= left
            else:
                run.finish(only_own=False)
            states.append(run.state())
        self.states[segment] = states[confirmed]
        if steps == FILES + 2:
            run.__exit__()
        elif (lock := run._store._lock) is not None:
            lock.release()  # it was killed

    def opened(self, state: Any, *, is_resync: bool = False) -> Fingerprints:
        """The fingerprints of a run."""
        store = Store(self.url, {}, self.spool, self.clock)
        return Fingerprints(store, signature="x", state=state, clock=self.clock, is_resync=is_resync)

    def emit(self, run: Fingerprints, names: list[str], *, member_of: str, export_id: str) -> list[str]:
        """Read a file; returns whom it emits. Lines differ also where contents do not."""
        lines = [
            b'{"braze_id":"%s","v":%d,"x":%d}' % (name.encode(), self.people[name], self.random.random() < 0.1)
            for name in names
        ]
        check = run.known.check(lines, member_of=member_of, has_profiles=True)
        others = {}
        for index, name in enumerate(names):
            if check.same_lines[index]:
                check.skip_line(index)
            else:
                others[name] = (index, b"%d" % self.people[name])
        emitted = sorted(others.keys() - check.unchanged(others))
        run.record(check.result(), export_id=export_id)
        if member_of:
            self.read += len(names)
            self.needless += sum(
                self.target.get(name) == self.people[name] and name in self.target_members[member_of]
                for name in emitted
            )
        return emitted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipelines", "longest", "most"),
    [(1, 1, 0.15), (1, 20, 0.15), (2, 3, 0.7), (2, 20, 0.7)],
)
def test_no_change_is_hidden_and_few_users_are_emitted_needlessly(
    tmp_path: Path, pipelines: int, longest: int, most: float
) -> None:
    """After each night the target has the truth. A user of a failed run, whom the target may lack, counts as well."""
    read = needless = 0
    for seed in range(HISTORIES):
        history = History(seed, tmp_path / str(seed), pipelines, longest)
        for _ in range(NIGHTS):
            history.night()
        read, needless = read + history.read, needless + history.needless
    assert needless / read < most, f"{needless:,} of {read:,} users were emitted needlessly"
