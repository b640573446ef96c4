"""`kill -9` at any moment and a second run: the same rows as one undisturbed run, from one export."""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import preloaded
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.runs import Output, environment, settings, sync, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.preloaded import Copy

pytestmark = pytest.mark.slow

USERS, USERS_PER_FILE = 360, 30
SECONDS = 30
STARTED = "/users/export/segment"
RANDOM = random.Random(20_261_121)
# Kills by share of the output that was read: inside files, since a file is several times what a pipe holds.
SHARES = sorted(round(RANDOM.uniform(0.02, 0.97), 3) for _ in range(6))


@dataclass
class Killed(Output):
    """A killed run: the whole lines of its output, as a target would have got them, and its journal."""

    stdout: bytes = b""
    journal: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Any] | None:
        return self.states[-1] if self.states else None

    @property
    def ended(self) -> bool:
        """True if its last STATE says that the export was read to its end."""
        return bool(self.state) and not any(export["running"] for export in exports(self.state))

    def rows_until_state(self) -> set[str]:
        """The rows that the last STATE covers."""
        at = max((at for at, message in enumerate(self.messages) if message["type"] == "STATE"), default=0)
        return set(rows(self.messages[:at]))


def exports(state: dict[str, Any] | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = state["bookmarks"]["export_files"]["exports"] if state else []
    return found


def rows(messages: list[dict[str, Any]]) -> list[str]:
    """Rows as one line each, without the column that differs from export to export."""
    lines = []
    for message in messages:
        if message["type"] == "RECORD" and message["stream"] != "export_files":
            row = {name: value for name, value in message["record"].items() if name != "exported_at"}
            lines.append(message["stream"] + json.dumps(row, sort_keys=True))
    return lines


def exported_at(messages: list[dict[str, Any]]) -> set[str]:
    return {message["record"]["exported_at"] for message in messages if message["type"] == "RECORD"}


@dataclass
class Running:
    """The running command; a thread reads its output, up to `most` bytes until it is killed."""

    process: Copy
    most: int

    def __post_init__(self) -> None:
        self.read = bytearray()
        self._moved = threading.Condition()
        self._killed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            size = 65_536 if self._killed.is_set() else min(65_536, self.most - len(self.read))
            if not size:
                self._killed.wait()
                continue
            chunk = self.process.stdout.read1(size)
            if not chunk:
                return
            with self._moved:
                self.read += chunk
                self._moved.notify_all()

    def until(self, moment: Callable[[], object]) -> None:
        """Wait for a moment; check for it whenever output comes, and every 2 ms."""
        end = time.monotonic() + SECONDS
        with self._moved:
            while not moment():
                assert self.process.poll() is None, "the run ended before the moment came"
                assert time.monotonic() < end, "the moment never came"
                self._moved.wait(0.002)

    def kill(self) -> bytes:
        self.process.kill()
        self._killed.set()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        return bytes(self.read)


@dataclass
class Moment:
    """When to kill, and how to set the sandbox up for it."""

    name: str
    comes: Callable[[Scene], bool] = lambda _: True
    share: float | None = None
    empty_polls: int = 0
    hold: bool = False
    delivered: int = 0
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclass
class Scene:
    """A sandbox, a tap's settings, and the output of an undisturbed run."""

    sandbox: Sandbox
    config: dict[str, Any]
    folder: Path
    expected: list[str] = field(default_factory=list)
    size: int = 0
    run: Running | None = None
    calls_before: int = 0

    @property
    def output(self) -> Output:
        assert self.run is not None
        return whole(bytes(self.run.read))

    def calls(self, path: str) -> list[int]:
        """The statuses of the calls since the moment was set up."""
        return [call.status for call in self.sandbox.calls[self.calls_before :] if path in call.path]

    @property
    def journal(self) -> dict[str, Any]:
        """The journal on disk."""
        for path in (self.folder / "spool" / "journal").glob("*.json"):
            content: dict[str, Any] = json.loads(path.read_bytes())
            return content
        return {}

    @property
    def export_id(self) -> str:
        """Of the export that the journal says is running; the one of the moment before stays there, as ended."""
        bookmark = self.journal.get("bookmark", {})
        return str(bookmark["export_id"]) if bookmark.get("running") else ""

    @property
    def part(self) -> int:
        """The bytes of the download that have come."""
        return sum(path.stat().st_size for path in (self.folder / "spool" / "exports").glob("*/download.part"))

    def killed_at(self, moment: Moment) -> Killed:
        options = self.sandbox.workspace.options
        options.empty_polls, options.hold = moment.empty_polls, moment.hold
        self.sandbox.set_faults(*moment.faults)
        self.calls_before = len(self.sandbox.calls)
        most = 10**9 if moment.share is None else int(self.size * moment.share)
        config = written(self.folder, self.config)
        with (self.folder / "log").open("ab") as log:
            process = preloaded.tap().start(["--config", config], env=environment(), stderr=log.fileno())
        self.run = run = Running(process, most)
        try:
            for number in range(moment.delivered):
                run.until(lambda: self.export_id)
                self.sandbox.deliver_next_file()
                run.until(lambda number=number: self.output.counts["export_files"] > number)  # type: ignore[misc]
            if moment.share is not None:
                run.until(lambda: len(run.read) >= most)
            run.until(lambda: moment.comes(self))
        finally:
            output = run.kill()
        options.empty_polls, options.hold = 0, False
        self.sandbox.set_faults()
        self.sandbox.finish_exports()
        return Killed(whole(output).stdout, journal=self.journal)

    def second(self, killed: Killed) -> Output:
        return sync(self.config, state=killed.state, clock=FakeClock(time.time()))


def whole(output: bytes) -> Output:
    """The lines that are complete."""
    return Output(output[: output.rfind(b"\n") + 1])


def undisturbed(scene: Scene) -> Scene:
    run = sync(scene.config, clock=FakeClock(time.time()))
    scene.expected = sorted(set(rows(run.messages)))
    scene.size = len(run.stdout)
    return scene


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Exports behind a URL."""
    folder = tmp_path_factory.mktemp("hosted")
    with Sandbox(users=USERS, users_per_file=USERS_PER_FILE) as sandbox:
        yield undisturbed(Scene(sandbox, settings(sandbox, folder, poll_interval_seconds=1), folder))


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Exports into a bucket."""
    folder = tmp_path_factory.mktemp("bucket")
    url = str(folder / "bucket")
    with Sandbox(users=USERS, users_per_file=USERS_PER_FILE, bucket_url=url) as sandbox:
        yield undisturbed(Scene(sandbox, settings(sandbox, folder, poll_interval_seconds=1, bucket_url=url), folder))


def posted(scene: Scene) -> bool:
    return bool(scene.calls(STARTED))


def remembered(scene: Scene) -> bool:
    return bool(scene.export_id)


def polled(times: int) -> Callable[[Scene], bool]:
    return lambda scene: len(scene.calls("/segment-export/")) >= times


def read(files: int) -> Callable[[Scene], bool]:
    return lambda scene: scene.output.counts["export_files"] >= files


HOSTED = [
    Moment("POST received", posted, empty_polls=9),
    Moment("response saved", remembered, empty_polls=9),
    Moment("first STATE", lambda scene: bool(scene.output.states), empty_polls=9),
    Moment("first poll", polled(1), empty_polls=9),
    Moment("second poll", polled(2), empty_polls=9),
    Moment("download begun", lambda scene: scene.part > 0, faults=("slow-download",)),
    Moment("download half done", lambda scene: scene.part > 100_000, faults=("slow-download",)),
    Moment("one file read", read(1), share=0.12),
    *(Moment(f"{share:.1%} of the output", share=share) for share in SHARES),
]
DELIVERED = [
    Moment("POST received", posted, hold=True),
    Moment("response saved", remembered, hold=True),
    Moment("first STATE", lambda scene: bool(scene.output.states), hold=True),
    *(Moment(f"{files} files read, waiting", hold=True, delivered=files) for files in (1, 3)),
    Moment("every file read, waiting for quiet", read(USERS // USERS_PER_FILE)),
    *(Moment(f"{share:.1%} of the output", share=share) for share in SHARES),
]


def prove(scene: Scene, moment: Moment) -> Output:
    """Kill a run, run again, and check both runs."""
    killed = scene.killed_at(moment)
    unsaved = killed.journal.get("bookmark", {}).get("export_id") == "" and not killed.states
    assert not killed.ended
    second = scene.second(killed)
    started = scene.calls(STARTED).count(201)
    if "bucket_url" in scene.config or not unsaved:
        assert started == 1
        assert len(exported_at(killed.messages) | exported_at(second.messages)) == 1
    else:
        assert started <= 2
    assert sorted({*rows(killed.messages), *rows(second.messages)}) == scene.expected
    assert not killed.rows_until_state() & set(rows(second.messages))
    (export,) = exports(second.states[-1])
    assert not export["running"]
    assert scene.journal["bookmark"]["running"] is False
    return second


@pytest.mark.parametrize("moment", at_night(HOSTED, but=HOSTED[1:8:3]), ids=str)
@pytest.mark.fault(
    "Loader and signals",
    "kill -9 at any moment of a download's run",
    "the same rows after the next run, and one export",
)
def test_killed_with_a_download(hosted: Scene, moment: Moment) -> None:
    """The union of rows is one run's, one POST started one export, and no file that STATE covers comes twice."""
    prove(hosted, moment)
    polls = hosted.calls("/segment-export/")
    assert polls[-1:] in ([200], [206])
    if moment.name == "download half done":
        assert polls == [200, 206]


@pytest.mark.parametrize("moment", at_night(DELIVERED, but=[DELIVERED[0], DELIVERED[4], DELIVERED[7]]), ids=str)
@pytest.mark.fault(
    "Loader and signals", "kill -9 at any moment of a bucket's run", "the same rows after the next run, and one export"
)
def test_killed_with_a_bucket(delivered: Scene, moment: Moment) -> None:
    """The same; and a POST whose response was never saved is recognised by the time in its folder's name."""
    prove(delivered, moment)
