"""Dask schedulers and workers of their own, which tests may end, and workers that die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client, LocalCluster, WorkerPlugin

from tests.support.workers import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

DASK = str(Path(sys.executable).with_name("dask"))
ANY_PORT = "127.0.0.1:0"


@contextmanager
def dask_process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or worker of an environment that has no tap."""
    (folder / "without").mkdir(exist_ok=True)
    (folder / "without" / "tap_braze_export.py").write_text("raise ModuleNotFoundError('No module named this')")
    # Other versions of what does not matter are no reason for a table of them in the log.
    (folder / "without" / "lz4-0.0.dist-info").mkdir(exist_ok=True)
    (folder / "without" / "lz4-0.0.dist-info" / "METADATA").write_text("Name: lz4\nVersion: 0.0\n")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with (folder / f"{arguments[0]}.txt").open("wb") as log:
        process = subprocess.Popen(
            [DASK, *arguments, "--scheduler-file", str(folder / "scheduler.json"), "--dashboard-address", ANY_PORT],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**kept, "PYTHONPATH": str(folder / "without")},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler without workers, and its address."""
    with dask_process(folder, "scheduler", "--host", "127.0.0.1", "--port", "0") as process:
        yield process, wait_for(lambda: _address(folder))


def _address(folder: Path) -> str:
    """The address of a scheduler, empty until it has one."""
    with suppress(FileNotFoundError, ValueError):
        address: str = json.loads((folder / "scheduler.json").read_text())["address"]
        return address
    return ""


@contextmanager
def deadly(cluster: LocalCluster, marker: Path | None) -> Iterator[None]:
    """Workers die as soon as they begin a file: one of them, which makes the marker, or all."""

    class Deadly(WorkerPlugin):  # type: ignore[misc]
        name = "deadly"

        def transition(self, key: object, start: str, finish: str, **_: Any) -> None:
            if finish == "executing" and str(key).startswith("tap-braze-export"):
                if marker is not None:
                    try:
                        marker.touch(exist_ok=False)
                    except FileExistsError:
                        return
                os.kill(os.getpid(), 9)

    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Deadly())
        try:
            yield
        finally:
            client.unregister_worker_plugin("deadly")
            client.wait_for_workers(2)
