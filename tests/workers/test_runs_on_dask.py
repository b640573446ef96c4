"""Whole runs with a Dask cluster: the rows are those of one process."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster

from tap_braze_export.sandbox import Sandbox
from tests.support import batches, clouds, ports
from tests.support.batches import config
from tests.support.dask import deadly
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.runs import Ended, Run, command, selecting, settings, sync, written
from tests.support.steps import posts
from tests.support.worker_runs import batch_rows, last_state, written_by_workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def delivering(folder: Path, **options: Any) -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    """A Braze with 60 users in six files, which come into a bucket; and the settings for it."""
    (folder / "bucket").mkdir()
    bucket: dict[str, Any] = {"bucket_url": str(folder / "bucket")}
    with Sandbox(**{"users": 60, "users_per_file": 10, "odd_users": False, **options}, **bucket) as sandbox:
        yield (
            sandbox,
            settings(sandbox, folder, **bucket, settle_minutes=0, batch_config=config(folder / "out", batch_size=25)),
        )


def both(given: dict[str, Any], cluster: LocalCluster, **options: Any) -> tuple[Run, Run]:
    """The run of one process, and one with the cluster."""
    one = sync(given, **options)
    return one, sync({**given, "dask_scheduler": cluster.scheduler_address}, **options)


def compare(one: Run, several: Run) -> None:
    """The same rows, STATE and counts."""
    for stream in one.schemas:
        assert batch_rows(several, stream) == batch_rows(one, stream), stream
    assert last_state(several) == last_state(one)
    assert several.metrics == one.metrics
    assert several.of_type("SCHEMA") == one.of_type("SCHEMA")
    assert not several.of_type("RECORD")


@pytest.mark.parametrize("delivery", at_night(["zip", "gzip"], but=["zip"]))
def test_output_is_that_of_one_process(cluster: LocalCluster, tmp_path: Path, delivery: str) -> None:
    """Row by row, a part for each file; the run writes what it reads, the workers the rest."""
    with delivering(tmp_path) as (_, given):
        one, several = both({**given, "output_format": delivery}, cluster)
    compare(one, several)
    assert len(batches.manifests(several)["devices"]) == 6
    assert written_by_workers(several, "devices")
    assert written_by_workers(several, "users")
    assert not [*(tmp_path / "spool" / "exports").iterdir()]


def test_odd_users(cluster: LocalCluster, tmp_path: Path) -> None:
    """They take the careful path there, too; lines that are no users come back and are kept here."""
    with delivering(tmp_path, odd_users=True, faults=["bad-line"]) as (_, given):
        one, several = both({**given, "max_rejected_lines": 2}, cluster)
    compare(one, several)
    assert [line for line in several.warnings if "2 lines are no user objects" in line]
    (kept,) = {path.read_bytes() for path in (tmp_path / "spool" / "rejected").iterdir()}
    assert kept.count(b"\n") == 2


def test_huge_file(cluster: LocalCluster, tmp_path: Path) -> None:
    """It becomes batch files block by block, whoever reads it."""
    people = [{"braze_id": f"b{number}", "custom_attributes": {"text": "x" * 100_000}} for number in range(800)]
    with delivering(tmp_path, users_per_file=1000) as (sandbox, given):
        sandbox.add_segment("large", people)
        given |= {"segment_ids": ["large"], "dask_scheduler": cluster.scheduler_address}
        run = sync(given, catalog=selecting(["users"]))
    assert {row["braze_id"] for row in batches.jsonl(run)["users"]} == {person["braze_id"] for person in people}
    assert len(batches.manifests(run)["users"]) > 1
    assert run.metrics["users"] == 800


def test_dry_run_and_resync(cluster: LocalCluster, tmp_path: Path) -> None:
    """A dry run is limited; a resync has no files for a cluster, and asks for none."""
    with delivering(tmp_path) as (_, given):
        one, several = both(given, cluster, limit=15)
        assert several.metrics == one.metrics  # which rows depends on the names of the objects, which are made up
        assert [len(batch_rows(run, "users")) for run in (one, several)] == [15, 15]
        nobody = f"tcp://127.0.0.1:{ports.free_port()}"
        resync = sync({**given, "dask_scheduler": nobody, "braze_ids": ["nobody"]})
    assert resync.states


def test_s3(cluster: LocalCluster, store: clouds.Store, tmp_path: Path) -> None:
    """From bucket to bucket with the installed command, and no secret in any log, the workers' included."""
    storage = {"root": store.at("batches"), "params": store.writer}
    with Sandbox(
        users=60, users_per_file=10, odd_users=False, bucket_url=store.at("in"), bucket_options=store.writer
    ) as sandbox:
        bucket = {"bucket_url": store.at("in"), "bucket_options": store.reader, "settle_minutes": 0}
        bucket["poll_interval_seconds"] = 1
        given = settings(sandbox, tmp_path, **bucket, batch_config=config("", storage=storage))
        one = sync(given)
        several = command("--config", written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address}))
    assert several.code == 0, several.stderr
    assert not [line for line in several.stderr.splitlines() if " | " not in line or " | WARNING" in line]
    assert "Files are read by Dask at tcp://127.0.0.1:" in several.stderr
    assert written_by_workers(several, "users")
    assert batch_rows(several, "users", store.writer) == batch_rows(one, "users", store.writer)
    assert len(batch_rows(several, "users", store.writer)) == 60
    with Client(cluster, set_as_default=False) as client:
        logs = f"{client.get_worker_logs()}{client.get_scheduler_logs()}"
    for secret in store.secrets:
        assert secret not in several.stderr + logs
        assert secret.encode() not in several.stdout


