"""What earlier runs left: the export to continue, the request that got no answer, the files that came too late.

STATE says which files the target has; the journal, where it is newer, what runs in Braze.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.exports.journal import Entry
    from tap_braze_export.state import Bookmark

_log = logging.getLogger(__name__)


class Left(enum.Enum):
    """What an earlier run left of an export."""

    RUNNING = enum.auto()
    """It runs in Braze, or waits to be read, and gives what this run needs."""
    UNANSWERED = enum.auto()
    """It was asked for, and nobody knows whether Braze started it."""
    ENDED = enum.auto()
    """It was read to its end, in a bucket, where late files may have come since."""


@dataclass(frozen=True)
class LeftOver:
    """An export of an earlier run, as far as this run can use it."""

    left: Left
    bookmark: Bookmark
    url: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)


def left_over(
    known: Bookmark | None, entry: Entry | None, wanted: Bookmark, *, timeout: float, has_bucket: bool
) -> LeftOver | None:
    """What to do about the last export of a segment; None to start anew.

    Args:
        known: STATE's bookmark of it.
        entry: The journal's entry.
        wanted: What this run would ask for, and when.
        timeout: Seconds after its request at which an export is given up.
        has_bucket: Whether a bucket is configured.
    """
    if entry and known:
        same = (known.requested_at, known.export_id) == (entry.bookmark.requested_at, entry.bookmark.export_id)
        if known.requested_at > entry.bookmark.requested_at:
            entry = None  # another machine went on since
        elif not same:
            known = None
    bookmark = known or (entry.bookmark if entry else None)
    if bookmark is None:
        return None
    url, token = (entry.url, entry.token) if entry else (None, "")
    if not bookmark.running:
        late = has_bucket and bookmark.in_bucket and bookmark.rows_signature == wanted.rows_signature
        return LeftOver(Left.ENDED, bookmark) if late else None
    if reason := _unusable(bookmark, wanted, timeout=timeout, has_url=bool(url), has_bucket=has_bucket):
        _log.warning("Export %s of %s is not continued: %s", bookmark.export_id, " ".join(bookmark.key).strip(), reason)
        return None
    if not bookmark.export_id:
        return LeftOver(Left.UNANSWERED, bookmark, token=token)
    if bookmark.rows_signature != wanted.rows_signature:
        bookmark = replace(bookmark, rows_signature=wanted.rows_signature, users=0, digests={})
    return LeftOver(Left.RUNNING, bookmark, url, token)


def _unusable(bookmark: Bookmark, wanted: Bookmark, *, timeout: float, has_url: bool, has_bucket: bool) -> str:
    if wanted.requested_at > bookmark.requested_at + timeout:
        return "its export_timeout_minutes are over"
    if not bookmark.export_id:
        return ""
    if bookmark.in_bucket and not has_bucket:
        return "it goes into a bucket, and bucket_url is not set"
    if not bookmark.in_bucket and not has_url:
        return "its download link was in the journal of another spool_dir"
    if bookmark.rows_signature != wanted.rows_signature and not set(wanted.requested_fields) <= set(
        bookmark.requested_fields
    ):
        return "it was not asked for every field that is selected now"
    return ""
