"""A run has ended, and its loader has failed: the next one reads its export again while STATE does not confirm it."""

from __future__ import annotations

import io
import json
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.export import Export
from tap_braze_export.exports.journal import KnownExport
from tap_braze_export.exports.resume import known_export
from tap_braze_export.state import Bookmark
from tests.support import ports
from tests.support.fakes import Reader
from tests.support.nights import Nights, user
from tests.support.runs import Run, selecting, settings, sync, tap_class
from tests.support.steps import Steps, braze, crash, exports, nothing, posts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

USERS = selecting(["users", "export_files"], {"users": ["first_name"]})
NAMES = selecting(["users", "export_files"], {"users": ["first_name", "last_name"]})
DAY, MINUTE = 24 * 3600, 60
AGAIN = "is read again, without a new one, as the loader has not confirmed it"

# The rule by itself: an export of 11:40 that a run has read to its end

FIELDS = ("braze_id", "email")


def bookmark(export_id: str, at: float, *, fields: tuple[str, ...] = FIELDS, **more: Any) -> Bookmark:
    return Bookmark(Export("segment", "seg", export_id, at), fields, "rows", **{"in_bucket": True, **more})


ONE_FILE = {b"12345678": None}
READ = KnownExport(
    bookmark("read", 1100, running=False, users=9, last_users=7, digests={**ONE_FILE, b"abcdefgh": None}),
    token="token",
    given_state="given",
    proven=True,
)
BEFORE = bookmark("before", 500, running=False)


@pytest.mark.parametrize(
    ("in_state", "given_state", "wanted", "expected"),
    [
        # The STATE that the run was handed, too: its loader has confirmed nothing.
        (None, "given", {}, ("read", 0)),
        (BEFORE, "given", {}, ("read", 0)),
        (bookmark("by a clock that is ahead", 1900, running=False), "given", {}, ("read", 0)),
        # STATE names the export as running.
        (bookmark("read", 1100), "other", {}, ("read", 0)),
        (bookmark("read", 1100, digests=ONE_FILE), "other", {}, ("read", 1)),
        (bookmark("read", 1100, digests=ONE_FILE), "given", {}, ("read", 1)),
        # STATE names it as ended: the target has it.
        (bookmark("read", 1100, running=False), "other", {}, None),
        (bookmark("read", 1100, running=False), "given", {}, None),
        # Another STATE, or none.
        (None, "other", {}, None),
        (BEFORE, "other", {}, None),
        (bookmark("on another machine", 1200), "other", {}, ("on another machine", 0)),
        (None, "", {}, None),
        # Other rows are wanted of it.
        (None, "given", {"rows_signature": "other", "fields": ("braze_id",)}, ("read", 0)),
        (bookmark("read", 1100, digests=ONE_FILE), "other", {"rows_signature": "other"}, ("read", 0)),
        (None, "given", {"rows_signature": "other", "fields": (*FIELDS, "phone")}, None),
        # Its deadline.
        (None, "given", {"at": 1100 + 5000}, ("read", 0)),
        (None, "given", {"at": 1100 + 5001}, None),
        (bookmark("read", 1100), "other", {"at": 1100 + 5001}, None),
    ],
)
def test_an_export_that_was_read(
    in_state: Bookmark | None, given_state: str, wanted: dict[str, Any], expected: tuple[str, int] | None
) -> None:
    """Which export a run goes on with, and how many of its files it skips; None if it starts a new one."""
    signature = wanted.pop("rows_signature", "rows")
    wants = bookmark("", **{"at": 2000, **wanted})
    wants.rows_signature = signature

    found = known_export(in_state, READ, wants, given_state=given_state, timeout=5000, has_bucket=True)

    assert (found and (found.export.export_id, found.bookmark.files)) == expected
    if found and found.export.export_id == "read":
        assert found.bookmark.running
        assert found.bookmark.rows_signature == signature
        assert (found.read_before, found.proven, found.token) == (READ.bookmark, True, "token")


def test_runs_that_never_get_a_state_start_anew() -> None:
    """An empty STATE is the same each time, and says nothing."""
    read = KnownExport(READ.bookmark, given_state="")
    assert known_export(None, read, bookmark("", 2000), given_state="", timeout=5000, has_bucket=True) is None


# Whole runs


