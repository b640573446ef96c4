"""Shows the progress of a run: one line at the bottom of a terminal, else a log line at most every ten seconds."""

from __future__ import annotations

import math
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from tap_braze_export.report.facts import REQUESTED
from tap_braze_export.report.units import duration, megabytes

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.export import Export
    from tap_braze_export.report.facts import RunFacts

_LOG_INTERVAL_SECONDS = 10.0
_REFRESH_SECONDS = 1.0
_MAX_NAMED_EXPORTS = 3
_TEXT_ALONE = "{desc}{bar}"  # the empty bar fills the line: nothing stays of what a loader wrote there
_TEXT_AND_BAR = "{desc} [{bar}]"
_BAR_SIGNS = " #"
"""No others: Python cannot always know that a terminal shows signs beyond ASCII."""
_USUAL_SIZE = {"ncols": 80, "nrows": 24}


@dataclass(frozen=True, kw_only=True)
class ExportStatus:
    """An export that runs.

    Attributes:
        export: The export.
        files_left: Number of files that are known and not yet read.
        received: Bytes that have come of the transfers under way, as far as that is known.
        expected: All bytes of the transfers under way; 0 if that is not known.
        quiet_until: Monotonic seconds at which it counts as complete if no other file comes into the bucket; None
            unless that is all that it waits for.
    """

    export: Export
    files_left: int = 0
    received: int = 0
    expected: int = 0
    quiet_until: float | None = None


class Progress:
    """Reports what a run does. While it is entered, log lines on a terminal stand above its line.

    Args:
        facts: What the run has read.
        clock: Time.
        logger: Writes the log lines.

    Attributes:
        facts: The same.
    """

    def __init__(self, facts: RunFacts, clock: Clock, logger: logging.Logger) -> None:
        self.facts = facts
        self._clock = clock
        self._logger = logger
        self._reported = clock.monotonic()
        self._exports: Sequence[ExportStatus] = ()
        self._files_left = 0
        self._bar: tqdm[Any] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Show the line."""
        if sys.stderr.isatty():
            size: dict[str, Any] = {"dynamic_ncols": True} if _tells_its_size(sys.stderr) else _USUAL_SIZE
            self._stack.enter_context(logging_redirect_tqdm())
            self._bar = self._stack.enter_context(
                tqdm(file=sys.stderr, total=1.0, leave=False, ascii=_BAR_SIGNS, bar_format=_TEXT_ALONE, **size)
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        self._bar = None
        self._stack.close()

    @property
    def longest_wait(self) -> float:
        """Seconds that the run may wait at a time, so that times on a terminal go on."""
        return _REFRESH_SECONDS if self._bar is not None else math.inf

    def running(self, exports: Iterable[ExportStatus]) -> None:
        """Note the exports that run."""
        self._exports = [*exports]
        self._files_left = sum(each.files_left for each in self._exports)
        self.facts.reached(REQUESTED, (each.export for each in self._exports))

    @contextmanager
    def waiting(self, since: float, not_started: Sequence[str] = ()) -> Iterator[None]:
        """Report that no file can be read yet, and count the seconds if only quiet buckets are waited for.

        Args:
            since: Seconds of the monotonic clock since when.
            not_started: The exports that are still to be requested.
        """
        now = self._clock.monotonic()
        others = [each.export.export_id for each in self._exports if each.quiet_until is None]
        quiet = {each.export.export_id: each.quiet_until for each in self._exports if each.quiet_until is not None}
        is_quiet = bool(quiet) and not others and not not_started
        if is_quiet:
            left = duration(max(0.0, max(quiet.values()) - now))
            self._report(
                f"The bucket is quiet, and all its files are read. Complete after {left} more without a new file"
                f" (settle_minutes), or when Braze calls back (callback_url): {_listed([*quiet])}"
            )
        else:
            self._report(f"Waiting for Braze since {duration(now - since)}: {_listed(others or not_started)}")
        yield
        if is_quiet:
            self.facts.seconds_quiet += self._clock.monotonic() - now

    def downloading(self) -> None:
        """Report that files come, once bytes of them have come or are known to come."""
        transfers = [each for each in self._exports if each.received or each.expected]
        received, expected = sum(each.received for each in transfers), sum(each.expected for each in transfers)
        if not transfers:
            return
        if not received:
            size = f"{megabytes(expected)} MB"
        elif expected:
            size = f"{megabytes(received)} of {megabytes(expected)} MB"
        else:
            size = f"{megabytes(received)} MB so far"
        names = _listed([each.export.export_id for each in transfers])
        self._report(f"Downloading {size}: {names}", share=received / expected if received and expected else None)

    def read(self) -> None:
        """Report the files that are emitted, one more than before."""
        facts, files = self.facts, self.facts.total("files")
        left = self._files_left = max(0, self._files_left - 1)
        seconds_left = (facts.seconds_reading + facts.seconds_blocked) / files * left
        self._report(
            f"Read {files:,} of {files + left:,} files, {facts.total('users'):,} users, {facts.users_a_second:,.0f} a"
            f" second{f', {duration(seconds_left)} left' if left else ''}",
            share=files / (files + left),
        )

    def _report(self, text: str, *, share: float | None = None) -> None:
        """Show a text, on a terminal with a bar that is full to its `share`."""
        if self._bar is not None:
            self._bar.bar_format = _TEXT_ALONE if share is None else _TEXT_AND_BAR
            self._bar.n = share or 0.0
            self._bar.set_description_str(text)
            sys.stderr.write("\r")  # a line of the loader, which has the same terminal, then begins as a line
            sys.stderr.flush()
        elif self._clock.monotonic() - self._reported >= _LOG_INTERVAL_SECONDS:
            self._reported = self._clock.monotonic()
            self._logger.info("%s", text)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED_EXPORTS]) + (", …" if len(names) > _MAX_NAMED_EXPORTS else "")


def _tells_its_size(file: TextIO) -> bool:
    """True if the size of a terminal is known; those of containers and of CI may say 0 columns."""
    try:
        return min(os.get_terminal_size(file.fileno())) > 0
    except OSError:
        return False
