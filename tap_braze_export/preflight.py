"""The checklist of `--test`: checks that start no export, printed on standard error."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import AuthError, BrazeError, TapError, foreign_text
from tap_braze_export.export import SEGMENT
from tap_braze_export.exports.scope import scope_of
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.disk import free_bytes
from tap_braze_export.files.spool import Spool
from tap_braze_export.report.page import Ending
from tap_braze_export.report.page_file import write_checks
from tap_braze_export.report.units import megabytes
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.singer.command import describe
from tap_braze_export.state import read_bookmarks
from tap_braze_export.workers import dask_cluster

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.settings import Settings

WORKS, FAILS, UNKNOWN = "works", "fails", "cannot be checked"
_KINDS = {WORKS: "works", FAILS: "fails", UNKNOWN: "unknown"}
"""The verdicts as the page of `report_path` colours them."""
_BRAZE, _KEY = "Connection to Braze", "API key"
_MAX_LISTED_SEGMENTS = 20
_MAX_COUNTED_SEGMENTS = 1_000
_BRAZE_TIMEOUT_SECONDS = 10.0
"""A person waits for the checklist."""
_NO_PERMISSION = "Braze does not call it wrong, but it lacks the permissions of the requests that --test sends"
_ONLY_REFUSALS = "none of Braze's responses shows it"
_KEY_IS_KNOWN = {HTTPStatus.OK, HTTPStatus.BAD_REQUEST}
"""Statuses of a call that Braze has considered: it refuses keys before it looks at what they ask for."""
_ONLY_AN_EXPORT = "only an export can show it, and --test starts none"


class Check(NamedTuple):
    """A line of the checklist."""

    subject: str
    verdict: str
    remark: str = ""

    def log(self, logger: logging.Logger) -> None:
        """Log the line."""
        remark = "the last line says why" if self.verdict == FAILS else self.remark  # the error tells it in full
        logger.info("%s: %s%s", self.subject, self.verdict, f" ({remark})" if remark else "")


def check(
    settings: Settings,
    unknown: Sequence[str] = (),
    *,
    state: Mapping[str, Any] | None = None,
    rows_signature: str | None = None,
    clock: Clock,
    logger: logging.Logger,
) -> None:
    """Print the checklist.

    Args:
        settings: The tap's settings.
        unknown: Names of settings that the tap does not know: a run only warns, but somebody has meant them.
        state: The value of `bookmarks.export_files` that --state gives; None without.
        rows_signature: Hash of what the catalog that --catalog gives makes of rows; None without.
        clock: Time.
        logger: Writes its lines.

    Raises:
        TapError: If a check fails; the message names every one that does.
    """
    started_at, began, ending = clock.now(), clock.monotonic(), Ending()
    checks: list[Check] = []
    try:
        remark = f"unknown: {', '.join(unknown)}; a run ignores them: remove or correct them"
        first = [Check("Settings", FAILS, remark)] if unknown else []
        for found in chain(first, _checks(settings, clock), _scopes(settings, state, rows_signature, clock)):
            checks.append(found)
            found.log(logger)
        if failed := [f"{each.subject}: {each.remark}" for each in checks if each.verdict == FAILS]:
            raise TapError("; ".join(failed))  # noqa: TRY301 - the page tells it, too
    except BaseException as error:
        ending = Ending.of(error, describe)
        raise
    finally:
        shown = [(_KINDS[each.verdict], *each) for each in checks]
        write_checks(settings, ending, started_at, clock.monotonic() - began, shown)


def list_segments(settings: Settings, *, clock: Clock, logger: logging.Logger) -> None:
    """Log the workspace's segments, for a user who has not set `segment_ids` yet; nothing fails if it cannot."""
    try:
        client = Braze(settings.api_url, settings.api_key, clock=clock, patience=_BRAZE_TIMEOUT_SECONDS)
        segments = [*islice(client.segments(), _MAX_COUNTED_SEGMENTS + 1)]
    except TapError as error:
        lacks = isinstance(error, AuthError) and error.status != HTTPStatus.UNAUTHORIZED
        reason = "the key lacks the permission segments.list" if lacks else str(error)
        logger.info("The segments of this workspace cannot be listed: %s", reason)
        return
    if not segments:
        logger.info("This workspace has no segment: make one in Braze, without filters for all users")
        return
    logger.info("Segments of this workspace, for segment_ids:")
    for segment_id, name in segments[:_MAX_LISTED_SEGMENTS]:
        logger.info("  %s  %s", foreign_text(segment_id), foreign_text(name))
    if (more := len(segments) - _MAX_LISTED_SEGMENTS) > 0:
        over = "more than " if len(segments) > _MAX_COUNTED_SEGMENTS else ""
        logger.info("  … and %s%s more", over, f"{more - bool(over):,}")


def _checks(settings: Settings, clock: Clock) -> Iterator[Check]:
    yield from _in_braze(settings, clock)
    if bucket_url := settings.bucket_url:
        yield _attempt("Bucket", lambda: _bucket(bucket_url, settings, clock))
    if fingerprints_url := settings.fingerprints_url:
        yield _attempt("Fingerprints", lambda: _fingerprints(fingerprints_url, settings, clock))
    if settings.identifiers_url:
        yield _attempt("Identifiers", lambda: Identifiers(settings, clock=clock).summary())
    if scheduler := settings.dask_scheduler:
        yield _attempt("Dask", lambda: dask_cluster.check(scheduler))
    if settings.batch_config:
        yield _batch_folder(settings.batch_config, clock)
    yield _attempt("Spool directory", lambda: _spool(Spool(settings.spool_dir, clock=clock)))
    for permission in _permissions(settings):
        yield Check(f"Permission {permission}", UNKNOWN, _ONLY_AN_EXPORT)