@dataclass
class Pipeline:
    """Runs of a tap, whose loader confirms the last STATE or fails.

    Attributes:
        sandbox: Braze.
        clock: Time.
        config: The tap's settings.
        state: The last STATE that was confirmed.
        runs: The runs.
    """

    sandbox: Sandbox
    clock: Steps
    config: dict[str, Any]
    state: dict[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)

    def run(self, *, confirms: int | None = -1, after: float = 10 * MINUTE, catalog: Any = USERS, **more: Any) -> Run:
        """Run the tap.

        Args:
            confirms: The number of the STATE that the loader confirms; None if it fails.
            after: Seconds since the last run.
            catalog: The catalog.
            more: More settings, and `fails`.
        """
        self.clock.time += after
        fails = more.pop("fails", False)
        run = sync({**self.config, **more}, clock=self.clock, catalog=catalog, state=self.state, fails=fails)
        if confirms is not None:
            self.state = run.states[confirms]
        self.runs.append(run)
        return run

    @property
    def downloads(self) -> list[Path]:
        """The files in the folders of exports, but for notes of a download."""
        return [path for path in self.spool.glob("exports/*/*") if path.suffix != ".json"]

    @property
    def spool(self) -> Path:
        return Path(self.config["spool_dir"])

    @property
    def fetches(self) -> int:
        """Downloads from Braze's store."""
        return sum(call.service == "download" for call in self.sandbox.calls)


def records(run: Run) -> list[dict[str, Any]]:
    """All records of a run but for when they were read, in an order of their own."""
    rows = [dict(message["record"], read_at="") for message in run.of_type("RECORD")]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def told(run: Run) -> list[str]:
    return [line for line in run.lines if AGAIN in line]


def pipeline(folder: Path, sandbox: Sandbox, clock: Steps, **more: Any) -> Pipeline:
    """A pipeline whose loader has confirmed an export a day ago."""
    bucket = folder / "bucket"
    config = settings(sandbox, folder, **({"bucket_url": str(bucket)} if bucket.exists() else {}), **more)
    made = Pipeline(sandbox, clock, config)
    made.run()
    clock.time += DAY
    return made


DELIVERIES = pytest.mark.parametrize("in_bucket", [False, True], ids=["URL", "bucket"])


@DELIVERIES
def test_loader_that_fails_after_the_tap_has_ended(tmp_path: Path, *, in_bucket: bool) -> None:
    """Again and again: no new export, no download, no waiting, the same rows; one line says so. Then a new export."""
    clock = Steps(now=time.time() - DAY)  # what is left has the disk's time
    with braze(clock, tmp_path if in_bucket else None) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        failed = tap.run(confirms=None)
        fetches, waits = tap.fetches, len(clock.slept)
        again = [tap.run(confirms=None), tap.run(), tap.run(after=DAY)]
        assert posts(sandbox) == [201] * 3
        assert tap.fetches == fetches + (not in_bucket)
    assert failed.counts == {"users": 9, "export_files": 3}
    assert records(again[0]) == records(again[1]) == records(failed) != records(again[2])
    assert [len(told(run)) for run in (failed, *again)] == [0, 1, 1, 0]
    (exported_at,) = {row["exported_at"] for row in failed.rows("users")}
    assert f"The export of {exported_at} {AGAIN}" in told(again[0])[0]
    assert not again[0].warnings
    one, other = (exports(run.states[-1])[0] | {"emitted": "in any order"} for run in (failed, again[1]))
    assert one == other
    assert in_bucket or clock.slept[waits:] == []


def test_bucket_is_not_waited_for_again(tmp_path: Path) -> None:
    """All files were there, so nobody waits for quiet or for a callback."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock, settle_minutes=30)
        tap.run(confirms=None)
        waits = len(clock.slept)
        again = tap.run()
    assert again.counts["users"] == 9
    assert sum(clock.slept[waits:]) < MINUTE


@DELIVERIES
def test_state_that_names_the_export_as_running(tmp_path: Path, *, in_bucket: bool) -> None:
    """The loader has confirmed one file before it failed: only the others are read again."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path if in_bucket else None) as sandbox:
        users = [{"braze_id": f"b{number}", "first_name": "x" * 200_000} for number in range(9)]
        sandbox.add_segment("all-users", files=[users[:3], users[3:6], users[6:]])
        tap = pipeline(tmp_path, sandbox, clock)
        failed = tap.run(confirms=2)
        given, begun, one_read = (exports(state)[0] for state in failed.states[:3])
        again = tap.run()
        assert posts(sandbox) == [201] * 2
    assert [given["running"], begun["running"], one_read["running"]] == [False, True, True]
    assert (begun["files"], one_read["files"]) == (0, 1)
    assert again.counts == {"users": 6, "export_files": 2}
    assert sorted(again.ids()) == sorted(failed.ids()[3:])
    assert [line for line in told(again) if line.endswith("1 files confirmed")]
    assert exports(again.states[-1])[0]["users"] == 9


