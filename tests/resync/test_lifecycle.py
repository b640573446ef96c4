"""Resyncs: single people by identifier, through the ids export of the sandbox, or of a scripted Braze."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.clock import Clock
from tap_braze_export.errors import BrazeError, RateLimitError
from tap_braze_export.resync.id_requests import assign, requests
from tap_braze_export.resync.identifiers import Identifier, Identifiers
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock
from tests.support.runs import COMMAND, Output, Run, command, environment, selecting, settings, sync, written
from tests.support.simulation import ScriptedBraze, SimulatedLanes, SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STREAMS = ["users", "devices", "invalid_user_ids", "export_files"]
PEOPLE: list[dict[str, Any]] = [
    {"braze_id": "b1", "external_id": "ada", "email": "ada@example.org", "country": "GB", "phone": "+4411"},
    {"braze_id": "b2", "external_id": 'al,an "T"', "email": "team@example.org"},
    {"braze_id": "b3", "external_id": "José-日本-😀", "email": "team@example.org", "devices": [{"device_id": "d3"}]},
    {"braze_id": "b4", "user_aliases": [{"alias_name": "lead-4", "alias_label": "crm"}], "devices": [{"idfv": "d4"}]},
    {"braze_id": "b5", "external_id": "kurt", "user_aliases": [{"alias_name": "lead-5", "alias_label": "crm"}]},
]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A workspace with PEOPLE, and a limit that no test comes near."""
    with Sandbox(users=0, ids_limit=1_000_000) as sandbox:
        sandbox.add_segment("people", PEOPLE)
        yield sandbox


def resync(sandbox: Sandbox, folder: Path, *, state: Mapping[str, Any] | None = None, **config: Any) -> Run:
    """A run that succeeds, with the streams above selected."""
    config = settings(sandbox, folder, **config)
    return sync(config, catalog=selecting(STREAMS), state=state, clock=Clock())


def bodies(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What was asked, without `fields_to_export`."""
    asked = [call.body for call in sandbox.calls if call.path == "/users/export/ids"]
    return [{name: value for name, value in body.items() if name != "fields_to_export"} for body in asked]


def emails(count: int) -> list[str]:
    """Addresses that take one request each."""
    return [f"user-{number}@example.org" for number in range(count)]


# Who is found


def test_users_come_in_the_order_of_the_identifiers(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever the order of Braze's answer, and whatever characters an id has."""
    run = resync(sandbox, tmp_path, external_ids=["kurt", "José-日本-😀", 'al,an "T"', "ada"])

    assert run.ids() == ["b5", "b3", "b2", "b1"]
    assert run.rows("invalid_user_ids") == []
    assert len(bodies(sandbox)) == 1


def test_csv_with_commas_quotes_and_unicode(sandbox: Sandbox, tmp_path: Path) -> None:
    """From the file to the row."""
    path = tmp_path / "people.csv"
    path.write_text('external_id\nJosé-日本-😀\n"al,an ""T"""\n', encoding="utf-8")

    assert resync(sandbox, tmp_path, identifiers_url=str(path)).ids() == ["b3", "b2"]


def test_each_kind_of_identifier_finds_its_user(sandbox: Sandbox, tmp_path: Path) -> None:
    """External ids and aliases share a request, every other kind takes one of its own, named as Braze names it."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "crm"}],
        braze_ids=["b5"],
        emails=["team@example.org"],
        phones=["+4411"],
        device_ids=["d4"],
    )

    assert run.ids() == ["b1", "b4", "b5", "b2", "b3"]
    asked = sorted(bodies(sandbox), key=str)
    assert asked == [
        {"braze_id": "b5"},
        {"device_id": "d4"},
        {"email_address": "team@example.org"},
        {"external_ids": ["ada"], "user_aliases": [{"alias_name": "lead-4", "alias_label": "crm"}]},
        {"phone": "+4411"},
    ]


def test_all_profiles_of_one_address_are_emitted(sandbox: Sandbox, tmp_path: Path) -> None:
    """An e-mail address may belong to several; none of them is a miss."""
    run = resync(sandbox, tmp_path, emails=["team@example.org"])

    assert run.ids() == ["b2", "b3"]
    assert run.rows("invalid_user_ids") == []


def test_profile_that_is_found_several_times_is_emitted_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """By the same identifier, by two in one request and by two in different ones; none of them is a miss."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["kurt", "kurt", "ada"],
        user_aliases=[{"alias_name": "lead-5", "alias_label": "crm"}],
        emails=["ada@example.org"],
    )

    assert run.ids() == ["b5", "b1"]
    assert run.rows("invalid_user_ids") == []
    assert run.warnings == ["Identifiers left out: external_ids: 1 duplicate (row 2)"]


