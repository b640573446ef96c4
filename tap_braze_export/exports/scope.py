"""The exports of a run, and for whom each asks: everybody, or only users updated since the last complete export."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tap_braze_export.clock import timestamp
from tap_braze_export.export import GLOBAL_CONTROL_GROUP, SEGMENT, subject
from tap_braze_export.schema.selection import RequestedFields

if TYPE_CHECKING:
    from tap_braze_export.settings import Settings
    from tap_braze_export.state import CompleteExports

_DAY = 24 * 3600.0
_log = logging.getLogger(__name__)
_CLOCK_SET_BACK_SECONDS = _DAY
"""Seconds by which the last complete export may lie in the future: Braze's clock and this machine's may differ."""


@dataclass(frozen=True)
class Source:
    """A segment, or the Global Control Group, and the fields to export of it."""

    kind: str
    """`segment` or `global_control_group`."""
    segment_id: str
    fields: RequestedFields

    @property
    def key(self) -> tuple[str, str]:
        """Its identity: Braze runs one export of it at a time."""
        return self.kind, self.segment_id

    def __str__(self) -> str:
        return subject(*self.key)


def sources_of(settings: Settings, fields: RequestedFields, *, with_memberships: bool) -> list[Source]:
    """The exports that the settings ask for; `with_memberships` if the stream `segment_members` is selected."""
    sources = [Source(SEGMENT, segment_id, fields) for segment_id in dict.fromkeys(settings.segment_ids)]
    if settings.global_control_group and with_memberships:
        sources.append(Source(GLOBAL_CONTROL_GROUP, "", RequestedFields.of(())))
    elif settings.global_control_group:
        _log.info("The Global Control Group is not exported: segment_members is not selected")
    return sources


@dataclass(frozen=True)
class Scope:
    """The users that an export asks for.

    Attributes:
        updated_since: Epoch seconds of the oldest last update that is asked for; None for everybody.
        is_full: True if no wider export would be asked: `updated_since` is at most `start_date` then.
        reason: Why it is full; empty if that goes without saying.
        full_again_at: Epoch seconds from which a full export is due; None if it is full, or if one follows in this run.
    """

    updated_since: float | None
    is_full: bool = True
    reason: str = ""
    full_again_at: float | None = None

    @property
    def full_follows(self) -> bool:
        """True if a full export of the same source comes in the second part of the run."""
        return not self.is_full and self.full_again_at is None

    @property
    def is_due_by_age(self) -> bool:
        """True if an incremental export could have been asked for, had the last full one been newer."""
        return self.reason == TOO_OLD

    @property
    def requested(self) -> str | None:
        """`user_last_updated_at` of the request: UTC, whole seconds; None for everybody."""
        return None if self.updated_since is None else f"{timestamp(self.updated_since)[:19]}Z"

    def __str__(self) -> str:
        """Say it in the log."""
        if not self.is_full:
            again = (
                f"full again on {timestamp(self.full_again_at)[:10]}" if self.full_again_at else "a full one follows"
            )
            return f"incremental since {self.requested}; {again}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"full export{reason}{f', of users updated since {self.requested}' if self.requested else ''}"


NO_FULL_EXPORT = "STATE knows no complete full export of it"
OTHER_ROWS = "fields, selection, schema or settings that shape rows have changed since the last complete full export"
OTHER_START = "start_date is earlier than in the last complete full export, or not set any more"
TOO_OLD = "the last complete full export is older than full_export_days"
CLOCK_SET_BACK = "the last complete export lies in the future, so this machine's clock or Braze's was set back"


def scope_of(  # noqa: PLR0911 - a return for each row of the table
    complete: CompleteExports | None, *, settings: Settings, rows_signature: str, now: float
) -> Scope:
    """Decide what the next export of a segment asks for; docs/state.md has the table."""
    start = settings.start_seconds
    if not settings.incremental:
        return Scope(start)
    if complete is None:
        return Scope(start, reason=NO_FULL_EXPORT)
    if complete.rows_signature != rows_signature:
        return Scope(start, reason=OTHER_ROWS)
    if not asks_enough(complete.full_since, start):
        return Scope(start, reason=OTHER_START)
    full_again_at = complete.full_at + settings.full_export_days * _DAY
    if now > full_again_at:
        return Scope(start, reason=TOO_OLD)
    if max(complete.full_at, complete.accepted_at) > now + _CLOCK_SET_BACK_SECONDS:
        return Scope(start, reason=CLOCK_SET_BACK)
    return incremental_scope(complete, settings=settings)


def incremental_scope(complete: CompleteExports, *, settings: Settings) -> Scope:
    """The users that were updated since the last complete export, whatever the age of the last full one."""
    start = settings.start_seconds
    # Whole seconds, the earlier one: what is asked for is what STATE and the next run compare with.
    since = float(max(0, int(complete.accepted_at - settings.overlap_seconds)))
    if start is not None and since <= start:
        return Scope(start)  # a full export would ask for no more
    full_again_at = complete.full_at + settings.full_export_days * _DAY
    return Scope(since, is_full=False, full_again_at=full_again_at)


def asks_enough(asked_since: float | None, needed_since: float | None) -> bool:
    """True if an export asked for every user that is needed: for everybody, or from the same time or an earlier one."""
    return asked_since is None or (needed_since is not None and asked_since <= needed_since)


def first_scope(
    source: Source,
    complete: CompleteExports | None,
    *,
    settings: Settings,
    rows_signature: str,
    now: float,
    measures: bool,
) -> Scope:
    """The scope of the first export of a source in a run; an incremental one where it `measures` the filter first."""
    if source.kind != SEGMENT:  # Braze has the parameter for segments only
        return Scope(None)
    scope = scope_of(complete, settings=settings, rows_signature=rows_signature, now=now)
    if measures and complete and scope.is_due_by_age:
        before = incremental_scope(complete, settings=settings)
        return scope if before.is_full else replace(before, full_again_at=None)
    return scope
