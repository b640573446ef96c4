"""Users that the sandbox makes up."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.sandbox_client import EVERYTHING, NOW, exported

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


def test_same_seed_makes_the_same_users() -> None:
    def made(seed: int, fields: list[str]) -> list[Any]:
        with Sandbox(users=50, seed=seed, odd_users=False) as sandbox:
            return exported(sandbox, fields=fields)

    first = made(7, EVERYTHING)
    assert made(7, EVERYTHING) == first
    assert made(8, EVERYTHING) != first
    emails = [{"email": user["email"]} if "email" in user else {} for user in first]
    assert made(7, ["email"]) == emails


def test_a_user_is_the_same_in_every_segment() -> None:
    with Sandbox(users=100) as sandbox:
        everybody = {user["braze_id"]: user for user in exported(sandbox, fields=EVERYTHING)}
        vips = exported(sandbox, "vip-users", EVERYTHING)
    assert len(vips) == 10
    assert all(everybody[vip["braze_id"]] == vip for vip in vips)


@pytest.mark.slow
def test_generated_users_are_as_varied_as_real_ones() -> None:
    with Sandbox(users=2000, odd_users=False) as sandbox:
        users = exported(sandbox, fields=EVERYTHING)
    text = json.dumps(users, ensure_ascii=False)
    sizes = sorted(len(json.dumps(user, ensure_ascii=False, separators=(",", ":")).encode()) for user in users)
    dates = {re.sub(r"\d", "0", user["created_at"]) for user in users}
    gone = {type(user.get("uninstalled_at")) for user in users}
    steps = [
        step for user in users for canvas in user.get("canvases_received", []) for step in canvas["steps_received"]
    ]

    assert {key for user in users for key in user} >= set(EVERYTHING)
    assert 4000 < sum(sizes) / len(sizes) < 5500
    assert sizes[200] < 2000
    assert sizes[-20] > 12_000
    assert dates == {"0000-00-00 00:00:00.000 UTC", "0000-00-00T00:00:00.000Z", "0000-00-00T00:00:00Z"}
    assert gone == {str, int, type(None)}
    assert re.search(r'"last_entered": "[^"]+\.000\+00:00"', text)
    assert {"Favorite Color", "ünïcode", "dotted.name", "click-timestamp"} <= set(re.findall(r'"([^"]+)": ', text))
    assert {"Björn", "健", "Zoë"} <= {user.get("first_name") for user in users}
    assert any("external_id" not in user and user.get("user_aliases") for user in users)
    assert any("external_id" not in user and "user_aliases" not in user for user in users)
    assert any(not device.keys() & {"device_id", "idfv", "roku_ad_id"} for user in users for device in user["devices"])
    assert steps
    for field in ("custom_events", "purchases", "campaigns_received", "canvases_received", "cards_clicked"):
        for user in users:
            names = [item["name"] for item in user.get(field, [])]
            assert field == "cards_clicked" or len(names) == len(set(names)), (field, user)
