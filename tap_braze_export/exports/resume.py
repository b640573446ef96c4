"""The export that earlier runs have left of a segment: to continue, to read again, or with files that may come late.

STATE says which files the target has; the journal, where it is newer, what runs in Braze, or was read to its end.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from tap_braze_export.exports.journal import KnownExport
from tap_braze_export.exports.phases import Phase
from tap_braze_export.exports.scope import asks_enough

if TYPE_CHECKING:
    from tap_braze_export.state import Bookmark

_log = logging.getLogger(__name__)


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

    `wanted` is what this run would request, and when. `given_state` is the digest of the STATE that it was handed, and
    empty for an empty one. An export is given up `timeout` seconds after its request.
    """
    if in_journal and in_journal.phase is Phase.KEPT:
        in_journal = _to_read_again(in_journal, in_state, given_state)
    if in_journal and in_state:
        if in_state.export.requested_at > in_journal.export.requested_at and in_journal.read_before is None:
            in_journal = None  # a run on another machine is newer
        elif not _is_same(in_state, in_journal.bookmark):
            in_state = None
    bookmark = in_state or (in_journal.bookmark if in_journal else None)
    if bookmark is None:
        return None
    # The journal may know complete exports that the target lacks. What asks for no less than a full one is full.
    bookmark = replace(bookmark, complete=wanted.complete, is_full=bookmark.is_full or wanted.is_full)
    known = replace(in_journal, bookmark=bookmark) if in_journal else KnownExport(bookmark)
    if known.phase is Phase.KEPT:
        return None
    if reason := _unusable(known, wanted, timeout=timeout, has_bucket=has_bucket):
        _log.warning("%s is not continued: %s", bookmark.export, reason)
        return None
    if known.phase is Phase.RUNNING and bookmark.rows_signature != wanted.rows_signature:
        anew = replace(bookmark, rows_signature=wanted.rows_signature, users=0, rejected=0, digests={})
        return replace(known, bookmark=anew)
    return known


def late_export(in_state: Bookmark | None, wanted: Bookmark, *, has_bucket: bool) -> KnownExport | None:
    """The export that has ended by STATE, if files of it may have come since; see `known_export`."""
    if in_state is None or in_state.running or not (has_bucket and in_state.in_bucket):
        return None
    return KnownExport(in_state) if in_state.rows_signature == wanted.rows_signature else None


def _to_read_again(kept: KnownExport, in_state: Bookmark | None, given_state: str) -> KnownExport | None:
    """An export that a run has read to its end, if the target may lack it; None if nobody can tell.

    It may if STATE names the export, and then says if it has ended; or if STATE is the one that run was handed, so that
    its loader has confirmed nothing. An empty STATE says nothing: some orchestrators never hand another.
    """
    is_named = in_state is not None and _is_same(in_state, kept.bookmark)
    has_confirmed_nothing = given_state != "" and given_state == kept.given_state
    if not (is_named or has_confirmed_nothing):
        return None
    again = replace(kept.bookmark, running=True, users=0, rejected=0, digests={})
    return replace(kept, bookmark=again, read_before=kept.bookmark)


def _is_same(one: Bookmark, other: Bookmark) -> bool:
    return (one.export.requested_at, one.export.export_id) == (other.export.requested_at, other.export.export_id)


def _unusable(  # noqa: PLR0911 - a return for each reason
    known: KnownExport, wanted: Bookmark, *, timeout: float, has_bucket: bool
) -> str:
    """Why an export cannot be continued; empty if it can."""
    bookmark = known.bookmark
    if wanted.export.requested_at > known.export.requested_at + timeout:
        return "its export_timeout_minutes are over"
    if not asks_enough(known.export.updated_since, wanted.export.updated_since):
        return "it was asked only for users updated since a later time than is needed now"
    if known.phase is Phase.LOST:
        return ""
    if bookmark.in_bucket and not has_bucket:
        return "it goes into a bucket, and bucket_url is not set"
    if not bookmark.in_bucket and not known.url:
        return "its download link was in the journal of another spool_dir"
    has_every_field = set(wanted.requested_fields) <= set(bookmark.requested_fields)
    if bookmark.rows_signature != wanted.rows_signature and not has_every_field:
        return "it was not asked for every field that is selected now"
    return ""
