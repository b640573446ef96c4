"""The names of the files at `fingerprints_url`, each in the folder of its run."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.clock import Clock

_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}/(\d{6,}\.part|version|running|reads)")
_TIME = "%Y%m%dT%H%M%SZ"


def is_own(name: str) -> bool:
    """True for a file of the tap."""
    return bool(_NAME.fullmatch(name))


def new_run_id(clock: Clock) -> str:
    """A name that no other run has."""
    return f"{datetime.fromtimestamp(clock.now(), UTC):{_TIME}}-{uuid.uuid4().hex[:12]}"


def part_name(run_id: str, number: int) -> str:
    """The name of a run's part; parts are counted from 0 in the order in which they are emitted."""
    return f"{run_id}/{number:06}.part"


def part_number(name: str) -> int:
    """The number in the name of a part."""
    return int(name.rpartition("/")[2].removesuffix(".part"))


def version_name(run_id: str) -> str:
    """The name of the version that a run leaves."""
    return f"{run_id}/version"


def running_name(run_id: str) -> str:
    """The name of the mark of a run that has not ended, or was killed."""
    return f"{run_id}/running"


def reads_name(run_id: str) -> str:
    """The name of the list of files that a run may read until it ends; without it, it may read all."""
    return f"{run_id}/reads"


def is_snapshot(name: str) -> bool:
    """True for a part or a version."""
    return name.endswith((".part", "/version"))


def run_of(name: str) -> str:
    """The run that a file belongs to."""
    return name.partition("/")[0]


def began_at(run_id: str) -> float:
    """When a run began, in epoch seconds."""
    return datetime.strptime(run_id.partition("-")[0], _TIME).replace(tzinfo=UTC).timestamp()


def missing_part(names: Iterable[str], included: Iterable[str]) -> str:
    """Which part of a run is missing, although a later one is there; empty if none is.

    Parts before one that the version includes are not missed: it knows of them, or its run emitted everybody. A run
    that was killed may have removed some of them and not the others.
    """
    found, known = _parts_of_runs(names), _parts_of_runs(included)
    for run_id, numbers in found.items():
        first_unknown = max(known.get(run_id, {-1})) + 1
        if missing := {*range(first_unknown, max(numbers) + 1)} - numbers:
            return f"{part_name(run_id, min(missing))} is missing at fingerprints_url"
    return ""


def _parts_of_runs(names: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the parts of each run."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        if name.endswith(".part"):
            numbers.setdefault(run_of(name), set()).add(part_number(name))
    return numbers
