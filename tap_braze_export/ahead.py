"""Deliveries → rows, read here or by processes that are some files ahead of what is written."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from tap_braze_export.errors import TapError
from tap_braze_export.executor import Processes, sensible_count
from tap_braze_export.reading import FileReader, FileRows, Job, Readers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.batch_files import BatchFiles
    from tap_braze_export.clock import Clock
    from tap_braze_export.executor import Answer
    from tap_braze_export.fanout import FanOut
    from tap_braze_export.files import Delivery, ExportFile
    from tap_braze_export.selection import Selection
    from tap_braze_export.spool import Spool

_FEW = 3
"""So many files are worth a process's start, which takes as long as two thousand users."""


class Reading:
    """Reads deliveries in their order.

    Args:
        selections: What the catalog selects, by stream.
        workers: Processes; 0 chooses, and begins with files that are few here.
        batch_files: Writes batch files, where they are wanted.
        plain: Streams whose rows leave as they are, without stream maps and flattening.
        spool: Takes rows on their way from the processes.
        clock: Tells whether the run was told to end.

    Attributes:
        ahead: So many files more are read at a time.
    """

    def __init__(
        self,
        selections: Mapping[str, Selection],
        *,
        workers: int,
        batch_files: BatchFiles | None,
        plain: frozenset[str],
        spool: Spool,
        clock: Clock,
    ) -> None:
        self._few = 1 if workers else _FEW
        self._count = workers or sensible_count()
        self.ahead = self._count if self._count > 1 else 0
        self._readers = Readers(selections)
        self._spool = spool
        self._clock = clock
        self._processes: Processes | None = None
        self._pending: dict[Job, Answer] = {}
        self._folder = f"rows-{uuid.uuid4().hex}"
        self._reader = FileReader(selections, spool.root, batch_files.elsewhere() if batch_files else None, plain)

    def fan_outs(self, delivery: Delivery) -> Iterator[FanOut]:
        """What each block of a delivery gives: one, unless it is huge.

        Raises:
            TapError: If it cannot be read to its end.
        """
        found = self._from_process(delivery.ahead()) if self.ahead else None
        if found is not None and isinstance(found.rows, FileRows):
            with found.rows.opened():
                yield found
            return
        reader = self._readers.of(delivery.exported_at, delivery.source, delivery.segment_id)
        yield from map(reader.read, delivery.blocks())

    def close(self) -> None:
        """End the processes."""
        if self._processes is not None:
            self._processes.close()
            self._spool.clear(self._folder)

    def _from_process(self, files: Iterator[ExportFile]) -> FanOut | None:
        """What the first of these files gives; None if it has to be read here."""
        known: Iterable[ExportFile] = files
        if self._processes is None:
            known = [*files]
            if len(known) < self._few:
                return None
            reader = replace(self._reader, folder=self._spool.folder(self._folder))
            self._processes = Processes(reader, self._count, clock=self._clock)
        first: Answer | None = None
        for file in known:
            job = Job.of(file)
            if job not in self._pending:
                self._pending[job] = self._processes.submit(job)
            first = first or self._pending[job]
        if first is None:
            return None
        try:
            return self._processes.result(first)
        except TapError:
            self._pending.clear()  # whatever was damaged may be fetched again, under the same names
            raise
        finally:
            self._pending = {job: answer for job, answer in self._pending.items() if answer is not first}
