"""The two kinds of streams: `export_files` is the parent, the others are synced once per file.

A new stream needs its table in `schema/user_object.py` and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.run import Run
from tap_braze_export.singer.file_stream import FileStream

if TYPE_CHECKING:
    from collections.abc import Generator

    from singer_sdk.helpers.types import Context


class ExportFiles(FileStream):
    """The audit log and, by structure only, the parent of every other stream: its selection touches none of them."""

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


class UserStream(FileStream):
    """Any other stream: synced once per file."""

    parent_stream_type = ExportFiles
