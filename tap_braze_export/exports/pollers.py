"""Makes the poller of an export: for a download, for a bucket, for files that came late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.clock import PollTimer
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.files.download import Download
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace
from tap_braze_export.sessions import Session
from tap_braze_export.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_braze_export.braze.callback import Callbacks
    from tap_braze_export.clock import Clock
    from tap_braze_export.exports.resume import KnownExport
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.settings import Settings

_MAX_TRANSFERS = 8
_SHORTEST_LATE_SECONDS = 120.0
"""Seconds that late files have at least to become complete."""


class Pollers:
    """Makes pollers, whose transfers share connections and threads.

    Args:
        settings: The tap's settings.
        callbacks: Knows if Braze has called back.
        spool: Has the downloads.
        clock: Time.
        files_ahead: Files beyond the current one that workers can read.
        free: Free space of the disk that holds a directory.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        callbacks: Callbacks,
        spool: Spool,
        clock: Clock,
        files_ahead: int,
        free: Callable[[Path], int],
    ) -> None:
        self._settings = settings
        self._callbacks = callbacks
        self._spool = spool
        self._clock = clock
        self._files_ahead = files_ahead
        self._free = free
        self._session = Session()
        self._threads = DaemonThreads(_MAX_TRANSFERS)

    def close(self) -> None:
        """Begin no transfer any more; those under way end with the process."""
        self._threads.shutdown()
        self._session.close()

    def hosted(self, known: KnownExport, url: str) -> HostedExport:
        """The poller of an export behind a signed URL.

        Raises:
            ExportError: The URL is no address.
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
            timer=self._timer(),
            threads=self._threads,
            clock=self._clock,
            deadline=deadline,
            max_files=1 + self._files_ahead,
        )

    def in_bucket(self, known: KnownExport, bucket: Bucket) -> BucketExport:
        """The poller of an export that Braze delivers to the bucket."""
        return self._bucket_export(known, bucket, self._settings.settle_seconds, self._deadline(known))

    def late_files(self, known: KnownExport, bucket: Bucket) -> BucketExport:
        """The poller of an ended export: it lists the bucket once, and late files have `settle_minutes`."""
        patience = max(self._settings.settle_seconds, _SHORTEST_LATE_SECONDS)
        return self._bucket_export(known, bucket, None, self._clock.now() + patience)

    def _bucket_export(
        self, known: KnownExport, bucket: Bucket, settle_seconds: float | None, deadline: float
    ) -> BucketExport:
        folder = self._spool.folder(known.bookmark.export_id)
        return BucketExport(
            known.bookmark,
            bucket,
            ReadInPlace(bucket) if self._settings.dask_scheduler else CopyToDisk(bucket, folder),
            timer=self._timer(),
            threads=self._threads,
            clock=self._clock,
            settle_seconds=settle_seconds,
            deadline=deadline,
            called_back=lambda: self._callbacks.received(known.token),
            max_objects=1 + max(1, self._files_ahead),
        )

    def _deadline(self, known: KnownExport) -> float:
        return known.bookmark.requested_at + self._settings.export_timeout_seconds

    def _timer(self) -> PollTimer:
        return PollTimer(self._clock, self._settings.poll_interval_seconds)
