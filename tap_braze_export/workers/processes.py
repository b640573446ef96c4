"""Processes that read files: spawned, fed over a pipe each, and gone with the run, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

from tap_braze_export.clock import WAIT_SLICE_SECONDS
from tap_braze_export.errors import TapError
from tap_braze_export.http.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from concurrent.futures import Future

    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.workers.file_reader import FileReader, ReadResult

_MOST_AUTOMATIC = 8  # the one process that writes keeps no more of them busy
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TMPDIR", "TZ")
_KEPT_PREFIXES = ("LC_", "LD_", "DYLD_", "MALLOC_", "PYTHON")
"""Variables that an interpreter and its libraries need."""
_SETTINGS_PREFIXES = ("TAP_", "TARGET_", "MELTANO_")
"""Variables that hold settings of taps and loaders, with their secrets."""


def process_count(workers: int) -> int:
    """Return the number of processes that read beside the run, which is one of the workers: no more than cores.

    Args:
        workers: The setting; 0 for a worker for each core, at most eight.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(workers - 1, cores) if workers else min(cores, _MOST_AUTOMATIC) - 1


def environment(*, for_cloud: bool) -> dict[str, str]:
    """Return the environment of processes that read: they get what they need from the run, and no secret beside it.

    Args:
        for_cloud: True to keep what libraries of clouds may look for.
    """
    if for_cloud:
        return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS_PREFIXES)}
    return {
        name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }


class Processes:
    """An executor that reads files in processes, one thread here for each of them.

    Args:
        reader: Reads the files; each process gets a copy.
        count: Processes at most. Each is started when there is a file for it.
        at_once: True to start the first one now.
        variables: The environment of the processes.

    Attributes:
        capacity: A file for each process, and its next one, so that it never waits for the run.
    """

    def __init__(
        self, reader: FileReader, count: int, *, at_once: bool = False, variables: Mapping[str, str] | None = None
    ) -> None:
        self.capacity = 2 * count
        self._reader = reader
        self._variables = environment(for_cloud=False) if variables is None else variables
        self._threads = DaemonThreads(count)
        self._lock = threading.Lock()
        self._processes: list[_Process] | None = []
        self._idle = [self._started() for _ in range(min(count, 1) if at_once else 0)]

    def submit(self, file: DeliveredFile) -> Future[ReadResult]:
        """See `Executor`."""
        return self._threads.submit(self._read, file)

    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        """See `Executor`."""
        wait(futures, seconds, FIRST_COMPLETED)

    def close(self) -> None:
        """See `Executor`."""
        self._threads.shutdown()
        with self._lock:
            processes, self._processes = self._processes, None
        for process in processes or ():
            process.kill()

    def _read(self, file: DeliveredFile) -> ReadResult:
        try:
            process = self._idle.pop()
        except IndexError:
            process = self._started()
        result = process.read(file)
        self._idle.append(process)
        if isinstance(result, Exception):
            raise result
        return result

    def _started(self) -> _Process:
        with self._lock:
            if self._processes is None:
                raise TapError("the run has ended")
            self._processes.append(process := _Process(self._reader, self._variables))
            return process


class _Process:
    """One process, and the pipe to it."""

    def __init__(self, reader: FileReader, variables: Mapping[str, str]) -> None:
        self._connection, theirs = Pipe()
        descriptor = theirs.fileno()
        # A session of its own: a terminal's Ctrl-C reaches the run only, which ends its processes.
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-m", "tap_braze_export.workers.worker", str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
            env=variables,
            start_new_session=True,
        )
        theirs.close()
        with suppress(OSError):  # it died at once, which the first file will show
            self._connection.send(reader)

    def read(self, file: DeliveredFile) -> ReadResult | Exception:
        """Have a file read, and wait for its rows or its error.

        Raises:
            TapError: If the process has died.
        """
        try:
            self._connection.send(file)
            result: ReadResult | Exception = self._connection.recv()
        except (EOFError, OSError):
            raise TapError(
                f"a process that reads files {self._ending()}, perhaps for lack of memory: run again, the next run "
                "continues from the last STATE; if it happens again set fewer workers"
            ) from None
        return result

    def kill(self) -> None:
        """End it at once. The pipe is closed with the last reference to it: a thread may be reading it."""
        self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        try:
            code = self._process.wait(WAIT_SLICE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
