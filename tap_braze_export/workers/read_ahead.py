"""Chooses the delivery that the run emits next; workers read files ahead of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption
from tap_braze_export.errors import ExportError, TapError
from tap_braze_export.files.objects import LocalObject
from tap_braze_export.workers.dask_cluster import DaskCluster
from tap_braze_export.workers.executor import Executor
from tap_braze_export.workers.processes import Processes, environment, process_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import Delivery
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.settings import Settings
    from tap_braze_export.workers.file_reader import FileReader, ReadBlock, ReadResult

_FEWEST_FILES = 3
"""With fewer files no process is started unless the settings ask for it: a start takes as long as 2,000 users."""


class ReadAhead:
    """Gives the rows of one delivery after another; a context manager.

    Workers read files that are listed while the run writes rows; the run reads what no worker has begun. Before the
    context is entered no worker is there, and no `capacity`.

    Args:
        settings: `workers` processes read, of which the run is one; `dask_scheduler` has a Dask cluster read instead.
        reader: Reads the files, here and, as a copy, in workers.
        spool: Holds rows that processes have read.
        clock: Says if the run was told to end.
        executor: Makes the workers; replaced in tests.

    Attributes:
        capacity: Files that are useful to have beyond the one that is read, so that no worker waits.
    """

    capacity: int

    def __init__(
        self,
        settings: Settings,
        reader: FileReader,
        *,
        spool: Spool,
        clock: Clock,
        executor: Callable[[], Executor] | None = None,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._spool = spool
        self._clock = clock
        self._new_executor = executor or self._configured_executor
        self._rows_folder: Path | None = None
        self._futures: dict[DeliveredFile, Future[ReadResult]] = {}
        self._uses_workers = settings.workers > 0 or settings.dask_scheduler is not None

    def __enter__(self) -> Self:
        """Make the workers ready: connect to the cluster.

        Raises:
            TapError: If the cluster cannot be reached.
        """
        self._executor = self._new_executor()
        self.capacity = self._executor.capacity
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, and remove the rows that nobody fetched."""
        self._executor.close()
        if self._rows_folder:
            self._spool.clear_run_folder(self._rows_folder)

    def next(self, deliveries: Sequence[Delivery]) -> tuple[Delivery, Iterator[ReadBlock]]:
        """Choose the delivery that the run emits next, and have workers read those after it.

        Args:
            deliveries: The list that `Deliveries.poll` returned, with at least one delivery.

        Returns:
            The delivery, and its rows by block: one block, unless it is huge. If it cannot be read to its end, a
            TapError is raised while they are iterated.
        """
        listed = deliveries[: self.capacity + 1]
        chosen, future = self._choose(listed)
        if chosen.file:
            self._futures.pop(chosen.file, None)
        self._uses_workers = self._uses_workers or len(listed) >= _FEWEST_FILES
        if self._uses_workers:
            for delivery in listed:
                if delivery is not chosen and (file := delivery.file) and file not in self._futures:
                    self._futures[file] = self._executor.submit(file)
        return chosen, self._read(chosen, future)

    def _choose(self, deliveries: Sequence[Delivery]) -> tuple[Delivery, Future[ReadResult] | None]:
        """The first delivery that a worker has read, with its future; else the first that no worker has begun."""
        given = [(delivery, self._futures.get(delivery.file) if delivery.file else None) for delivery in deliveries]
        futures = [future for _, future in given if future]
        seconds = 0.0
        while True:
            self._executor.wait(futures, seconds)
            for delivery, future in given:
                if future and future.done():
                    return delivery, future
            for delivery, future in given:
                if future is None or future.cancel():
                    return delivery, None
            if self._clock.stopped:
                raise Interruption
            seconds = WAIT_SLICE_SECONDS

    def _read(self, delivery: Delivery, future: Future[ReadResult] | None) -> Iterator[ReadBlock]:
        try:
            read = self._result(future) if future else None
            if read is None or self._is_outdated(read):
                yield from self._reader.blocks(delivery, delivery.blocks())
                return
            for block in read:
                yield block
                block.discard()
        except ExportError:
            self._forget_copies(delivery.export.export_id)
            raise

    def _is_outdated(self, blocks: Sequence[ReadBlock]) -> bool:
        """True if a worker has skipped a user of whom another file has had other rows since."""
        known = self._reader.known_users
        return known is not None and any(known.is_outdated(block.fingerprints) for block in blocks)

    def _result(self, future: Future[ReadResult]) -> ReadResult:
        try:
            return future.result()
        except TapError:
            if self._clock.stopped:  # the signal may have ended a worker, too
                raise Interruption from None
            raise

    def _forget_copies(self, export_id: str) -> None:
        """Forget what workers read of an export's local copies: they may be fetched again under the same names."""
        for file in list(self._futures):
            if file.export.export_id == export_id and isinstance(file.stored, LocalObject):
                self._futures.pop(file).cancel()

    def _configured_executor(self) -> Executor:
        settings, files = self._settings, self._reader.batch_files
        processes = process_count(settings.workers)
        if settings.is_resync or not (settings.dask_scheduler or processes):
            return Executor()
        reader = replace(self._reader, batch_files=files.elsewhere() if files else None)
        if not settings.dask_scheduler:
            reader.rows_folder = self._rows_folder = self._spool.run_folder("rows")
            return Processes(reader, processes, environment(for_cloud=files is not None and not files.is_local))
        if reader.selections.keys() - reader.plain_streams:
            return Executor()  # a dry run, which is limited; settings that change rows are refused
        reader.bucket_url, reader.bucket_options = settings.bucket_url or "", dict(settings.bucket_options)
        return DaskCluster(settings.dask_scheduler, reader, clock=self._clock)