def test_misses_are_rows_by_type(sandbox: Sandbox, tmp_path: Path) -> None:
    """Computed: the sandbox, like Braze, lists external ids only. An alias is missed with another label."""
    run = resync(
        sandbox,
        tmp_path,
        external_ids=["nobody", "ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "other"}, {"alias_name": "lead-4", "alias_label": "crm"}],
        braze_ids=["b9"],
        emails=["nobody@example.org"],
        phones=["+99"],
        device_ids=["d9"],
    )

    misses = run.rows("invalid_user_ids")
    assert [(row["identifier_type"], row["identifier"], row["alias_label"]) for row in misses] == [
        ("external_id", "nobody", ""),
        ("user_alias", "lead-4", "other"),
        ("braze_id", "b9", ""),
        ("email", "nobody@example.org", ""),
        ("phone", "+99", ""),
        ("device_id", "d9", ""),
    ]
    assert {row["exported_at"] for row in misses} == {row["exported_at"] for row in run.rows("users")}
    assert run.ids() == ["b1", "b4"]


def test_nobody_is_found(sandbox: Sandbox, tmp_path: Path) -> None:
    """An answer without users is no failure."""
    run = resync(sandbox, tmp_path, external_ids=["nobody"])

    assert run.ids() == []
    (file,) = run.rows("export_files")
    assert (file["source"], file["segment_id"], file["file"], file["users"]) == ("ids", None, "requests 0-0", 0)


def test_nobody_is_asked_for(sandbox: Sandbox, tmp_path: Path) -> None:
    """A list without entries ends well, and without a call."""
    path = tmp_path / "nobody.csv"
    path.write_text("external_id\n")

    run = resync(sandbox, tmp_path, identifiers_url=str(path))

    assert bodies(sandbox) == []
    assert run.states[-1]["bookmarks"]["export_files"]["resync"] is None


def test_no_segment_is_exported_beside_a_resync(sandbox: Sandbox, tmp_path: Path) -> None:
    """The sandbox's configuration names a segment."""
    run = resync(sandbox, tmp_path, external_ids=["ada"])

    assert [call.path for call in sandbox.calls] == ["/users/export/ids"]
    assert "Identifiers are given, so this run is a resync: no segment is exported" in run.lines


# What is asked of Braze


@pytest.mark.parametrize(("count", "sizes"), [(49, [49]), (50, [50]), (51, [50, 1]), (100, [50, 50])])
def test_at_most_50_identifiers_go_together(sandbox: Sandbox, tmp_path: Path, count: int, sizes: list[int]) -> None:
    """External ids and aliases count together."""
    external_ids = [f"id-{number}" for number in range(count // 2)]
    aliases = [{"alias_name": f"a-{number}", "alias_label": "crm"} for number in range(count - count // 2)]

    resync(sandbox, tmp_path, external_ids=external_ids, user_aliases=aliases)

    asked = [len(body.get("external_ids", ())) + len(body.get("user_aliases", ())) for body in bodies(sandbox)]
    assert sorted(asked, reverse=True) == sizes


def test_requests_ask_for_exactly_what_is_selected(sandbox: Sandbox, tmp_path: Path) -> None:
    """And for what tells who is who, which is dropped again; of custom attributes this endpoint gives all or none."""
    config = settings(
        sandbox,
        tmp_path,
        external_ids=["ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "crm"}],
        emails=["team@example.org"],
        custom_attributes={"plan": "string", "secret": "string"},
    )
    sandbox.add_segment(
        "vip", [{"braze_id": "b1", "external_id": "ada", "custom_attributes": {"plan": "x", "secret": "y"}}]
    )
    sandbox.add_segment("people")
    catalog = selecting(["users"], {"users": ["country", "custom_attributes"]}, config)
    for entry in catalog["streams"]:
        for item in entry["metadata"]:
            if item["breadcrumb"][-1:] == ["secret"]:
                item["metadata"]["selected"] = False

    run = sync(config, catalog=catalog, clock=Clock())

    fields = sorted(
        (call.body["fields_to_export"] for call in sandbox.calls if call.path == "/users/export/ids"), key=len
    )
    assert fields == [
        ["braze_id", "country", "custom_attributes"],
        ["braze_id", "country", "custom_attributes", "external_id", "user_aliases"],
    ]
    (user,) = run.rows("users")
    assert {**user, "exported_at": ""} == {
        "braze_id": "b1",
        "country": None,
        "custom_attributes": {"plan": "x"},
        "exported_at": "",
    }


def test_alternating_kinds_fill_their_requests() -> None:
    """A CSV with two columns does not send one external id at a time; the same input always gives the same requests."""
    rows = [Identifier(kind, str(row), "", "f", row) for row in range(120) for kind in ("external_id", "email")]

    planned = list(requests(rows))

    together = [len(request.identifiers) for request in planned if request.identifiers[0].kind == "external_id"]
    assert together == [50, 50, 20]
    assert len(planned) == 123
    firsts = [request.identifiers[0].row for request in planned]
    assert firsts == sorted(firsts)
    assert list(requests(rows)) == planned


def test_few_external_ids_before_many_addresses_are_not_held_back_for_ever() -> None:
    """Nobody waits for a full request: memory stays bounded."""
    rows = [Identifier("external_id", "x", "", "f", 0)]
    rows += [Identifier("email", str(row), "", "f", row) for row in range(100_000)]
    taken = iter(rows)

    first = next(requests(taken))

    assert first.identifiers == rows[:1]
    assert sum(1 for _ in taken) > 99_000


def test_user_that_braze_spells_otherwise_is_emitted_and_makes_no_false_miss() -> None:
    """Then only Braze's own list tells who was missed."""
    asked = Identifiers(Settings(api_url="u", api_key="k", external_ids=("Ada", "nobody", "kurt")))
    (request,) = requests(asked)
    users = [b'{"braze_id":"b5","external_id":"kurt"}', b'{"braze_id":"b1","external_id":"ada"}', b'{"braze_id":"b7"}']

    found, misses = assign(request, IdsResponse(users, ["nobody"], RateLimit()))

    assert [user.braze_id for user in found] == ["b5", "b1", "b7"]
    assert [miss.value for miss in misses] == ["nobody"]


def test_user_without_braze_id_is_rejected_not_lost(tmp_path: Path) -> None:
    """The fan-out decides about lines that are no users, and keeps them."""
    braze = ScriptedBraze(FakeClock())
    braze.people["odd"] = [{"external_id": "odd"}]

    run = SimulatedRun(braze, tmp_path, external_ids=["odd", "user-1"])

    assert run.users == [{"external_id": "odd"}, {"braze_id": "b-1", "external_id": "user-1"}]


# One value of exported_at, the log, ACTIVATE_VERSION


def test_rows_of_a_group_carry_the_time_of_its_first_answer(tmp_path: Path) -> None:
    """Not a later one: no row may claim to be newer than it is."""
    clock = FakeClock(1_800_000_000.5)
    braze = ScriptedBraze(clock)

    run = SimulatedRun(braze, tmp_path, emails=emails(60), lanes=SimulatedLanes(clock, latency=1.0))

    assert [name for name, _, _ in run.files] == ["requests 0-49", "requests 50-59"]
    assert run.files[0][1] == "2027-01-15T08:00:00.500000Z"
    assert run.files[1][1] > run.files[0][1]


def test_slow_limit_still_gets_a_checkpoint_every_half_minute(tmp_path: Path) -> None:
    """At 60 requests a minute, 50 would take longer."""
    braze = ScriptedBraze(FakeClock(), limit=60, seconds=60)

    run = SimulatedRun(braze, tmp_path, emails=emails(100))

    sizes = [count for _, _, count in run.files]
    assert len(sizes) >= 3
    assert max(sizes) <= 32


def test_identifiers_stand_in_records_only(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither STATE nor the log nor `export_files` tells who was asked for; without the stream misses are counted."""
    config = settings(sandbox, tmp_path, emails=["ada@example.org", "nobody@example.org"], external_ids=["x-miss"])

    run = sync(config, catalog=selecting(["users", "export_files"]), clock=Clock())

    said = "\n".join([*run.lines, json.dumps(run.states), json.dumps(run.rows("export_files"))])
    assert not [word for word in ("ada", "nobody@", "x-miss", "example") if word in said]
    assert (
        "Identifiers that matched nobody: 1 external_id, 1 email (the stream invalid_user_ids lists them)" in run.lines
    )


def test_loaders_are_never_told_to_delete(sandbox: Sandbox, tmp_path: Path) -> None:
    """A resync knows single people only."""
    run = resync(sandbox, tmp_path, external_ids=["ada"], emit_activate_version_messages=True)

    assert run.of_type("ACTIVATE_VERSION") == []


# STATE


EXPORTS = [{"source": "segment", "segment_id": "all-users", "anything": [1, {"a": None}]}]


def test_state_of_segment_exports_is_handed_on_as_it_came(sandbox: Sandbox, tmp_path: Path) -> None:
    """In every STATE message of a resync, whatever it holds."""
    state = {"bookmarks": {"export_files": {"version": 1, "exports": EXPORTS, "resync": None}}}

    run = resync(sandbox, tmp_path, external_ids=["ada"], state=state)

    held = [state["bookmarks"]["export_files"] for state in run.states]
    assert [state["exports"] for state in held] == [EXPORTS] * len(held)
    assert [bool(state["resync"]) for state in held][-2:] == [True, False]


def test_broken_resync_continues_at_its_last_checkpoint(tmp_path: Path) -> None:
    """With the next request, under the same id; no profile of before is emitted again."""
    braze = ScriptedBraze(FakeClock())
    shared = {"braze_id": "shared"}
    braze.people = {"user-3@example.org": [shared], "user-299@example.org": [shared, {"braze_id": "last"}]}
    first = SimulatedRun(braze, tmp_path, emails=emails(300), groups=3)
    braze.bodies.clear()

    second = SimulatedRun(braze, tmp_path, emails=emails(300), state=first.state)

    assert first.state["resync"]["requests"] == 150
    assert [body["email_address"] for body in braze.bodies] == emails(300)[150:]
    assert second.files[0][0] == "requests 150-199"
    assert [user["braze_id"] for user in second.users[-2:]] == ["b-298@example.org", "last"]
    assert second.state["resync"] is None
    before, after = first.state["resync"]["export_id"], second.states[0]["resync"]["export_id"]
    assert before == after
    assert before.startswith("ids-")


def test_loader_that_lags_behind_gets_everything_after_its_state(tmp_path: Path) -> None:
    """What was emitted after the STATE that it has confirmed may be lost, and is emitted again."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(300), groups=4)

    second = SimulatedRun(braze, tmp_path, emails=emails(300), state=first.states[1])

    assert first.states[1]["resync"]["requests"] == 100
    assert [user["braze_id"] for user in second.users] == [f"b-{email[5:]}" for email in emails(300)[100:]]


def test_finished_resync_can_be_run_again(tmp_path: Path) -> None:
    """Its STATE holds nothing of it, and its profiles count as new."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(10))

    second = SimulatedRun(braze, tmp_path, emails=emails(10), state=first.state)

    assert first.state == {"version": 1, "exports": [], "resync": None}
    assert second.users == first.users
    assert len(braze.bodies) == 20


@pytest.mark.parametrize(
    "change", [{"emails": [*emails(199), "new@example.org"]}, {"rows_signature": "another"}, {"api_key": "another"}]
)
def test_changed_source_or_selection_starts_over(tmp_path: Path, change: dict[str, Any]) -> None:
    """Even if only the last identifier, which was not asked for yet, is another one."""
    braze = ScriptedBraze(FakeClock())
    first = SimulatedRun(braze, tmp_path, emails=emails(200), groups=2)
    braze.bodies.clear()

    second = SimulatedRun(braze, tmp_path, **{"emails": emails(200), "state": first.state, **change})

    assert len(braze.bodies) == 200
    assert [user["braze_id"] for user in second.users[:199]] == [f"b-{email[5:]}" for email in emails(199)]


@pytest.mark.parametrize("left", [{"requests": "x"}, [], "text", {"source": None}])
def test_senseless_state_starts_over(tmp_path: Path, left: Any) -> None:
    """A STATE that somebody has edited is no reason to fail."""
    braze = ScriptedBraze(FakeClock())

    run = SimulatedRun(braze, tmp_path, emails=emails(3), state={"version": 1, "exports": [], "resync": left})

    assert len(run.users) == 3


def test_without_spool_directory_nothing_is_lost(tmp_path: Path) -> None:
    """A profile may then be emitted twice, once by each run."""
    braze = ScriptedBraze(FakeClock())
    braze.people = {email: [{"braze_id": "one"}] for email in emails(100)}
    first = SimulatedRun(braze, tmp_path / "1", emails=emails(100), groups=1)

    second = SimulatedRun(braze, tmp_path / "2", emails=emails(100), state=first.state)

    assert (first.users, second.users) == ([{"braze_id": "one"}], [{"braze_id": "one"}])


def test_never_more_than_100_requests_beyond_the_last_state(tmp_path: Path) -> None:
    """However fast Braze answers, and however long one answer holds up the others: after a crash they are repeated."""
    clock = FakeClock()
    braze = ScriptedBraze(clock, limit=100_000, seconds=60)
    run = SimulatedRun(braze, tmp_path, emails=emails(1_000), lanes=SimulatedLanes(clock, stuck=220), groups=0)
    beyond = []
    for group in run.resync.deliveries():
        beyond.append(len(braze.bodies) - group.first)
        group.emitted(0)

    assert 90 <= max(beyond) <= 100
    assert len(braze.bodies) == 1_000


def test_requests_in_flight_are_bounded(tmp_path: Path) -> None:
    """By the setting `concurrent_requests`."""
    clock = FakeClock()
    lanes = SimulatedLanes(clock, latency=5.0)
    braze = ScriptedBraze(clock, limit=1_000, seconds=1)

    SimulatedRun(braze, tmp_path, emails=emails(200), lanes=lanes, concurrent_requests=5)

    assert lanes.most_in_flight == 5


# What goes wrong


def test_after_a_429_everybody_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    """Somebody else has used up the limit: nobody sends until it is free, then the request goes once more."""
    clock = FakeClock()
    braze = ScriptedBraze(clock)
    braze.errors = {20: RateLimitError("rate limit", clock.time + 30)}

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert [user["braze_id"] for user in run.users] == [f"b-{email[5:]}" for email in emails(200)]
    sent = [at - run.began for at in braze.times]
    assert len(sent) == 201
    assert not [at for at in sent if 1.5 < at < 30]


def test_shared_limit_is_heeded(tmp_path: Path) -> None:
    """Where others use most of a window, what remains is not exceeded."""
    braze = ScriptedBraze(FakeClock())
    braze.others_use(35)

    run = SimulatedRun(braze, tmp_path, emails=emails(200))

    assert len(run.users) == 200
    assert braze.violations == 0


def test_failing_call_ends_the_run_at_a_checkpoint(tmp_path: Path) -> None:
    """What was answered before it is emitted first; the next run asks from there on."""
    braze = ScriptedBraze(FakeClock())
    braze.errors = {70: BrazeError("POST /users/export/ids failed")}

    run = SimulatedRun(braze, tmp_path, emails=emails(300))

    assert run.error == "BrazeError: POST /users/export/ids failed"
    assert [name for name, _, _ in run.files] == ["requests 0-49", "requests 50-69"]
    assert run.state["resync"]["requests"] == 70


def test_request_that_braze_refuses_is_left_out_and_told(tmp_path: Path) -> None:
    """One bad identifier must not block those after it for ever; its row is named, and the run fails at its end."""
    braze = ScriptedBraze(FakeClock())
    braze.errors = {1: BrazeError("refused with 400", 400)}

    run = SimulatedRun(braze, tmp_path, emails=emails(3))

    assert [user["braze_id"] for user in run.users] == ["b-0@example.org", "b-2@example.org"]
    assert run.resync.failures == ["1 requests were left out (emails row 2): refused with 400, for emails row 2"]
    assert run.state["resync"] is None


@pytest.mark.parametrize("count", [3, 300])
def test_every_request_is_refused(tmp_path: Path, count: int) -> None:
    """Then the configuration is wrong: the run fails at once, and the next one asks again."""
    braze = ScriptedBraze(FakeClock())
    braze.errors = {number: BrazeError("refused with 400", 400) for number in range(count)}

    run = SimulatedRun(braze, tmp_path, emails=emails(count))

    assert run.error.startswith("BrazeError: refused with 400, for emails row")
    assert len(braze.bodies) <= 26
    assert run.states in ([], [run.state])
    assert not run.files


def test_unreadable_file_in_the_middle_ends_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """One line, which names the setting."""
    config = settings(sandbox, tmp_path, identifiers_url=str(tmp_path / "none.csv"))

    ended = command("--config", written(tmp_path, config))

    assert "identifiers_url" in ended.error
    assert "No such file or directory" in ended.error


def test_missing_permission_is_named(tmp_path: Path) -> None:
    """`users.export.ids`, in one line."""
    with Sandbox(users=1, deny=("users.export.ids",)) as sandbox:
        ended = command("--config", written(tmp_path, settings(sandbox, tmp_path, external_ids=["x"])))

    assert "users.export.ids" in ended.error


# Real processes


def test_rate_limit_of_the_sandbox_is_kept(tmp_path: Path) -> None:
    """Over real HTTP, at 40 requests a second."""
    with Sandbox(users=60, ids_latency=0.1) as sandbox:
        config = settings(sandbox, tmp_path, emails=emails(60))
        sync(config, catalog=selecting(["users"], {"users": ["email"]}), clock=Clock())

        assert len(bodies(sandbox)) == 60
        assert sandbox.violations == 0


def test_signal_does_not_wait_for_answers(tmp_path: Path) -> None:
    """Requests that hang for minutes do not keep the process."""
    with Sandbox(users=1, ids_latency=600.0) as sandbox:
        config = written(tmp_path, settings(sandbox, tmp_path, emails=emails(5)))
        with subprocess.Popen(
            [COMMAND, "--config", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        ) as process:
            while not sandbox.workspace.most_ids_in_flight:
                assert process.poll() is None
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=30)

        assert code == 143
        assert time.monotonic() - told < 5


PLAIN = ("users", "devices", "purchases")


def _killed(config: str, state: str | None, after: int) -> Output:
    """What a run has written when it is killed after so many lines."""
    arguments = ["--config", config, *(["--state", state] if state else [])]
    with subprocess.Popen(
        [COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        assert process.stdout is not None
        lines = [line for _, line in zip(range(after), process.stdout, strict=False)]
        process.kill()
        lines += process.stdout.readlines()
    return Output(b"".join(line for line in lines if line.endswith(b"\n")))


def _until_state(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The records that the last STATE covers, and that STATE."""
    places = [place for place, message in enumerate(messages) if message["type"] == "STATE"]
    if not places:
        return [], None
    return [m for m in messages[: places[-1]] if m["type"] == "RECORD"], messages[places[-1]]["value"]


def _plain_rows(records: list[dict[str, Any]]) -> list[Any]:
    """The rows of users and what belongs to them, without the time."""
    return [
        (record["stream"], {**record["record"], "exported_at": ""}) for record in records if record["stream"] in PLAIN
    ]


@pytest.mark.parametrize("seed", range(4))
def test_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path, seed: int) -> None:
    """Three kills in a row, each run with the last STATE of the one before, give the rows of one undisturbed run."""
    chance = random.Random(seed)
    with Sandbox(users=800, odd_users=False, ids_limit=1_000_000) as sandbox:
        everybody = [json.loads(line)["braze_id"] for line in sandbox.lines("all-users", ["braze_id"])]
        wanted = [braze_id for pair in zip(everybody[:400], reversed(everybody), strict=False) for braze_id in pair]
        config = settings(sandbox, tmp_path, braze_ids=wanted[:700])
        path = written(tmp_path, config)
        undisturbed = sync({**config, "spool_dir": str(tmp_path / "other")}, clock=Clock())
        expected = _plain_rows(undisturbed.of_type("RECORD"))
        lines = len(undisturbed.messages)

        records: list[dict[str, Any]] = []
        state: dict[str, Any] | None = None
        for _ in range(3):
            before = len(bodies(sandbox))
            output = _killed(
                path, written(tmp_path, state, "state.json") if state else None, chance.randrange(lines // 2)
            )
            covered, last = _until_state(output.messages)
            asked = len(bodies(sandbox)) - before
            done = _position(last or state) - _position(state)
            assert asked - done <= 100
            records += covered
            state = last or state
        rest = command("--config", path, *(["--state", written(tmp_path, state, "state.json")] if state else []))

    assert _plain_rows([*records, *rest.of_type("RECORD")]) == expected
    assert rest.states[-1]["bookmarks"]["export_files"]["resync"] is None


def _position(state: dict[str, Any] | None) -> int:
    resync = state["bookmarks"]["export_files"]["resync"] if state else None
    return int(resync["requests"]) if resync else 0
