"""The checklist of `--test`: checks that start no export, printed on standard error."""

from __future__ import annotations

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
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.settings import Settings

    Check = tuple[str, str, str]
    """Subject, verdict and remark."""

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


class _Asked(NamedTuple):
    """A check that a request to Braze has made, and the status of the response."""

    check: Check
    status: int | None


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
        scopes = _scopes(settings, state, rows_signature, clock)
        for found in chain(_settings(unknown), _checks(settings, clock), scopes):
            checks.append(found)
            _log_check(found, logger)
        _fail(checks)
    except BaseException as error:
        ending = Ending.of(error, describe)
        raise
    finally:
        shown = [(_KINDS[verdict], subject, verdict, remark) for subject, verdict, remark in checks]
        write_checks(settings, ending, started_at, clock.monotonic() - began, shown)


def _settings(unknown: Sequence[str]) -> Iterator[Check]:
    if unknown:
        yield (
            "Settings",
            FAILS,
            f"unknown: {', '.join(unknown)}; a run ignores them: remove or correct them",
        )


def _log_check(found: Check, logger: logging.Logger) -> None:
    subject, verdict, remark = found
    if verdict == FAILS:
        remark = "the last line says why"  # the error tells it in full
    logger.info("%s: %s%s", subject, verdict, f" ({remark})" if remark else "")


def _fail(checks: Sequence[Check]) -> None:
    if failed := [f"{subject}: {remark}" for subject, verdict, remark in checks if verdict == FAILS]:
        raise TapError("; ".join(failed))


def list_segments(settings: Settings, *, clock: Clock, logger: logging.Logger) -> None:
    """Log the workspace's segments, for a user who has not set `segment_ids` yet; nothing fails if it cannot."""
    try:
        client = Braze(settings.api_url, settings.api_key, clock=clock, patience=_BRAZE_TIMEOUT_SECONDS)
        segments = [*islice(client.segments(), _MAX_COUNTED_SEGMENTS + 1)]
    except AuthError as error:
        lacks = error.status != HTTPStatus.UNAUTHORIZED
        reason = "the key lacks the permission segments.list" if lacks else str(error)
        logger.info("The segments of this workspace cannot be listed: %s", reason)
        return
    except TapError as error:
        logger.info("The segments of this workspace cannot be listed: %s", error)
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
        yield _bucket(bucket_url, settings, clock)
    if fingerprints_url := settings.fingerprints_url:
        yield _fingerprints(fingerprints_url, settings, clock)
    if settings.identifiers_url:
        yield _attempt("Identifiers", lambda: Identifiers(settings, clock=clock).summary())
    if scheduler := settings.dask_scheduler:
        yield _attempt("Dask", lambda: dask_cluster.check(scheduler))
    if settings.batch_config:
        yield _batch_folder(settings.batch_config, clock)
    yield _attempt("Spool directory", lambda: _spool(Spool(settings.spool_dir, clock=clock)))
    for permission in _permissions(settings):
        yield f"Permission {permission}", UNKNOWN, _ONLY_AN_EXPORT


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
            yield subject, UNKNOWN, "STATE decides if it is incremental: give that of the last run with --state"
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
        yield subject, WORKS, f"{scope}{first}{unsure}"


def _in_braze(settings: Settings, clock: Clock) -> Iterator[Check]:
    """Check the key and what it gives access to; an unknown key, or no response, ends the requests to Braze."""
    segment_ids = [] if settings.is_resync else list(dict.fromkeys(settings.segment_ids))
    asked: list[_Asked] = []
    try:
        client = Braze(settings.api_url, settings.api_key, clock=clock, patience=_BRAZE_TIMEOUT_SECONDS)
        asked += [_segment(client, segment_id) for segment_id in segment_ids]
        if settings.discover_custom_attributes or not segment_ids:
            asked.append(_custom_attributes(client, needed=settings.discover_custom_attributes))
    except TapError as error:
        missing = "a key that works"
        if isinstance(error, BrazeError) and error.status is None:
            missing = "a response from Braze"
            yield _BRAZE, FAILS, str(error)
            yield _KEY, UNKNOWN, f"without {missing}"
        else:
            yield _KEY, FAILS, str(error)
        for segment_id in segment_ids:
            yield f"Segment {segment_id}", UNKNOWN, f"without {missing}"
        return
    yield _key({each.status for each in asked})
    yield from (each.check for each in asked)


