"""Exports of earlier runs: one to continue, a request without a response, one whose files may come late.

STATE says which files the target has; the journal, where it is newer, what runs in Braze.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.state import Bookmark

_log = logging.getLogger(__name__)


class Status(enum.Enum):
    """How far an export has come, as far as is known."""

    REQUESTED = enum.auto()
    """It was requested, and no response says if Braze started it."""
    RUNNING = enum.auto()
    """It runs in Braze, or its files wait to be read."""
    ENDED = enum.auto()
    """All its files were read; in a bucket, late ones may have come since."""


@dataclass(frozen=True)
class KnownExport:
    """An export that this run or an earlier one has requested.

    Attributes:
        bookmark: The export, as STATE says it.
        url: The signed URL of its download, a secret; None for a bucket, or while no response has come.
        token: The token of its callback.
    """

    bookmark: Bookmark
    url: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    @property
    def status(self) -> Status:
        """How far it has come."""
        if not self.bookmark.running:
            return Status.ENDED
        return Status.RUNNING if self.bookmark.export_id else Status.REQUESTED


def known_export(
    in_state: Bookmark | None, in_journal: KnownExport | None, wanted: Bookmark, *, timeout: float, has_bucket: bool
) -> KnownExport | None:
    """The last export of a segment, if this run can use it; None to start anew.

    Args:
        in_state: STATE's bookmark of it.
        in_journal: The journal's entry.
        wanted: What this run would request, and when.
        timeout: Seconds after its request at which an export is given up.
        has_bucket: True if a bucket is configured.
    """
    if in_journal and in_state:
        journalled = in_journal.bookmark
        if in_state.requested_at > journalled.requested_at:
            in_journal = None  # a run on another machine is newer
        elif (in_state.requested_at, in_state.export_id) != (journalled.requested_at, journalled.export_id):
            in_state = None
    bookmark = in_state or (in_journal.bookmark if in_journal else None)
    if bookmark is None:
        return None
    known = replace(in_journal, bookmark=bookmark) if in_journal else KnownExport(bookmark)
    if known.status is Status.ENDED:
        may_be_late = has_bucket and bookmark.in_bucket and bookmark.rows_signature == wanted.rows_signature
        return KnownExport(bookmark) if may_be_late else None
    if reason := _unusable(known, wanted, timeout=timeout, has_bucket=has_bucket):
        _log.warning("Export %s of %s is not continued: %s", bookmark.export_id, " ".join(bookmark.key).strip(), reason)
        return None
    if known.status is Status.RUNNING and bookmark.rows_signature != wanted.rows_signature:
        anew = replace(bookmark, rows_signature=wanted.rows_signature, users=0, digests={})
        return replace(known, bookmark=anew)
    return known


def _unusable(known: KnownExport, wanted: Bookmark, *, timeout: float, has_bucket: bool) -> str:
    """Why an export cannot be continued; empty if it can."""
    bookmark = known.bookmark
    if wanted.requested_at > bookmark.requested_at + timeout:
        return "its export_timeout_minutes are over"
    if known.status is Status.REQUESTED:
        return ""
    if bookmark.in_bucket and not has_bucket:
        return "it goes into a bucket, and bucket_url is not set"
    if not bookmark.in_bucket and not known.url:
        return "its download link was in the journal of another spool_dir"
    has_every_field = set(wanted.requested_fields) <= set(bookmark.requested_fields)
    if bookmark.rows_signature != wanted.rows_signature and not has_every_field:
        return "it was not asked for every field that is selected now"
    return ""
