"""When given users were last updated, and whom a filter by that time misses."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox.segments import GivenUser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def is_missed(percent: float, braze_id: str) -> bool:
    """True for a share of all users, always the same ones."""
    dice = blake2b(braze_id.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(dice) * 100 < percent * 2**56


class GivenUpdates:
    """The times of the users that were given so far; one that is given again as before keeps its time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the time of new and changed users from this clock."""
        self._clock = clock
        # By braze_id, and by content as a user may be given twice.
        self._known: dict[str, dict[str | bytes, float]] = {}

    def dated(
        self, files: Iterable[Iterable[dict[str, Any] | bytes]], updated_at: Mapping[str, float]
    ) -> list[list[GivenUser]]:
        """Make the users of some files; `updated_at` has epoch seconds by braze_id, and comes first."""
        now = self._clock()
        latest: dict[str, dict[str | bytes, float]] = {}
        made = [[GivenUser(user) for user in file] for file in files]
        for user in (user for file in made for user in file):
            braze_id, content = user.braze_id, user.content
            user.updated_at = updated_at.get(braze_id, self._known.get(braze_id, {}).get(content, now))
            latest.setdefault(braze_id, {})[content] = user.updated_at
        if unknown := updated_at.keys() - latest:
            raise ValueError(f"updated_at names users that are not given: {', '.join(sorted(unknown))}")
        self._known |= latest
        return made
