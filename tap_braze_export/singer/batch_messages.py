"""BATCH messages: files of all streams that are announced together, then covered by one STATE."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from singer_sdk.contrib.msgspec import serialize_jsonl
from singer_sdk.helpers._batch import SDKBatchMessage
from singer_sdk.singerlib.messages import RecordMessage

from tap_braze_export.rows.rendered import Rows

if TYPE_CHECKING:
    from singer_sdk.singerlib.messages import Message

    from tap_braze_export.singer.batch_files import BatchFile, BatchFiles
    from tap_braze_export.singer.messages import MessageWriter

_MOST_BYTES = 32 * 2**20
"""Rendered rows kept in memory; of a large group more files than one are written."""


class Batches:
    """The open group: takes rows instead of RECORD messages, and tells of their files when it closes.

    Args:
        files: Writes them.
        writer: Takes the BATCH messages.
    """

    def __init__(self, files: BatchFiles, writer: MessageWriter) -> None:
        self._files = files
        self._writer = writer
        self._parts = 0
        self._bytes = 0
        self._pending: defaultdict[str, list[Rows]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._manifests: defaultdict[str, list[str]] = defaultdict(list)

    @property
    def full(self) -> bool:
        """Whether the group's largest stream has reached the batch size."""
        return max(self._counts.values(), default=0) >= self._files.batch_size

    def add_file(self, stream: str, file: BatchFile) -> None:
        """Take a file that was written elsewhere."""
        self._counts[stream] += file.count
        self._manifests[stream].append(file.url)

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:  # noqa: ARG002
        """Take rendered rows; batch files hold neither time nor version of a RECORD message."""
        self._counts[stream] += rows.count
        self._pending[stream].append(rows)
        self._bytes += rows.size
        if self._bytes >= _MOST_BYTES:
            self._write()

    def write_message(self, message: Message) -> None:
        """Take the row of a RECORD message."""
        if isinstance(message, RecordMessage):
            row = bytes(serialize_jsonl(message.record))
            self.write_rows(message.stream, Rows((row,), 1), exported_at="", version=None)
        else:
            self._writer.write_message(message)

    def close_group(self) -> None:
        """Tell of all files since the last group."""
        self._write()
        for stream, manifest in self._manifests.items():
            self._writer.write_message(SDKBatchMessage(stream, self._files.encoding, manifest))
        self._manifests.clear()
        self._counts.clear()

    def _write(self) -> None:
        if not self._pending:
            return
        rows = {stream: Rows.joined(several) for stream, several in self._pending.items()}
        self._pending.clear()
        self._bytes = 0
        self._parts += 1
        for stream, file in self._files.write(rows, str(self._parts)).items():
            self._manifests[stream].append(file.url)
