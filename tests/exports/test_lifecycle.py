"""Exports as a run leads them: answers that get lost, several at a time, failures, and what is left when it ends."""

from __future__ import annotations

import io
import json
import time
import zipfile
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import TapError
from tests.support.fakes import Answer, FakeClock, Reader, Server, as_json, hang_up
from tests.support.runs import Output, selecting, settings, sync, tap_class
from tests.support.steps import STARTED, Steps, braze, crash, exports, nothing, posts

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

USERS = selecting(["users", "export_files"])


def one_user() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("users.txt", '{"braze_id":"b1"}\n')
    return content.getvalue()


ONE_USER = one_user()


def server_settings(server: Server, folder: Path, **more: Any) -> dict[str, Any]:
    """Settings for a Braze whose answers are lined up."""
    spool = str(folder / "spool")
    return {"api_url": server.url, "api_key": "key", "segment_ids": ["all-users"], "spool_dir": spool, **more}


def in_bucket(sandbox: Sandbox, folder: Path, **more: Any) -> dict[str, Any]:
    return settings(sandbox, folder, bucket_url=str(folder / "bucket"), **more)


def journals(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in (folder / "spool" / "journal").glob("*.json")]


# A POST whose answer was lost


def test_lost_answer_in_a_bucket(tmp_path: Path) -> None:
    """The export is known again by the time in its folder's name: no second one is started."""
    clock = Steps()
    with braze(clock, tmp_path, hold=True, faults=["lost-response"]) as sandbox:
        clock.steps = [nothing, nothing, sandbox.finish_exports, nothing]
        run = sync(in_bucket(sandbox, tmp_path), clock=clock, catalog=USERS)
        assert posts(sandbox) == [0, 429, 429]
        assert len(sandbox.workspace.exports) == 1
    assert run.counts == {"users": 9, "export_files": 3}
    assert [line for line in run.lines if line.startswith("Found export ")]
    exported_at = run.rows("users")[0]["exported_at"]
    assert exported_at == "2027-01-15T08:00:00.000000Z"  # the clock's start, when it was requested


def test_lost_answer_is_not_taken_for_the_last_export(tmp_path: Path) -> None:
    """Two exports within two minutes: the folder of the one that was read is not the one that was asked for now."""
    clock = Steps()
    with braze(clock, tmp_path) as sandbox:
        config = in_bucket(sandbox, tmp_path, settle_minutes=0)
        first = sync(config, clock=clock, catalog=USERS)
        clock.time += 30
        sandbox.set_faults("lost-response")
        sandbox.workspace.options.hold = True
        clock.steps = [nothing, sandbox.finish_exports, nothing]
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
        assert posts(sandbox) == [201, 0, 429]
        older, newer = (export.object_prefix for export in sandbox.workspace.exports)
    assert {row["export_id"] for row in first.rows("export_files")} == {older}
    assert {row["export_id"] for row in second.rows("export_files")} == {newer}


def test_lost_answer_behind_a_url(tmp_path: Path) -> None:
    """Its link is gone for good: the export is left to end, whatever on_running_export says, and a new one started."""
    clock = Steps()
    with braze(clock, hold=True, faults=["lost-response"]) as sandbox:

        def end() -> None:
            sandbox.workspace.options.hold = False
            sandbox.finish_exports()

        clock.steps = [nothing, end, nothing]
        config = settings(sandbox, tmp_path, on_running_export="cancel")
        run = sync(config, clock=clock, catalog=USERS)
        assert posts(sandbox) == [0, 429, 201]
        assert not [call for call in sandbox.calls if "cancel" in call.path]
    assert run.counts["users"] == 9


def test_lost_answer_is_remembered_after_a_crash(tmp_path: Path) -> None:
    """The next run knows the export in the bucket, too, and keeps the time of the first request."""
    clock = Steps(crash)
    with braze(clock, tmp_path, hold=True, faults=["lost-response"]) as sandbox:
        config = in_bucket(sandbox, tmp_path)
        first = sync(config, clock=clock, catalog=USERS, fails=True)
        sandbox.finish_exports()
        clock.time += 1000
        clock.steps = []
        second = sync(config, clock=clock, catalog=USERS)
        assert posts(sandbox) == [0]
    assert not first.states
    assert second.counts == {"users": 9, "export_files": 3}
    assert second.rows("users")[0]["exported_at"] == "2027-01-15T08:00:00.000000Z"


@pytest.mark.fault(
    "Braze's answers", "no answer to any request for an export", "one line; no second export while one may run"
)
def test_answers_that_are_lost_again_and_again(tmp_path: Path) -> None:
    """Not for ever: the run fails, and remembers that Braze may have started something."""
    with Server() as server:
        lost: Answer = hang_up
        server.answers = [lost]
        run = sync(server_settings(server, tmp_path), catalog=USERS, fails=True)
    assert [seen.path for seen in server.seen] == [STARTED] * 8
    assert "response was lost" in run.error
    assert "8 times in a row" in run.error
    assert run.error.count("segment all-users") == 1
    (journal,) = journals(tmp_path)
    assert journal["bookmark"]["export_id"] == ""


