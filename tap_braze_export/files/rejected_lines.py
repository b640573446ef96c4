"""The lines of one delivery that hold no user: kept as they came, counted, and told in one line of the log."""

from __future__ import annotations

import logging
from heapq import nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tap_braze_export.files.spool import Spool

_MAX_LOGGED_LINE_NUMBERS = 10
_log = logging.getLogger(__name__)


class RejectedLines:
    """Writes lines to the spool as they come, so that they need no memory.

    Args:
        spool: The private directory.
        export_id: The export that they belong to.
        name: The delivery's name in `export_files`.

    Attributes:
        count: Number of lines.
        first_numbers: The first of their numbers.
    """

    def __init__(self, spool: Spool, export_id: str, name: str) -> None:
        self._spool = spool
        self._export_id = export_id
        self._name = name
        self._path: Path | None = None
        self.count = 0
        self.first_numbers: list[int] = []

    def keep(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Keep lines, given with their numbers.

        Raises:
            ExportError: They cannot be written.
        """
        if not lines:
            return
        self._path = self._spool.reject(self._export_id, (line for _, line in lines))
        self.count += len(lines)
        numbers = (number for number, _ in lines)
        self.first_numbers = nsmallest(_MAX_LOGGED_LINE_NUMBERS, [*self.first_numbers, *numbers])

    def tell(self) -> None:
        """Log their number, the first ones and where they are, without their content."""
        if self._path is not None:
            shown = ", ".join(map(str, self.first_numbers))
            more = ", …" if self.count > len(self.first_numbers) else ""
            _log.warning(
                "%s: %d lines are no user objects, kept in %s: line %s%s",
                self._name,
                self.count,
                self._path,
                shown,
                more,
            )
