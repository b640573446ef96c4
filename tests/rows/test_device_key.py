"""Every device has a key, by its id or else by its content."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tests.support.rows import read, rows, selected


def devices(*found: dict[str, Any], without: tuple[str, ...] = ()) -> list[str]:
    """The keys of the devices of one user."""
    line = msgspec.json.encode({"braze_id": "u", "devices": found})
    return [row["device_key"] for row in rows(read(line, selections=selected(without=without)))["devices"]]


def test_a_device_keeps_its_key_from_run_to_run() -> None:
    """Neither the order of its members and of the devices nor members without a value change it."""
    (key,) = devices({"model": "Pixel", "os": "14", "new": {"a": 1, "b": 1.50}})
    assert key == "anonymous-953c83243cf04c43"
    same = {"carrier": None, "idfa": "", "new": {"b": 1.50, "a": 1}, "os": "14", "model": "Pixel"}
    assert devices({"model": "Other"}, same)[1] == key


def test_equal_devices_are_counted_per_profile() -> None:
    """The ordinal starts anew with each user."""
    device = {"model": "Galaxy S21"}
    (key,) = devices(device)
    assert devices(device, device, {"model": "x"}, device) == [key, f"{key}-2", devices({"model": "x"})[0], f"{key}-3"]
    lines = [json.dumps({"braze_id": name, "devices": [device]}) for name in "uv"]
    assert [row["device_key"] for row in rows(read(*lines))["devices"]] == [key, key]


def test_very_many_equal_devices_take_little_time() -> None:
    """Each gets its own ordinal, without a look at all the others."""
    line = b'{"braze_id":"u","devices":[' + b",".join([b"{}"] * 20_000) + b"]}"
    found = rows(read(line))["devices"]
    assert len({row["device_key"] for row in found}) == 20_000
    assert found[-1]["device_key"].endswith("-20000")


def test_devices_differ_in_what_is_deselected_or_unknown() -> None:
    """The hash takes the whole content, not only the selected columns."""
    found = ({"os": "1"}, {"os": "2"}, {"new": 1}, {"new": 2})
    assert len({*devices(*found, without=("devices.os", "devices._rescued_data"))}) == 4


def test_a_hashed_id_is_stable_and_no_plain_text() -> None:
    """Equal ids give equal keys for every user; only the deselected one is hashed."""
    plain = devices({"device_id": "d", "idfv": "v"}, {"idfv": "v"})
    hashed = devices({"device_id": "d", "idfv": "v"}, {"idfv": "v"}, without=("devices.device_id",))
    assert plain == ["d", "v"]
    assert hashed[0] not in ("d", "v")
    assert hashed[1] == "v"
    assert hashed == devices({"device_id": "d"}, {"idfv": "v"}, without=("devices.device_id",))