# Several exports


@pytest.mark.parametrize("most", [1, 2])
def test_several_exports_in_a_bucket(tmp_path: Path, most: int) -> None:
    """So many run in Braze at a time, and their files are read in whatever order they come."""
    clock = Steps()
    names = ["one", "two", "three"]
    with braze(clock, tmp_path, hold=True) as sandbox:
        for name in names:
            sandbox.add_segment(name, files=[[{"braze_id": f"{name}-1"}], [{"braze_id": f"{name}-2"}]])

        def one_file_each() -> None:
            for export in sandbox.workspace.running():
                if not export.deliver_next_file():
                    export.finish()

        clock.steps = [one_file_each]
        config = in_bucket(sandbox, tmp_path, segment_ids=names, concurrent_exports=most, settle_minutes=1)
        run = sync(config, clock=clock, catalog=USERS)
        assert sandbox.workspace.most_running == most
        assert posts(sandbox) == [201] * 3
    assert sorted(run.ids()) == sorted(f"{name}-{number}" for name in names for number in (1, 2))
    order = [row["segment_id"] for row in run.rows("export_files")]
    first, second = ("one", "one"), ("two", "two")
    together = [{1: first, 2: ("one", "two")}[most], {1: second, 2: ("one", "two")}[most]]
    assert [sorted(order[:2]), sorted(order[2:4])] == [sorted(pair) for pair in together]


def test_waiting_for_another_export_counts_from_the_first_refusal(tmp_path: Path) -> None:
    """A segment whose turn comes late has its own export_timeout_minutes to be free."""
    clock = Steps()
    with braze(clock, hold=True) as sandbox:
        import requests

        requests.post(
            sandbox.api_url + STARTED,
            json={"segment_id": "vip-users", "fields_to_export": ["braze_id"]},
            headers={"Authorization": f"Bearer {sandbox.api_key}"},
            timeout=10,
        )

        def end(segment: str) -> None:
            for export in sandbox.workspace.running(segment):
                export.finish()

        def free() -> None:
            sandbox.workspace.options.hold = False
            end("vip-users")

        clock.steps = [*[nothing] * 60, lambda: end("all-users"), *[nothing] * 20, free, nothing]
        config = settings(sandbox, tmp_path, segment_ids=["all-users", "vip-users"], concurrent_exports=1)
        run = sync({**config, "export_timeout_minutes": 70}, clock=clock, catalog=USERS)
    assert run.counts["users"] == 9 + 1


def test_cancels_once(tmp_path: Path) -> None:
    """A cancelled export may go on for a while: it is waited for, not cancelled again."""
    running = as_json({"message": "An export of this segment is already in progress"}, 429)
    with Server() as server:
        started = as_json({"message": "success", "object_prefix": "a-1800000000", "url": f"{server.url}/users.zip"})
        server.answers = [running, as_json({"message": "success"}), running, running, started, (200, {}, ONE_USER)]
        run = sync(server_settings(server, tmp_path, on_running_export="cancel"), catalog=USERS)
    cancel = "/export/segment/cancel"
    paths = [seen.path for seen in server.seen]
    assert paths[:6] == [STARTED, cancel, STARTED, STARTED, STARTED, "/users.zip"]
    assert run.ids() == ["b1"]


def test_control_group_cannot_be_cancelled(tmp_path: Path) -> None:
    """Braze has no call for that: it is waited for, and the log does not say anything else."""
    group = "/users/export/global_control_group"
    running = as_json({"message": "An export is already in progress"}, 429)
    with Server() as server:
        started = as_json({"message": "success", "object_prefix": "a-1800000000", "url": f"{server.url}/users.zip"})
        server.answers = [running, started, (200, {}, ONE_USER)]
        config = server_settings(server, tmp_path, on_running_export="cancel", global_control_group=True)
        run = sync({**config, "segment_ids": []}, catalog=selecting(["segment_members"]))
    assert [seen.path for seen in server.seen] == [group, group, "/users.zip"]
    assert run.counts == {"segment_members": 1}
    assert [line for line in run.lines if "waiting until it has ended" in line]
    assert not [line for line in run.lines if "cancelled" in line]


# What is left of a run that ends early


def test_end_is_told_before_it_is_recorded(tmp_path: Path) -> None:
    """A run that dies before STATE says that an export has ended can still go on with it, without another download."""
    clock = FakeClock(time.time())
    with braze(clock) as sandbox:
        config = settings(sandbox, tmp_path)
        reader = Reader(b'"running":false')
        with redirect_stdout(io.TextIOWrapper(io.BufferedWriter(reader))), pytest.raises(BrokenPipeError):
            tap_class(clock)(config=config, catalog=USERS).sync_all()
        first = Output(reader.taken)
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1])
        assert posts(sandbox) == [201]
        assert len([call for call in sandbox.calls if call.service == "download"]) == 1
    assert second.counts["users"] == 9
    assert exports(second.states[-1])[0]["running"] is False
    (journal,) = journals(tmp_path)
    assert journal["bookmark"]["running"] is False