@DELIVERIES
@pytest.mark.parametrize(
    "state",
    [
        lambda tap: tap.runs[-1].states[-1],
        lambda _: None,
        lambda _: {},
        lambda _: {"bookmarks": {"export_files": {}}},
    ],
    ids=["the export has ended", "none", "empty", "empty for the tap"],
)
def test_state_that_means_a_new_export(
    tmp_path: Path, *, in_bucket: bool, state: Callable[[Pipeline], dict[str, Any] | None]
) -> None:
    """The kept download goes, and only the one of the new export is there."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path if in_bucket else None) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.run(confirms=None)
        before = tap.downloads
        tap.state = state(tap)
        again = tap.run(confirms=None)
        assert posts(sandbox) == [201] * 3
        after = tap.downloads
    assert again.counts["users"] == 9
    assert not told(again)
    assert len(before) == len(after) == (not in_bucket)
    assert not {*before} & {*after}


def test_orchestrator_that_always_hands_an_empty_state(tmp_path: Path) -> None:
    """Each run starts anew, however soon it comes after the last one."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = Pipeline(sandbox, clock, settings(sandbox, tmp_path))
        runs = [tap.run(confirms=None) for _ in range(3)]
        assert posts(sandbox) == [201] * 3
        assert len(tap.downloads) == 1
    assert len({row["exported_at"] for run in runs for row in run.rows("users")}) == 3


@DELIVERIES
def test_deadline_bounds_it(tmp_path: Path, *, in_bucket: bool) -> None:
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path if in_bucket else None) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock, export_timeout_minutes=60)
        tap.run(confirms=None)
        again = tap.run(after=61 * MINUTE)
        assert posts(sandbox) == [201] * 3
    assert again.counts["users"] == 9
    assert [line for line in again.warnings if "export_timeout_minutes are over" in line]


def test_other_rows_of_it(tmp_path: Path) -> None:
    """Fields it was asked for, all the same: every file again. A field it was not asked for: a new export."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.run(confirms=None, catalog=NAMES)
        fewer = tap.run(confirms=None, catalog=USERS)
        assert posts(sandbox) == [201] * 2
        more = tap.run(catalog=selecting(["users"], {"users": ["first_name", "email"]}))
        assert posts(sandbox) == [201] * 3
    assert (fewer.counts["users"], more.counts["users"]) == (9, 9)
    assert set(fewer.rows("users")[0]) == {"braze_id", "first_name", "exported_at"}
    assert [line for line in more.warnings if "not asked for every field" in line]


def test_on_another_machine(tmp_path: Path) -> None:
    """The journal is not there: a new export."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.run(confirms=None)
        again = tap.run(spool_dir=str(tmp_path / "elsewhere"))
        assert posts(sandbox) == [201] * 3
    assert again.counts["users"] == 9


@pytest.mark.fault("Local disk", "somebody has removed a download that is needed again", "a new export")
def test_download_that_somebody_removed(tmp_path: Path) -> None:
    """Its link may be dead: a new export is started, also where STATE names this one as running."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        for confirms in (None, 1):
            tap.run(confirms=confirms)
            (download,) = tap.downloads
            download.unlink()
        assert posts(sandbox) == [201] * 3
        again = tap.run()
        assert posts(sandbox) == [201] * 4
    assert again.counts["users"] == 9


def test_one_of_two_segments_failed(tmp_path: Path) -> None:
    """The loader confirms nothing: the one that was read is read again, the other one is requested again."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.config["segment_ids"] = ["all-users", "new"]
        failed = tap.run(confirms=None, fails=True)
        sandbox.add_segment("new", [{"braze_id": "n"}])
        again = tap.run()
        assert posts(sandbox) == [201, 201, 400, 201]
    assert failed.counts["users"] == 9
    assert sorted(again.ids()) == sorted([*failed.ids(), "n"])
    assert [line for line in told(again) if "segment all-users" in line]


@pytest.mark.fault("Loader and signals", "a loader that fails again and again", "the same rows, without another export")
def test_loader_that_dies_while_it_is_read_again(tmp_path: Path) -> None:
    """The third run reads it from its first file, too, and still waits for nothing."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.run(confirms=None)
        reader, waits = Reader(b'"stream":"users"'), len(clock.slept)
        with redirect_stdout(io.TextIOWrapper(io.BufferedWriter(reader))), pytest.raises(BrokenPipeError):
            tap_class(clock)(config=tap.config, catalog=USERS, state=tap.state).sync_all()
        again = tap.run()
        assert posts(sandbox) == [201] * 2
    assert again.counts["users"] == 9
    assert len(told(again)) == 1
    assert sum(clock.slept[waits:]) < MINUTE


# What else must stay as it was


def test_activate_version(tmp_path: Path) -> None:
    """A run that reads every file again may have loaders delete rows; one that skips a confirmed file may not."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        users = [{"braze_id": f"b{number}", "first_name": "x" * 200_000} for number in range(9)]
        sandbox.add_segment("all-users", files=[users[:3], users[3:6], users[6:]])
        tap = pipeline(tmp_path, sandbox, clock, emit_activate_version_messages=True)
        failed = tap.run(confirms=None)
        again = tap.run(confirms=2)
        rest = tap.run()
        assert posts(sandbox) == [201] * 2
    versions = [{message["stream"] for message in run.of_type("ACTIVATE_VERSION")} for run in (failed, again, rest)]
    assert versions == [{"users"}, {"users"}, set()]
    assert rest.counts["users"] == 6


