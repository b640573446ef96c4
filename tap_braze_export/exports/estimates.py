"""Braze's estimates of segment sizes: they are rough, so a difference is a warning, never a failure."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from tap_braze_export.errors import BrazeError
from tap_braze_export.export import SEGMENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.state import Bookmark

_TOLERANCE = 0.2
_ERROR_OF_WORKSPACE = 0.01
"""Braze: an estimate may be off by about this part of all users of the workspace, however small the segment is."""
_WORKSPACE_USERS = 20_000_000
"""Nothing says how large a workspace is. This is the size of Braze's own example of a long export: few are larger."""
_log = logging.getLogger(__name__)


class Estimates:
    """Compares exports with Braze's estimates, where the key may request them; after a failure none is requested.

    Args:
        client: Braze.
        bucket_url: The setting, for the error that names it; empty if it is not set.
    """

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
        """Why an export that ended without a file should have had some; empty, after a warning, if it may be empty.

        Args:
            bookmark: The export.
            elsewhere: Where Braze has written files near the bucket's prefix.
            is_elsewhere: True if files of this export are among them.
        """
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
