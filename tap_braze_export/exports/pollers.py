"""Makes the poller of an export: for a download, for a bucket, for files that came late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import InterruptedExportError
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.files.download import Download
from tap_braze_export.files.prefetch import CopyToDisk, ReadInPlace

if TYPE_CHECKING:
    from tap_braze_export.exports.journal import Journal, KnownExport
    from tap_braze_export.exports.polling import ExportPoller
    from tap_braze_export.exports.shared import Shared

_SHORTEST_LATE_SECONDS = 120.0
"""Seconds that late files have at least to become complete."""


def poller_of(known: KnownExport, journal: Journal, shared: Shared) -> ExportPoller:
    """The poller of an export that runs in Braze, or is read again.

    Raises:
        ExportError: Its URL is no address.
        InterruptedExportError: It has no URL, and no bucket is configured.
    """
    deadline = shared.clock.monotonic_at(known.export.requested_at) + shared.settings.export_timeout_seconds
    if known.url is None:
        # All files of an export that was read to its end were there: nobody waits for more, or for a second callback.
        settle_seconds = None if known.read_before else shared.settings.settle_seconds
        return _in_bucket(known, journal, shared, settle_seconds=settle_seconds, deadline=deadline)
    path = journal.download(known.export.export_id)
    download = Download(
        known.url, path=path, session=shared.session, clock=shared.clock, deadline=deadline, free=shared.free
    )
    ahead = shared.files_ahead
    return HostedExport(
        known.bookmark, download, path, max_files=1 + ahead, deadline=deadline, **_of_all(known, shared)
    )


def late_poller(known: KnownExport, journal: Journal, shared: Shared) -> ExportPoller:
    """The poller of an export that has ended: it lists the bucket once, and late files have `settle_minutes`."""
    deadline = shared.clock.monotonic() + max(shared.settings.settle_seconds, _SHORTEST_LATE_SECONDS)
    return _in_bucket(known, journal, shared, settle_seconds=None, deadline=deadline)


def _in_bucket(
    known: KnownExport, journal: Journal, shared: Shared, *, settle_seconds: float | None, deadline: float
) -> BucketExport:
    bucket, callbacks = shared.bucket, shared.callbacks
    if bucket is None:
        raise InterruptedExportError(
            "Braze responded without a url, so it delivers it into this workspace's own bucket: set bucket_url (and"
            " bucket_options) to that bucket, and the next run continues with it"
        )
    folder = journal.copies(known.export.export_id)
    return BucketExport(
        known.bookmark,
        bucket,
        ReadInPlace(bucket) if shared.settings.dask_scheduler else CopyToDisk(bucket, folder),
        settle_seconds=settle_seconds,
        called_back=lambda: known.proven or callbacks.received(known.token),
        max_objects=1 + max(1, shared.files_ahead),
        deadline=deadline,
        **_of_all(known, shared),
    )


def _of_all(known: KnownExport, shared: Shared) -> dict[str, Any]:
    return {
        "timer": PollTimer(shared.clock, shared.settings.poll_interval_seconds),
        "threads": shared.threads,
        "clock": shared.clock,
        "may_be_empty": known.export.updated_since is not None,
    }
