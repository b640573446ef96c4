"""Writes Singer messages to standard output, in large blocks that end at a line."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.singerlib.messages import RecordMessage
from typing_extensions import override

from tap_braze_export.clock import Signals

if TYPE_CHECKING:
    from singer_sdk.singerlib.messages import Message

    from tap_braze_export.rows.rendered import Rows

_BLOCK_BYTES = 256 * 1024


class Output(Protocol):
    """Receives the rows of streams: as RECORD messages or in batch files."""

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:
        """Write rows that need no change."""

    def write_message(self, message: Message) -> None:
        """Write the row of a RECORD message."""


class MessageWriter(MsgSpecWriter):
    """Writes messages, and rendered rows as blocks of RECORD lines, at the speed of the program that reads them.

    Attributes:
        written: Bytes written so far.
        waited: Seconds spent in writing: the time in which the tap waited for the reader.
    """

    def __init__(self, signals: Signals | None = None) -> None:
        super().__init__()
        self._signals = signals or Signals()
        self.written = 0
        self.waited = 0.0

    @override
    def write_message(self, message: Message) -> None:
        self.write_lines(bytes(self.format_message(message)))
        if not isinstance(message, RecordMessage):
            self.flush()

    def flush(self) -> None:
        """Pass everything written so far to the reader."""
        self._signals.writing = True
        sys.stdout.flush()
        self._signals.writing = False

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:
        """Write rows as RECORD messages: each line gets the constant head and tail of its stream's messages."""
        version_member = "" if version is None else f',"version":{version}'
        tail = f'{version_member},"time_extracted":"{exported_at}"}}\n'.encode()
        head = f'{{"type":"RECORD","stream":"{stream}","record":'.encode()
        for lines in rows.pieces():
            self.write_lines((head + lines).replace(b"\n", tail + head), unwanted_end=len(head))

    def write_lines(self, lines: bytes, *, unwanted_end: int = 0) -> None:
        """Write whole lines, but for an unwanted end of so many bytes; a signal ends the run between two blocks."""
        start, size = 0, len(lines) - unwanted_end
        while start < size:
            self._signals.check()
            end = lines.find(b"\n", start + _BLOCK_BYTES) + 1 or size
            started = time.monotonic()
            self._signals.writing = True
            sys.stdout.buffer.write(memoryview(lines)[start:end])
            self._signals.writing = False
            self.waited += time.monotonic() - started
            self.written += end - start
            start = end
