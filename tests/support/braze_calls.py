"""Every call of the REST client, and the check of its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import TapError
from tests.support.fakes import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.braze.client import Braze, IdsResponse, Started

KEY = "5f0c-secret-key-77aa"
SEGMENT = "11111111-2222-3333-4444-555555555555"
PREFIX = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599"
SUCCESS = {
    "message": "success",
    "object_prefix": PREFIX,
    "users": [],
    "name": "All users",
    "data": [],
    "attributes": [],
    "segments": [],
}
"""The members of a success of every endpoint."""
STARTED = as_json(SUCCESS)


def start(braze: Braze) -> Started:
    return braze.start_segment_export(SEGMENT, fields_to_export=["braze_id"])


def start_control_group(braze: Braze) -> Started:
    return braze.start_control_group_export(fields_to_export=["braze_id"])


def export_ids(braze: Braze) -> IdsResponse:
    return braze.export_ids({"external_ids": ["ada@example.org", "4711-0815"], "phone": "+4930123456"})


def cancel(braze: Braze) -> None:
    braze.cancel_segment_export(SEGMENT)


def details(braze: Braze) -> dict[str, Any]:
    return braze.segment_details(SEGMENT)


def segments(braze: Braze) -> list[tuple[str, str]]:
    return list(braze.segments())


def size(braze: Braze) -> int | None:
    return braze.segment_size(SEGMENT)


def attributes(braze: Braze) -> list[dict[str, Any]]:
    return list(braze.custom_attributes())


ALL: list[Callable[[Braze], object]] = [
    start,
    start_control_group,
    export_ids,
    cancel,
    details,
    size,
    attributes,
]
STARTS = [start, start_control_group]
ASKED_ONCE = [*STARTS, size]
"""Calls that are not repeated once they were sent."""
REPEATABLE = [call for call in ALL if call not in ASKED_ONCE]


def refused(call: Callable[[Braze], object], braze: Braze, kind: type[TapError]) -> str:
    """The message of the error that a call ends in: one line, without key and address."""
    with pytest.raises(TapError) as caught:
        call(braze)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    assert "segment_id=" not in message
    assert "://127" not in message
    return message
