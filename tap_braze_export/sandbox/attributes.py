"""The custom attributes of the workspace: names, types and the values of users."""

from __future__ import annotations

import random
from typing import Any

from tap_braze_export.sandbox.vocabulary import VARIANTS, dump

_dice = random.Random("custom attributes")  # noqa: S311 - made-up people need no secure randomness

# Names, Braze's word for the type, and the values that occur; mixed kinds and odd keys, as in workspaces.
_KNOWN: dict[str, tuple[str, list[Any]]] = {
    "Favorite Color": ("String", ["blue", "grün", 'green and "red"', "two\nlines"]),
    "account_region": ("String", ["ON", "QC", "BY", "NRW"]),
    "account_type": ("String", ["premium", "basic", ""]),
    "address": ("Object", [{"city": "Berlin", "geo": {"lat": 52.52, "lon": 13.4}}, {"city": None}]),
    "big": ("Number", [9007199254740993, 123456789012345678901234567890, -1]),
    "brand_name": ("String (Automatically Detected)", ["Acme", "Æon", "Ω Store"]),
    "click-timestamp": ("Number (Automatically Detected)", ["1592236800000", 1592236800123]),
    "custom_arr": ("Array", [[1, 2, "str1"], [], ["only"]]),
    "custom_obj_attr": ("Object", [{"key1": "value1", "key2": "value2", "key3": "value3"}, {}]),
    "dotted.name": ("Number", [1.5, 2, 1e-07]),
    "email": ("String", ["clashes-with-top-level"]),
    "flag": ("Boolean", ["true", "false", True, False]),
    "is_registered": ("Boolean", [True, False]),
    "joined_on": ("Time", ["2024-05-06T07:08:09.000Z", "2019-11-01T00:00:00.000Z"]),
    "last visit day": ("Date", ["2024-05-06", "2026-01-31"]),
    "loyaltyPoints": ("String", ["321", "0", "n/a"]),
    "loyaltyPointsNumber": ("Number (Automatically Detected)", [107, 0, 12.25]),
    "nothing": ("String", [None]),
    "pets": (
        "Object Array",
        [[{"id": 1, "type": "dog", "breed": None}, {"id": 2, "type": "cat", "toys": ["ball", 7, True]}], []],
    ),
    "preferences": ("Object", [{"mail": {"weekly": True, "topics": ["a", "b"]}, "sms": False}]),
    "real_flag": ("Boolean", [True, False]),
    "tags": ("Array", [["new", "vip"], ["ünïcode"]]),
    "tiny": ("Number", [1e-07, 3.25]),
    "ünïcode": ("String", ["✓", "中文", "🎂"]),
}
_SCORES = [f"score_{number:03d}" for number in range(1, 81)]
_BLOCKLISTED = ["old password hint", "ssn"]


def _variants(name: str, values: list[Any]) -> tuple[str, ...]:
    return tuple(f"{dump(name)}:{dump(values[number % len(values)])}" for number in range(VARIANTS))


def _pool() -> tuple[tuple[str, tuple[str, ...]], ...]:
    pool = [(name, _variants(name, values)) for name, (_, values) in _KNOWN.items()]
    pool += [(name, _variants(name, [round(_dice.random() * 100, 2) for _ in range(VARIANTS)])) for name in _SCORES]
    _dice.shuffle(pool)
    return tuple(pool)


# Each user has neighbours in this list, so that no name occurs twice in a user; after its end it starts over.
ATTRIBUTES = _pool()


def _described(name: str, data_type: str, status: str = "Active") -> dict[str, Any]:
    return {
        "array_length": 25 if data_type.startswith("Array") else None,
        "data_type": data_type,
        "description": f"{name}, as the sandbox has it" if data_type == "Number" else None,
        "name": name,
        "status": status,
        "tag_names": ["loyalty"] if name.startswith("loyalty") else [],
    }


def attribute_list() -> list[dict[str, Any]]:
    """Every custom attribute as `/custom_attributes` lists it, sorted by name."""
    listed = [_described(name, data_type) for name, (data_type, _) in _KNOWN.items()]
    listed += [_described(name, "Number") for name in _SCORES]
    listed += [_described("loyaltyId", "String")]
    listed += [_described(name, "String", "Blocklisted") for name in _BLOCKLISTED]
    return sorted(listed, key=lambda attribute: str(attribute["name"]))
