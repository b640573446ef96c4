"""Users to resync, and runs that resync them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.clock import Clock
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox


STREAMS = ["users", "devices", "invalid_user_ids", "export_files"]

PEOPLE: list[dict[str, Any]] = [
    {"braze_id": "b1", "external_id": "ada", "email": "ada@example.org", "country": "GB", "phone": "+4411"},
    {"braze_id": "b2", "external_id": 'al,an "T"', "email": "team@example.org"},
    {"braze_id": "b3", "external_id": "José-日本-😀", "email": "team@example.org", "devices": [{"device_id": "d3"}]},
    {"braze_id": "b4", "user_aliases": [{"alias_name": "lead-4", "alias_label": "crm"}], "devices": [{"idfv": "d4"}]},
    {"braze_id": "b5", "external_id": "kurt", "user_aliases": [{"alias_name": "lead-5", "alias_label": "crm"}]},
]


def resync(sandbox: Sandbox, folder: Path, *, state: Mapping[str, Any] | None = None, **config: Any) -> Run:
    """Run a resync that succeeds, with STREAMS selected."""
    config = settings(sandbox, folder, **config)
    return sync(config, catalog=selecting(STREAMS), state=state, clock=Clock())


def bodies(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The bodies of the ids requests, without `fields_to_export`."""
    requests = [call.body for call in sandbox.calls if call.path == "/users/export/ids"]
    return [{name: value for name, value in body.items() if name != "fields_to_export"} for body in requests]


def emails(count: int) -> list[str]:
    """Addresses, each of which needs a request of its own."""
    return [f"user-{number}@example.org" for number in range(count)]
