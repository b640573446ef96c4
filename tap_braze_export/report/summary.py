"""Counts what a run emits, and logs it as one table at its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tap_braze_export.report.facts import ExportFacts, RunFacts, export_name, notes
from tap_braze_export.report.samples import peak_memory
from tap_braze_export.report.units import duration, megabytes

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from tap_braze_export.report.progress import Progress

_COUNTS = ("lines", "users", "duplicates", "unchanged", "rejected")
_COLUMNS = ("files", *_COUNTS)
_LINE_WIDTH = 80
_GAP = 2


class Summary:
    """The counts of a run, by export and by stream.

    Args:
        compares: True if users are skipped that did not change.

    Attributes:
        named: See `RunFacts`.
    """

    def __init__(self, *, compares: bool = False) -> None:
        self.named = 0
        self._compares = compares
        self._exports: dict[str, Counter[str]] = {}
        self._rescued: Counter[str] = Counter()

    def add(self, record: Mapping[str, Any], rescued: Mapping[str, int]) -> None:
        """Count a delivery.

        Args:
            record: Its row of `export_files`.
            rescued: Rows that have rescued members, by stream.
        """
        counts = self._exports.setdefault(export_name(record["source"], record["segment_id"]), Counter())
        counts["files"] += 1
        counts.update({name: record[name] for name in _COUNTS})
        if record["missed"] is not None:
            counts["missed"] += record["missed"]
        self._rescued.update(rescued)

    @property
    def unchanged(self) -> int:
        """Number of users that were skipped, since the target has them as they are."""
        return sum(counts["unchanged"] for counts in self._exports.values())

    @property
    def is_empty(self) -> bool:
        """True if nothing was read."""
        return not self._exports

    def facts(self, progress: Progress, rows: Mapping[str, int], *, retries: int) -> RunFacts:
        """The counts and times of the run.

        Args:
            progress: Has the seconds.
            rows: Rows emitted, by stream.
            retries: See `RunFacts`.
        """
        return RunFacts(
            seconds=progress.seconds,
            seconds_waiting=progress.seconds_waiting,
            seconds_reading=progress.seconds_reading,
            seconds_blocked=progress.seconds_blocked,
            exports=[ExportFacts(name=name, **counts) for name, counts in self._exports.items()],
            rows=rows,
            rescued=self._rescued,
            retries=retries,
            peak_memory=peak_memory(),
            seconds_quiet=progress.seconds_quiet,
            completed=progress.completed,
            compares=self._compares,
            named=self.named,
        )


def log_table(logger: logging.Logger, facts: RunFacts, *, done: bool, pace: str) -> None:
    """Log the table.

    Args:
        logger: Writes its lines.
        facts: Its numbers.
        done: True if the run did all that it should.
        pace: See `Progress.pace`.
    """
    logger.info(
        "%s %s: %s waiting for Braze",
        "Done in" if done else "Not complete, ended after",
        duration(facts.seconds),
        duration(facts.seconds_for_braze),
    )
    if facts.seconds_quiet:
        logger.info("  %s waiting for more files in a quiet bucket (settle_minutes)", duration(facts.seconds_quiet))
    logger.info("  %s", pace)
    memory = f", peak memory {megabytes(facts.peak_memory)} MB" if facts.peak_memory else ""
    logger.info("  retries %s%s", f"{facts.retries:,}", memory)
    exports = [[export.name, *(getattr(export, count) for count in _COLUMNS)] for export in facts.exports]
    if exports:
        _log_rows(logger, ["export", *_COLUMNS], exports)
    streams = [[name, count, facts.rescued.get(name, 0)] for name, count in facts.rows.items()]
    _log_rows(logger, ["stream", "rows", "rescued"], streams)
    for note in notes(facts):
        logger.info("  %s", note)


def _log_rows(logger: logging.Logger, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a line for each row: the name, then numbers below the heads of their columns.

    A name that leaves them no room on a terminal of the usual width stands on a line of its own.
    """
    texts = [[row[0], *(f"{number:,}" for number in row[1:])] for row in rows]
    names, *columns = zip(head, *texts, strict=True)
    widths = [max(map(len, column)) for column in columns]
    room = _LINE_WIDTH - sum(width + _GAP for width in widths) - _GAP
    name_width = max((len(name) for name in names if len(name) <= room), default=0)
    for name, *numbers in (head, *texts):
        if len(name) > room:
            logger.info("  %s", name)
        beside = name if len(name) <= room else ""
        aligned = (number.rjust(width) for number, width in zip(numbers, widths, strict=True))
        logger.info("  %s  %s", beside.ljust(name_width), "  ".join(aligned))
