"""The reader's questions about users that were emitted before; `fingerprints/` answers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet


class BlockCheck(Protocol):
    """Compares the users of one block of lines with what was last emitted of them."""

    @property
    def same_lines(self) -> Sequence[str | None]:
        """For each line the `braze_id` of its user if the line is the one that was last emitted, else None."""

    def skip_line(self, index: int) -> None:
        """Note that the user of an unchanged line is skipped."""

    def unchanged(self, users: Mapping[str, tuple[int, bytes]]) -> AbstractSet[str]:
        """Note users of other lines, and return the `braze_id` of each that need not be emitted.

        Args:
            users: By `braze_id`, the index of the user's line and its content (see `rows/content`).
        """

    def result(self) -> Any:
        """The fingerprints of the users that were noted since the last call."""


class KnownUsers(Protocol):
    """The users that were emitted before."""

    def check(self, lines: Sequence[bytes], *, member_of: str, has_profiles: bool) -> BlockCheck:
        """Begin to compare a block of lines.

        Args:
            lines: Its lines.
            member_of: The segment whose memberships are emitted; empty for none.
            has_profiles: True if more than memberships is emitted.
        """

    def is_outdated(self, fingerprints: Any) -> bool:
        """True if a user that a worker skipped was emitted with another content meanwhile."""
