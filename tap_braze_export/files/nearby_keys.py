"""Finds Braze's folder near the place that bucket_url names: behind a slash too many, or below another prefix."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import TapError
from tap_braze_export.files.key_listing import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.files.storage import Storage

BRAZES_FOLDER = "segment-export"
_MAX_FOLDERS = 20
"""Folders below and beside the prefix that are looked into: each costs a listing."""
_MAX_DATES = 5
_MAX_NAMED = 3


class NearbyKeys:
    """Looks for Braze's folder near a prefix, with a limited number of listings.

    Args:
        storage: The bucket.
        bucket: Its name in paths of the storage; empty for a directory, whose slashes the system merges.
        prefix: The prefix that bucket_url names; of a directory the whole path.
    """

    def __init__(self, storage: Storage, bucket: str, prefix: str) -> None:
        self._storage = storage
        self._bucket = bucket
        self._prefix = prefix

    def with_more_slashes(self) -> list[str]:
        """The paths of Braze's folder that differ from the right one by their slashes alone, of those that exist."""
        if not self._bucket:
            return []
        found = [prefix for prefix in _spellings(self._prefix) if self._has(f"{prefix}{BRAZES_FOLDER}/")]
        return [f"{self._bucket}/{prefix}{BRAZES_FOLDER}" for prefix in found]

    def below_other_prefixes(self) -> list[str]:
        """The paths of Braze's folder above, below and beside the prefix; at most three."""
        found: list[str] = []
        for prefix in self._other_prefixes():
            if self._has(f"{prefix}{BRAZES_FOLDER}/"):
                found.append(f"{self._bucket}/{prefix}{BRAZES_FOLDER}" if self._bucket else f"{prefix}{BRAZES_FOLDER}")
            if len(found) == _MAX_NAMED:
                break
        return found

    def holds(self, path: str, export_id: str, segment_id: str) -> bool:
        """True if Braze's folder at a path, one that was found, has files of an export."""
        top = path.removeprefix(f"{self._bucket}/" if self._bucket else "")
        dates = sorted(self._folders(f"{top}/{segment_id}/"), reverse=True)[:_MAX_DATES]
        return any(self._has(f"{date}{export_id}/") for date in dates)

    def _other_prefixes(self) -> Iterator[str]:
        here = f"{self._prefix}/" if self._prefix else ""
        parts = self._prefix.split("/") if self._prefix else []
        above = ["/".join([*parts[:length], ""]) for length in range(len(parts) - 1, -1, -1)]
        yield from above if self._bucket else above[:1]
        yield from self._folders(here)[:_MAX_FOLDERS]
        if above and above[0] != "/":
            yield from (folder for folder in self._folders(above[0])[:_MAX_FOLDERS] if folder != here)

    def _has(self, prefix: str) -> bool:
        return bool(self._listed(prefix, limit=1))

    def _folders(self, prefix: str) -> list[str]:
        return [
            f"{info['name'].rstrip('/').removeprefix(f'{self._bucket}/' if self._bucket else '')}/"
            for info in self._listed(prefix, limit=_MAX_FOLDERS)
            if info["type"] == "directory" and info["name"].rpartition("/")[2] != BRAZES_FOLDER
        ]

    def _listed(self, prefix: str, *, limit: int) -> list[dict[str, Any]]:
        """The content of a prefix; nothing if it cannot be listed: credentials may be good for the right one alone."""
        try:
            return self._storage.once("listed", lambda: listed(self._storage.files, self._bucket, prefix, limit=limit))
        except TapError:
            return []


def _spellings(prefix: str) -> list[str]:
    """The prefixes that a folder setting with slashes too many can lead to; the right one is none of them."""
    parts = [part for part in prefix.split("/") if part]
    if not parts:
        return ["/", "//", "///"]
    joined = dict.fromkeys(separator.join(parts) for separator in ("/", "//"))
    spelt = [f"{lead}{path}{tail}" for path, tail, lead in product(joined, ("/", "//", "///"), ("", "/"))]
    return spelt[1:]
