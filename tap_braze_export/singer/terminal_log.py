"""Log lines for people: on a terminal of 80 columns the SDK's time, level and logger would leave 15 for the message."""

from __future__ import annotations

import logging
import sys

from singer_sdk.logging import ConsoleFormatter
from typing_extensions import override


class _TerminalFormatter(logging.Formatter):
    """`12:34:56 message`; levels other than INFO are named, and lines of a table stand as they are."""

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    @override
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno == logging.INFO and text.startswith("  "):
            return text
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        return f"{self.formatTime(record, self.datefmt)} {level}{text}"


def shorten_on_terminal() -> None:
    """Shorten the log lines that go to a terminal, unless their format was chosen (SINGER_SDK_LOG_CONFIG)."""
    if sys.stderr.isatty():
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and type(handler.formatter) is ConsoleFormatter:
                handler.setFormatter(_TerminalFormatter())
