"""Runs the tap's command again and again, and kills it at a step that leaves a trace.

`python -m tests.support.killed_runs` imports the tap once and makes a copy of itself for each run, which takes a
hundredth of the time of a start. A copy counts its steps: each open for writing, rename, removal and write to standard
output. Before its n-th step it sends itself a signal; a write is half done by then.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from tap_braze_export.clock import Clock
from tests.support.runs import Output, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_braze_export.clock import Signals

_STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REAL_SECONDS = 0.002
"""Length of a wait on the hasty clock, so that threads get on."""
_TICK = 0.001
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
        folder: Receives their configuration and output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killed_runs"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(OPENBLAS_NUM_THREADS="1"),
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

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
        output, log = self._folder / "output", self._folder / "log"
        request = {"arguments": arguments, "steps": steps, "signal": sends, "now": now, "speed": speed}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request | {"output": str(output), "log": str(log)}) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        content = output.read_bytes()
        whole_lines = content[: content.rfind(b"\n") + 1]
        return KilledOutput(whole_lines, code, log.read_text())


class _HastyClock(Clock):
    """A clock whose waits take next to no time, and that runs ahead of the real one."""

    def __init__(self, now: float, speed: float, signals: Signals) -> None:
        super().__init__(signals)
        self._now = now
        self._speed = speed
        self._began = time.monotonic()

    @override
    def now(self) -> float:
        self._now += _TICK
        return self._now + (time.monotonic() - self._began) * self._speed

    @override
    def sleep(self, seconds: float) -> None:
        time.sleep(_REAL_SECONDS)
        self._now += max(0.0, seconds)


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


def _main() -> None:
    import numpy.ma  # noqa: F401 - numpy imports it late

    from tap_braze_export.fingerprints import lifecycle  # noqa: F401 - imported before the copies are made
    from tap_braze_export.tap import TapBrazeExport

    TapBrazeExport(config={}, validate_config=False, setup_mapper=False)  # imports and compiles the rest
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if child := os.fork():
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            sys.stdout.write(f"{code}\n")
            sys.stdout.flush()
            continue
        for path, descriptor in ((request["output"], 1), (request["log"], 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.dump_traceback_later(_LONGEST_RUN_SECONDS, exit=True)
        steps = _Steps(request["steps"], request["signal"])
        sys.addaudithook(steps.audit)

        class CountedTap(TapBrazeExport):
            """The tap with an output that counts writes, in place of the one that its command has installed."""

            if request["now"] is not None:
                clock = _HastyClock(request["now"], request["speed"], TapBrazeExport.signals)

            @override
            def __init__(self, *args: Any, **options: Any) -> None:
                output = _CountedOutput(steps, request["signal"])  # noqa: B023 - in a process of its own
                sys.stdout = io.TextIOWrapper(output, write_through=True)
                super().__init__(*args, **options)

        try:
            CountedTap.cli(request["arguments"])
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)  # the interpreter's own end takes longer


if __name__ == "__main__":
    _main()
