"""Shows the progress of a run: lines on a terminal, else a log line at most every ten seconds."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tap_braze_export.report.export_status import ExportStatus, ReadSoFar, size_of, status_line
from tap_braze_export.report.terminal import Terminal
from tap_braze_export.report.units import duration

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Sequence

    from tap_braze_export.clock import Clock

_LOG_INTERVAL_SECONDS = 10.0
_REFRESH_SECONDS = 1.0
_MAX_NAMED_EXPORTS = 3


class Progress:
    """Counts the files and users of a run and reports them. While it is entered, a terminal shows a line per export.

    Args:
        clock: Time.
        logger: Writes the log lines.

    Attributes:
        files_left: Number of files that are known and not yet emitted.
        seconds_blocked: Seconds in which the loader kept the run waiting.
        seconds_quiet: Seconds in which only the end of exports in a quiet bucket was waited for.
        completed: The exports that were read to their ends, by id: seconds of the run, and true if only quiet says so.
    """

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self.files_left = 0
        self.seconds_blocked = 0.0
        self.seconds_quiet = 0.0
        self.completed: dict[str, tuple[float, bool]] = {}
        self._clock = clock
        self._logger = logger
        self._started = self._reported = clock.monotonic()
        self._read = ReadSoFar()
        self._read_of: defaultdict[str, ReadSoFar] = defaultdict(ReadSoFar)
        self._exports: dict[str, ExportStatus] = {}
        self._not_started = 0
        self._terminal: Terminal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Show the lines; log lines then stand above them."""
        if sys.stderr.isatty():
            self._terminal = self._stack.enter_context(Terminal(sys.stderr))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the lines."""
        self._terminal = None
        self._stack.close()

    @property
    def longest_wait(self) -> float:
        """Seconds that the run may wait at a time, so that times on a terminal go on."""
        return _REFRESH_SECONDS if self._terminal else math.inf

    def running(self, exports: Iterable[ExportStatus], *, not_started: int = 0) -> None:
        """Note the exports that run.

        Args:
            exports: Their states, in the order of their lines.
            not_started: Number of exports that are to be started.
        """
        self._exports = {export.export_id: export for export in exports}
        self._not_started = not_started
        self.files_left = sum(export.files_left for export in self._exports.values())
        for export in self._exports.values():
            self._read_of[export.export_id].receives(export.received, self._clock.monotonic())
        if self._terminal:
            self._show(self._terminal)

    def waiting(self, since: float, names: Sequence[str] = ()) -> None:
        """Report that no file can be read yet.

        Args:
            since: Seconds of the monotonic clock since when.
            names: What is waited for while no export runs.
        """
        now = self._clock.monotonic()
        quiet = {name: export.quiet_until for name, export in self._exports.items() if export.quiet_until is not None}
        if self._is_quiet:
            left = duration(max(0.0, max(quiet.values()) - now))
            self._report(
                f"The bucket is quiet, and all its files are read. Complete after {left} more without a new file"
                f" (settle_minutes), or when Braze calls back (callback_url): {_listed(list(quiet))}"
            )
            return
        waited_for = [name for name in self._exports if name not in quiet] or names
        self._report(f"Waiting for Braze since {duration(now - since)}: {_listed(waited_for)}")

    def waited(self, seconds: float) -> None:
        """Count the seconds that the run waited after `waiting`."""
        if self._is_quiet:
            self.seconds_quiet += seconds

    def complete(self, export_id: str, *, assumed: bool) -> None:
        """Note that an export is read to its end; `assumed` if only the quiet of its bucket says that it is the end."""
        self.completed[export_id] = (self.seconds, assumed)

    def downloading(self) -> None:
        """Report that files come, once bytes of them have come or are known to come."""
        exports = [export for export in self._exports.values() if export.is_downloading]
        if exports:
            size = size_of(sum(export.received for export in exports), sum(export.expected for export in exports))
            self._report(f"Downloading {size}: {_listed([export.export_id for export in exports])}")

    def read(self, export_id: str, *, users: int, seconds: float, waited: float) -> None:
        """Count an emitted file; `waited` is the part of its seconds in which the loader kept the run waiting."""
        self.files_left = max(0, self.files_left - 1)
        self.seconds_blocked += waited
        for read in (self._read, self._read_of[export_id]):
            read.add(users, seconds, waited)
        if export := self._exports.get(export_id):
            self._exports[export_id] = replace(export, files_left=max(0, export.files_left - 1))
        known = self._read.files + self.files_left
        self._report(
            f"Read {self._read.files:,} of {known:,} files, {self._read.users:,} users, {self._read.rate} a second"
            + self._read.time_left(self.files_left),
            share=self._read.files / known,
        )

    @property
    def _is_quiet(self) -> bool:
        exports = self._exports.values()
        return bool(exports) and not self._not_started and all(each.quiet_until is not None for each in exports)

    def _report(self, text: str, *, share: float | None = None) -> None:
        if self._terminal:
            self._show(self._terminal, (text, share))
        elif self._clock.monotonic() - self._reported >= _LOG_INTERVAL_SECONDS:
            self._reported = self._clock.monotonic()
            self._logger.info("%s", text)

    def _show(self, terminal: Terminal, instead: tuple[str, float | None] | None = None) -> None:
        """Show a line for each export that runs, as far as they fit; what is said of all of them where they do not."""
        exports = list(self._exports.values())
        if not exports or terminal.max_lines == 1:
            if instead:
                terminal.show([instead])
            return
        shown = exports[: terminal.max_lines - 1]
        width = max(len(export.label) for export in shown)
        lines = []
        for export in shown:
            text, share = status_line(export, self._read_of[export.export_id], self._clock.monotonic())
            lines.append((f"{export.label:{width}}  {text}", share))
        if more := len(exports) - len(shown) + self._not_started:
            lines.append((f"and {more:,} more", None))
        terminal.show(lines)

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._clock.monotonic() - self._started

    @property
    def seconds_reading(self) -> float:
        """Seconds in which the run read and wrote."""
        return self._read.seconds

    @property
    def seconds_waiting(self) -> float:
        """Seconds in which nothing could be read."""
        return max(0.0, self.seconds - self.seconds_reading - self.seconds_blocked)

    def pace(self) -> str:
        """The seconds of reading, users a second in them, and the seconds in which the loader kept the run waiting."""
        rate = f" ({self._read.rate} users a second)" if self.seconds_reading > 0 else ""
        return (
            f"{duration(self.seconds_reading)} reading{rate}, {duration(self.seconds_blocked)} waiting for the loader"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED_EXPORTS]) + (", …" if len(names) > _MAX_NAMED_EXPORTS else "")
