"""The identifiers that Braze refuses and that are left out: counted, and named by their rows, never shown."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_braze_export.resync.identifiers import Identifier

_MAX_TOLD_RANGES = 5
_log = logging.getLogger(__name__)


class Refusals:
    """Counts what Braze refuses in a resync.

    Args:
        before: Identifiers that Braze refused in earlier runs of this resync.

    Attributes:
        count: Identifiers refused so far, in all runs of this resync.
    """

    def __init__(self, before: int) -> None:
        self.count = self._before = before
        self._first_rows: list[str] = []
        self._reason = ""

    def tell(self, identifiers: Sequence[Identifier], reason: str) -> None:
        """Log the rows of refused identifiers, which STATE is about to cover."""
        if identifiers:
            rows = [*_ranges(identifiers)]
            self._first_rows += rows[: _MAX_TOLD_RANGES + 1]
            self.count += len(identifiers)
            self._reason = reason
            _log.warning("%s: %s; left out: %s", _counted(len(identifiers)), reason, ", ".join(rows))

    def __str__(self) -> str:
        """All of them in one line for the end of the run; empty if there are none."""
        if not self.count:
            return ""
        told = self._first_rows[:_MAX_TOLD_RANGES]
        told += ["…"] * (len(self._first_rows) > _MAX_TOLD_RANGES)
        told += [f"{self._before:,} in an earlier run"] * bool(self._before)
        reason = f": {self._reason}" if self._reason else ""
        return (
            f"{_counted(self.count)} and left out ({', '.join(told)}){reason}; everybody else was asked for. Correct or"
            " remove these rows, all of which stand in the log's warnings"
        )


def _counted(count: int) -> str:
    return f"{count:,} identifier{'s were' if count > 1 else ' was'} refused by Braze"


def _ranges(identifiers: Sequence[Identifier]) -> Iterator[str]:
    """The rows of identifiers, consecutive ones together."""
    numbered = enumerate(dict.fromkeys((each.setting, each.row) for each in identifiers))
    for (setting, _), group in itertools.groupby(numbered, lambda item: (item[1][0], item[1][1] - item[0])):
        rows = [row for _, (_, row) in group]
        yield f"{setting} row {rows[0]}" if len(rows) == 1 else f"{setting} rows {rows[0]} to {rows[-1]}"
