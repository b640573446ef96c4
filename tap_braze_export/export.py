"""One export as a value: which one it is, and when it was requested. Whatever belongs to an export holds this."""

from __future__ import annotations

from dataclasses import dataclass

from tap_braze_export.clock import timestamp

SEGMENT = "segment"
GLOBAL_CONTROL_GROUP = "global_control_group"
IDS = "ids"


@dataclass(frozen=True)
class Export:
    """A request for users, and all that Braze delivers for it.

    Attributes:
        source: `segment`, `global_control_group`, or `ids` for a resync.
        segment_id: The segment's API identifier; empty where there is none.
        export_id: Braze's `object_prefix`, or `ids-…`; empty while no response has come.
        requested_at: Epoch seconds of the request, by this machine's clock.
        updated_since: Epoch seconds of the oldest last update that was asked for; None for everybody.
    """

    source: str
    segment_id: str
    export_id: str
    requested_at: float
    updated_since: float | None = None

    @property
    def exported_at(self) -> str:
        """The column of that name in all its rows."""
        return timestamp(self.requested_at)

    @property
    def key(self) -> tuple[str, str]:
        """Source and segment: Braze runs one export of it at a time."""
        return self.source, self.segment_id

    @property
    def subject(self) -> str:
        """The name of its source."""
        return subject(self.source, self.segment_id)

    def __str__(self) -> str:
        name = f"Export {self.export_id}" if self.export_id else "The export without a response"
        return f"{name} of {self.subject}"


def subject(source: str, segment_id: str) -> str:
    """Name the source of an export, as logs and errors do."""
    return {IDS: "a resync", GLOBAL_CONTROL_GROUP: "the Global Control Group"}.get(source, f"segment {segment_id}")
