"""The lines of one delivery that hold no user: kept as they came, counted, and told in one line of the log."""

from __future__ import annotations

import logging
from heapq import nsmallest
from typing import TYPE_CHECKING

from tap_braze_export.errors import InterruptedExportError
from tap_braze_export.files.disk import private_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAX_LOGGED_LINE_NUMBERS = 10
_log = logging.getLogger(__name__)


class RejectedLines:
    """Appends lines to a file as they come, so that they need no memory; knows their count and first numbers."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self.count = 0
        self.first_numbers: list[int] = []

    def keep(self, lines: Sequence[tuple[int, bytes]]) -> None:
        """Keep lines, given with their numbers.

        Raises:
            ExportError: They cannot be written; what was kept before stays.
        """
        if not lines:
            return
        try:
            with private_file(self._path, append=True, durable=False, is_whole=False) as file:
                file.writelines(line + b"\n" for _, line in lines)
        except OSError as error:
            raise InterruptedExportError(
                f"unreadable lines cannot be kept in {self._path} ({error.strerror}): make it a file that the tap may"
                " write"
            ) from None
        self.count += len(lines)
        numbers = (number for number, _ in lines)
        self.first_numbers = nsmallest(_MAX_LOGGED_LINE_NUMBERS, [*self.first_numbers, *numbers])

    def tell(self) -> None:
        """Log their number, the first ones and where they are, without their content."""
        if self.count:
            shown = ", ".join(map(str, self.first_numbers))
            more = ", …" if self.count > len(self.first_numbers) else ""
            message = "%s: %d lines are no user objects, kept in %s: line %s%s"
            _log.warning(message, self._name, self.count, self._path, shown, more)
