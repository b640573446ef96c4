"""A run continues the export of an earlier run, reads it again, or starts anew."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.export import Export
from tap_braze_export.exports.journal import KnownExport
from tap_braze_export.exports.phases import Phase
from tap_braze_export.exports.resume import known_export, late_export
from tap_braze_export.state import Bookmark
from tests.support import ports
from tests.support.fakes import FakeClock
from tests.support.runs import Run, selecting, settings, sync
from tests.support.steps import Steps, braze, crash, nothing, posts

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

NAMES = selecting(["users", "export_files"], {"users": ["first_name", "last_name"]})
FIRST_NAMES = selecting(["users", "export_files"], {"users": ["first_name"]})
EMAILS = selecting(["users", "export_files"], {"users": ["first_name", "email"]})


def in_bucket(sandbox: Sandbox, folder: Path, **more: Any) -> dict[str, Any]:
    """Settings for three files of three users, each so long that a STATE after each file is no more than 1 %."""
    users = [{"braze_id": f"b{number}", "first_name": "x" * 200_000, "email": "a@b.c"} for number in range(9)]
    sandbox.add_segment("all-users", files=[users[:3], users[3:6], users[6:]])
    return settings(sandbox, folder, bucket_url=str(folder / "bucket"), **more)


def export_ids(run: Run) -> set[str]:
    return {row["export_id"] for row in run.rows("export_files")}


def crashed(clock: Steps, sandbox: Sandbox, config: dict[str, Any], catalog: Any = NAMES) -> Run:
    """A run that read one file of three from a bucket and crashed; the others have come since."""
    clock.steps = [sandbox.deliver_next_file, nothing, crash]
    run = sync(config, clock=clock, catalog=catalog, fails=True)
    sandbox.finish_exports()
    sandbox.workspace.options.hold = False
    clock.steps = []
    assert run.counts == {"users": 3, "export_files": 1}
    return run


# Which export, and from which file


def test_same_request_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """No second export, no file twice, the same exported_at."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        first = crashed(clock, sandbox, config)
        second = sync(config, clock=clock, catalog=NAMES, state=first.states[-1])
        assert posts(sandbox) == [201]
    assert second.counts == {"users": 6, "export_files": 2}
    assert not set(first.ids()) & set(second.ids())
    assert {row["exported_at"] for row in [*first.rows("users"), *second.rows("users")]} == {
        first.rows("users")[0]["exported_at"]
    }
    assert [line for line in second.lines if "Continuing export" in line and "1 files done" in line]


def test_smaller_selection_reads_it_from_its_first_file(tmp_path: Path) -> None:
    """The export asked for all that is needed now, but the rows look different: every file again."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        first = crashed(clock, sandbox, config)
        second = sync(config, clock=clock, catalog=FIRST_NAMES, state=first.states[-1])
        assert posts(sandbox) == [201]
    assert second.counts == {"users": 9, "export_files": 3}
    assert export_ids(second) == export_ids(first)
    assert set(second.rows("users")[0]) == {"braze_id", "first_name", "exported_at"}


@pytest.mark.parametrize(
    "shaping",
    [
        {"stream_maps": {"users": {"name": "first_name"}}},
        {"flattening_enabled": True, "flattening_max_depth": 1},
    ],
)
def test_changed_shape_of_rows_reads_it_from_its_first_file(tmp_path: Path, shaping: dict[str, Any]) -> None:
    """Stream maps and flattening as well make rows look different: every file again, and no second export."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        first = crashed(clock, sandbox, config)
        second = sync({**config, **shaping}, clock=clock, catalog=NAMES, state=first.states[-1])
        assert posts(sandbox) == [201]
    assert second.counts == {"users": 9, "export_files": 3}
    assert export_ids(second) == export_ids(first)


