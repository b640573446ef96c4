"""The facts of a run that its end table and its page show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tap_braze_export.schema.user_object import IDS, INVALID_USER_IDS, SEGMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """The counts of the exports of one source, for each file that was emitted.

    Attributes:
        name: What was exported: `segment …`, `Global Control Group` or `resync`.
        missed: Changed users that an incremental export just before did not have; None if none was compared.
    """

    name: str
    files: int = 0
    lines: int = 0
    users: int = 0
    duplicates: int = 0
    unchanged: int = 0
    rejected: int = 0
    missed: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The counts and times of a run.

    Attributes:
        seconds: From its begin to its end.
        seconds_waiting: The part of them in which nothing could be read.
        seconds_quiet: The part of those in which only the end of exports in a quiet bucket was waited for.
        seconds_reading: The part of them in which the tap read.
        seconds_blocked: The part of them in which the loader kept the tap waiting.
        exports: By source, in the order of their first files.
        rows: Rows emitted, by stream.
        rescued: Rows of them with rescued members, by stream; 0 may be left out.
        retries: Calls that were repeated, and files that were fetched once more, after a failure.
        peak_memory: Most bytes of memory that the process held; 0 if the system does not say.
        completed: See `Progress`.
        compares: True if users are skipped that did not change.
        named: Changed users that the incremental exports had with which full ones were compared.
    """

    seconds: float
    seconds_waiting: float
    seconds_reading: float
    seconds_blocked: float
    exports: Sequence[ExportFacts]
    rows: Mapping[str, int]
    rescued: Mapping[str, int]
    retries: int = 0
    peak_memory: int = 0
    seconds_quiet: float = 0.0
    completed: Mapping[str, tuple[float, bool]] = field(default_factory=dict)
    compares: bool = False
    named: int = 0

    @property
    def missed(self) -> str:
        """How many of the changed users Braze's filter has not named; empty if that was not measured."""
        counts = [export.missed for export in self.exports if export.missed is not None]
        return f"{sum(counts):,} of {sum(counts) + self.named:,}" if counts else ""

    @property
    def seconds_for_braze(self) -> float:
        """Seconds in which the run waited for what Braze had not done yet."""
        return max(0.0, self.seconds_waiting - self.seconds_quiet)

    def total(self, count: str) -> int:
        """The sum of a count over all exports."""
        return sum(getattr(export, count) for export in self.exports)


def export_name(source: str, segment_id: str | None) -> str:
    """The name under which the exports of one source are counted."""
    if source == SEGMENT:
        return f"segment {segment_id}"
    return "resync" if source == IDS else "Global Control Group"


def list_of_misses(*, selected: bool) -> str:
    """Say where the identifiers that matched nobody are listed, or would be.

    Args:
        selected: True if the stream `invalid_user_ids` is.
    """
    name = INVALID_USER_IDS.stream
    return f"the stream {name} lists them" if selected else f"select the stream {name} to have them listed"


def notes(facts: RunFacts) -> Iterator[str]:
    """Explain the counts that may surprise."""
    if duplicates := facts.total("duplicates"):
        yield (
            f"duplicates: {duplicates:,} of {facts.total('lines'):,} lines; the last line of a user in a file counts"
        )
    if facts.total("rejected"):
        yield "rejected: lines that are no user objects, kept in spool_dir"
    if sum(facts.rescued.values()):
        yield "rescued: rows with values that fit no column, kept in their _rescued_data"
    if facts.compares:
        unchanged, users = facts.total("unchanged"), facts.total("users")
        yield f"unchanged: {unchanged:,} of {users:,} users were skipped, as the target has them"
    if facts.missed:
        yield f"missed: {facts.missed} changed users were not named by the filter (user_last_updated_at)"
