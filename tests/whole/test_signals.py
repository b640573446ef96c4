"""SIGTERM, SIGINT and a closed pipe end the installed command as they should."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import preloaded
from tests.support.runs import COMMAND, environment, settings, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 30
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
_SMALLEST_PIPE = 4096


class Running:
    """The running command; its standard output is a small pipe, which is read only when a test says so."""

    def __init__(self, folder: Path, config: dict[str, Any], *arguments: str) -> None:
        self.log = folder / "stderr.txt"
        self.output = b""
        with self.log.open("wb") as log:
            self.process = preloaded.tap().start(
                ["--config", written(folder, config), *arguments], env=environment(), stderr=log.fileno()
            )
        self._pipe = self.process.stdout.fileno()
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _SMALLEST_PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=TIMEOUT_SECONDS)
        self.close()

    def read(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Read until there is enough, or to the end."""
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while not enough():
            ready, _, _ = select.select([self._pipe], [], [], 0.05)
            if ready:
                piece = os.read(self._pipe, 65536)
                if not piece:
                    return
                self.output += piece
            assert time.monotonic() < give_up, self.stderr

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition without reading from the pipe."""
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            select.select([], [], [], 0.05)
            assert time.monotonic() < give_up, self.stderr

    def until_stuck(self) -> None:
        """Wait until the pipe has been full for a while, so that the command hangs in a write."""
        sizes: list[int] = []

        def full() -> bool:
            sizes.append(int.from_bytes(fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4)), sys.byteorder))
            return len(sizes) > 10 and sizes[-1] > 0 and set(sizes[-10:]) == {sizes[-1]}

        self.until(full)

    @contextlib.contextmanager
    def ending_within(self, seconds: float) -> Iterator[None]:
        """Check that the command ends in this time after the block."""
        started = time.monotonic()
        yield
        self.process.wait(timeout=TIMEOUT_SECONDS)
        assert time.monotonic() - started < seconds

    def close(self) -> None:
        """Read no more."""
        self.process.stdout.close()

    @property
    def stderr(self) -> str:
        return self.log.read_text("utf-8")

    @property
    def kinds(self) -> list[str]:
        """The types of the messages read so far, which must be whole lines."""
        assert not self.output or self.output.endswith(b"\n")
        return [json.loads(line)["type"] for line in self.output.splitlines()]

    def ended_quietly(self) -> bool:
        """True if the log has no error and no traceback."""
        log = self.stderr
        return not any(word in log for word in ("| ERROR", "Traceback", "Exception", "Unforeseen"))


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.fault(
    "Loader and signals", "SIGTERM or SIGINT while Braze works", "143 or 130 within 5 seconds, no STATE that is not due"
)
def test_while_waiting_for_braze(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The run ends, says so, and writes nothing more."""
    with (
        Sandbox(users=5, hold=True) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.read(lambda: b'"STATE"' in tap.output)
        tap.until(lambda: any(call.service == "download" for call in sandbox.calls))
        before = tap.output
        with tap.ending_within(5):
            tap.process.send_signal(number)
            tap.read()
        assert tap.process.returncode == code
    assert tap.output == before
    assert tap.kinds.count("STATE") == 1
    assert number.name in tap.stderr
    assert tap.ended_quietly()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.fault("Loader and signals", "SIGTERM or SIGINT during a download", "143 or 130 within 5 seconds")
def test_while_downloading(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A slow download does not delay the end; the next run continues from the STATE."""
    with (
        Sandbox(users=9000, faults=["slow-download"]) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        parts = tmp_path / "spool" / "exports"
        tap.read(lambda: parts.exists() and any(path.stat().st_size for path in parts.rglob("*.part")))
        before = tap.output
        with tap.ending_within(5):
            tap.process.send_signal(number)
            tap.read()
        assert tap.process.returncode == code
    assert tap.output == before
    assert tap.kinds == ["STATE"]
    assert tap.ended_quietly()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.fault(
    "Loader and signals", "SIGTERM or SIGINT while rows are written", "143 or 130 within 5 seconds, whole lines"
)
def test_while_writing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A reader that pauses and goes on gets whole lines, and no STATE for the unfinished file."""
    with (
        Sandbox(users=3000) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.read(lambda: len(tap.output) > 100_000)
        tap.until_stuck()
        with tap.ending_within(5):
            tap.process.send_signal(number)
            tap.read()
        assert tap.process.returncode == code
    assert tap.kinds.count("STATE") == 1
    assert tap.kinds[-1] == "RECORD"
    assert tap.ended_quietly()


@pytest.mark.fault("Loader and signals", "SIGTERM while no response comes", "143 within 6 seconds")
def test_while_no_response_comes(tmp_path: Path) -> None:
    """A request that hangs is broken off."""
    with (
        Sandbox(users=5) as sandbox,
        Silent() as address,
        Running(tmp_path, settings(sandbox, tmp_path, api_url=address.url)) as tap,
    ):
        tap.read(address.has_connection)
        with tap.ending_within(6):
            tap.process.send_signal(signal.SIGTERM)
            tap.read()
        assert tap.process.returncode == 143
    assert not tap.kinds
    assert tap.ended_quietly()


class Silent:
    """A server that accepts connections and never responds."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0)
        self._connections: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def has_connection(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._connections.append(self._socket.accept()[0])
        return bool(self._connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in (*self._connections, self._socket):
            opened.close()


@pytest.mark.fault("Loader and signals", "SIGTERM while the loader does not read", "143 within 6 seconds")
def test_reader_that_never_reads(tmp_path: Path) -> None:
    """A full pipe cannot keep the run alive."""
    with (
        Sandbox(users=3000) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.read(lambda: b'"RECORD"' in tap.output)
        tap.until_stuck()
        with tap.ending_within(6):
            tap.process.send_signal(signal.SIGTERM)
        assert tap.process.returncode == 143
    assert tap.ended_quietly()


def test_reader_that_stops_before_the_first_record(tmp_path: Path) -> None:
    """Not even while a SCHEMA message is flushed."""
    with (
        Sandbox(users=5) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.until_stuck()
        with tap.ending_within(6):
            tap.process.send_signal(signal.SIGTERM)
        assert tap.process.returncode == 143
    assert tap.ended_quietly()


@pytest.mark.fault("Loader and signals", "two signals", "as one")
def test_second_signal_changes_nothing(tmp_path: Path) -> None:
    """Orchestrators are impatient: SIGINT, then SIGTERM."""
    with (
        Sandbox(users=5, hold=True) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.read(lambda: b'"STATE"' in tap.output)
        with tap.ending_within(5):
            tap.process.send_signal(signal.SIGINT)
            tap.process.send_signal(signal.SIGTERM)
            tap.read()
        assert tap.process.returncode in (130, 143)
    assert tap.ended_quietly()


@pytest.mark.parametrize("enough", [10, 200_000])
@pytest.mark.fault("Loader and signals", "broken pipe", "ends quietly, without a traceback")
def test_closed_pipe(tmp_path: Path, enough: int) -> None:
    """`| head` ends the run with neither an error line nor a traceback."""
    with (
        Sandbox(users=3000) as sandbox,
        Running(tmp_path, settings(sandbox, tmp_path)) as tap,
    ):
        tap.read(lambda: len(tap.output) > enough)
        with tap.ending_within(10):
            tap.close()
        assert tap.process.returncode != 0
    assert tap.ended_quietly()
    assert "Broken pipe" not in tap.stderr


def test_closed_pipe_of_the_catalog(tmp_path: Path) -> None:
    """`--discover | head -n 1`."""
    with Sandbox(users=0) as sandbox, Running(tmp_path, settings(sandbox, tmp_path), "--discover") as tap:
        tap.read(lambda: len(tap.output) > 10)
        with tap.ending_within(10):
            tap.close()
    assert tap.ended_quietly()
    assert "Broken pipe" not in tap.stderr


@pytest.mark.parametrize("mode", [(), ("--discover",)])
def test_loader_that_reads_nothing(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """One quiet line and the documented code; Python's development mode shows what 3.13 and later say of their own."""
    with Sandbox(users=20, delay=0) as sandbox:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-X", "dev", COMMAND, "--config", written(tmp_path, settings(sandbox, tmp_path)), *mode],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            encoding="utf-8",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        os.close(writer)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].endswith("| Ended: nobody reads the output any more")
    assert done.stderr.count("nobody reads") == 1
    assert not [text for text in ("Traceback", "Exception ignored", "| ERROR", "Broken pipe") if text in done.stderr]


@pytest.mark.fault("Loader and signals", "a run after a signal", "goes on with the same export")
def test_run_after_a_signal_continues(tmp_path: Path) -> None:
    """The second run adopts the export that the first one left, and asks for no other."""
    with Sandbox(users=5, hold=True) as sandbox:
        config = settings(sandbox, tmp_path, poll_interval_seconds=1)
        with Running(tmp_path, config) as tap:
            tap.read(lambda: b'"STATE"' in tap.output)
            tap.process.send_signal(signal.SIGTERM)
            tap.read()
        (state,) = [line for line in tap.output.splitlines() if b'"STATE"' in line]
        sandbox.finish_exports()
        path = written(tmp_path, json.loads(state)["value"], "state.json")
        with Running(tmp_path, config, "--state", path) as again:
            again.read()
            again.process.wait(timeout=TIMEOUT_SECONDS)
        assert len([call for call in sandbox.calls if call.method == "POST"]) == 1
    assert again.process.returncode == 0, again.stderr
    assert again.kinds.count("STATE") >= 1
    assert again.output.count(b'"stream":"users"') == 6  # one SCHEMA and five users
