"""Finds the files of an export and its end; those of a hosted export come all at once, behind a signed URL."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.errors import DamagedFileError, ExportError
from tap_braze_export.files import archive
from tap_braze_export.files.objects import DeliveredFile, LocalObject, open_local
from tap_braze_export.report.progress import ExportStatus
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


class ExportPoller(ABC):
    """Polls for the files of one export, until its `deadline` in seconds of the monotonic clock.

    Attributes:
        proven: True if it is known, not only assumed, that every file has come.
    """

    def __init__(
        self,
        bookmark: Bookmark,
        *,
        timer: PollTimer,
        threads: Executor,
        clock: Clock,
        deadline: float,
        may_be_empty: bool = False,
    ) -> None:
        self.bookmark = bookmark
        self.timer = timer
        self.proven = False
        self._threads = threads
        self._clock = clock
        self._deadline = deadline
        self._may_be_empty = may_be_empty
        self._waits_since = clock.monotonic_at(bookmark.export.requested_at)

    @abstractmethod
    def poll(self) -> Sequence[DeliveredFile]:
        """The next files that can be read, without those that the target has. Never waits for a transfer.

        Raises:
            ExportError: If the export cannot be read to its end.
        """

    @property
    @abstractmethod
    def complete(self) -> bool:
        """True once every file was read."""

    @property
    @abstractmethod
    def has_found_files(self) -> bool:
        """True if a file has come, or proof that there is none."""

    @property
    def elsewhere(self) -> tuple[str, bool]:
        """Where such files are, if not in the bucket; empty if nobody knows. True if its own are among them."""
        return "", False

    @property
    @abstractmethod
    def transfers(self) -> Sequence[Future[Any]]:
        """The transfers under way."""

    @property
    @abstractmethod
    def status(self) -> ExportStatus:
        """Its state, for people."""

    @abstractmethod
    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        """Note that a file's rows are written, without the lines that could not be read."""

    @abstractmethod
    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """Have a damaged file fetched once more.

        Raises:
            DamagedFileError: If it was fetched once more already.
        """

    @property
    def _waited(self) -> str:
        """How long ago it was requested."""
        return duration(self._clock.monotonic() - self._waits_since)

    def _missing_files(self, stored: StoredObject, members: Iterable[Member]) -> list[DeliveredFile]:
        """The files of an object that the target does not have."""
        export, has_emitted = self.bookmark.export, self.bookmark.has_emitted
        return [DeliveredFile(stored, member, export) for member in members if not has_emitted(member.name)]


class HostedExport(ExportPoller):
    """An export that Braze hosts behind a signed URL: complete as soon as it can be downloaded."""

    def __init__(self, bookmark: Bookmark, download: Download, path: Path, *, max_files: int = 1, **given: Any) -> None:
        super().__init__(bookmark, **given)
        self.proven = True
        self._download = download
        self._object = LocalObject(download.name, path)
        self._max_files = max_files
        self._attempt: Future[bool] | None = None
        self._files: list[DeliveredFile] | None = None
        self._fetched_again = False

    @property
    @override
    def complete(self) -> bool:
        return self._files == []

    @property
    @override
    def has_found_files(self) -> bool:
        return self._files is not None and self.proven

    @property
    @override
    def transfers(self) -> Sequence[Future[Any]]:
        return [self._attempt] if self._attempt else []

    @property
    @override
    def status(self) -> ExportStatus:
        left, download = len(self._files or ()), self._download
        if not self._attempt:
            return ExportStatus(export=self.bookmark.export, files_left=left)
        return ExportStatus(
            export=self.bookmark.export,
            files_left=left,
            received=download.received,
            expected=download.expected or 0,
        )

    @override
    def poll(self) -> Sequence[DeliveredFile]:
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

    @override
    def done(self, file: DeliveredFile, users: int, rejected: int = 0) -> None:
        self.bookmark.emitted(file.name, users, rejected)
        if self._files:
            self._files.remove(file)

    @override
    def damaged(self, file: DeliveredFile, error: DamagedFileError) -> None:
        """Have all files fetched once more: they come as a whole."""
        self._fetch_again(error)

    def _list_files(self) -> None:
        try:
            with open_local(self._object) as opened:
                members = archive.members(opened, self._object.name)
        except DamagedFileError as error:
            self._fetch_again(error)
            return
        self._files = self._missing_files(self._object, members)

    def _fetch_again(self, error: DamagedFileError) -> None:
        if self._fetched_again:
            raise error
        _log.warning("%s; fetching it once more", error)
        self._clock.count_retry()
        self._fetched_again = True
        self._files = None
        self._object.path.unlink()

    def _overdue(self) -> str:
        if problem := self._download.problem:
            return (
                f"{self._waited} after it was requested its download still fails, the last time because of: {problem}."
                " Check the way from this machine to the store, or raise export_timeout_minutes"
            )
        return (
            f"{self._waited} after it was requested its download is still not there (403 or 404). Braze may need"
            " longer: raise export_timeout_minutes. Or the export failed, or its file became too large (Braze sends an"
            " e-mail then): select fewer fields, split the audience into segments by random bucket number, or connect"
            " a bucket to Braze and set bucket_url. Or the link expired before it was used"
        )
