"""An export of this run, from the start of its wait to its last file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tap_braze_export.report.export_status import ExportStatus
from tap_braze_export.report.facts import export_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.request import Source


@dataclass(eq=False)
class RunningExport:
    """An export whose files are waited for, or read.

    Attributes:
        source: What is exported.
        poller: Finds its files.
        is_late: True if it ended in an earlier run, and only files that came afterwards are read.
        read_before: Digests of the files that an earlier run has read of it, to its end.
        files_read: Files that this run has emitted.
        waits_for_space: True if its files found the disk full, and are fetched once other exports are read.
    """

    source: Source
    poller: ExportPoller
    is_late: bool = False
    read_before: Collection[bytes] = ()
    files_read: int = 0
    waits_for_space: bool = False

    @property
    def holds_space(self) -> bool:
        """True if its files take up space on the disk until they are read."""
        return not self.waits_for_space and (self.poller.has_found_files or any(self.poller.transfers))

    @property
    def status(self) -> ExportStatus:
        """Its state, for people."""
        bookmark = self.poller.bookmark
        return ExportStatus(
            export_id=bookmark.export_id,
            name=export_name(bookmark.source, bookmark.segment_id),
            waits_since=self.poller.waits_since,
            files_left=self.poller.files_left,
            received=self.poller.received_bytes,
            expected=self.poller.expected_bytes,
            waits_for_space=self.waits_for_space,
            quiet_until=self.poller.quiet_until,
        )

    @property
    def reason_incomplete(self) -> str:
        """Why files are missing although every file that is there was read; empty if none is."""
        gone = sum(digest not in self.poller.bookmark.digests for digest in self.read_before)
        return (
            f"{gone} files of it, which an earlier run has read, are gone: run again for a new export" if gone else ""
        )
