"""A program on a pseudo-terminal, and what its terminal shows."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

from tests.support.runs import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS, ROWS = 80, 24
_UP = "\x1b[A"


class Screen(io.StringIO):
    """A terminal of 80 columns without a lower end, which knows the few signs that move its cursor.

    Attributes:
        lines: What it shows.
        states: The text that it showed after each piece of output.
        escapes: True if an escape sequence came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.states: list[str] = []
        self.escapes = False
        self._line = self._column = 0

    def isatty(self) -> bool:
        """True, as it is one."""
        return True

    def write(self, text: str, /) -> int:
        """Show a piece of output."""
        self.escapes = self.escapes or "\x1b" in text
        for sign in text.replace(_UP, "\v"):
            self._show_sign(sign)
        self.states.append(self.text)
        return len(text)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(line.rstrip() for line in self.lines)

    def _show_sign(self, sign: str) -> None:
        if sign == "\r":
            self._column = 0
        elif sign == "\v":
            self._line, self._column = self._line - 1, min(self._column, COLUMNS - 1)
        elif sign == "\n":
            self._go_down()
            self._column = 0
        else:
            assert sign.isprintable(), repr(sign)
            if self._column == COLUMNS:
                self._go_down()
                self._column = 0
            line = self.lines[self._line].ljust(self._column)
            self.lines[self._line] = line[: self._column] + sign + line[self._column + 1 :]
            self._column += 1

    def _go_down(self) -> None:
        self._line += 1
        if self._line == len(self.lines):
            self.lines.append("")


def on_terminal(arguments: Sequence[str], *, tells_size: bool = True, **variables: str) -> tuple[Screen, int]:
    """Run the installed command with its log on a terminal; returns the exit code, too."""
    ours, theirs = pty.openpty()
    if tells_size:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = Screen()
    with open(ours, "rb", buffering=0) as output:  # noqa: PTH123 - a descriptor
        process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment(**variables),
        )
        os.close(theirs)
        try:
            while piece := output.read(65536):
                screen.write(piece.decode("ascii" if variables.get("LC_ALL") == "C" else "utf-8"))
        except OSError:  # how Linux says that the other end is closed
            pass
        return screen, process.wait()
