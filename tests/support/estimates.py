"""Segments of the sandbox whose size Braze estimates wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tap_braze_export.sandbox.segments import GivenUser, MadeUser

if TYPE_CHECKING:
    from tap_braze_export.sandbox import Sandbox


def estimate(sandbox: Sandbox, segment_id: str, users: int) -> None:
    """Let Braze estimate so many users for a segment, whatever it holds: that is exported in three users a file."""
    segment = sandbox.workspace.segments[segment_id]

    class Estimated(type(segment)):  # type: ignore[misc]
        """Its size is the estimate."""

        def __len__(self) -> int:
            return users

    held: list[Any] = [*segment.given, *(MadeUser(segment.population, index) for index in segment.indexes)]
    files = [cast("list[GivenUser]", held[start : start + 3]) for start in range(0, len(held), 3)]
    sandbox.workspace.segments[segment_id] = Estimated(segment.id, segment.name, segment.population, files=files)
