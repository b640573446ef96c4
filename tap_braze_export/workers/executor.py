"""The interface of what reads files while the run does something else."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.workers.file_reader import ReadResult


class Executor:
    """Reads files while the run does something else. This one has no workers: the run reads every file itself.

    Attributes:
        capacity: Files that keep its workers busy: those that they read, and the next one of each.
    """

    capacity = 0

    def submit(self, file: DeliveredFile) -> Future[ReadResult]:  # noqa: ARG002
        """Have a file read. The future can be cancelled until a worker begins the file."""
        return Future()

    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        """Wait until one of these futures is done, at most this long; 0 only finds out what is done."""
        wait(futures, seconds, FIRST_COMPLETED)

    def close(self) -> None:
        """End all workers, whatever they are reading."""
