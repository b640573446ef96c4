"""The fourteen streams, one small class each: `export_files` is the parent, the others are synced once per file.

A new stream also needs its table in `schema/user_object.py` and a line in `tap.STREAMS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.run import Run
from tap_braze_export.schema import user_object
from tap_braze_export.singer.file_stream import FileStream

if TYPE_CHECKING:
    from collections.abc import Generator

    from singer_sdk.helpers.types import Context

    from tap_braze_export.singer.plugin import Plugin


class ExportFiles(FileStream):
    """The audit log and, by structure only, the parent of every other stream: its selection touches none of them."""

    table = user_object.EXPORT_FILES
    versioned = False

    @override
    def _sync_records(
        self, context: Context | None = None, *, write_messages: bool = True
    ) -> Generator[dict[str, Any], Any, Any]:
        run = Run(
            self.plugin.settings,
            self,
            [stream for stream in (self, *self.children) if stream.selected],
            writer=self.writer,
            clock=self.plugin.clock,
            state=self.stream_state,
            send_state=lambda: self._tap.state_writer.write_state(self.tap_state),
        )
        yield from run.records()


class Users(FileStream):
    """One row per profile."""

    table = user_object.USERS
    parent_stream_type = ExportFiles

    def __init__(self, tap: Plugin) -> None:
        self.table = user_object.USERS.with_attributes(tap.custom_attributes())
        super().__init__(tap)


class Devices(FileStream):
    """One row per device of a profile."""

    table = user_object.DEVICES
    parent_stream_type = ExportFiles


class Purchases(FileStream):
    """One row per product bought."""

    table = user_object.PURCHASES
    parent_stream_type = ExportFiles


class CustomEvents(FileStream):
    """One row per event name."""

    table = user_object.CUSTOM_EVENTS
    parent_stream_type = ExportFiles


class CampaignsReceived(FileStream):
    """One row per campaign."""

    table = user_object.CAMPAIGNS_RECEIVED
    parent_stream_type = ExportFiles


class CanvasesReceived(FileStream):
    """One row per Canvas."""

    table = user_object.CANVASES_RECEIVED
    parent_stream_type = ExportFiles


class CanvasStepsReceived(FileStream):
    """One row per step of a Canvas."""

    table = user_object.CANVAS_STEPS_RECEIVED
    parent_stream_type = ExportFiles


class Apps(FileStream):
    """One row per app used."""

    table = user_object.APPS
    parent_stream_type = ExportFiles


class PushTokens(FileStream):
    """One row per push token."""

    table = user_object.PUSH_TOKENS
    parent_stream_type = ExportFiles


class UserAliases(FileStream):
    """One row per alias."""

    table = user_object.USER_ALIASES
    parent_stream_type = ExportFiles


class CardsClicked(FileStream):
    """One row per card."""

    table = user_object.CARDS_CLICKED
    parent_stream_type = ExportFiles


class SegmentMembers(FileStream):
    """One row per membership of an exported segment."""

    table = user_object.SEGMENT_MEMBERS
    parent_stream_type = ExportFiles
    versioned = False


class InvalidUserIds(FileStream):
    """One row per identifier of a resync that matched nobody."""

    table = user_object.INVALID_USER_IDS
    parent_stream_type = ExportFiles
    versioned = False
