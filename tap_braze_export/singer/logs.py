"""The log: what libraries and the SDK may write there, and short lines for people."""

from __future__ import annotations

import logging
import sys

from singer_sdk.logging import ConsoleFormatter
from typing_extensions import override

_WITH_SECRETS_AT_DEBUG = (
    *("fsspec", "s3fs", "botocore", "aiobotocore", "gcsfs", "google", "adlfs", "azure", "asyncio", "singer_sdk.mapper"),
)
"""Loggers that write signed URLs, keys or values of a stream map's filter at level DEBUG."""
DROPPED_MESSAGES = (
    "Added '%s' as child stream to '%s'",
    "Parsing env var for settings config...",
    "Skipping parse of env var settings...",
    "Skipping deselected stream '%s'.",
)
"""Log messages of the SDK that repeat per stream or say nothing to a user."""


class _TerminalFormatter(logging.Formatter):
    """`12:34:56 message`: on 80 columns the SDK's time, level and logger would leave 15 for it."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno == logging.INFO and text.startswith("  "):
            return text
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{text}"


def set_up(logger: logging.Logger) -> None:
    """Keep secrets and noise out of the log, and shorten it on a terminal unless SINGER_SDK_LOG_CONFIG says how."""
    logging.captureWarnings(capture=True)
    logger.addFilter(lambda record: record.msg not in DROPPED_MESSAGES)
    for name in _WITH_SECRETS_AT_DEBUG:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of an odd header with the whole URL and a traceback
    for handler in logging.getLogger().handlers if sys.stderr.isatty() else ():
        if isinstance(handler, logging.StreamHandler) and type(handler.formatter) is ConsoleFormatter:
            handler.setFormatter(_TerminalFormatter())
