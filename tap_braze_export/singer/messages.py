"""Singer messages → standard output, in large blocks that end at a line."""

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

_BLOCK = 256 * 1024


class Output(Protocol):
    """What takes the rows of streams: RECORD messages or batch files."""

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:
        """Take rows that nothing has to be changed in."""

    def write_message(self, message: Message) -> None:
        """Take the row of a RECORD message."""


class MessageWriter(MsgSpecWriter):
    """Writes messages, and whole blocks of rendered RECORD lines, as the reader takes them.

    Attributes:
        written: Bytes written so far.
        waited: Seconds that writing took: how long the reader kept the tap waiting.
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
        """Hand the reader all that was written."""
        self._signals.writing = True
        sys.stdout.flush()
        self._signals.writing = False

    def write_rows(self, stream: str, rows: Rows, *, exported_at: str, version: int | None) -> None:
        """Write rows as RECORD messages: the constant head and tail of such a line are spliced in between."""
        told = "" if version is None else f',"version":{version}'
        tail = f'{told},"time_extracted":"{exported_at}"}}\n'.encode()
        head = f'{{"type":"RECORD","stream":"{stream}","record":'.encode()
        for lines in rows.pieces():
            self.write_lines((head + lines).replace(b"\n", tail + head), superfluous=len(head))

    def write_lines(self, lines: bytes, *, superfluous: int = 0) -> None:
        """Write rendered lines, each with its newline; a signal takes effect between two blocks of them.

        Args:
            lines: The lines.
            superfluous: Bytes at their end that are not written.

        Raises:
            Interruption: If the run was told to end.
            BrokenPipeError: If nobody reads any more.
        """
        start, size = 0, len(lines) - superfluous
        while start < size:
            self._signals.check()
            end = lines.find(b"\n", start + _BLOCK) + 1 or size
            started = time.monotonic()
            self._signals.writing = True
            sys.stdout.buffer.write(memoryview(lines)[start:end])
            self._signals.writing = False
            self.waited += time.monotonic() - started
            self.written += end - start
            start = end