# Workers that die


@pytest.mark.fault("Workers", "a Dask worker dies", "the same rows")
def test_dead_worker_costs_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    """Dask gives its files to another one, and the run notices nothing."""
    with delivering(tmp_path) as (_, given), deadly(cluster, tmp_path / "died"):
        one, several = both(given, cluster)
    assert (tmp_path / "died").exists()
    compare(one, several)
    assert not several.warnings


@pytest.mark.fault("Workers", "a file that kills every Dask worker", "one line; the next run goes on")
def test_file_that_kills_every_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    """One line tells of it, and the next run continues the export."""
    with delivering(tmp_path) as (sandbox, given):
        path = written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address})
        with deadly(cluster, None):
            done = command("--config", path)
        assert not [*(tmp_path / "spool").rglob("object-*")]  # nor was anything copied from the bucket
        rest = sync(given, state=done.states[-1], clock=FakeClock(after_request(done)))
        assert posts(sandbox) == [201]
    assert done.error.startswith("2 Dask workers died while they read the same file, perhaps for lack of memory: ")
    ids = [row["braze_id"] for run in (done, rest) for row in batches.jsonl(run).get("users", [])]
    assert len(ids) >= len({*ids}) == 60


def after_request(done: Ended) -> float:
    """A moment after a run's export was requested."""
    (export,) = done.states[-1]["bookmarks"]["export_files"]["exports"]
    return datetime.fromisoformat(export["requested_at"]).timestamp() + 60


# Failures


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc"])
def test_damaged_file(cluster: LocalCluster, tmp_path: Path, fault: str) -> None:
    """Read once more, then the export is given up in the words of one process; what came before it stays."""
    with delivering(tmp_path, faults=[fault]) as (_, given):
        one, several = both(given, cluster, fails=True)

    def said(text: str) -> str:
        return re.sub(r"[0-9a-f-]{32,}", "…", text)

    assert [*map(said, several.warnings)] == [*map(said, one.warnings)]
    assert "fetching it once more" in several.warnings[0]
    assert said(several.error) == said(one.error)
    # Only whole files are emitted; how many of the sound ones come first depends on the workers.
    assert several.metrics["users"] == 10 * several.metrics["export_files"] <= 50


def test_check(cluster: LocalCluster, tmp_path: Path) -> None:
    """`--test` tells of the cluster."""
    with delivering(tmp_path) as (_, given):
        path = written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address})
        done = command("--config", path, "--test")
    assert done.code == 0, done.stderr
    assert "Dask: works (2 workers, 2 threads)" in done.stderr