def _scopes(
    settings: Settings, state: Mapping[str, Any] | None, rows_signature: str | None, clock: Clock
) -> Iterator[Check]:
    """Say whom the next run asks for."""
    if not settings.incremental or settings.is_resync:
        return
    bookmarks = read_bookmarks(state or {})
    for segment_id in dict.fromkeys(settings.segment_ids):
        subject = f"Next export of segment {segment_id}"
        if state is None:
            yield Check(subject, UNKNOWN, "STATE decides if it is incremental: give that of the last run with --state")
            continue
        last = bookmarks.get((SEGMENT, segment_id))
        complete = last.complete if last else None
        signature = rows_signature or (complete.rows_signature if complete else "")
        scope = scope_of(complete, settings=settings, rows_signature=signature, now=clock.now())
        unsure = "" if rows_signature or complete is None else "; if --catalog, the selection, has not changed"
        first = (
            ", after an incremental one that measures the filter"
            if scope.is_due_by_age and settings.fingerprints_url
            else ""
        )
        yield Check(subject, WORKS, f"{scope}{first}{unsure}")


def _in_braze(settings: Settings, clock: Clock) -> Iterator[Check]:
    """Check the key and what it gives access to; an unknown key, or no response, ends the requests to Braze."""
    segment_ids = [] if settings.is_resync else list(dict.fromkeys(settings.segment_ids))
    checks: list[Check] = []
    statuses: set[int | None] = set()
    try:
        client = Braze(settings.api_url, settings.api_key, clock=clock, patience=_BRAZE_TIMEOUT_SECONDS)
        for segment_id in segment_ids:
            ask = partial(_segment_name, client, segment_id)
            checks.append(_asked(f"Segment {segment_id}", "segments.details", ask, statuses))
        if settings.discover_custom_attributes or not segment_ids:
            permission, needs_it = "custom_attributes.get", settings.discover_custom_attributes
            ask = partial(_first_attribute, client)
            checks.append(_asked(f"Permission {permission}", permission, ask, statuses, needs_it=needs_it))
    except TapError as error:
        missing = "a key that works"
        if isinstance(error, BrazeError) and error.status is None:
            missing = "a response from Braze"
            yield Check(_BRAZE, FAILS, str(error))
            yield Check(_KEY, UNKNOWN, f"without {missing}")
        else:
            yield Check(_KEY, FAILS, str(error))
        yield from (Check(f"Segment {segment_id}", UNKNOWN, f"without {missing}") for segment_id in segment_ids)
        return
    if not _KEY_IS_KNOWN.isdisjoint(statuses):
        yield Check(_KEY, WORKS)
    else:
        yield Check(_KEY, UNKNOWN, _NO_PERMISSION if statuses == {HTTPStatus.FORBIDDEN} else _ONLY_REFUSALS)
    yield from checks


def _segment_name(client: Braze, segment_id: str) -> str:
    name = client.segment_details(segment_id).get("name", "")
    return foreign_text(name) if isinstance(name, str) else ""


def _first_attribute(client: Braze) -> str:
    next(client.custom_attributes(), None)
    return ""


def _asked(
    subject: str, permission: str, ask: Callable[[], str], statuses: set[int | None], *, needs_it: bool = False
) -> Check:
    """Make a check by a request, and note the status of its response.

    Raises:
        BrazeError: The key is wrong, or there is no response: then nothing else can be asked of Braze.
    """
    try:
        remark = ask()
    except BrazeError as error:
        if error.status in {None, HTTPStatus.UNAUTHORIZED}:
            raise
        statuses.add(error.status)
        if not isinstance(error, AuthError):
            return Check(subject, FAILS, str(error))
        if needs_it:
            return Check(subject, FAILS, f"{error}; or switch discover_custom_attributes off")
        return Check(subject, UNKNOWN, f"the key lacks the permission {permission}")  # it proves nothing about exports
    statuses.add(HTTPStatus.OK)
    return Check(subject, WORKS, remark)


def _bucket(url: str, settings: Settings, clock: Clock) -> str:
    bucket = Bucket(url, settings.bucket_options, clock=clock)
    if problem := bucket.check():
        raise TapError(problem)
    return bucket.without_folder() or "it can be listed"


def _fingerprints(url: str, settings: Settings, clock: Clock) -> str:
    from tap_braze_export.fingerprints.store import Store  # noqa: PLC0415 - an extra

    Store(url, settings.storage_options(url), None, clock).check()
    return "they can be listed, written and removed"


def _batch_folder(config: Mapping[str, Any], clock: Clock) -> Check:
    """Try out the folder; in a bucket nothing is written."""
    files = BatchFiles.of(config, clock)
    found = _attempt("Batch files", files.check)
    if found.verdict == FAILS:
        return found
    if files.is_local:
        return found._replace(remark=_space(Path(files.connect().root)))
    return found._replace(verdict=UNKNOWN, remark="only a run writes to their storage")


def _spool(spool: Spool) -> str:
    spool.check()
    return _space(spool.root)


def _space(directory: Path) -> str:
    """Word the free space of the disk that holds a directory."""
    free = free_bytes(directory)
    return "its file system does not tell the free space" if free is None else f"{megabytes(free)} MB free"


def _attempt(subject: str, attempt: Callable[[], str | None]) -> Check:
    try:
        return Check(subject, WORKS, attempt() or "")
    except TapError as error:
        return Check(subject, FAILS, str(error))


def _permissions(settings: Settings) -> Iterator[str]:
    """List the permissions that the run needs and that only the run can prove."""
    if settings.is_resync:
        yield "users.export.ids"
        return
    if settings.segment_ids:
        yield "users.export.segment"
    if settings.global_control_group:
        yield "users.export.global_control_group"
