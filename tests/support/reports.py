"""Exports as the facts of a run see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.export import Export
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_braze_export.report.facts import RunFacts


def export(export_id: str = "export-1", segment_id: str = "all", source: str = "segment") -> Export:
    """An export that was requested two seconds after the start of the run."""
    return Export(source, segment_id, export_id, FakeClock().time + 2)


def row(**counts: int) -> dict[str, Any]:
    """The counts in a row of export_files; those that are not given are 0."""
    return {**dict.fromkeys(("lines", "users", "duplicates", "unchanged", "rejected"), 0), "missed": None, **counts}


def emit(
    facts: RunFacts,
    of: Export | None = None,
    *,
    rescued: Mapping[str, int] | None = None,
    seconds: float = 0.0,
    blocked: float = 0.0,
    misses: int = 0,
    **counts: int,
) -> None:
    """Note a delivery that is emitted."""
    facts.done(of or export(), row(**counts), rescued or {}, misses=misses, seconds=seconds, blocked=blocked)