@pytest.mark.parametrize("calls_back", [True, False])
def test_activate_version_of_a_bucket(tmp_path: Path, *, calls_back: bool) -> None:
    """Only if Braze had said that every file was there."""
    clock = Steps(now=time.time() - DAY)
    port = ports.free_port()
    listening = {"callback_url": f"http://127.0.0.1:{port}/", "callback_listen": f"127.0.0.1:{port}"}
    with braze(clock, tmp_path) as sandbox:
        more = listening if calls_back else {}
        tap = pipeline(tmp_path, sandbox, clock, emit_activate_version_messages=True, **more)
        failed = tap.run(confirms=None)
        again = tap.run()
        assert posts(sandbox) == [201] * 2
    assert bool(failed.of_type("ACTIVATE_VERSION")) == calls_back
    assert bool(again.of_type("ACTIVATE_VERSION")) == calls_back
    assert again.counts["users"] == 9


@pytest.mark.parametrize("ends", [True, False])
def test_late_files_of_the_export_before(tmp_path: Path, *, ends: bool) -> None:
    """They were emitted before the new export, and not confirmed: they come again, and before that one."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path, faults=["late-file"]) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        sandbox.deliver_next_file()
        sandbox.set_faults()
        clock.steps = [] if ends else [nothing, crash]
        failed = tap.run(confirms=None, fails=not ends)
        clock.steps = []
        again = tap.run()
        assert posts(sandbox) == [201] * 2
    late, *_ = failed.rows("export_files")
    assert again.rows("export_files")[0]["file"] == late["file"]
    assert len({row["export_id"] for row in again.rows("export_files")}) == 2
    assert len(again.rows("export_files")) == 4


@pytest.mark.parametrize("gone", [1, 3])
@pytest.mark.fault("Bucket", "files that are gone when a loader that failed needs them again", "one line; a new export")
def test_files_that_have_gone_from_the_bucket(tmp_path: Path, gone: int) -> None:
    """They are missed: the run fails, and the next one starts anew."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        failed = tap.run(confirms=None)
        for row in failed.rows("export_files")[:gone]:
            (path,) = (tmp_path / "bucket").rglob(row["file"].partition("!")[0])
            path.unlink()
        again = tap.run(confirms=None, fails=True)
        anew = tap.run()
        assert posts(sandbox) == [201] * 3
    assert f"{gone} files of it, which an earlier run has read, are gone: run again for a new export" in again.error
    assert anew.counts["users"] == 9


def test_late_file_of_an_export_that_is_read_again(tmp_path: Path) -> None:
    """It has come since, and is read with the others."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock, tmp_path) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        sandbox.set_faults("late-file")
        failed = tap.run(confirms=None)
        sandbox.deliver_next_file()
        again = tap.run()
        assert posts(sandbox) == [201] * 2
    assert (failed.counts["users"], again.counts["users"]) == (6, 9)


@pytest.mark.parametrize("confirms", [None, 1])
def test_fingerprints(tmp_path: Path, confirms: int | None) -> None:
    """The users that had changed are emitted again, and those that left; the others are skipped."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        nights = Nights(sandbox, tmp_path, clock=clock)
        nights.run({"s": [user(f"u{number}") for number in range(9)]})
        changed = [user(f"u{number}", "Paris" if number == 3 else "Berlin") for number in range(8)]
        failed = nights.run({"s": changed}, loads=False, confirms=False)
        if confirms is not None:
            nights.state = failed.states[confirms]
        clock.time -= DAY - 10 * MINUTE
        again = nights.run(segment_ids=["s"])
        assert posts(sandbox) == [201] * 2
    assert again.counts == failed.counts
    assert failed.ids() == again.ids() == ["u3"]
    assert nights.target.members("s") == [f"u{number}" for number in range(8)]


def test_journal_holds_no_state(tmp_path: Path) -> None:
    """Only a digest of what the run was handed."""
    clock = Steps(now=time.time() - DAY)
    with braze(clock) as sandbox:
        tap = pipeline(tmp_path, sandbox, clock)
        tap.run(confirms=None)
        (path,) = (tap.spool / "journal").glob("*.json")
        content = json.loads(path.read_bytes())
        last = exports(tap.runs[0].states[-1])[0]
    assert len(content["given_state"]) == 24
    assert last["export_id"] not in path.read_text()
