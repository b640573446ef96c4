"""Programs that are imported once: each run is a copy of the process that has imported them.

Python needs half a second for the tap's imports and more for a loader's, and the tests start them some two hundred
times. A copy differs from a new process in its arguments as `ps` shows them, and in nothing that is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.preloaded_server import NUMBER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SERVER = Path(__file__).with_name("preloaded_server.py")


class Copy:
    """A running copy, which is used like `subprocess.Popen`; standard output is a pipe.

    Args:
        report: Says the process id, and at the end the exit code.
        stdout: The end of the pipe that is read.
    """

    def __init__(self, report: int, stdout: int) -> None:
        self._report = report
        self.pid = _number(report)
        self.stdout = os.fdopen(stdout, "rb")
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while the copy runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, at most so many seconds."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = _number(self._report)
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the copy has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _number(report: int) -> int:
    """The next number of a report; the server writes each with as many bytes."""
    return int.from_bytes(os.read(report, NUMBER_BYTES), signed=True)


class Preloaded:
    """A program that has been imported.

    Args:
        python: The interpreter of its environment.
        entry: The name of its console script, or `module:function`.
        modules: What it would import late.
        library: A shared library whose functions take the place of the C library's; each copy sees its own variables.
    """

    def __init__(self, python: str, entry: str, *modules: str, library: Path | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        names = ("PATH", "HOME", "LANG", "TMPDIR")
        self._lock = threading.Lock()
        self._requests = ours
        with theirs:
            self._server = subprocess.Popen(
                [python, "-P", str(_SERVER), str(theirs.fileno()), entry, *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={
                    **{name: os.environ[name] for name in names if name in os.environ},
                    "OPENBLAS_NUM_THREADS": "1",
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    **({"LD_PRELOAD": str(library)} if library else {}),
                },
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def close(self) -> None:
        """End the server; copies that run go on."""
        atexit.unregister(self.close)
        self._requests.close()
        self._server.wait()

    def start(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        stderr: int,
        stdin: int | None = None,
        cwd: Path | None = None,
        new_session: bool = False,
    ) -> Copy:
        """Start a copy.

        Args:
            arguments: What the command line would have after the program.
            env: All environment variables.
            stderr: Receives standard error.
            stdin: Standard input; None for none.
            cwd: Its working directory.
            new_session: True to start it in a group of its own.
        """
        request = {"arguments": [*arguments], "env": {**env}, "cwd": str(cwd or Path.cwd()), "session": new_session}
        report, reported = os.pipe()
        output, written = os.pipe()
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
            descriptors = [nothing.fileno() if stdin is None else stdin, written, stderr, reported]
            with self._lock:
                socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
        os.close(written)
        os.close(reported)
        return Copy(report, output)

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        timeout: float,
        content: bytes = b"",
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a copy to its end, with this content as standard input."""
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
            stdin.write(content)
            stdin.seek(0)
            copy = self.start(arguments, env=env, stdin=stdin.fileno(), stderr=stderr.fileno(), cwd=cwd)
            late = threading.Timer(timeout, copy.kill)
            late.start()
            with copy:
                stdout = copy.stdout.read()
            late.cancel()
            stderr.seek(0)
            return subprocess.CompletedProcess([*arguments], copy.wait(), stdout, stderr.read())


@functools.cache
def tap() -> Preloaded:
    """The installed command."""
    return Preloaded(
        sys.executable,
        "tap-braze-export",
        "numpy.ma",
        "pyarrow.parquet",
        "s3fs",
        "tap_braze_export.fingerprints.lifecycle",
        "tap_braze_export.preflight",
    )


@functools.cache
def program(python: str, entry: str) -> Preloaded:
    """A program of another environment."""
    return Preloaded(python, entry)
