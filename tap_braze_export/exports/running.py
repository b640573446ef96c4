"""An export of this run, from the start of its wait to its last file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.request import Source


@dataclass(eq=False)
class RunningExport:
    """An export whose files are waited for, or read.

    Attributes:
        source: What is exported.
        poller: Finds its files.
        is_late: True if it ended in an earlier run, and only files that came afterwards are read.
        files_read: Files that this run has emitted.
        waits_for_space: True if its files found the disk full, and are fetched once other exports are read.
    """

    source: Source
    poller: ExportPoller
    is_late: bool = False
    files_read: int = 0
    waits_for_space: bool = False

    @property
    def holds_space(self) -> bool:
        """True if its files take up space on the disk until they are read."""
        return not self.waits_for_space and (self.poller.has_found_files or any(self.poller.transfers))