class Told(FakeClock):
    """The run is told to end at its first wait, or while it copies a file."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.told_to_end = False
        self._at_once = at_once

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.told_to_end = True

    @property
    def stopped(self) -> bool:
        if self._at_once and self.asked > 1:
            self.told_to_end = True
        self.asked += 1
        return self.told_to_end

    asked = 0


@pytest.mark.parametrize("at_once", [True, False])
def test_run_that_is_told_to_end_keeps_its_export(tmp_path: Path, *, at_once: bool) -> None:
    """While it copies a file or waits: the file is not taken for damaged, and the next run goes on."""
    clock = Told(at_once=at_once)
    with braze(clock, tmp_path) as sandbox:
        config = in_bucket(sandbox, tmp_path, settle_minutes=1)
        with redirect_stdout(io.TextIOWrapper(io.BytesIO())), pytest.raises(Interruption):
            tap_class(clock)(config=config, catalog=USERS).sync_all()
        (journal,) = journals(tmp_path)
        second = sync(config, clock=FakeClock(), catalog=USERS)
        assert posts(sandbox) == [201]
    assert journal["bookmark"]["running"] is True
    assert second.counts == {"users": 9, "export_files": 3}


def test_failed_export_leaves_its_last_count(tmp_path: Path) -> None:
    """After a night that failed, loaders still do not delete because of an export that lost half of its users."""
    clock = FakeClock()
    with braze(clock) as sandbox:
        config = settings(sandbox, tmp_path, emit_activate_version_messages=True)
        first = sync(config, clock=clock, catalog=USERS)
        sandbox.set_faults("not-an-archive")
        second = sync(config, clock=clock, catalog=USERS, state=first.states[-1], fails=True)
        sandbox.set_faults()
        sandbox.add_segment("all-users", [{"braze_id": "the last one"}])
        third = sync(config, clock=clock, catalog=USERS, state=second.states[-1])
    assert first.of_type("ACTIVATE_VERSION")
    assert third.counts["users"] == 1
    assert not third.of_type("ACTIVATE_VERSION")
    assert [line for line in third.warnings if "9 users before and 1 now" in line]


@pytest.mark.fault("Download", "a store that cannot be reached", "one line; the next run goes on with the same export")
def test_store_that_cannot_be_reached_keeps_the_export(tmp_path: Path) -> None:
    """The network was to blame: the run fails, and the next one gets the same export from the same link."""
    with Server() as server:
        started = as_json({"message": "success", "object_prefix": "a-1800000000", "url": f"{server.url}/users.zip"})
        server.answers = [started, (503, {}, b"")]
        config = server_settings(server, tmp_path)
        first = sync(config, catalog=USERS, fails=True)
        server.answers = [(200, {}, ONE_USER)]
        second = sync(config, catalog=USERS, state=first.states[-1])
    assert "could not be fetched 20 times in a row" in first.error
    assert exports(first.states[-1])[0]["running"] is True
    assert second.ids() == ["b1"]
    assert [seen.path for seen in server.seen].count(STARTED) == 1


def test_link_that_is_no_address(tmp_path: Path) -> None:
    """One export fails, not the run: the others are read."""
    with braze(clock := FakeClock()) as sandbox:
        sandbox.workspace.download_url = "ftp://127.0.0.1"
        config = settings(sandbox, tmp_path, segment_ids=["all-users"])
        run = sync(config, clock=clock, catalog=USERS, fails=True)
    assert "that is no web address" in run.error
    assert exports(run.states[-1]) == []
    assert journals(tmp_path) == []


def test_second_run_of_the_same_segment(tmp_path: Path) -> None:
    """While a run holds a segment, another one on this machine is refused; of another segment it is not."""
    clock = Steps(now=time.time())
    refused: list[TapError] = []
    with braze(clock, empty_polls=1, users=20) as sandbox:
        config = settings(sandbox, tmp_path)

        def second_run() -> None:
            other = sync({**config, "segment_ids": ["vip-users"]}, clock=FakeClock(clock.time), catalog=USERS)
            assert other.counts["users"] == 2
            refused.append(TapError(sync(config, clock=FakeClock(clock.time), catalog=USERS, fails=True).error))

        clock.steps = [second_run, nothing]
        run = sync(config, clock=clock, catalog=USERS)
        assert posts(sandbox) == [201, 201]
    assert run.counts["users"] == 20
    assert str(refused[0]).startswith("another run is exporting segment all-users on this machine")
