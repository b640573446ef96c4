"""Deliveries → rows, read here, or by processes or a Dask cluster that are some files ahead of what is written."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from tap_braze_export.errors import TapError
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.workers.dask_cluster import Cluster
from tap_braze_export.workers.file_reader import FileReader, FileRows, Job, Readers
from tap_braze_export.workers.processes import Processes, sensible_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import Delivery, ExportFile
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.rows.reader import BlockRows
    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.settings import Settings
    from tap_braze_export.singer.batch_files import BatchFiles
    from tap_braze_export.workers.file_reader import Result
    from tap_braze_export.workers.processes import Answer

_FEW = 3
"""So many files are worth a process's start, which takes as long as two thousand users."""


class ReadAhead:
    """Reads deliveries in their order.

    Args:
        settings: The tap's settings. `workers` are processes, 0 chooses, and begins with files that are few here;
            where there is a `dask_scheduler`, its cluster reads instead.
        selections: What the catalog selects, by stream.
        batch_files: Writes batch files, where they are wanted.
        plain: Streams whose rows leave as they are, without stream maps and flattening.
        spool: Takes rows on their way from the processes.
        clock: Tells whether the run was told to end.

    Attributes:
        ahead: So many files more are read at a time.
    """

    def __init__(
        self,
        settings: Settings,
        selections: Mapping[str, Selection],
        *,
        batch_files: BatchFiles | None,
        plain: frozenset[str],
        spool: Spool,
        clock: Clock,
    ) -> None:
        workers: int = settings.workers
        self._asked_for = workers > 0
        self._count = workers or sensible_count()
        # Of two, this process is one: it reads every other file. With more, writing what they read is enough to do.
        self._takes_part = self._count == 2 and not settings.dask_scheduler  # noqa: PLR2004
        self.ahead = self._count
        self._readers = Readers(selections)
        self._spool = spool
        self._clock = clock
        self._elsewhere: Processes | Cluster | None = None
        self._pending: dict[Job, Answer] = {}
        self._folder = f"rows-{uuid.uuid4().hex}"
        self._reader = FileReader(selections, None, batch_files.elsewhere() if batch_files else None, plain)
        if address := settings.dask_scheduler:
            cluster = Cluster(
                address,
                replace(self._reader, bucket_url=settings.bucket_url, bucket_options=dict(settings.bucket_options)),
                clock=clock,
            )
            self._elsewhere, self.ahead = cluster, cluster.ahead

    def begin(self) -> None:
        """Start the processes that the settings ask for, while Braze or the store keeps the run waiting."""
        if self._elsewhere is None and self._asked_for and self._count > 1:
            self._elsewhere = self._new_processes()
            self._elsewhere.start()

    def read(self, delivery: Delivery) -> Iterator[BlockRows]:
        """What each block of a delivery gives: one, unless it is huge.

        Raises:
            TapError: If it cannot be read to its end.
        """
        found = self._from_elsewhere(delivery.ahead()) if self.ahead > 1 else None
        if found is None:
            reader = self._readers.of(delivery.exported_at, delivery.source, delivery.segment_id)
            yield from map(reader.read, delivery.blocks())
            return
        for result in found:
            with result.rows.opened() if isinstance(result.rows, FileRows) else nullcontext():
                yield result

    def close(self) -> None:
        """End the processes, or leave the cluster."""
        if self._elsewhere is not None:
            self._elsewhere.close()
            self._spool.clear(self._folder)

    def _new_processes(self) -> Processes:
        reader = replace(self._reader, folder=self._spool.folder(self._folder))
        return Processes(reader, self._count - self._takes_part, clock=self._clock)

    def _submitted(self, files: Iterable[ExportFile], elsewhere: Processes | Cluster) -> Answer | None:
        """The answer for the first file, None if it is read here, after having the others read that should be."""
        mine = self._takes_part
        first: Answer | None = None
        for index, job in enumerate(map(Job.of, files)):
            if job not in self._pending:
                if mine:
                    mine = False  # the next file that nobody has
                    continue
                if self._takes_part and any(answer is not first for answer in self._pending.values()):
                    break  # one is enough: this process will be done as soon
                self._pending[job] = elsewhere.submit(job)
            if index == 0:
                first = self._pending[job]
        return first

    def _from_elsewhere(self, files: Iterator[ExportFile]) -> Result:
        """What the first of these files gives; None if it has to be read here."""
        known: Iterable[ExportFile] = files
        if self._elsewhere is None:
            known = [*files]
            if len(known) < (1 if self._asked_for else _FEW):
                return None
            self._elsewhere = self._new_processes()
        first = self._submitted(known, self._elsewhere)
        if first is None:
            return None
        try:
            return self._elsewhere.result(first)
        except TapError:
            # Whatever was damaged may be fetched again, under the same names; objects in the bucket tell their version.
            kept = {job: answer for job, answer in self._pending.items() if isinstance(job.place, BucketObject)}
            self._pending = kept
            raise
        finally:
            self._pending = {job: answer for job, answer in self._pending.items() if answer is not first}
