"""Finds the files of a hosted export and its end: they come all at once, behind a signed URL."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from tap_braze_export.errors import DamagedFileError, ExportError
from tap_braze_export.files import archive
from tap_braze_export.files.objects import DeliveredFile, LocalObject, open_local
from tap_braze_export.report.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from tap_braze_export.clock import Clock, PollTimer
    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.download import Download
    from tap_braze_export.files.objects import StoredObject
    from tap_braze_export.state import Bookmark

_LAST_SECONDS = 600.0
"""Time that an attempt may take although the deadline has passed: each of its steps is limited, and there are many."""
_log = logging.getLogger(__name__)


class ExportPoller(Protocol):
    """The files of one export, as they come.

    Attributes:
        bookmark: The export.
        timer: Says when to poll next.
        waits_since: Seconds of the monotonic clock at which it was requested.
        proven: True if it is known, not only assumed, that every file has come.
    """

    bookmark: Bookmark
    timer: PollTimer
    waits_since: float
    proven: bool

    @property
    def complete(self) -> bool:
        """True once every file was read."""

    def poll(self) -> Sequence[DeliveredFile]:
        """The next files that can be read, without those that the target has. Never waits for a transfer.

        Raises:
            ExportError: If the export cannot be read to its end.
        """

    @property
    def has_found_files(self) -> bool:
        """True if a file has come."""

    @property
    def elsewhere(self) -> tuple[str, bool]:
        """Where such files are, if not in the bucket; empty if nobody knows. True if this export's are among them."""

    @property
    def files_left(self) -> int:
        """Number of files that are known and not yet read."""

    @property
    def transfers(self) -> Iterable[Future[Any]]:
        """The transfers under way."""

    @property
    def received_bytes(self) -> int:
        """Bytes that have come of the transfers under way, as far as that is known."""

    @property
    def expected_bytes(self) -> int:
        """All bytes of the transfers under way, as far as that is known."""

    @property
    def quiet_until(self) -> float | None:
        """Monotonic seconds at which it counts as complete if no file comes; None unless that is all it waits for."""

    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        """Note that a file's rows are written, without the lines that could not be read."""

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """Have a damaged file fetched once more.

        Raises:
            DamagedFileError: If it was fetched once more already.
        """


class HostedExport:
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded.

    Args:
        bookmark: The export.
        download: Fetches it.
        path: Where the download is when it is complete.
        timer: Paces the attempts.
        threads: Runs the attempts.
        clock: Time.
        deadline: Seconds of the monotonic clock at which the export is given up, unless its download is there.
        may_be_empty: True if a link that never becomes ready may mean that there is no user.
        max_files: Files that `poll` returns at most.
    """

    quiet_until = None
    elsewhere = ("", False)

    def __init__(
        self,
        bookmark: Bookmark,
        download: Download,
        path: Path,
        *,
        timer: PollTimer,
        threads: Executor,
        clock: Clock,
        deadline: float,
        may_be_empty: bool = False,
        max_files: int = 1,
    ) -> None:
        self.bookmark = bookmark
        self.proven = True
        self._may_be_empty = may_be_empty
        self.timer = timer
        self.waits_since = clock.monotonic_at(bookmark.export.requested_at)
        self._download = download
        self._object = LocalObject(download.name, path)
        self._threads = threads
        self._clock = clock
        self._deadline = deadline
        self._max_files = max_files
        self._attempt: Future[bool] | None = None
        self._files: list[DeliveredFile] | None = None
        self._fetched_again = False

    @property
    def complete(self) -> bool:
        """True once every file was read."""
        return self._files == []

    @property
    def has_found_files(self) -> bool:
        """True if the download is there: an archive without users says that there are none."""
        return self._files is not None and self.proven

    @property
    def files_left(self) -> int:
        """See `ExportPoller`."""
        return len(self._files or ())

    @property
    def transfers(self) -> Iterable[Future[Any]]:
        """See `ExportPoller`."""
        return [self._attempt] if self._attempt else []

    @property
    def received_bytes(self) -> int:
        """See `ExportPoller`."""
        return self._download.received if self._attempt else 0

    @property
    def expected_bytes(self) -> int:
        """See `ExportPoller`."""
        return (self._download.expected or 0) if self._attempt else 0

    def poll(self) -> Sequence[DeliveredFile]:
        """See `ExportPoller`."""
        if self._attempt and self._attempt.done():
            attempt, self._attempt = self._attempt, None
            is_there = attempt.result()
            self.timer.polled(found=is_there)
            if is_there:
                self._list_files()
        if self._files is None and not self._attempt:
            if self._clock.monotonic() > self._deadline:
                if not self._may_be_empty or self._download.problem:
                    raise ExportError(self._overdue())
                self._files, self.proven = [], False
            elif self.timer.due:
                self._attempt = self._threads.submit(self._download.attempt)
        if self._attempt and self._clock.monotonic() > self._deadline + _LAST_SECONDS:
            raise ExportError(
                f"{self._download.name} was still awaited {duration(_LAST_SECONDS)} after export_timeout_minutes were"
                " over: check the way from this machine to the store, and run again for a new export"
            )
        return (self._files or [])[: self._max_files]

    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        """See `ExportPoller`."""
        self.bookmark.emitted(file.name, users, rejected)
        if self._files:
            self._files.remove(file)

    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:  # noqa: ARG002 - it comes as a whole
        """See `ExportPoller`."""
        self._fetch_again(error)

    def _list_files(self) -> None:
        try:
            with open_local(self._object) as opened:
                members = archive.members(opened, self._object.name)
        except DamagedFileError as error:
            self._fetch_again(error)
            return
        self._files = missing_files(self.bookmark, self._object, members)

    def _fetch_again(self, error: DamagedFileError) -> None:
        if self._fetched_again:
            raise error
        _log.warning("%s; fetching it once more", error)
        self._clock.count_retry()
        self._fetched_again = True
        self._files = None
        self._object.path.unlink()

    def _overdue(self) -> str:
        waited = duration(self._clock.monotonic() - self.waits_since)
        if problem := self._download.problem:
            return (
                f"{waited} after it was requested its download still fails, the last time because of: {problem}. Check"
                " the way from this machine to the store, or raise export_timeout_minutes"
            )
        return (
            f"{waited} after it was requested its download is still not there (403 or 404). Braze may need longer: "
            "raise export_timeout_minutes. Or the export failed, or its file became too large (Braze sends an e-mail "
            "then): select fewer fields, split the audience into segments by random bucket number, or connect a bucket "
            "to Braze and set bucket_url. Or the link expired before it was used"
        )


def missing_files(bookmark: Bookmark, stored: StoredObject, members: Iterable[Member]) -> list[DeliveredFile]:
    """The files of an object that the target does not have."""
    return [
        DeliveredFile(stored, member, bookmark.export) for member in members if not bookmark.has_emitted(member.name)
    ]
