"""Groups of batch files of all streams, announced together in BATCH messages before the STATE that covers them."""

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

_MAX_PENDING_BYTES = 32 * 2**20
"""Bytes of rendered rows kept in memory; a larger group is written to several files of each stream."""


class Batches:
    """Collects rows in batch files instead of RECORD messages; a group of files is announced when it is closed."""

    def __init__(self, files: BatchFiles, writer: MessageWriter) -> None:
        self._files = files
        self._writer = writer
        self._writes = 0
        self._pending_bytes = 0
        self._pending: defaultdict[str, list[Rows]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._manifests: defaultdict[str, list[str]] = defaultdict(list)

    @property
    def full(self) -> bool:
        """True if the group's largest stream has reached the batch size."""
        return max(self._counts.values(), default=0) >= self._files.batch_size

    def add_file(self, stream: str, file: BatchFile) -> None:
        """Add a file that another process has written to the group."""
        self._counts[stream] += file.count
        self._manifests[stream].append(file.url)

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:  # noqa: ARG002
        """Add rendered rows to the group; batch files hold neither the time nor the version of a RECORD message."""
        self._counts[stream] += rows.count
        self._pending[stream].append(rows)
        self._pending_bytes += rows.size
        if self._pending_bytes >= _MAX_PENDING_BYTES:
            self._write()

    def write_message(self, message: Message) -> None:
        """Add the row of a RECORD message to the group, or write a message of another type."""
        if isinstance(message, RecordMessage):
            row = bytes(serialize_jsonl(message.record))
            self.write_rows(message.stream, Rows((row,), 1), exported_at="", version=None)
        else:
            self._writer.write_message(message)

    def close_group(self) -> None:
        """Write pending rows and announce all files of the group, one BATCH message for each stream."""
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
        self._pending_bytes = 0
        self._writes += 1
        for stream, file in self._files.write(rows, str(self._writes)).items():
            self._manifests[stream].append(file.url)
