"""Braze, the bucket, the disk and time, as the exports of a run share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.exports.completeness import Estimates
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.disk import free_bytes
from tap_braze_export.http.session import Session
from tap_braze_export.http.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import WriteState
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.report.progress import Progress
    from tap_braze_export.settings import Settings
    from tap_braze_export.state import Bookmark

_MAX_TRANSFERS = 8
_MICROSECOND = 1e-6


@dataclass(kw_only=True)
class Shared:
    """The exports of a part of a run share this.

    Attributes:
        files_ahead: Files beyond the current one that workers can read.
        write_state: Writes STATE; called when exports have been started, before any waiting, and when one has ended.
        free: Free space of the disk that holds a directory, None if it is unknown.
        bookmarks: The exports by source and segment, as STATE says them.
        failures: Why exports were given up, or left to the next run.
        filter_is_refused: True once Braze has refused a request with `user_last_updated_at` and accepted it without.
        last_request: Epoch seconds of the latest request of any export.
        make_room: Removes a download that stays only in case a loader fails; False if there is none.
        others_go_on: Tells if an export still waits or runs.
    """

    client: Braze
    clock: Clock
    spool: Spool
    progress: Progress
    settings: Settings
    rows_signature: str
    files_ahead: int
    write_state: WriteState
    free: Callable[[Path], int | None] = free_bytes
    bucket: Bucket | None = field(init=False, default=None)
    bookmarks: dict[tuple[str, str], Bookmark] = field(init=False, default_factory=dict)
    failures: list[str] = field(init=False, default_factory=list)
    filter_is_refused: bool = field(init=False, default=False)
    last_request: float = field(init=False, default=0.0)
    make_room: Callable[[], bool] = field(init=False)
    others_go_on: Callable[[], bool] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        if settings.bucket_url:
            self.bucket = Bucket(settings.bucket_url, settings.bucket_options, clock=self.clock)
        self.callbacks = Callbacks(settings.callback_url, settings.callback_listen)
        self.estimates = Estimates(self.client, self.bucket.shown_url if self.bucket else "")
        self.session = Session()
        self.threads = DaemonThreads(_MAX_TRANSFERS)

    def close(self) -> None:
        """Begin no transfer any more; those under way end with the process."""
        self.threads.shutdown()
        self.session.close()

    def unique_time(self, seconds: float) -> float:
        """The time of a request, at least a microsecond after every other: `exported_at` tells exports apart."""
        self.last_request = max(round(seconds, 6), round(self.last_request + _MICROSECOND, 6))
        return self.last_request
