"""Exports of earlier runs: to continue or to read again, a request without a response, one whose files may come late.

STATE says which files the target has; the journal, where it is newer, what runs in Braze, or was read to its end.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tap_braze_export.exports.scope import asks_enough

if TYPE_CHECKING:
    from tap_braze_export.export import Export
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
        follows: While no response has come, the `export_id` of the export before it: its folder is not the wanted one.
        given_state: Digest of the STATE that was handed to the run which recorded it; empty for an empty STATE.
        read_before: The bookmark of a run that has read it to its end, if it is to be read again.
        proven: True if that run knew, and did not only assume, that it had every file.
    """

    bookmark: Bookmark
    url: str | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    follows: str = ""
    given_state: str = ""
    read_before: Bookmark | None = None
    proven: bool = False

    @property
    def export(self) -> Export:
        """Which one it is."""
        return self.bookmark.export

    @property
    def status(self) -> Status:
        """How far it has come."""
        if not self.bookmark.running:
            return Status.ENDED
        return Status.RUNNING if self.bookmark.export.export_id else Status.REQUESTED


def known_export(
    in_state: Bookmark | None,
    in_journal: KnownExport | None,
    wanted: Bookmark,
    *,
    given_state: str,
    timeout: float,
    has_bucket: bool,
) -> KnownExport | None:
    """The last export of a segment, if this run can continue it or read it again; None to start anew.

    Args:
        in_state: STATE's bookmark of it.
        in_journal: The journal's entry.
        wanted: What this run would request, and when.
        given_state: Digest of the STATE that this run was handed; empty for an empty STATE.
        timeout: Seconds after its request at which an export is given up.
        has_bucket: True if a bucket is configured.
    """
    if in_journal and in_journal.status is Status.ENDED:
        in_journal = _to_read_again(in_journal, in_state, given_state)
    if in_journal and in_state:
        journalled = in_journal.bookmark
        if in_state.export.requested_at > journalled.export.requested_at and in_journal.read_before is None:
            in_journal = None  # a run on another machine is newer
        elif not _is_same(in_state, journalled):
            in_state = None
    bookmark = in_state or (in_journal.bookmark if in_journal else None)
    if bookmark is None:
        return None
    # The journal may know complete exports that the target lacks. What asks for no less than a full one is full.
    bookmark = replace(bookmark, complete=wanted.complete, is_full=bookmark.is_full or wanted.is_full)
    known = replace(in_journal, bookmark=bookmark) if in_journal else KnownExport(bookmark)
    if known.status is Status.ENDED:
        return None
    if reason := _unusable(known, wanted, timeout=timeout, has_bucket=has_bucket):
        _log.warning("%s is not continued: %s", bookmark.export, reason)
        return None
    if known.status is Status.RUNNING and bookmark.rows_signature != wanted.rows_signature:
        anew = replace(bookmark, rows_signature=wanted.rows_signature, users=0, rejected=0, digests={})
        return replace(known, bookmark=anew)
    return known


def late_export(in_state: Bookmark | None, wanted: Bookmark, *, has_bucket: bool) -> KnownExport | None:
    """The export that has ended by STATE, if files of it may have come since; see `known_export`."""
    if in_state is None or in_state.running or not (has_bucket and in_state.in_bucket):
        return None
    return KnownExport(in_state) if in_state.rows_signature == wanted.rows_signature else None


def _to_read_again(entry: KnownExport, in_state: Bookmark | None, given_state: str) -> KnownExport | None:
    """An export that a run has read to its end, if the target may lack it; None if nobody can tell.

    It may if STATE names the export, and then says if it has ended; or if STATE is the one that run was handed, so that
    its loader has confirmed nothing. An empty STATE says nothing: some orchestrators never hand another.
    """
    is_named = in_state is not None and _is_same(in_state, entry.bookmark)
    if not is_named and not entry.given_state == given_state != "":
        return None
    return replace(
        entry,
        bookmark=replace(entry.bookmark, running=True, users=0, rejected=0, digests={}),
        read_before=entry.bookmark,
    )


def _is_same(one: Bookmark, other: Bookmark) -> bool:
    return (one.export.requested_at, one.export.export_id) == (other.export.requested_at, other.export.export_id)


def _unusable(  # noqa: PLR0911 - a return for each reason
    known: KnownExport, wanted: Bookmark, *, timeout: float, has_bucket: bool
) -> str:
    """Why an export cannot be continued; empty if it can."""
    bookmark = known.bookmark
    if wanted.export.requested_at > bookmark.export.requested_at + timeout:
        return "its export_timeout_minutes are over"
    if not asks_enough(bookmark.export.updated_since, wanted.export.updated_since):
        return "it was asked only for users updated since a later time than is needed now"
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
