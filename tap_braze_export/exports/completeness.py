"""Decides from the files and users of an export that has ended if it is complete, and if it may be believed."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING

from tap_braze_export.errors import BrazeError
from tap_braze_export.export import SEGMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.state import Bookmark

_NEARLY_ALL = 0.9
"""Share of the last full export's users from which an incremental export seems to have asked for everybody."""
_TOLERANCE = 0.2
_ERROR_OF_WORKSPACE = 0.01
"""Braze: an estimate may be off by about this part of all users of the workspace, however small the segment is."""
_WORKSPACE_USERS = 20_000_000
"""Nothing says how large a workspace is. This is the size of Braze's own example of a long export: few are larger."""
_log = logging.getLogger(__name__)


def note_end(bookmark: Bookmark, *, proven: bool, has_files: bool, max_rejected_lines: int) -> bool:
    """Note that all files of an export were read; False if it may have had users, but nothing came or proves it."""
    bookmark.running = False
    if not (proven or has_files):
        _log.warning(
            "%s: no file has come, so perhaps no user was updated; nothing proves it, and the next run"
            " asks from the same time again%s",
            bookmark.export,
            ". With callback_url Braze would say so" if bookmark.in_bucket else "",
        )
        return False
    if bookmark.export.updated_since is not None and not bookmark.users:
        _log.info("%s: no user was updated", bookmark.export)
    if bookmark.rejected <= max_rejected_lines:
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


def reason_to_doubt(bookmark: Bookmark) -> str:
    """Why a user who is missing in a complete export need not be gone; empty if there is no doubt."""
    name = bookmark.export.subject
    if bookmark.export.updated_since is not None:
        return f"{name} was asked only for users that were updated since a time"
    if not bookmark.users:
        return f"{name} had no user"
    if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
        return f"{name} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
    return ""


class Estimates:
    """Compares exports with Braze's estimates, where the key may request them; after a failure none is requested."""

    def __init__(self, client: Braze, bucket_url: str) -> None:
        self._client = client
        self._bucket_url = bucket_url
        self._asks = True

    def review(self, bookmarks: Iterable[Bookmark]) -> None:
        """Warn of exports, each read to its end, whose users are far more or fewer than Braze estimates."""
        for bookmark in bookmarks:
            estimate = self._estimate(bookmark)
            if estimate and _is_far(bookmark.users, estimate):
                _log.warning(
                    "%s: %s users came, Braze estimates %s; estimates are rough, but check it if this is new",
                    bookmark.export,
                    f"{bookmark.users:,}",
                    f"{estimate:,}",
                )

    def reason_for_files(self, bookmark: Bookmark, elsewhere: str = "", is_elsewhere: bool = False) -> str:  # noqa: FBT001, FBT002
        """Why an export that ended without a file should have had some; empty, after a warning, if it may be empty."""
        if bookmark.export.updated_since is not None:
            nowhere = f"no file has come to bucket_url: {elsewhere} has its files, so set bucket_url to that"
            return nowhere if is_elsewhere else ""
        expected = f"the last export had {bookmark.last_users:,} users" if bookmark.last_users else ""
        if not expected and (estimate := self._estimate(bookmark)) and _is_far(0, estimate):
            expected = f"Braze estimates {estimate:,} users"
        found = f"Braze says that it is complete, and not one file is in {self._bucket_url}"
        if expected or is_elsewhere:
            but = f", though {expected}" if expected else ""
            seen = f", and {elsewhere} has its files" if is_elsewhere else ""
            return f"{found}{but}: bucket_url must be the bucket and prefix of Braze's partner settings{seen}"
        if elsewhere:
            found += f" ({elsewhere} is there)"
        _log.warning("%s: %s; it counts as empty", bookmark.export, found)
        return ""

    def _estimate(self, bookmark: Bookmark) -> int | None:
        if bookmark.export.source != SEGMENT or not self._asks:
            return None
        try:
            return self._client.segment_size(bookmark.export.segment_id)
        except BrazeError as error:
            self._asks = error.status == HTTPStatus.BAD_REQUEST  # which concerns this segment alone
            _log.debug("No estimate to compare with: %s", error)
            return None


def _is_far(users: int, estimate: int) -> bool:
    """True if a number of users is so far from the estimate that its error alone cannot be the reason."""
    error = _ERROR_OF_WORKSPACE * max(_WORKSPACE_USERS, users, estimate)
    return abs(users - estimate) > error + estimate * _TOLERANCE
