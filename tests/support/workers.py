"""Workers that do what a test says, and what tests see of real ones."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_braze_export.workers.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.workers.file_reader import ReadResult

SECONDS = 30
"""The longest that a test waits for another process."""


class FakeExecutor(Executor):
    """Workers that begin and finish files when a test says so.

    Args:
        capacity: As of a real executor.
        while_waiting: What happens while the run waits.

    Attributes:
        futures: Those of all files that were submitted, by the files' names.
        waits: Seconds of each wait.
    """

    def __init__(self, capacity: int, while_waiting: Callable[[FakeExecutor], object] | None = None) -> None:
        self.capacity = capacity
        self.futures: dict[str, Future[ReadResult]] = {}
        self.waits: list[float] = []
        self.submitted: list[str] = []
        self.is_closed = False
        self._while_waiting = while_waiting

    def submit(self, file: DeliveredFile) -> Future[ReadResult]:
        self.submitted.append(file.name)
        future = self.futures[file.name] = Future()
        return future

    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        assert not seconds or all(future.running() for future in futures)
        if seconds:
            self.waits.append(seconds)
            if self._while_waiting:
                self._while_waiting(self)

    def close(self) -> None:
        self.is_closed = True

    @property
    def waiting(self) -> list[str]:
        """Files that a worker may begin."""
        return [name for name, future in self.futures.items() if not future.running() and not future.done()]

    @property
    def begun(self) -> list[str]:
        """Files that a worker is reading."""
        return [name for name, future in self.futures.items() if future.running()]

    def begin(self, *names: str) -> None:
        """Have workers begin files."""
        for name in names:
            assert self.futures[name].set_running_or_notify_cancel(), f"the run reads {name}"

    def finish(self, name: str, result: ReadResult | Exception) -> None:
        """Have a worker finish a file that it has begun."""
        if isinstance(result, Exception):
            self.futures[name].set_exception(result)
        else:
            self.futures[name].set_result(result)


def children(pid: int) -> list[int]:
    """Processes that a process has started, by any of its threads."""
    listed = (path.read_text("ascii") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(number) for numbers in listed for number in numbers.split()]


def wait_for(found: Callable[[], Any]) -> Any:
    """Call a function until what it returns is true, and return that."""
    end = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < end
        os.sched_yield()
    return result


def have_ended(pids: list[int]) -> bool:
    """True if none of these processes is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
    return True
