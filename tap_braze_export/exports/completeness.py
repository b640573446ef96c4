"""Which exports a run has read whole: only then may loaders delete rows, and only then do users leave a segment."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tap_braze_export.state import Bookmark

    Key = tuple[str, str]

_NEARLY_ALL = 0.9
"""Share of the last full export's users from which an incremental export seems to have asked for everybody."""
_log = logging.getLogger(__name__)


class Completeness:
    """Notes of each export of a run if this run emits all of it, and if it is known to be all.

    Args:
        bookmarks: The exports by source and segment; kept up to date by the run.
        keys: The source and segment of each export that is configured.
        max_rejected_lines: With more unreadable lines than this an export is not complete.
    """

    def __init__(self, bookmarks: Mapping[Key, Bookmark], keys: Collection[Key], *, max_rejected_lines: int) -> None:
        self._bookmarks = bookmarks
        self._keys = keys
        self._max_rejected_lines = max_rejected_lines
        self._may_delete_rows: dict[Key, bool] = {}
        """True if this run itself emits every file, and knows that it has every file."""
        self._is_whole: dict[Key, bool] = {}
        """The same, but that it may only assume that it has every file."""
        self._ended: dict[Key, bool] = {}
        """Of each export that this run read to its end: true if that is known to be all, and not only assumed."""

    def begun(self, bookmark: Bookmark) -> None:
        """Note that the files of an export are read, without those that it says were emitted."""
        self._may_delete_rows[bookmark.export.key] = self._is_whole[bookmark.export.key] = not bookmark.files

    def ended(self, bookmark: Bookmark, *, proven: bool, has_files: bool) -> bool:
        """Note that all its files were read; False if it may have had users, but nothing came and nothing proves it.

        Args:
            bookmark: The export.
            proven: True if it is known that there are no more files.
            has_files: True if a file has come.
        """
        self._may_delete_rows[bookmark.export.key] &= proven
        self._ended[bookmark.export.key] = proven
        if not (proven or has_files):
            self._is_whole[bookmark.export.key] = False
            _log.warning(
                "%s: no file has come, so perhaps no user was updated; nothing proves it, and the next run"
                " asks from the same time again%s",
                bookmark.export,
                ". With callback_url Braze would say so" if bookmark.in_bucket else "",
            )
            return False
        if bookmark.export.updated_since is not None and not bookmark.users:
            _log.info("%s: no user was updated", bookmark.export)
        if bookmark.rejected <= self._max_rejected_lines:
            bookmark.note_complete()
        if not bookmark.is_full and bookmark.users >= _NEARLY_ALL * (bookmark.last_users or math.inf):
            _log.warning(
                "%s: %s users came, and %s in the last full export: user_last_updated_at seems to have no"
                " effect in this workspace",
                bookmark.export,
                f"{bookmark.users:,}",
                f"{bookmark.last_users:,}",
            )
        return True

    def late_files_ended(self, bookmark: Bookmark, *, rejected_before: int) -> None:
        """Note that files which came after the end of an export were read: lines of them may have been rejected.

        Args:
            bookmark: The export.
            rejected_before: Its rejected lines at that end; if they were too many, it never counted as complete.
        """
        if rejected_before <= self._max_rejected_lines < bookmark.rejected:
            bookmark.complete = None

    def emitted_whole(self, key: Key) -> bool:
        """True if this run has emitted every file of an export, as far as is known."""
        return key in self._ended and self._is_whole.get(key, False)

    @property
    def ended_exports(self) -> Sequence[Bookmark]:
        """The exports that this run read to their ends."""
        return [self._bookmarks[key] for key in self._ended]

    def reason_to_keep_rows(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""
        for key in self._keys:
            bookmark = self._bookmarks.get(key)
            if bookmark is None or bookmark.running or not self._may_delete_rows.get(key):
                name = " ".join(key).strip()
                return f"this run did not itself emit every file of {name}, or only assumed that it had every file"
            if reason := _reason_to_doubt(bookmark):
                return reason
        return ""

    def complete_exports(self) -> Sequence[Bookmark]:
        """The exports of which whoever is missing has left: complete, which is known and not only assumed."""
        complete = []
        for bookmark in (self._bookmarks[key] for key, proven in self._ended.items() if proven):
            if not (reason := _reason_to_doubt(bookmark)):
                complete.append(bookmark)
            elif bookmark.export.updated_since is None:
                _log.warning("No user leaves %s in this run: %s", bookmark.export.subject, reason)
        return complete


def _reason_to_doubt(bookmark: Bookmark) -> str:
    """Why a user who is missing in a complete export need not be gone; empty if there is no doubt."""
    name = bookmark.export.subject
    if bookmark.export.updated_since is not None:
        return f"{name} was asked only for users that were updated since a time"
    if not bookmark.users:
        return f"{name} had no user"
    if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
        return f"{name} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
    return ""
