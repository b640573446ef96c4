"""Records what the page of a run shows beyond its end table: when things happened, and what was kept aside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tap_braze_export.report.facts import export_name
from tap_braze_export.report.samples import Samples
from tap_braze_export.schema.user_object import GLOBAL_CONTROL_GROUP, SEGMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.settings import Settings
    from tap_braze_export.state import Bookmark, OfExport

_MOST_REJECTED_FILES = 50


@dataclass
class ExportTimes:
    """When the steps of one export happened, in epoch seconds; None for a step that this run did not see.

    They are reckoned from the start of the run by the monotonic clock, so that differences of them are durations.

    Attributes:
        export_id: Braze's `object_prefix`, or `ids-…`.
        name: What it exports.
        requested_at: When Braze was asked for it.
        ready_at: When its first file could be read.
        read_at: When the run began to read it.
        done_at: When the last of the files was emitted.
    """

    export_id: str
    name: str
    requested_at: float
    ready_at: float | None = None
    read_at: float | None = None
    done_at: float | None = None


@dataclass(frozen=True)
class RejectedFile:
    """The lines of one file that could not be read.

    Attributes:
        file: Its name in `export_files`.
        lines: Their number.
        first_numbers: The first line numbers.
    """

    file: str
    lines: int
    first_numbers: tuple[int, ...]


class RunRecord:
    """Records a run in memory that does not grow with the number of its files.

    Args:
        clock: Time.

    Attributes:
        started_at: Epoch seconds.
        exports: The exports by id.
        rescued_members: Rows by stream and rescued member; the member is empty for all whose names are not shown.
        rejected_files: The first files with lines that could not be read, by name.
        more_rejected_files: Number of the files after them.
        misses: Identifiers of a resync that matched nobody.
        samples: Users and memory over time.
    """

    def __init__(self, clock: Clock) -> None:
        self.started_at, self._began = clock.now(), clock.monotonic()
        self.exports: dict[str, ExportTimes] = {}
        self.rescued_members: Counter[tuple[str, str]] = Counter()
        self.rejected_files: dict[str, RejectedFile] = {}
        self.more_rejected_files = 0
        self.misses = 0
        self.samples = Samples(clock)
        self._clock = clock
        self._users = 0

    def ready(self, deliveries: Iterable[OfExport]) -> None:
        """Note what can be read now."""
        for delivery in deliveries:
            export = self.exports.get(delivery.export_id)
            if export is None or export.ready_at is None:
                self._export(delivery).ready_at = self._moment()

    def begun(self, delivery: OfExport) -> None:
        """Note that the run begins to read a delivery."""
        self.samples.take(self._users)
        export = self._export(delivery)
        export.read_at = export.read_at or self._moment()

    def emitted_block(self, users: int) -> None:
        """Count the users of a block."""
        self._users += users
        self.samples.take(self._users)

    def done(self, delivery: OfExport, *, misses: int) -> None:
        """Note that a delivery is emitted."""
        self.misses += misses
        self._export(delivery).done_at = self._moment()

    def rejected(self, file: str, lines: int, first_numbers: Sequence[int]) -> None:
        """Note lines of a file that could not be read; a file that is read once more has them once."""
        if not lines:
            return
        if file in self.rejected_files or len(self.rejected_files) < _MOST_REJECTED_FILES:
            self.rejected_files[file] = RejectedFile(file, lines, tuple(first_numbers))
        else:
            self.more_rejected_files += 1

    def waited(self) -> None:
        """Note that the run waited."""
        self.samples.take(self._users)

    def finish(self, bookmarks: Iterable[Bookmark], settings: Settings) -> None:
        """Note the end of the run, and its exports of which no file has come.

        Args:
            bookmarks: The exports as STATE says them, those of other runs among them.
            settings: Say which are of this one.
        """
        self.samples.finish(self._users)
        sources = [(SEGMENT, segment_id) for segment_id in settings.segment_ids]
        sources += [(GLOBAL_CONTROL_GROUP, "")] if settings.global_control_group else []
        for bookmark in bookmarks:
            if bookmark.running and not settings.is_resync and (bookmark.source, bookmark.segment_id) in sources:
                self._export(bookmark)

    def _export(self, delivery: OfExport) -> ExportTimes:
        if delivery.export_id not in self.exports:
            name = export_name(delivery.source, delivery.segment_id)
            requested_at = self._moment() - self._clock.age(datetime.fromisoformat(delivery.exported_at).timestamp())
            self.exports[delivery.export_id] = ExportTimes(delivery.export_id, name, requested_at)
        return self.exports[delivery.export_id]

    def _moment(self) -> float:
        return self.started_at + (self._clock.monotonic() - self._began)
