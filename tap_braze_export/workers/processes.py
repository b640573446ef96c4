"""Processes that read files: spawned, fed over a pipe each, and gone with the run, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from multiprocessing.connection import Pipe, wait
from typing import TYPE_CHECKING

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import TapError

if TYPE_CHECKING:
    from tap_braze_export.clock import Clock
    from tap_braze_export.workers.file_reader import FileReader, Job, Result

    Answer = Future[Result]

_MOST = 8  # the one process that writes keeps no more of them busy
_LOOK_SECONDS = 0.2
_QUEUED = 2
"""Jobs that a process is given at a time, so that it never waits for the next one."""


def sensible_count() -> int:
    """How many processes are worth their while on this machine: one for each core that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST)


class Processes:
    """An executor: `submit` gives a future at once, `result` waits for it.

    No thread runs here: what the processes have done is looked at while somebody waits.

    Args:
        reader: Goes to each process, and reads the files there.
        count: How many.
        clock: Tells whether the run was told to end.
    """

    def __init__(self, reader: FileReader, count: int, *, clock: Clock) -> None:
        self._reader = reader
        self._count = count
        self._clock = clock
        self._jobs: deque[tuple[Job, Answer]] = deque()
        self._processes: list[_Process] = []

    def start(self) -> None:
        """Start all processes before there is a job: that takes as long as two thousand users."""
        while len(self._processes) < self._count:
            self._processes.append(_Process(self._reader, self._clock))

    def submit(self, job: Job) -> Answer:
        """Have a file read."""
        future: Answer = Future()
        self._jobs.append((job, future))
        self._feed()
        return future

    def result(self, future: Answer) -> Result:
        """What a file gives, see `FileReader.read`.

        Raises:
            TapError: If it cannot be read, or its process has died.
        """
        while not future.done():
            if self._clock.stopped:
                raise Interruption
            self._look()
        return future.result()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
        self._processes.clear()

    def _feed(self) -> None:
        while self._jobs:
            if not (process := self._free()):
                return
            process.begin(*self._jobs.popleft())

    def _free(self) -> _Process | None:
        """An idle process, else a new one, else one that will be done soon."""
        if any(not process.futures for process in self._processes) or len(self._processes) == self._count:
            process = min(self._processes, key=lambda process: len(process.futures))
            return process if len(process.futures) < _QUEUED else None
        self._processes.append(_Process(self._reader, self._clock))
        return self._processes[-1]

    def _look(self) -> None:
        by_connection = {process.connection: process for process in self._processes if process.futures}
        for connection in wait([*by_connection], _LOOK_SECONDS):
            by_connection[connection].end()  # type: ignore[index]
        self._feed()


class _Process:
    """One process, and the futures of the jobs that it has, in order."""

    def __init__(self, reader: FileReader, clock: Clock) -> None:
        self._clock = clock
        self.futures: deque[Answer] = deque()
        self.connection, theirs = Pipe()
        descriptor = theirs.fileno()
        # A session of its own: a terminal's Ctrl-C reaches this process only, which ends that one.
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", "tap_braze_export.workers.worker", str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
        )
        theirs.close()
        self._send(reader)

    def begin(self, job: Job, future: Answer) -> None:
        """Hand a job over."""
        self.futures.append(future)
        self._send(job)

    def end(self) -> None:
        """Take the result of the first job."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        future = self.futures.popleft()
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def kill(self) -> None:
        """End it at once."""
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, what: FileReader | Job) -> None:
        try:
            self.connection.send(what)
        except OSError:
            raise self._death() from None

    def _death(self) -> BaseException:
        if self._clock.stopped:
            return Interruption()  # the signal met it, too, before it had a session of its own
        try:
            code = self._process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return TapError(
            f"a process that reads files {how}, perhaps for lack of memory: run again, the next run continues from the "
            "last STATE; if it happens again set fewer workers"
        )
