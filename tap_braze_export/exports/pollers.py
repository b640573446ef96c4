"""Makes the poller of an export: of its download, or of its files in the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.clock import PollTimer
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.files.download import Download
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

    import requests

    from tap_braze_export.braze.callback import Callbacks
    from tap_braze_export.clock import Clock
    from tap_braze_export.exports.resume import KnownExport
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.settings import Settings

_SHORTEST_LATE_SECONDS = 120.0


class Pollers:
    """Makes pollers that share threads, connections and settings.

    Args:
        settings: The tap's settings.
        clock: Time.
        spool: Has the downloads.
        session: Connections to the stores of downloads.
        threads: Runs the transfers.
        callbacks: Tells which exports Braze has said to be complete.
        files_ahead: Files beyond the current one that workers can read.
        free: Free space of the disk that holds a directory.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        spool: Spool,
        session: requests.Session,
        threads: Executor,
        callbacks: Callbacks,
        files_ahead: int,
        free: Callable[[Path], int],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._spool = spool
        self._session = session
        self._threads = threads
        self._callbacks = callbacks
        self._files_ahead = files_ahead
        self._free = free

    def of_hosted_export(self, known: KnownExport, url: str) -> HostedExport:
        """The poller of an export behind a signed URL.

        Raises:
            ExportError: The URL is no http address.
        """
        path = self._spool.folder(known.bookmark.export_id) / "download"
        deadline = self._deadline(known)
        download = Download(
            url, path=path, session=self._session, clock=self._clock, deadline=deadline, free=self._free
        )
        return HostedExport(
            known.bookmark,
            download,
            path,
            timer=self._new_timer(),
            threads=self._threads,
            clock=self._clock,
            deadline=deadline,
            max_files=1 + self._files_ahead,
        )

    def of_bucket_export(self, known: KnownExport, bucket: Bucket) -> BucketExport:
        """The poller of an export that Braze writes into the bucket."""
        return self._in_bucket(
            known, bucket, settle_seconds=self._settings.settle_seconds, deadline=self._deadline(known)
        )

    def of_late_files(self, known: KnownExport, bucket: Bucket) -> BucketExport:
        """The poller of files that came after an export had ended; they have `settle_minutes` to become complete."""
        deadline = self._clock.now() + max(self._settings.settle_seconds, _SHORTEST_LATE_SECONDS)
        return self._in_bucket(known, bucket, settle_seconds=None, deadline=deadline)

    def _in_bucket(
        self, known: KnownExport, bucket: Bucket, *, settle_seconds: float | None, deadline: float
    ) -> BucketExport:
        folder = self._spool.folder(known.bookmark.export_id)
        return BucketExport(
            known.bookmark,
            bucket,
            ReadInPlace(bucket) if self._settings.dask_scheduler else CopyToDisk(bucket, folder),
            timer=self._new_timer(),
            threads=self._threads,
            clock=self._clock,
            settle_seconds=settle_seconds,
            deadline=deadline,
            called_back=lambda: self._callbacks.received(known.token),
            max_objects=1 + max(1, self._files_ahead),
        )

    def _deadline(self, known: KnownExport) -> float:
        """When an export is given up, in epoch seconds."""
        return known.bookmark.requested_at + self._settings.export_timeout_seconds

    def _new_timer(self) -> PollTimer:
        return PollTimer(self._clock, self._settings.poll_interval_seconds)
