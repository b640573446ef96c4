"""The interface of what reads files while the run does something else."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.workers.file_reader import ReadResult


class Executor(Protocol):
    """Reads files while the run does something else.

    Attributes:
        capacity: Files that keep it busy: those that its workers read, and the next one of each worker.
    """

    capacity: int

    def submit(self, file: DeliveredFile) -> Future[ReadResult]:
        """Have a file read. The future can be cancelled until a worker begins the file."""

    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        """Wait until one of these futures is done, at most this long; 0 only finds out what is done."""

    def close(self) -> None:
        """End all workers, whatever they are reading."""


class NoWorkers:
    """The executor of a run without workers: it begins nothing, so the run reads every file itself."""

    capacity = 0

    def submit(self, file: DeliveredFile) -> Future[ReadResult]:  # noqa: ARG002
        """Return a future that nobody begins."""
        return Future()

    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        """Return at once."""

    def close(self) -> None:
        """Do nothing."""
