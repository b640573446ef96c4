"""Runs the tap's command again and again, and kills it at a step that leaves a trace.

Each run is a copy of a process that has imported the tap. It counts its steps: each open for writing, rename, removal
and write to standard output. Before its n-th step it sends itself a signal; a write is half done by then.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from tap_braze_export.clock import Clock
from tap_braze_export.tap import TapBrazeExport
from tests.support.preloaded import Preloaded
from tests.support.runs import Output, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.clock import Signals

_STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REAL_SECONDS = 0.002
"""Length of a wait on the hasty clock, so that threads get on."""
_TICK = 0.001
_LATE = ("numpy.ma", "tap_braze_export.fingerprints.lifecycle")
"""What a run would import."""
_LONGEST_RUN_SECONDS = 100
"""A run that takes longer hangs: it ends, with the stacks of its threads in its log."""


@dataclass
class KilledOutput(Output):
    """The output of a run until it ended or was killed.

    Attributes:
        code: The exit code; -9 if it was killed.
        log: The log.
    """

    code: int
    log: str


class Runner:
    """Makes runs; a context manager.

    Args:
        folder: Receives their configuration, catalog and STATE.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._program = Preloaded(sys.executable, "tests.support.killed_runs:main", *_LATE)
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()

    def run(
        self,
        config: Mapping[str, Any],
        catalog: Mapping[str, Any],
        state: Any,
        *,
        steps: int | None = None,
        sends: signal.Signals = signal.SIGKILL,
        now: float | None = None,
        speed: float = 1.0,
    ) -> KilledOutput:
        """Run the command.

        Args:
            config: Its settings.
            catalog: Its catalog.
            state: Its STATE; None for none.
            steps: The signal is sent after so many steps; None to let the run end.
            sends: The signal.
            now: The time at its begin, on a clock whose waits take no time; None for the real one.
            speed: Seconds of that clock in a second.
        """
        arguments = []
        for option, content in {"config": config, "catalog": catalog, "state": state}.items():
            if content is not None:
                path = self._folder / f"{option}.json"
                path.write_text(json.dumps(content))
                arguments += [f"--{option}", str(path)]
        request = {"arguments": arguments, "steps": steps, "signal": sends, "now": now, "speed": speed}
        ended = self._program.run([json.dumps(request)], env=environment(), timeout=2 * _LONGEST_RUN_SECONDS)
        whole_lines = ended.stdout[: ended.stdout.rfind(b"\n") + 1]
        return KilledOutput(whole_lines, ended.returncode, ended.stderr.decode())


class _HastyClock(Clock):
    """A clock whose waits take next to no time, and that runs ahead of the real one."""

    def __init__(self, now: float, speed: float, signals: Signals) -> None:
        self._now = now
        self._passed = 0.0
        self._speed = speed
        self._real_began = time.monotonic()
        super().__init__(signals)

    @override
    def now(self) -> float:
        return self._now + self.monotonic()

    @override
    def monotonic(self) -> float:
        self._passed += _TICK
        return self._passed + (time.monotonic() - self._real_began) * self._speed

    @override
    def sleep(self, seconds: float) -> None:
        time.sleep(_REAL_SECONDS)
        self._passed += max(0.0, seconds)


class _Steps:
    """Counts the steps of this process and sends it a signal.

    Args:
        left: Steps until then; None for never.
        sends: The signal.
    """

    def __init__(self, left: int | None, sends: int) -> None:
        self._left = left
        self._sends = sends

    def is_last(self) -> bool:
        """Count a step; True if the signal is due."""
        if self._left is None:
            return False
        self._left -= 1
        return self._left == -1

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count what is done with files."""
        is_step = event in _STEPS or (event == "open" and arguments[2] & _WRITES)
        if is_step and self.is_last():
            os.kill(os.getpid(), self._sends)


class _CountedOutput(io.FileIO):
    """Standard output without a buffer, as if each row were longer than one: what was written has left.

    Args:
        steps: Counts its writes.
        sends: The signal that is sent while one of them is half done.
    """

    def __init__(self, steps: _Steps, sends: int) -> None:
        super().__init__(1, "w", closefd=False)
        self._steps = steps
        self._sends = sends

    @override
    def write(self, content: Any) -> int:
        half = len(content) // 2 if self._steps.is_last() else 0
        if half:
            super().write(memoryview(content)[:half])
            os.kill(os.getpid(), self._sends)
        super().write(memoryview(content)[half:])
        return len(content)


def main() -> None:
    """Run the command as the one argument says it."""
    request = json.loads(sys.argv[1])
    faulthandler.dump_traceback_later(_LONGEST_RUN_SECONDS, exit=True)
    steps = _Steps(request["steps"], request["signal"])
    sys.addaudithook(steps.audit)

    class CountedTap(TapBrazeExport):
        """The tap with an output that counts writes, in place of the one that its command has installed."""

        if request["now"] is not None:
            clock = _HastyClock(request["now"], request["speed"], TapBrazeExport.signals)

        @override
        def __init__(self, *args: Any, **options: Any) -> None:
            sys.stdout = io.TextIOWrapper(_CountedOutput(steps, request["signal"]), write_through=True)
            super().__init__(*args, **options)

    try:
        CountedTap.cli(request["arguments"])
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)  # the interpreter's own end takes longer
