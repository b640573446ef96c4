"""Every history of a bucket ends: with all rows of what was there, or with one line, and never after the deadline."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import DamagedFileError, ExportError
from tap_braze_export.export import Export
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.files.archive import Member
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.state import Bookmark
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.files.prefetch import Fetched

pytestmark = pytest.mark.slow

HISTORIES = int(os.environ.get("BUCKET_HISTORIES", "300"))
TIMEOUT, SETTLE = 1500.0, 600.0
LONGEST_INTERVAL = 60.0
NAMES = st.sampled_from(["a.zip", "b.zip", "c.zip"])


class AtOnce(Executor):
    """Runs each call when it is submitted."""

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)
        return future


class Folder:
    """The folder of an export in a bucket: by name, the users of each object; None while it is damaged."""

    def __init__(self) -> None:
        self.contents: dict[str, tuple[int, str | None]] = {}
        self.listed: set[str | None] = set()
        """The users that the last listing has shown; None for a damaged file."""
        self.listed_damaged: set[str] = set()
        """Damaged objects that a listing has shown, and that no other object has come after."""
        self.had_new = False
        """True if the last listing has shown an object, or a version of one, that no listing had shown before."""
        self._shown: set[tuple[str, int]] = set()
        self._version = 0

    def put(self, name: str, user: str | None) -> None:
        self._version += 1
        self.contents[name] = (self._version, user)
        self.listed_damaged.clear()

    def objects(self, _export_id: str, _segment_id: str | None) -> list[BucketObject]:
        self.listed = {user for _, user in self.contents.values()}
        shown = {(name, version) for name, (version, _) in self.contents.items()}
        self.had_new = not shown <= self._shown
        self._shown |= shown
        self.listed_damaged |= {name for name, (_, user) in self.contents.items() if user is None}
        return [BucketObject(name, name, 1, str(version)) for name, (version, _) in sorted(self.contents.items())]

    def twin(self, _leftover: BucketObject, _others: list[BucketObject]) -> None:
        return None

    def find_misplaced(self) -> bool:
        return False

    def elsewhere(self, _export_id: str, _segment_id: str) -> tuple[str, bool]:
        return "", False

    def fetch(self, wanted: BucketObject) -> Fetched:
        version, user = self.contents.get(wanted.path, (0, None))
        if user is None or str(version) != wanted.version:
            raise DamagedFileError(f"{wanted.name} is damaged")
        return wanted, [Member(f"{wanted.name}!0-{user}", 1)]


class Histories(RuleBasedStateMachine):
    """Braze and other programs write, rename, damage, repair and delete; time passes; Braze calls back, or does not."""

    @initialize(is_late=st.booleans(), settle=st.sampled_from([SETTLE, 0.0]))
    def begin(self, *, is_late: bool, settle: float = SETTLE) -> None:
        self.clock = FakeClock()
        self.folder = Folder()
        self.called_back = False
        self.never_stops = False
        self.read: set[str] = set()
        self.error = ""
        self.users = 0
        self.is_late = is_late
        self.deadline = self.clock.elapsed + (SETTLE if is_late else TIMEOUT)
        self.export = BucketExport(
            Bookmark(Export("segment", "s", "e-1", self.clock.time), (), "", in_bucket=True),
            self.folder,  # type: ignore[arg-type]
            self.folder,
            timer=PollTimer(self.clock, 10),
            threads=AtOnce(),
            clock=self.clock,
            settle_seconds=None if is_late else settle,
            deadline=self.deadline,
            called_back=lambda: self.called_back,
        )

    @property
    def has_ended(self) -> bool:
        return self.export.complete or bool(self.error)

    def poll(self, files: int = 99) -> None:
        """Read what can be read, as a run does; a slow one reads so many files only."""
        for _ in range(files):
            if self.has_ended:
                return
            try:
                found = self.export.poll() or self.export.poll()  # the second one finds what the first has fetched
            except ExportError as error:
                self.error = str(error)
                return
            if not found:
                return
            self.read.add(found[0].name.partition("-")[2])
            self.export.done(found[0], 1)

    def poll_only(self) -> None:
        """Find files, and have no time to read one."""
        try:
            self.export.poll()
        except ExportError as error:
            self.error = str(error)

    def write(self, name: str, *, sound: bool) -> None:
        self.users += 1
        self.folder.put(name, f"user{self.users}" if sound else None)

    @rule(name=NAMES, sound=st.booleans())
    @precondition(lambda self: not self.called_back)
    def braze_writes(self, name: str, *, sound: bool) -> None:
        """A new file, or a half-written one."""
        if name not in self.folder.contents:
            self.write(name, sound=sound)

    @rule(name=NAMES)
    def a_half_written_file_changes(self, name: str) -> None:
        if self.folder.contents.get(name, (0, "sound"))[1] is None:
            self.write(name, sound=False)

    @rule(name=NAMES)
    def a_half_written_file_becomes_whole(self, name: str) -> None:
        if self.folder.contents.get(name, (0, "sound"))[1] is None:
            self.write(name, sound=True)

    @rule(name=NAMES)
    @precondition(lambda self: not self.called_back)
    def a_file_is_replaced(self, name: str) -> None:
        """By another one of the same name, whatever was read of the first."""
        if self.folder.contents.get(name, (0, None))[1] is not None:
            self.write(name, sound=True)

    @rule(name=NAMES)
    def a_file_is_deleted(self, name: str) -> None:
        self.folder.contents.pop(name, None)

    @rule(name=NAMES, other=NAMES)
    def a_file_is_renamed(self, name: str, other: str) -> None:
        if name in self.folder.contents and other not in self.folder.contents:
            _, user = self.folder.contents.pop(name)
            self.folder.put(other, user)

    @rule()
    @precondition(lambda self: not self.called_back)
    def braze_never_stops(self) -> None:
        """From now on a new file comes at each poll."""
        self.never_stops = True

    @rule()
    @precondition(lambda self: not self.never_stops)
    def braze_calls_back(self) -> None:
        self.called_back = True

    @rule(seconds=st.sampled_from([1.0, 15.0, 61.0, 450.0, 700.0]), files=st.sampled_from([0, 1, 99]))
    def time_passes(self, seconds: float, files: int) -> None:
        self.clock.elapsed += seconds
        if not self.has_ended and not files:
            self.poll_only()
        self.poll(files)

    @override
    def teardown(self) -> None:
        """Let time pass until well after the deadline, the run polling as it does, and look at the end."""
        if not hasattr(self, "export"):
            return
        last = max(self.deadline, self.clock.elapsed) + 4 * LONGEST_INTERVAL
        while not self.has_ended and self.clock.elapsed < last:
            self.clock.elapsed += 10
            if self.never_stops:
                self.folder.put(f"{self.clock.time}.zip", "more")
            self.poll()
        assert self.has_ended, "the export outlives its deadline"
        if not self.error and self.export.proven:
            there = {user for _, user in self.folder.contents.values()}
            assert None not in there, "a damaged file was passed over"
            assert there <= self.read, "a file was left out"
        if not (self.error or self.export.proven or self.is_late):
            assert not self.folder.had_new, "it ended at a listing that showed something new"
        if not self.error:
            assert self.folder.listed <= self.read, "a file that was listed was not read"
            assert not self.folder.listed_damaged, "a damaged file went away, no other came, and nobody was told"


@pytest.mark.parametrize("steps", [8, 20])
def test_every_history_of_a_bucket_ends(steps: int) -> None:
    """BUCKET_HISTORIES=10000 tries as many."""
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=HISTORIES // 2,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            database=None,
        ),
    )


def test_file_that_changes_while_it_is_read_is_read_again() -> None:
    """The listing shows the new file before the rows of the old one are written: a rare history, told here."""
    history = Histories()
    history.begin(is_late=False)
    history.braze_writes(name="a.zip", sound=True)
    for _ in range(2):
        history.time_passes(seconds=1.0, files=0)
    history.a_file_is_replaced(name="a.zip")
    history.time_passes(seconds=15.0, files=0)
    history.time_passes(seconds=1.0, files=1)
    assert history.read == {"user1"}
    history.teardown()
    assert history.read == {"user1", "user2"}
