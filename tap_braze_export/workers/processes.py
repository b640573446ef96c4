"""Processes that read files: spawned, fed over a pipe each, and gone with the run, however it ends."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING

from typing_extensions import override

from tap_braze_export.clock import WAIT_SLICE_SECONDS
from tap_braze_export.errors import TapError
from tap_braze_export.workers.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    """The number of processes that read beside the run, which is one of `workers`: no more than cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(workers - 1, cores) if workers else min(cores, _MOST_AUTOMATIC) - 1


def environment(*, for_cloud: bool) -> dict[str, str]:
    """The environment of processes that read: no secret, unless it is `for_cloud`, whose libraries may look for one."""

    def is_kept(name: str) -> bool:
        if for_cloud:
            return not name.startswith(_SETTINGS_PREFIXES)
        return name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)

    return {name: value for name, value in os.environ.items() if is_kept(name)}


class Processes(Executor):
    """Reads files in processes, one thread here for each of them.

    Not `ProcessPoolExecutor`: its processes inherit every variable, import the SDK with the main module, and outlive
    a run that is killed; and it counts files as begun that only wait in its queue.

    Args:
        reader: Reads the files; each process gets a copy.
        count: Processes at most. Each is started when there is a file for it.
        variables: The environment of the processes.
    """

    def __init__(self, reader: FileReader, count: int, variables: Mapping[str, str]) -> None:
        self.capacity = 2 * count
        self._reader = reader
        self._variables = variables
        self._threads = ThreadPoolExecutor(count)
        self._lock = threading.Lock()
        self._processes: list[_Process] = []
        self._of_thread = threading.local()
        self._is_closed = False

    @override
    def submit(self, file: DeliveredFile) -> Future[ReadResult]:
        return self._threads.submit(self._read, file)

    @override
    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown()  # at once, as nobody writes to their pipes any more

    def _read(self, file: DeliveredFile) -> ReadResult:
        if not hasattr(self._of_thread, "process"):
            self._of_thread.process = self._started()
        process: _Process = self._of_thread.process
        result = process.read(file)
        if isinstance(result, TapError):
            raise result
        return result

    def _started(self) -> _Process:
        with self._lock:
            if self._is_closed:
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
            self._send(reader)

    def read(self, file: DeliveredFile) -> ReadResult | TapError:
        """Have a file read, and wait for its rows or its error.

        Raises:
            TapError: If the process has died.
        """
        try:
            self._send(file)
            result: ReadResult | TapError = self._connection.recv()
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

    def _send(self, value: FileReader | DeliveredFile) -> None:
        # Not the connection's own `send`: from Python 3.13 on, its buffer complains as the interpreter ends if the
        # other end is closed.
        self._connection.send_bytes(pickle.dumps(value))

    def _ending(self) -> str:
        try:
            code = self._process.wait(WAIT_SLICE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
