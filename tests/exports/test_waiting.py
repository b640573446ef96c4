"""The life of exports in a whole run: waiting, giving up, refusals, several at a time, the control group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.estimates import estimate
from tests.support.fakes import FakeClock
from tests.support.runs import selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

USERS = selecting(["users", "export_files"])
STARTED = "/users/export/segment"


def calls(sandbox: Sandbox, path: str) -> list[Any]:
    """The statuses of the calls of one REST path."""
    return [call.status for call in sandbox.calls if call.path == path]


class Meanwhile(FakeClock):
    """Something happens in Braze at the first wait, or at the wait of that number."""

    def __init__(self, event: Callable[[], object], at: int = 1) -> None:
        super().__init__()
        self._event = event
        self._at = at

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if len(self.slept) == self._at:
            self._event()


@pytest.mark.parametrize("faults", [[], ["not-ready-404"]])
def test_waits_for_the_download(tmp_path: Path, faults: list[str]) -> None:
    """403 and 404 mean not ready; the interval grows from poll_interval_seconds to a minute at most."""
    clock = FakeClock()
    with Sandbox(users=5, empty_polls=12, faults=faults) as sandbox:
        run = sync(settings(sandbox, tmp_path, poll_interval_seconds=4), clock=clock, catalog=USERS)
    assert run.counts["users"] == 5
    assert clock.slept[0] == 4
    assert clock.slept == sorted(clock.slept)
    assert len(clock.slept) == 12
    assert clock.slept[-1] == 60


def test_waiting_is_told_now_and_then(tmp_path: Path) -> None:
    """At most one line in ten seconds, and it says for how long."""
    with Sandbox(users=5, empty_polls=40) as sandbox:
        run = sync(settings(sandbox, tmp_path, poll_interval_seconds=1), clock=(clock := FakeClock()), catalog=USERS)
    told = [line for line in run.lines if "waiting" in line.lower()]
    assert 3 < len(told) <= sum(clock.slept) / 10


def test_answer_of_200_is_a_success(tmp_path: Path) -> None:
    with Sandbox(users=5, faults=["status-200"]) as sandbox:
        assert sync(settings(sandbox, tmp_path)).counts["users"] == 5


@pytest.mark.parametrize("fault", ["url-null", "url-absent", "url-empty"])
def test_no_url_and_no_bucket(tmp_path: Path, fault: str) -> None:
    """Without a url the files are in a bucket: the error says which setting is missing."""
    with Sandbox(users=5, faults=[fault]) as sandbox:
        run = sync(settings(sandbox, tmp_path), fails=True)
    assert "bucket_url" in run.error
    assert "all-users" in run.error
    assert not run.counts


@pytest.mark.fault("Braze's answers", "202 without object_prefix", "one line")
def test_queued_without_an_export(tmp_path: Path) -> None:
    """202 without object_prefix starts nothing that could be waited for."""
    with Sandbox(users=5, faults=["queued-202"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), fails=True)
    assert "object_prefix" in run.error


@pytest.mark.parametrize("minutes", [1, 90])
@pytest.mark.fault("Download", "never ready", "one line when export_timeout_minutes are over")
def test_deadline(tmp_path: Path, minutes: int) -> None:
    """export_timeout_minutes after the request the export is given up; the error lists what it can mean."""
    clock = FakeClock()
    with Sandbox(users=5, faults=["never-ready"]) as sandbox:
        run = sync(settings(sandbox, tmp_path, export_timeout_minutes=minutes), clock=clock, fails=True)
        assert calls(sandbox, STARTED) == [201]
    assert minutes * 60 <= sum(clock.slept) <= minutes * 60 + 120
    assert "all-users" in run.error
    for hint in ("export_timeout_minutes", "too large", "expired"):
        assert hint in run.error
    assert not run.counts


@pytest.mark.fault(
    "Download",
    "a link that expires before a damaged file can be fetched again",
    "one line; the next run gives the same rows",
)
def test_expired_link(tmp_path: Path) -> None:
    """After one 200 a 403 means expired: no more waiting, and the next run starts anew."""
    clock = FakeClock()
    with Sandbox(users=5, faults=["damaged-once", "expires"]) as sandbox:
        config = settings(sandbox, tmp_path)
        run = sync(config, clock=clock, fails=True)
        sandbox.set_faults()
        again = sync(config, state=run.states[-1], clock=clock)
        assert calls(sandbox, STARTED) == [201, 201]
    assert sum(clock.slept) < 300
    assert again.counts["users"] == 5


def test_server_errors_are_repeated(tmp_path: Path) -> None:
    """5xx on a GET is no failure."""
    with Sandbox(users=5, faults=["server-error"]) as sandbox:
        assert sync(settings(sandbox, tmp_path)).counts["users"] == 5


def test_rate_limit(tmp_path: Path) -> None:
    """429 with nothing left of the limit is waited out."""
    with Sandbox(users=5, faults=["rate-limited"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS)
        assert calls(sandbox, STARTED) == [429, 201]
    assert run.counts["users"] == 5


# An export of the segment runs already


def start(sandbox: Sandbox, segment_id: str = "all-users") -> None:
    """Somebody else starts an export of the segment."""
    import requests

    requests.post(
        sandbox.api_url + STARTED,
        json={"segment_id": segment_id, "fields_to_export": ["braze_id"]},
        headers={"Authorization": f"Bearer {sandbox.api_key}"},
        timeout=10,
    )


@pytest.mark.fault(
    "Braze's answers", "429 because the segment is being exported", "waits for its end, then the same rows"
)
def test_waits_for_a_running_export(tmp_path: Path) -> None:
    """on_running_export=wait, the default: ask again until the other export has ended, and say so once."""
    with Sandbox(users=5, hold=True) as sandbox:
        start(sandbox)
        clock = FakeClock()

        def end() -> None:
            sandbox.workspace.options.hold = False
            sandbox.finish_exports()

        run = sync(settings(sandbox, tmp_path), clock=Meanwhile(end, at=3), catalog=USERS)
        assert calls(sandbox, STARTED) == [201, 429, 429, 429, 201]
        assert not calls(sandbox, "/export/segment/cancel")
    assert not clock.slept
    assert run.counts["users"] == 5
    assert len([line for line in run.lines if "already exporting" in line]) == 1


@pytest.mark.fault(
    "Braze's answers", "429 because the segment is being exported, for longer than export_timeout_minutes", "one line"
)
def test_gives_up_waiting_for_a_running_export(tmp_path: Path) -> None:
    """Not longer than export_timeout_minutes."""
    with Sandbox(users=5, hold=True) as sandbox:
        start(sandbox)
        clock = FakeClock()
        run = sync(settings(sandbox, tmp_path, export_timeout_minutes=30), clock=clock, fails=True)
    assert 30 * 60 <= sum(clock.slept) <= 32 * 60
    assert "on_running_export" in run.error


def test_cancels_a_running_export(tmp_path: Path) -> None:
    """on_running_export=cancel: cancel it, then start."""
    with Sandbox(users=5, hold=True) as sandbox:
        start(sandbox)
        clock = Meanwhile(sandbox.finish_exports, at=2)
        run = sync(settings(sandbox, tmp_path, on_running_export="cancel"), clock=clock, catalog=USERS)
        assert calls(sandbox, "/export/segment/cancel") == [201]
        assert calls(sandbox, STARTED) == [201, 429, 201]
    assert run.counts["users"] == 5


@pytest.mark.fault(
    "Braze's answers", "429 because the segment is being exported, and on_running_export is fail", "one line at once"
)
def test_fails_because_of_a_running_export(tmp_path: Path) -> None:
    """on_running_export=fail: at once, and the error names the setting."""
    with Sandbox(users=5, hold=True) as sandbox:
        start(sandbox)
        clock = FakeClock()
        run = sync(settings(sandbox, tmp_path, on_running_export="fail"), clock=clock, fails=True)
        assert calls(sandbox, STARTED) == [201, 429]
    assert not clock.slept
    assert "on_running_export" in run.error


def test_lost_answer_is_not_blindly_repeated(tmp_path: Path) -> None:
    """A POST without an answer may have started an export: 429 tells, and then it is waited for."""
    with Sandbox(users=5, hold=True, faults=["lost-response"]) as sandbox:

        def end() -> None:
            sandbox.workspace.options.hold = False
            sandbox.finish_exports()

        run = sync(settings(sandbox, tmp_path), clock=Meanwhile(end, at=2), catalog=USERS)
        posts = calls(sandbox, STARTED)
    assert posts[:2] == [0, 429]
    assert posts[-1] == 201
    assert set(posts[1:-1]) == {429}
    assert run.counts["users"] == 5


# Several exports


def test_several_segments(tmp_path: Path) -> None:
    """Each has its export and its memberships; one named twice has one."""
    with Sandbox(users=50, odd_users=False) as sandbox:
        config = settings(sandbox, tmp_path, segment_ids=["all-users", "vip-users", "all-users"])
        run = sync(config, catalog=selecting(["users", "segment_members", "export_files"]))
        assert calls(sandbox, STARTED) == [201, 201]
    assert sorted(row["segment_id"] for row in run.rows("export_files")) == ["all-users", "vip-users"]
    assert run.counts["users"] == 55
    assert sorted(key[0] for key in run.keys("segment_members")) == ["all-users"] * 50 + ["vip-users"] * 5
    assert {row["is_member"] for row in run.rows("segment_members")} == {True}
    exports = run.states[-1]["bookmarks"]["export_files"]["exports"]
    assert [export["segment_id"] for export in exports] == ["all-users", "vip-users"]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_so_many_exports_at_a_time(tmp_path: Path, most: int) -> None:
    """concurrent_exports is how many run in Braze."""
    with Sandbox(users=5, empty_polls=2) as sandbox:
        names = [f"segment-{number}" for number in range(5)]
        for name in names:
            sandbox.add_segment(name, [{"braze_id": name}])
        config = settings(sandbox, tmp_path, segment_ids=names, concurrent_exports=most)
        run = sync(config, catalog=USERS)
        assert sandbox.workspace.most_running == most
    assert sorted(run.ids()) == names


@pytest.mark.parametrize("order", [["gone", "all-users"], ["all-users", "gone"]])
@pytest.mark.fault(
    "Braze's answers", "one of several segments is refused", "the rows of the others; one line at the end"
)
def test_one_segment_fails(tmp_path: Path, order: list[str]) -> None:
    """The others are delivered and in STATE; the run fails at its end and names the one."""
    with Sandbox(users=5) as sandbox:
        run = sync(settings(sandbox, tmp_path, segment_ids=order), fails=True)
    assert run.counts["users"] == 5
    (export,) = run.states[-1]["bookmarks"]["export_files"]["exports"]
    assert (export["segment_id"], export["running"]) == ("all-users", False)
    assert "gone" in run.error
    assert "all-users" not in run.error


def test_wrong_key_fails_at_once(tmp_path: Path) -> None:
    """401 is nothing to try again for the next segment."""
    with Sandbox(users=5) as sandbox:
        config = settings(sandbox, tmp_path, segment_ids=["all-users", "vip-users"], api_key="guess")
        run = sync(config, fails=True)
        assert calls(sandbox, STARTED) == [401]
    assert "guess" not in run.error


# The Global Control Group


def test_control_group(tmp_path: Path) -> None:
    """It gives memberships and audit rows, nothing else, and is asked for braze_id alone."""
    with Sandbox(users=100, odd_users=False) as sandbox:
        config = settings(sandbox, tmp_path, segment_ids=[], global_control_group=True)
        catalog = selecting(["users", "apps", "segment_members", "export_files"])
        run = sync(config, catalog=catalog)
        (body,) = [call.body for call in sandbox.calls if call.path == "/users/export/global_control_group"]
        assert not calls(sandbox, STARTED)
    assert body == {"fields_to_export": ["braze_id"], "output_format": "zip"}
    assert dict(run.counts) == {"segment_members": 5, "export_files": 1}
    assert {key[0] for key in run.keys("segment_members")} == {"global_control_group"}
    (row,) = run.rows("export_files")
    assert (row["source"], row["segment_id"], row["users"]) == ("global_control_group", None, 5)


def test_control_group_without_its_stream(tmp_path: Path) -> None:
    """With segment_members deselected it is not exported, and the log says so."""
    with Sandbox(users=100) as sandbox:
        run = sync(settings(sandbox, tmp_path, global_control_group=True))
        assert not calls(sandbox, "/users/export/global_control_group")
    assert run.counts["users"] == 99
    assert [line for line in run.lines if "Global Control Group" in line and "segment_members" in line]


def test_control_group_beside_a_segment(tmp_path: Path) -> None:
    """Both run; the users come from the segment only."""
    with Sandbox(users=100, odd_users=False) as sandbox:
        catalog = selecting(["users", "segment_members"])
        run = sync(settings(sandbox, tmp_path, global_control_group=True), catalog=catalog)
    assert len(run.ids()) == len(set(run.ids())) == 100
    assert run.counts["segment_members"] == 105


# Braze's estimate


@pytest.mark.parametrize(("estimated", "warned"), [(0, False), (5, False), (200_000, False), (300_000, True)])
def test_estimate(tmp_path: Path, estimated: int, *, warned: bool) -> None:
    """A count that is far from Braze's estimate is a warning, never a failure."""
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("one", [{"braze_id": f"b{number}"} for number in range(10)])
        estimate(sandbox, "one", estimated)
        run = sync(settings(sandbox, tmp_path, segment_ids=["one"]), catalog=USERS)
    assert run.counts["users"] == 10
    assert bool([line for line in run.warnings if "estimate" in line]) == warned