@pytest.mark.fault("STATE", "STATE of a run that asked for fewer fields", "a new export")
def test_missing_field_means_a_new_export(tmp_path: Path) -> None:
    """It was not asked for what is selected now: it is left to end, and the next one is waited for."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        clock.steps = [sandbox.deliver_next_file, nothing, crash]
        first = sync(config, clock=clock, catalog=NAMES, fails=True)

        def end() -> None:
            sandbox.workspace.options.hold = False
            sandbox.finish_exports()

        clock.steps = [nothing, end, nothing]
        second = sync(config, clock=clock, catalog=EMAILS, state=first.states[-1])
        assert posts(sandbox) == [201, 429, 429, 201]
    assert second.counts == {"users": 9, "export_files": 3}
    assert not export_ids(second) & export_ids(first)
    assert [line for line in second.warnings if "not asked for every field" in line]


# STATE and journal


@pytest.mark.fault("STATE", "no STATE after a crash", "the export goes on from its first file")
def test_journal_is_enough_to_go_on(tmp_path: Path) -> None:
    """A loader that never handed a STATE on: the export is continued, from its first file."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        crashed(clock, sandbox, config)
        second = sync(config, clock=clock, catalog=NAMES)
        assert posts(sandbox) == [201]
    assert second.counts == {"users": 9, "export_files": 3}


@pytest.mark.fault("STATE", "STATE that is older than the journal", "what it does not cover comes again")
def test_journal_never_says_what_the_target_has(tmp_path: Path) -> None:
    """Three runs of one export, the last with an older STATE: what that one does not cover comes again."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        clock.steps = [sandbox.deliver_next_file, nothing, crash]
        first = sync(config, clock=clock, catalog=NAMES, fails=True)
        clock.steps = [crash]
        sync(config, clock=clock, catalog=NAMES, state=first.states[-1], fails=True)
        sandbox.finish_exports()
        clock.steps = []
        third = sync(config, clock=clock, catalog=NAMES, state=first.states[0])
        assert posts(sandbox) == [201]
    assert third.counts == {"users": 9, "export_files": 3}


def test_download_needs_the_journal(tmp_path: Path) -> None:
    """STATE holds no link: on another machine an export behind a URL is left to end, and a new one started."""
    clock = Steps(crash)
    with braze(clock, empty_polls=1) as sandbox:
        config = settings(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=NAMES, fails=True)
        sandbox.finish_exports()
        clock.steps = []
        elsewhere = {**config, "spool_dir": str(tmp_path / "elsewhere")}
        second = sync(elsewhere, clock=clock, catalog=NAMES, state=first.states[-1])
        assert posts(sandbox) == [201, 201]
    assert second.counts["users"] == 9
    assert [line for line in second.warnings if "journal of another spool_dir" in line]


def test_bucket_does_not(tmp_path: Path) -> None:
    """An export in a bucket is continued on any machine that has STATE."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        first = crashed(clock, sandbox, config)
        elsewhere = {**config, "spool_dir": str(tmp_path / "elsewhere")}
        second = sync(elsewhere, clock=clock, catalog=NAMES, state=first.states[-1])
        assert posts(sandbox) == [201]
    assert second.counts == {"users": 6, "export_files": 2}


