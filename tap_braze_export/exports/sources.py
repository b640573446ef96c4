"""The exports that the settings ask for: segments and the Global Control Group, with the fields of each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tap_braze_export.export import GLOBAL_CONTROL_GROUP, SEGMENT, subject
from tap_braze_export.schema.selection import RequestedFields

if TYPE_CHECKING:
    from tap_braze_export.settings import Settings

_log = logging.getLogger(__name__)


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
    """The exports that the settings ask for.

    Args:
        settings: The tap's settings.
        fields: The fields to export of each segment.
        with_memberships: True if the stream `segment_members` is selected.
    """
    sources = [Source(SEGMENT, segment_id, fields) for segment_id in dict.fromkeys(settings.segment_ids)]
    if settings.global_control_group and with_memberships:
        sources.append(Source(GLOBAL_CONTROL_GROUP, "", RequestedFields.of(())))
    elif settings.global_control_group:
        _log.info("The Global Control Group is not exported: segment_members is not selected")
    return sources
