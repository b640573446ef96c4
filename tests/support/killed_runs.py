"""Runs the tap's command again and again, and kills it at a step that leaves a trace on the disk.

`python -m tests.support.killed_runs` imports the tap once and makes a copy of itself for each run, which takes a
hundredth of the time of a start. A copy kills itself, as `kill -9` would, at its n-th open for writing, rename or
removal.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.runs import Output, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


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
        self, config: Mapping[str, Any], catalog: Mapping[str, Any], state: Any, *, steps: int | None = None
    ) -> KilledOutput:
        """Run the command.

        Args:
            config: Its settings.
            catalog: Its catalog.
            state: Its STATE; None for none.
            steps: It is killed after so many steps; None to let it end.
        """
        arguments = []
        for option, content in {"config": config, "catalog": catalog, "state": state}.items():
            if content is not None:
                path = self._folder / f"{option}.json"
                path.write_text(json.dumps(content))
                arguments += [f"--{option}", str(path)]
        output, log = self._folder / "output", self._folder / "log"
        request = {"arguments": arguments, "steps": steps, "output": str(output), "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        content = output.read_bytes()
        whole_lines = content[: content.rfind(b"\n") + 1]
        return KilledOutput(whole_lines, code, log.read_text())


def _main() -> None:
    from tap_braze_export.fingerprints import lifecycle  # noqa: F401 - imported before the copies are made
    from tap_braze_export.tap import TapBrazeExport

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
        # Without a buffer, as if each row were longer than one: what was written before a kill has left.
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
        if request["steps"] is not None:
            _kill_after(request["steps"])
        TapBrazeExport.cli(request["arguments"])


def _kill_after(steps: int) -> None:
    left = steps

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in _STEPS or (event == "open" and arguments[2] & _WRITES):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    _main()
