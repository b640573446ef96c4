"""Which exports a run has read whole: only then may loaders delete rows, and only then do users leave a segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.deliveries import CompleteExport

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tap_braze_export.state import Bookmark

    Key = tuple[str, str]


class Completeness:
    """Notes of each export of a run if this run emits all of it, and if it is known to be all.

    Args:
        bookmarks: The exports by source and segment; kept up to date by the run.
        keys: The source and segment of each export that is configured.
    """

    def __init__(self, bookmarks: Mapping[Key, Bookmark], keys: Collection[Key]) -> None:
        self._bookmarks = bookmarks
        self._keys = keys
        self._may_delete_rows: dict[Key, bool] = {}
        """True if this run itself emits every file, and knows that it has every file."""
        self._ended: dict[Key, bool] = {}
        """Of each export that this run read to its end: true if that is known to be all, and not only assumed."""

    def begun(self, bookmark: Bookmark) -> None:
        """Note that the files of an export are read, without those that it says were emitted."""
        self._may_delete_rows[bookmark.key] = not bookmark.files

    def ended(self, bookmark: Bookmark, *, proven: bool) -> None:
        """Note that all its files were read; `proven` if it is known that there are no more."""
        self._may_delete_rows[bookmark.key] &= proven
        self._ended[bookmark.key] = proven

    @property
    def ended_exports(self) -> Sequence[Bookmark]:
        """The exports that this run read to their ends."""
        return [self._bookmarks[key] for key in self._ended]

    def reason_to_keep_rows(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""
        for key in self._keys:
            bookmark = self._bookmarks.get(key)
            name = " ".join(key).strip()
            if bookmark is None or bookmark.running or not self._may_delete_rows.get(key):
                return f"this run did not itself emit every file of {name}, or only assumed that it had every file"
            if not bookmark.users:
                return f"{name} had no user"
            if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
                return f"{name} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
        return ""

    def complete_exports(self) -> Sequence[CompleteExport]:
        """The exports that are complete, which is known and not only assumed."""
        return [CompleteExport.of(self._bookmarks[key]) for key, proven in self._ended.items() if proven]