def test_estimate_that_may_not_be_asked_for(tmp_path: Path) -> None:
    """Without the permission there is no comparison and no word about it."""
    with Sandbox(users=5, deny=["segments.data_series"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS)
    assert not run.warnings
    assert "data_series" not in "".join(run.lines)


@pytest.mark.parametrize("fault", ["url-null", "not-an-archive"])
def test_the_users_of_an_earlier_run_are_not_compared(tmp_path: Path, fault: str) -> None:
    """No user came in a run whose export failed: its STATE has the number of the run before."""
    with Sandbox(users=5) as sandbox:
        first = sync(settings(sandbox, tmp_path), catalog=USERS)
        sandbox.add_segment("all-users", [{"braze_id": f"b{number}"} for number in range(100)])
        sandbox.set_faults(fault)
        second = sync(settings(sandbox, tmp_path), catalog=USERS, state=first.states[-1], fails=True)
    assert not [line for line in second.warnings if "estimate" in line]


# ACTIVATE_VERSION


def versions(run: Any) -> dict[str, set[Any]]:
    """The versions that records carry, by stream."""
    found: dict[str, set[Any]] = {}
    for record in run.of_type("RECORD"):
        found.setdefault(record["stream"], set()).add(record.get("version"))
    return found


def test_activate_version(tmp_path: Path) -> None:
    """Once for each stream of users, after all records, with the version that their records carry."""
    with Sandbox(users=50) as sandbox:
        streams = ["users", "devices", "segment_members", "export_files"]
        config = settings(sandbox, tmp_path, emit_activate_version_messages=True)
        run = sync(config, catalog=selecting(streams))
    activated = run.of_type("ACTIVATE_VERSION")
    (version,) = {message["version"] for message in activated}
    assert sorted(message["stream"] for message in activated) == ["devices", "users"]
    assert versions(run) == {
        "users": {version},
        "devices": {version},
        "segment_members": {None},
        "export_files": {None},
    }
    kinds = [message["type"] for message in run.messages]
    assert kinds.index("ACTIVATE_VERSION") > max(at for at, kind in enumerate(kinds) if kind == "RECORD")


def test_no_activate_version_by_default(tmp_path: Path) -> None:
    with Sandbox(users=5) as sandbox:
        run = sync(settings(sandbox, tmp_path))
    assert not run.of_type("ACTIVATE_VERSION")
    assert versions(run)["users"] == {None}


def refused_to_activate(run: Any) -> bool:
    """True if a run sent none, and said why in one line."""
    told = [line for line in run.warnings if "ACTIVATE_VERSION" in line]
    return not run.of_type("ACTIVATE_VERSION") and len(told) == 1


@pytest.mark.parametrize(
    ("segments", "faults", "more"),
    [
        (["all-users"], ["bad-line"], {"max_rejected_lines": 5}),
        (["empty-segment"], [], {}),
        (["all-users", "empty-segment"], [], {}),
        ([], [], {"global_control_group": True}),
    ],
)
def test_no_activate_version_when_unsure(
    tmp_path: Path, segments: list[str], faults: list[str], more: dict[str, Any]
) -> None:
    """Not with rejected lines, not with an export without users, not for a control group alone."""
    with Sandbox(users=100, faults=faults) as sandbox:
        config = settings(sandbox, tmp_path, segment_ids=segments, emit_activate_version_messages=True, **more)
        run = sync(config, catalog=selecting(["users", "segment_members"]))
    assert refused_to_activate(run)


def test_no_activate_version_after_a_failure(tmp_path: Path) -> None:
    """One export that fails keeps all rows of earlier runs."""
    with Sandbox(users=20) as sandbox:
        config = settings(sandbox, tmp_path, segment_ids=["all-users", "gone"], emit_activate_version_messages=True)
        run = sync(config, fails=True)
    assert run.counts["users"] == 19
    assert not run.of_type("ACTIVATE_VERSION")


@pytest.mark.parametrize(("users", "activated"), [(10, True), (5, True), (4, False)])
def test_no_activate_version_when_half_is_gone(tmp_path: Path, users: int, *, activated: bool) -> None:
    """Under half of the last count looks like a mistake: the log says so."""

    def lines(count: int) -> list[Any]:
        return [{"braze_id": f"b{number}"} for number in range(count)]

    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("one", lines(10))
        config = settings(sandbox, tmp_path, segment_ids=["one"], emit_activate_version_messages=True)
        clock = FakeClock()
        first = sync(config, catalog=USERS, clock=clock)
        sandbox.add_segment("one", lines(users))
        second = sync(config, catalog=USERS, clock=clock, state=first.states[-1])
    assert first.of_type("ACTIVATE_VERSION")
    assert second.counts["users"] == users
    assert bool(second.of_type("ACTIVATE_VERSION")) == activated
    assert refused_to_activate(second) != activated


def test_no_activate_version_for_what_is_filtered_away(tmp_path: Path) -> None:
    """A stream that stream maps remove has no rows to delete; an alias is activated under its alias."""
    maps = {"users": None, "apps": {"__alias__": "installations"}}
    with Sandbox(users=50) as sandbox:
        config = settings(sandbox, tmp_path, emit_activate_version_messages=True, stream_maps=maps)
        run = sync(config, catalog=selecting(["users", "apps"]))
    assert [message["stream"] for message in run.of_type("ACTIVATE_VERSION")] == ["installations"]
