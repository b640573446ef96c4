"""The ids export of the sandbox: who is found, and its limits."""

from __future__ import annotations

from typing import Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.sandbox_client import EVERYTHING, NOW, exported, ids

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


def test_ids_export_finds_users_by_every_identifier() -> None:
    fields = ["braze_id", "external_id", "user_aliases", "email", "phone", "devices"]
    with Sandbox(users=3000, odd_users=False) as sandbox:
        users = exported(sandbox, fields=fields)
        plain = next(
            user
            for user in users
            if {"external_id", "user_aliases", "phone"} <= user.keys()
            and user["user_aliases"]
            and user["phone"].startswith("+")
            and "device_id" in user["devices"][0]
        )
        for wanted in (
            {"external_ids": [plain["external_id"]]},
            {"user_aliases": plain["user_aliases"]},
            {"braze_id": plain["braze_id"]},
            {"phone": plain["phone"]},
            {"phone": plain["phone"].removeprefix("+")},
            {"device_id": plain["devices"][0]["device_id"]},
            {"email_address": plain["email"]},
        ):
            response = ids(sandbox, fields, **wanted)
            assert response.status_code == 201
            assert plain in response.json()["users"], wanted
            assert "invalid_user_ids" not in response.json()


def test_every_external_id_can_be_looked_up() -> None:
    """Whatever its form: words, digits, UUIDs, mail-like ones."""
    with Sandbox(users=400, ids_limit=1000) as sandbox:
        every = sorted({user["external_id"] for user in exported(sandbox, fields=["external_id"]) if user})
        found = [
            user["external_id"]
            for at in range(0, len(every), 50)
            for user in ids(sandbox, ["external_id"], external_ids=every[at : at + 50]).json()["users"]
        ]
    assert sorted(found) == every
    assert len(every) > 300


def test_ids_export_finds_given_users(sandbox: Sandbox) -> None:
    sandbox.add_segment(
        "mine", [{"braze_id": "b1", "external_id": "e1"}, b'{"braze_id":"b2","external_id":"e2"}', b"["]
    )
    assert ids(sandbox, external_ids=["e1", "e2"]).json()["users"] == [
        {"braze_id": "b1"},
        {"braze_id": "b2", "external_id": "e2"},  # a raw line stands as it is
    ]


def test_one_email_may_belong_to_several_profiles() -> None:
    with Sandbox(users=200, odd_users=False) as sandbox:
        shared = ids(sandbox, email_address="person48@example.com").json()["users"]
    assert [user["email"] for user in shared] == ["person48@example.com"] * 2
    assert len({user["braze_id"] for user in shared}) == 2


def test_misses_are_listed_for_external_ids_only(sandbox: Sandbox) -> None:
    alias = {"alias_label": "amplitude_id", "alias_name": "nobody"}
    missed = ids(sandbox, external_ids=["no-such-id", "A8i3mkd99"], user_aliases=[alias]).json()
    assert [user["email"] for user in missed["users"]] == ["example@example.com"]
    assert missed["invalid_user_ids"] == ["no-such-id"]
    unknown: list[dict[str, Any]] = [{"email_address": "a@b"}, {"phone": "1"}, {"device_id": "x"}, {"braze_id": "x"}]
    for wanted in unknown:
        assert ids(sandbox, **wanted).json() == {"message": "success", "users": []}


def test_one_user_asked_twice_comes_once(sandbox: Sandbox) -> None:
    alias = {"alias_label": "amplitude_id", "alias_name": "user_123"}
    users = ids(sandbox, external_ids=["A8i3mkd99", "A8i3mkd99"], user_aliases=[alias]).json()["users"]
    assert len(users) == 1


def test_at_most_50_external_ids_and_aliases(sandbox: Sandbox) -> None:
    external_ids = [f"e{number}" for number in range(49)]
    aliases = [{"alias_label": "a", "alias_name": "b"}, {"alias_label": "a", "alias_name": "c"}]
    assert ids(sandbox, external_ids=external_ids, user_aliases=aliases[:1]).status_code == 201
    response = ids(sandbox, external_ids=external_ids, user_aliases=aliases)
    assert (response.status_code, response.json()) == (
        400,
        {"message": "The max number of external_ids and aliases per request was exceeded"},
    )


def test_one_device_email_or_phone_a_request(sandbox: Sandbox) -> None:
    assert ids(sandbox, email_address="a@b", phone="1").status_code == 400
    assert ids(sandbox, email_address="a@b", external_ids=["e"], braze_id="x").status_code == 201


def test_ids_export_has_no_created_from(sandbox: Sandbox) -> None:
    (user,) = ids(sandbox, EVERYTHING, external_ids=["3f2504e0-4f89-41d3-9a0c-0305e82c3301"]).json()["users"]
    assert "created_from" not in user
    assert user["custom_attributes"]["big"] == 9007199254740993


@pytest.mark.slow
def test_ids_limit_a_minute() -> None:
    """250 in a clock minute when campaigns or canvases are asked for; more is 429 and a violation."""
    clock = FakeClock(NOW)
    with Sandbox(users=1, clock=clock.now) as sandbox:
        fields = ["braze_id", "campaigns_received"]
        responses = [ids(sandbox, fields, braze_id="x") for _ in range(251)]
        assert [response.status_code for response in responses] == [201] * 250 + [429]
        assert {k: v for k, v in responses[-1].headers.items() if k.startswith("X-Rate")} == {
            "X-RateLimit-Limit": "250",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1790000040",  # the next full minute
        }
        assert sandbox.violations == 1
        clock.time = 1_790_000_040
        assert ids(sandbox, fields, braze_id="x").headers["X-RateLimit-Remaining"] == "249"


def test_small_ids_requests_have_a_limit_a_second() -> None:
    clock = FakeClock(NOW)
    with Sandbox(users=1, clock=clock.now) as sandbox:
        statuses = [ids(sandbox, braze_id="x").status_code for _ in range(41)]
        assert statuses == [201] * 40 + [429]
        clock.time += 1
        assert ids(sandbox, braze_id="x").status_code == 201
        assert sandbox.violations == 1


def test_own_ids_limit_has_no_faster_limit() -> None:
    with Sandbox(users=1, clock=lambda: NOW, ids_limit=3) as sandbox:
        assert [ids(sandbox, braze_id="x").status_code for _ in range(4)] == [201, 201, 201, 429]
    with Sandbox(users=1, clock=lambda: NOW, ids_per_second=2) as sandbox:
        assert [ids(sandbox, braze_id="x").status_code for _ in range(3)] == [201, 201, 429]


def test_ids_latency() -> None:
    waited: list[float] = []
    with Sandbox(users=1, ids_latency=0.4, wait=waited.append) as sandbox:
        ids(sandbox, braze_id="x")
        assert sandbox.workspace.most_ids_in_flight == 1
    assert waited == [0.4]