def test_deleting_the_journal_makes_it_forgotten(tmp_path: Path) -> None:
    """Without STATE and journal nothing is known of an export, as docs/state.md says."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        crashed(clock, sandbox, config)
        shutil.rmtree(tmp_path / "spool" / "journal")
        second = sync(config, clock=clock, catalog=NAMES)
        assert posts(sandbox) == [201, 201]
    assert second.counts == {"users": 9, "export_files": 3}


@pytest.mark.fault("STATE", "STATE of another version", "a new export; the log says why")
def test_state_of_another_version(tmp_path: Path) -> None:
    """It is not used, and the log says so."""
    clock = Steps()
    with braze(clock, tmp_path) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        state = sync(config, clock=clock, catalog=NAMES).states[-1]
        state["bookmarks"]["export_files"]["version"] = 99
        second = sync(config, clock=clock, catalog=NAMES, state=state)
    assert second.counts == {"users": 9, "export_files": 3}
    assert [line for line in second.warnings if "another version" in line]


def test_token_of_an_adopted_export(tmp_path: Path) -> None:
    """Braze calls the address that the first run gave it; the second run listens for that."""
    clock = Steps()
    port = ports.free_port()
    with braze(clock, tmp_path, hold=True) as sandbox:
        listening = {"callback_url": f"http://127.0.0.1:{port}/", "callback_listen": f"127.0.0.1:{port}"}
        config = in_bucket(sandbox, tmp_path, **listening)
        clock.steps = [sandbox.deliver_next_file, nothing, crash]
        first = sync(config, clock=clock, catalog=NAMES, fails=True)
        clock.steps = [sandbox.finish_exports, nothing]
        waits = len(clock.slept)
        second = sync(config, clock=clock, catalog=NAMES, state=first.states[-1])
        assert [call.status for call in sandbox.calls if call.service == "callback"] == [200]
    assert len(clock.slept) - waits == 1
    assert second.counts == {"users": 6, "export_files": 2}


# Ends


def test_deadline_counts_across_runs(tmp_path: Path) -> None:
    """A run that adopts an export waits no longer than the first one would have."""
    clock = Steps(nothing, nothing, crash)
    with braze(clock, faults=["never-ready"]) as sandbox:
        config = settings(sandbox, tmp_path, export_timeout_minutes=60)
        first = sync(config, clock=clock, catalog=NAMES, fails=True)
        clock.time += 50 * 60
        clock.steps, waited = [], len(clock.slept)
        second = sync(config, clock=clock, catalog=NAMES, state=first.states[-1], fails=True)
        assert posts(sandbox) == [201]
    assert sum(clock.slept[waited:]) < 12 * 60
    assert "after it was requested" in second.error


def test_a_request_in_the_future_has_its_whole_time_from_now(tmp_path: Path) -> None:
    """The clock of the run that requested it was ahead: it is waited for once more, neither for ever nor not at all."""
    for ahead in (600, 3_600, 365 * 86_400):
        folder = tmp_path / str(ahead)
        clock = Steps(nothing, nothing, crash)
        clock.ahead = ahead
        with braze(clock, faults=["never-ready"]) as sandbox:
            config = settings(sandbox, folder, export_timeout_minutes=60)
            first = sync(config, clock=clock, catalog=NAMES, fails=True)
            right = FakeClock(clock.true_time)
            second = sync(config, clock=right, catalog=NAMES, state=first.states[-1], fails=True)
            assert posts(sandbox) == [201]
        assert 60 * 60 <= sum(right.slept) <= 62 * 60, ahead
        assert min(right.slept) > 0
        assert "60 min after it was requested" in second.error


def test_export_past_its_deadline_is_not_continued(tmp_path: Path) -> None:
    clock = Steps()
    with braze(clock, tmp_path, hold=True) as sandbox:
        config = in_bucket(sandbox, tmp_path, export_timeout_minutes=60)
        first = crashed(clock, sandbox, config)
        clock.time += 3601
        second = sync(config, clock=clock, catalog=NAMES, state=first.states[-1])
        assert posts(sandbox) == [201, 201]
    assert second.counts == {"users": 9, "export_files": 3}
    assert [line for line in second.warnings if "export_timeout_minutes are over" in line]


def test_bucket_url_given_afterwards(tmp_path: Path) -> None:
    """The run that fails for want of bucket_url remembers the export; once it is set, that export is read."""
    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        without = {name: value for name, value in config.items() if name != "bucket_url"}
        first = sync(without, clock=clock, catalog=NAMES, fails=True)
        second = sync(config, clock=clock, catalog=NAMES)
        assert posts(sandbox) == [201]
    assert "set bucket_url" in first.error
    assert second.counts == {"users": 9, "export_files": 3}


def test_state_survives_a_deep_merge(tmp_path: Path) -> None:
    """Merged over any older STATE, key by key, the newer one is the same: nothing is keyed by export."""

    def merged(old: Any, new: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return new
        return old | {key: merged(old.get(key), value) for key, value in new.items()}

    clock = FakeClock()
    with braze(clock, tmp_path) as sandbox:
        config = in_bucket(sandbox, tmp_path, segment_ids=["all-users", "vip-users"])
        first = sync(config, clock=clock, catalog=NAMES)
        config["segment_ids"] = ["all-users"]
        second = sync(config, clock=clock, catalog=NAMES, state=first.states[-1])
    states = [*first.states, *second.states]
    assert len(states) > 4
    for old in states:
        for new in states:
            assert merged(old, new) == new
    assert not [text for text in json.dumps(states).split('"') if "://" in text or "@" in text]


# The rule by itself


def bookmark(export_id: str = "a", at: float = 1000.0, **more: Any) -> Bookmark:
    return Bookmark(Export("segment", "seg", export_id, at), ("braze_id", "email"), "signature", **more)


WANTED = bookmark("", 2000.0)
BUCKET = {"in_bucket": True}


@pytest.mark.parametrize(
    ("known", "entry", "export_id"),
    [
        (None, None, None),
        (bookmark("a", **BUCKET), None, "a"),
        (None, bookmark("a", **BUCKET), "a"),
        (bookmark("a", 1000, **BUCKET), bookmark("b", 1100, **BUCKET), "b"),
        (bookmark("a", 1100, **BUCKET), bookmark("b", 1000, **BUCKET), "a"),
        (bookmark("a", 1000, running=False), bookmark("b", 1100, **BUCKET), "b"),
        (bookmark("a", 1000, running=False), bookmark("a", 1000), None),
        (bookmark("", 1000, running=False), bookmark("", 1100), ""),
    ],
)
def test_newer_of_state_and_journal_wins(known: Bookmark | None, entry: Bookmark | None, export_id: str | None) -> None:
    """Of what runs in Braze; that an export has ended is STATE's to say."""
    found = known_export(
        known, KnownExport(entry) if entry else None, WANTED, given_state="", timeout=5000, has_bucket=True
    )
    assert (found.export.export_id if found else None) == export_id


