"""Whole runs whose Dask cluster is missing, lost, or cannot run the tap; and settings that it does not go with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import ports
from tests.support.dask import dask_process, scheduler
from tests.support.runs import command, refusal, sync, written
from tests.support.worker_runs import ended, started
from tests.support.workers import wait_for
from tests.workers.test_runs_on_dask import delivering

if TYPE_CHECKING:
    from pathlib import Path

QUICKLY = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
pytestmark = pytest.mark.external


@pytest.mark.fault("Workers", "the Dask scheduler cannot be reached", "one line, before Braze is asked for anything")
def test_unreachable_scheduler(tmp_path: Path) -> None:
    """One line, before Braze is asked for anything."""
    address = f"tcp://127.0.0.1:{ports.free_port()}"
    with delivering(tmp_path) as (sandbox, given):
        done = command("--config", written(tmp_path, {**given, "dask_scheduler": address}), **QUICKLY)
        assert not sandbox.calls
    assert done.error == (
        f"the Dask scheduler at {address} cannot be reached (OSError): see that it runs, and that "
        "dask_scheduler names it"
    )
    assert not done.states


def test_address_that_is_none(tmp_path: Path) -> None:
    with delivering(tmp_path) as (sandbox, given):
        done = command("--config", written(tmp_path, {**given, "dask_scheduler": "nonsense"}))
        assert not sandbox.calls
    assert done.error == (
        "dask_scheduler nonsense cannot be used: ValueError (missing port number in address 'nonsense')"
    )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"batch_config": None}, "needs batch_config: its workers write batch files"),
        ({"bucket_url": None}, "needs bucket_url: its workers read files out of the bucket"),
        (
            {"stream_maps": {"users": {"mail": "email"}, "apps": None}},
            "does not go with stream_maps: its workers write rows as they are",
        ),
        ({"flattening_enabled": True}, "does not go with flattening_enabled: its workers write rows as they are"),
    ],
)
def test_settings_that_a_cluster_does_not_go_with(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    """Its workers turn files of the bucket into batch files, there is nothing else that they could do."""
    with delivering(tmp_path) as (sandbox, given):
        error = refusal("--config", written(tmp_path, {**given, "dask_scheduler": "tcp://127.0.0.1:1", **changed}))
        assert not sandbox.calls
    assert error == f"Configuration: dask_scheduler {problem}"


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with the command that installs it; without the setting nothing is missed."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with delivering(tmp_path) as (sandbox, given):
        error = refusal("--config", written(tmp_path, {**given, "dask_scheduler": "tcp://127.0.0.1:1"}))
        assert not sandbox.calls
        assert sync(given).states
    assert error == "Configuration: dask_scheduler needs: pip install 'tap-braze-export[dask]'"


def test_worker_without_the_tap(tmp_path: Path) -> None:
    """One line says what to install; the scheduler can do without."""
    with (
        delivering(tmp_path) as (_, given),
        scheduler(tmp_path) as (_, address),
        dask_process(tmp_path, "worker", "--no-nanny", "--nthreads", "1"),
    ):
        path = written(tmp_path, {**given, "dask_scheduler": address})
        done = command("--config", path)
        checked = command("--config", path, "--test")
    for error in (done.error, checked.error.removeprefix("Dask: ")):
        assert error.startswith("the Dask workers need tap-braze-export ")
        assert "and have none (No module named this): install it there" in error
    assert given["bucket_url"] not in (tmp_path / "worker.txt").read_text()  # nor anything else of a task


@pytest.mark.fault("Workers", "the Dask scheduler goes", "one line")
def test_lost_scheduler(tmp_path: Path) -> None:
    """A run that waits for a cluster ends with one line when that goes."""
    with delivering(tmp_path) as (_, given), scheduler(tmp_path) as (process, address):
        run = started(tmp_path, {**given, "dask_scheduler": address}, **QUICKLY)
        # The run has read a file, and not only tried the folder.
        wait_for(lambda: [*(tmp_path / "out").glob("tap-braze-export--*")])
        process.kill()
        done = ended(run, tmp_path)
    assert "the connection to the Dask scheduler at tcp://127.0.0.1:" in done.error
    assert "the next run continues from the last STATE" in done.error
