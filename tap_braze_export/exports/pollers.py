"""Makes the poller of an export: for a download, for a bucket, for files that came late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import InterruptedExportError
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.files.download import Download
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace
from tap_braze_export.http.session import Session
from tap_braze_export.http.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_braze_export.braze.callback import Callbacks
    from tap_braze_export.clock import Clock
    from tap_braze_export.exports.journal import Journal
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.resume import KnownExport
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.settings import Settings

_MAX_TRANSFERS = 8
_SHORTEST_LATE_SECONDS = 120.0
"""Seconds that late files have at least to become complete."""


class Pollers:
    """Makes pollers, whose transfers share connections and threads.

    Args:
        settings: The tap's settings.
        bucket: Where Braze may deliver.
        callbacks: Knows if Braze has called back.
        clock: Time.
        files_ahead: Files beyond the current one that workers can read.
        free: Free space of the disk that holds a directory, None if it is unknown.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bucket: Bucket | None,
        callbacks: Callbacks,
        clock: Clock,
        files_ahead: int,
        free: Callable[[Path], int | None],
    ) -> None:
        self._settings = settings
        self._bucket = bucket
        self._callbacks = callbacks
        self._clock = clock
        self._files_ahead = files_ahead
        self._free = free
        self._session = Session()
        self._threads = DaemonThreads(_MAX_TRANSFERS)

    def close(self) -> None:
        """Begin no transfer any more; those under way end with the process."""
        self._threads.shutdown()
        self._session.close()

    def of(self, known: KnownExport, journal: Journal) -> ExportPoller:
        """The poller of an export that runs in Braze, or is read again.

        Raises:
            ExportError: Its URL is no address.
            InterruptedExportError: It has no URL, and no bucket is configured.
        """
        if known.url is not None:
            return self._hosted(known, known.url, journal)
        if self._bucket is None:
            raise InterruptedExportError(
                "Braze responded without a url, so it delivers it into this workspace's own bucket: set bucket_url (and"
                " bucket_options) to that bucket, and the next run continues with it"
            )
        # All files of an export that was read to its end were there: nobody waits for more, or for a second callback.
        settle_seconds = None if known.read_before else self._settings.settle_seconds
        return self._in_bucket(known, self._bucket, journal, settle_seconds, self._deadline(known))

    def late_files(self, known: KnownExport, bucket: Bucket, journal: Journal) -> BucketExport:
        """The poller of an ended export: it lists the bucket once, and late files have `settle_minutes`."""
        patience = max(self._settings.settle_seconds, _SHORTEST_LATE_SECONDS)
        return self._in_bucket(known, bucket, journal, None, self._clock.monotonic() + patience)

    def _hosted(self, known: KnownExport, url: str, journal: Journal) -> HostedExport:
        path = journal.download(known.export.export_id)
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
            may_be_empty=known.export.updated_since is not None,
            max_files=1 + self._files_ahead,
        )

    def _in_bucket(
        self, known: KnownExport, bucket: Bucket, journal: Journal, settle_seconds: float | None, deadline: float
    ) -> BucketExport:
        folder = journal.copies(known.export.export_id)
        return BucketExport(
            known.bookmark,
            bucket,
            ReadInPlace(bucket) if self._settings.dask_scheduler else CopyToDisk(bucket, folder),
            timer=self._timer(),
            threads=self._threads,
            clock=self._clock,
            settle_seconds=settle_seconds,
            deadline=deadline,
            may_be_empty=known.export.updated_since is not None,
            called_back=lambda: known.proven or self._callbacks.received(known.token),
            max_objects=1 + max(1, self._files_ahead),
        )

    def _deadline(self, known: KnownExport) -> float:
        return self._clock.monotonic_at(known.export.requested_at) + self._settings.export_timeout_seconds

    def _timer(self) -> PollTimer:
        return PollTimer(self._clock, self._settings.poll_interval_seconds)