def test_files_are_those_of_state() -> None:
    """The journal of the same export adds the link and the token, not files."""
    known = bookmark(digests={b"12345678": None})
    entry = KnownExport(bookmark(), "https://example.org/x", "token")
    found = known_export(known, entry, WANTED, given_state="", timeout=5000, has_bucket=False)
    assert found is not None
    assert (found.phase, found.url, found.token, found.bookmark.files) == (
        Phase.RUNNING,
        "https://example.org/x",
        "token",
        1,
    )


def test_export_behind_a_url_is_not_looked_for_in_a_bucket() -> None:
    """Also where a bucket is configured: Braze said with its answer where the files go."""
    assert known_export(bookmark(), None, WANTED, given_state="", timeout=5000, has_bucket=True) is None


def test_unanswered_request_is_remembered() -> None:
    found = known_export(
        None, KnownExport(bookmark(""), token="t"), WANTED, given_state="", timeout=5000, has_bucket=True
    )
    assert found is not None
    assert (found.phase, found.token) == (Phase.LOST, "t")


@pytest.mark.parametrize(("rows_signature", "late"), [("signature", True), ("other", False)])
def test_ended_export_may_have_late_files(*, rows_signature: str, late: bool) -> None:
    """In a bucket, and only if its rows would look as those that were read."""
    known = bookmark(running=False, in_bucket=True)
    known.rows_signature = rows_signature
    found = late_export(known, WANTED, has_bucket=True)
    assert (found is not None and found.phase is Phase.KEPT) == late
