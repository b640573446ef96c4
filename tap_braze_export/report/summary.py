"""Logs the facts of a run as one table at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.report.facts import COUNTS, notes
from tap_braze_export.report.units import duration, megabytes

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from tap_braze_export.report.facts import RunFacts

_LINE_WIDTH = 80
_GAP = 2


def log_table(logger: logging.Logger, facts: RunFacts, *, done: bool) -> None:
    """Log the table of a run, which is `done` if it did all that it should."""
    logger.info(
        "%s %s: %s waiting for Braze",
        "Done in" if done else "Not complete, ended after",
        duration(facts.seconds),
        duration(facts.seconds_for_braze),
    )
    if facts.seconds_quiet:
        logger.info("  %s waiting for more files in a quiet bucket (settle_minutes)", duration(facts.seconds_quiet))
    rate = f" ({facts.users_a_second:,.0f} users a second)" if facts.seconds_reading else ""
    reading, blocked = duration(facts.seconds_reading), duration(facts.seconds_blocked)
    logger.info("  %s reading%s, %s waiting for the loader", reading, rate, blocked)
    memory = f", peak memory {megabytes(facts.peak_memory)} MB" if facts.peak_memory else ""
    logger.info("  retries %s%s", f"{facts.retries:,}", memory)
    if facts.counts:
        exports = [[name, *(counts[count] for count in COUNTS)] for name, counts in facts.counts.items()]
        _log_rows(logger, ["export", *COUNTS], exports)
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
