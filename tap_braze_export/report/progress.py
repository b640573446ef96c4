"""Shows the progress of a run: a bar on a terminal, else a log line at most every ten seconds."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    import logging

    from tap_braze_export.clock import Clock

_LOG_INTERVAL_SECONDS = 10.0
_MAX_NAMED_EXPORTS = 3
_TEXT_ALONE = "{desc}"
_BAR_AND_TEXT = "{bar:12} {desc}"


class Progress:
    """Counts the files and users of a run and reports them. While it is entered, a terminal shows a bar.

    Args:
        clock: Time.
        logger: Writes the log lines.

    Attributes:
        files: Number of files emitted.
        users: Number of users emitted.
        files_left: Number of files that are known and not yet emitted.
        seconds_reading: Seconds in which the run read and wrote.
        seconds_blocked: Seconds in which the loader kept it waiting.
    """

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self.files = 0
        self.users = 0
        self.files_left = 0
        self._clock = clock
        self._logger = logger
        self._started = self._reported = clock.now()
        self.seconds_reading = self.seconds_blocked = 0.0
        self._bar: tqdm[Any] | None = None
        self._terminal = ExitStack()

    def __enter__(self) -> Self:
        """Show the bar; log lines then stand above it."""
        if sys.stderr.isatty():
            self._bar = self._terminal.enter_context(
                tqdm(file=sys.stderr, leave=False, dynamic_ncols=True, bar_format=_TEXT_ALONE)
            )
            self._terminal.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._bar = None
        self._terminal.close()

    def waiting(self, export_ids: list[str], since: float) -> None:
        """Report that no file can be read yet; `since` is the time in epoch seconds since when."""
        self._report(f"Waiting for Braze since {duration(self._clock.now() - since)}: {_listed(export_ids)}")

    def downloading(self, export_ids: list[str], received: int, expected: int) -> None:
        """Report that files come; 0 for bytes that are not known."""
        size = f"{megabytes(received)} of {megabytes(expected)} MB" if expected else f"{megabytes(received)} MB so far"
        if not received:
            size = f"{megabytes(expected)} MB"
        self._report(f"Downloading {size}: {_listed(export_ids)}")

    def read(self, *, users: int, seconds: float, waited: float) -> None:
        """Count an emitted file; `waited` is the part of its seconds in which the loader kept the run waiting."""
        self.files += 1
        self.files_left = max(0, self.files_left - 1)
        self.users += users
        self.seconds_reading += max(0.0, seconds - waited)
        self.seconds_blocked += waited
        known = self.files + self.files_left
        left = (self.seconds_reading + self.seconds_blocked) / self.files * self.files_left
        self._report(
            f"Read {self.files:,} of {known:,} files, {self.users:,} users, {self._rate} a second"
            + (f", {duration(left)} left" if self.files_left else ""),
            share=self.files / known,
        )

    def _report(self, text: str, *, share: float | None = None) -> None:
        if self._bar is not None:
            self._bar.bar_format = _TEXT_ALONE if share is None else _BAR_AND_TEXT
            self._bar.total, self._bar.n = 1.0, share or 0.0
            self._bar.set_description_str(text, refresh=False)
            self._bar.refresh()
        elif self._clock.now() - self._reported >= _LOG_INTERVAL_SECONDS:
            self._reported = self._clock.now()
            self._logger.info("%s", text)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._clock.now() - self._started

    @property
    def seconds_waiting(self) -> float:
        """Seconds in which nothing could be read."""
        return max(0.0, self.seconds - self.seconds_reading - self.seconds_blocked)

    @property
    def _rate(self) -> str:
        return f"{self.users / self.seconds_reading if self.seconds_reading else 0:,.0f}"

    def pace(self) -> str:
        """The seconds of reading, users a second in them, and the seconds in which the loader kept the run waiting."""
        rate = f" ({self._rate} users a second)" if self.seconds_reading > 0 else ""
        return (
            f"{duration(self.seconds_reading)} reading{rate}, {duration(self.seconds_blocked)} waiting for the loader"
        )


def _listed(export_ids: list[str]) -> str:
    return ", ".join(export_ids[:_MAX_NAMED_EXPORTS]) + (", …" if len(export_ids) > _MAX_NAMED_EXPORTS else "")


def megabytes(size: int) -> str:
    """Format bytes for people, in millions: `0.3`, `15`, `1,204`."""
    millions = size / 1e6
    return f"{millions:,.0f}" if round(millions) >= 10 else f"{millions:.1f}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """Format a duration for people: `0.4 s`, `75 s`, `12 min`, `3 h 5 min`."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004
