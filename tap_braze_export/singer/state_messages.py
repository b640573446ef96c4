"""Writes STATE messages, no more of them than a small share of the output allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.singer.messages import MessageWriter

_OUTPUT_PER_STATE = 110
"""STATE is written once the output is so many times all STATE so far and the next two: small files share one."""
_FREE_BYTES = 450_000
"""Bytes of STATE messages that need no output to go with, so that a run of few users tells each of its exports.

The last message comes on top: with hundreds of segments it has some 250,000 bytes, and a megabyte is the limit."""


class StateMessages:
    """The STATE messages of a run.

    Args:
        value: The value of `bookmarks.export_files` that the run was given; kept up to date.
        writer: Standard output.
        send: Writes a STATE message with that value.
    """

    def __init__(self, value: dict[str, Any], writer: MessageWriter, send: Callable[[], None]) -> None:
        self._value = value
        self._writer = writer
        self._send = send
        self._written_at_last = self._last_bytes = self._all_bytes = 0

    @property
    def go_with_output(self) -> bool:
        """True if the output is large enough for the next message."""
        return self._writer.written >= (self._all_bytes + 2 * self._last_bytes) * _OUTPUT_PER_STATE

    @property
    def are_affordable(self) -> bool:
        """True if the next message, and the last one of the run, may be written although the output is small."""
        return self.go_with_output or self._all_bytes + 2 * self._last_bytes <= _FREE_BYTES

    def write(self, value: dict[str, Any]) -> None:
        """Write a message, unless the last one says the same of the same output."""
        if self._writer.written == self._written_at_last and value == self._value:
            return
        before = self._writer.written
        self._value.clear()
        self._value.update(value)
        self._send()
        self._written_at_last = self._writer.written
        self._last_bytes = self._written_at_last - before
        self._all_bytes += self._last_bytes