def _key(statuses: Collection[int | None]) -> Check:
    if not _KEY_IS_KNOWN.isdisjoint(statuses):
        return _KEY, WORKS, ""
    return _KEY, UNKNOWN, _NO_PERMISSION if statuses == {HTTPStatus.FORBIDDEN} else _ONLY_REFUSALS


def _segment(client: Braze, segment_id: str) -> _Asked:
    subject = f"Segment {segment_id}"
    try:
        name = client.segment_details(segment_id).get("name", "")
    except AuthError as error:
        return _Asked((subject, UNKNOWN, _lacks("segments.details", error)), error.status)
    except BrazeError as error:
        return _Asked((subject, FAILS, _told(error)), error.status)
    return _Asked((subject, WORKS, foreign_text(name) if isinstance(name, str) else ""), HTTPStatus.OK)


def _custom_attributes(client: Braze, *, needed: bool) -> _Asked:
    permission = "custom_attributes.get"
    subject = f"Permission {permission}"
    try:
        next(client.custom_attributes(), None)
    except AuthError as error:
        remark = _lacks(permission, error)
        if needed:
            return _Asked((subject, FAILS, f"{error}; or switch discover_custom_attributes off"), error.status)
        return _Asked((subject, UNKNOWN, remark), error.status)
    except BrazeError as error:
        return _Asked((subject, FAILS, _told(error)), error.status)
    return _Asked((subject, WORKS, ""), HTTPStatus.OK)


def _told(error: BrazeError) -> str:
    """Word the remark for a response that refuses; without any response nothing else can be asked of Braze."""
    if error.status is None:
        raise error
    return str(error)


def _lacks(permission: str, error: AuthError) -> str:
    """Word the remark for a 403, which proves nothing about exports; a 401 is raised, since the key itself is wrong."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        raise error
    return f"the key lacks the permission {permission}"


def _bucket(bucket_url: str, settings: Settings, clock: Clock) -> Check:
    try:
        bucket = Bucket(bucket_url, settings.bucket_options, clock=clock)
        if problem := bucket.check():
            return "Bucket", FAILS, problem
        return "Bucket", WORKS, bucket.without_folder() or "it can be listed"
    except TapError as error:
        return "Bucket", FAILS, str(error)


def _fingerprints(url: str, settings: Settings, clock: Clock) -> Check:
    from tap_braze_export.fingerprints.store import Store  # noqa: PLC0415 - an extra

    subject, verdict, problem = _attempt(
        "Fingerprints", lambda: Store(url, settings.storage_options(url), None, clock).check()
    )
    return subject, verdict, problem or "they can be listed, written and removed"


def _batch_folder(config: Mapping[str, Any], clock: Clock) -> Check:
    """Try out the folder; in a bucket nothing is written."""
    subject, files = "Batch files", BatchFiles.of(config, clock)
    subject, verdict, problem = _attempt(subject, files.check)
    if verdict == WORKS and not files.is_local:
        return subject, UNKNOWN, "only a run writes to their storage"
    return subject, verdict, problem or _space(Path(files.connect().root))


def _spool(spool: Spool) -> str:
    spool.check()
    return _space(spool.root)


def _space(directory: Path) -> str:
    """Word the free space of the disk that holds a directory."""
    free = free_bytes(directory)
    return "its file system does not tell the free space" if free is None else f"{megabytes(free)} MB free"


def _attempt(subject: str, attempt: Callable[[], str | None]) -> Check:
    try:
        return subject, WORKS, attempt() or ""
    except TapError as error:
        return subject, FAILS, str(error)


def _permissions(settings: Settings) -> Iterator[str]:
    """List the permissions that the run needs and that only the run can prove."""
    if settings.is_resync:
        yield "users.export.ids"
        return
    if settings.segment_ids:
        yield "users.export.segment"
    if settings.global_control_group:
        yield "users.export.global_control_group"
