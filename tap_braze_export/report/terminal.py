"""Lines at the bottom of a terminal that change, below the log."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_LINES = 5
_TEXT_ALONE = "{desc}{bar}"  # the empty bar fills the line: nothing stays of what a loader wrote there
_TEXT_AND_BAR = "{desc} [{bar}]"
_BAR_SIGNS = " #"
"""No others: Python cannot always know that a terminal shows signs beyond ASCII."""
_TERMINALS_OF_ONE_LINE = {"", "dumb"}
_USUAL_SIZE = {"ncols": 80, "nrows": 24}


class Terminal:
    """Shows lines while it is entered; log lines stand above them.

    Args:
        file: The terminal.

    Attributes:
        max_lines: Number of lines that fit: one if the terminal cannot move its cursor up.
    """

    def __init__(self, file: TextIO) -> None:
        self.max_lines = 1 if os.environ.get("TERM", "") in _TERMINALS_OF_ONE_LINE else _MAX_LINES
        self._file = file
        self._size = {"dynamic_ncols": True} if _tells_its_size(file) else _USUAL_SIZE
        self._bars: list[tqdm[Any]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Have log lines stand above the lines."""
        self._stack.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the lines."""
        self.show([])
        self._stack.close()

    def show(self, lines: Sequence[tuple[str, float | None]]) -> None:
        """Replace the lines by these.

        Args:
            lines: The text of each, and the part that its bar fills; None for no bar.
        """
        while len(self._bars) > len(lines):
            self._bars.pop().close()  # the last one first, as the others would move up
        while len(self._bars) < len(lines):
            self._bars.append(self._new_bar())
        for bar, (text, share) in zip(self._bars, lines, strict=True):
            bar.bar_format = _TEXT_ALONE if share is None else _TEXT_AND_BAR
            bar.n = share or 0.0
            bar.set_description_str(text, refresh=False)
            bar.refresh()
        self._file.write("\r")  # a line of the loader, which has the same terminal, then begins as a line
        self._file.flush()

    def _new_bar(self) -> tqdm[Any]:
        return tqdm(
            file=self._file,
            total=1.0,
            leave=False,
            **self._size,
            ascii=_BAR_SIGNS,
            bar_format=_TEXT_ALONE,
            position=len(self._bars),
        )


def _tells_its_size(file: TextIO) -> bool:
    """True if the size of a terminal is known; those of containers and of CI may say 0 columns."""
    try:
        return min(os.get_terminal_size(file.fileno())) > 0
    except OSError:
        return False
