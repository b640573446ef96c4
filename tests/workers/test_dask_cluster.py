"""Files are read on a real Dask cluster: counts and the names of batch files come back, and nothing else."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster

from tap_braze_export.errors import ConfigError, DamagedFileError, TapError
from tap_braze_export.files import archive
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.objects import DeliveredFile
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.workers import dask_cluster
from tap_braze_export.workers.dask_cluster import DaskCluster
from tap_braze_export.workers.file_reader import FileReader
from tests.support.batches import config
from tests.support.dask import deadly, scheduler
from tests.support.deliveries import bucket_file, gzip_file
from tests.support.fakes import FakeClock
from tests.support.rows import EXPORT, selected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from tap_braze_export.workers.file_reader import ReadResult


def put(folder: Path, *members: str) -> Path:
    """A zip in the bucket whose members hold a user each."""
    path = folder / "segment-export" / EXPORT.segment_id / "2027-01-15" / EXPORT.export_id / "a.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in members:
            writer.writestr(name, json.dumps({"braze_id": name, "email": "somebody@example.com" * 1000}))
    return path


def delivered(folder: Path) -> list[DeliveredFile]:
    """The files of the export in a bucket, where they are left."""
    bucket = Bucket(str(folder), {}, clock=FakeClock())
    (found,) = bucket.objects(EXPORT.export_id, EXPORT.segment_id)
    with bucket.open(found) as file:
        return [DeliveredFile(found, member, EXPORT) for member in archive.members(file, found.name)]


@pytest.fixture
def executor(cluster: LocalCluster, tmp_path: Path) -> Iterator[DaskCluster]:
    """The connection of a run to the cluster; all streams are plain."""
    executor = DaskCluster(cluster.scheduler_address, reader(tmp_path), clock=FakeClock())
    yield executor
    executor.close()


def reader(folder: Path) -> FileReader:
    """Reads the bucket in a folder into batch files below it."""
    selections = selected(only=["users", "devices"])
    files = BatchFiles.of(config(folder / "out"), FakeClock()).elsewhere()
    return FileReader(selections, None, files, frozenset(selections), bucket_url=str(folder))


def result(executor: DaskCluster, future: Future[ReadResult]) -> ReadResult:
    """Wait for the result of a file."""
    while not future.done():
        executor.wait([future], 0.5)
    return future.result()


def test_only_counts_and_manifests_come_back(executor: DaskCluster, tmp_path: Path) -> None:
    """Of each member of a zip that stays in the bucket: 20 KB were read, no row is on its way."""
    put(tmp_path, "first", "second", "third")
    for blocks in [result(executor, executor.submit(file)) for file in delivered(tmp_path)]:
        assert blocks
        (block,) = blocks
        assert block.rows == {}
        assert (block.lines, block.users) == (1, 1)
        assert {stream: file.count for stream, file in block.batch_files.items()} == {"users": 1}
        assert len(pickle.dumps(blocks)) < 1000
    assert len([*(tmp_path / "out").iterdir()]) == 3


def test_file_that_is_read_again_replaces_its_batch_files(executor: DaskCluster, tmp_path: Path) -> None:
    """So what a worker left that died is no second copy."""
    put(tmp_path, "first")
    (file,) = delivered(tmp_path)
    one, again = (result(executor, executor.submit(file)) for _ in range(2))
    assert one == again
    assert len([*(tmp_path / "out").iterdir()]) == 1


def test_what_is_wrong_with_a_file_is_told_in_its_turn(
    cluster: LocalCluster, executor: DaskCluster, tmp_path: Path
) -> None:
    path = put(tmp_path, "first", "second")
    first, second = delivered(tmp_path)
    content = bytearray(path.read_bytes())
    assert second.member.entry
    content[second.member.entry.offset + 40] ^= 1
    path.write_bytes(content)
    futures = [executor.submit(file) for file in (first, second)]
    assert result(executor, futures[0])
    with pytest.raises(DamagedFileError, match=r"a\.zip!1-second is damaged"):
        result(executor, futures[1])
    with Client(cluster, set_as_default=False) as client:
        assert "Compute Failed" not in str(client.get_worker_logs())  # with what was computed


def test_waiting_fetches_the_first_result_only(executor: DaskCluster, tmp_path: Path) -> None:
    """The others stay on the workers until the run emits them; each file counts as begun."""
    put(tmp_path, "first", "second")
    futures = [executor.submit(file) for file in delivered(tmp_path)]
    assert not any(future.cancel() for future in futures)
    done = 0
    while done < 2:
        executor.wait([future for future in futures if not future.done()], 0.5)
        before, done = done, sum(future.done() for future in futures)
        assert done - before <= 1
    assert all(future.result() for future in futures)


def test_file_that_only_this_machine_has_is_never_begun(executor: DaskCluster, tmp_path: Path) -> None:
    """So the run reads it."""
    future = executor.submit(gzip_file(tmp_path, "a.gz", "one"))
    executor.wait([future], 0)
    assert future.cancel()


def test_bucket_that_a_worker_does_not_reach_is_told(cluster: LocalCluster, tmp_path: Path) -> None:
    """Such as a directory that only the run's machine has."""
    elsewhere = FileReader(selected(only=["users"]), bucket_url=str(tmp_path / "nowhere"))
    executor = DaskCluster(cluster.scheduler_address, elsewhere, clock=FakeClock())
    try:
        with pytest.raises(ConfigError, match="on a Dask worker: bucket_url names a bucket or directory that"):
            result(executor, executor.submit(bucket_file("a.gz")))
    finally:
        executor.close()


@pytest.mark.night
def test_file_that_kills_workers_is_an_error(cluster: LocalCluster, executor: DaskCluster, tmp_path: Path) -> None:
    """The run ends, since the next files would kill workers, too. By day, test_runs_on_dask.py sees it."""
    put(tmp_path, "first")
    (file,) = delivered(tmp_path)
    with deadly(cluster, None), pytest.raises(TapError, match="2 Dask workers died while they read the same file"):
        result(executor, executor.submit(file))
    assert result(executor, executor.submit(file))


@pytest.mark.night
def test_file_of_a_worker_that_dies_is_read_by_another(
    cluster: LocalCluster, executor: DaskCluster, tmp_path: Path
) -> None:
    put(tmp_path, "first")
    (file,) = delivered(tmp_path)
    with deadly(cluster, tmp_path / "died"):
        assert result(executor, executor.submit(file))
    assert (tmp_path / "died").exists()


def test_worker_with_another_version() -> None:
    """It does not even try."""
    said = dask_cluster._task("run", "0.0", b"", b"")()
    assert said.startswith("the Dask workers need tap-braze-export 0.0, which runs here, and have ")


def test_cluster_without_workers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After ten seconds the log tells of it, once."""
    clock = FakeClock()
    with scheduler(tmp_path) as (_, address):
        executor = DaskCluster(address, FileReader({}), clock=clock)
        future = executor.submit(bucket_file("a.gz"))
        warned = []
        for seconds in (9, 1, 20):
            clock.time += seconds
            executor.wait([future], 0.01)
            warned.append(len([record for record in caplog.records if record.levelname == "WARNING"]))
        executor.close()
    assert warned == [0, 1, 1]
    assert f"The Dask cluster at {address} has no worker: waiting for one" in caplog.messages
    assert executor.capacity == 32


def test_lost_scheduler_is_an_error(tmp_path: Path) -> None:
    """Whoever waits for a file is told, and so is whoever submits one."""
    with scheduler(tmp_path) as (process, address):
        executor = DaskCluster(address, FileReader({}), clock=FakeClock())
        future = executor.submit(bucket_file("a.gz"))
        process.kill()
        with pytest.raises(TapError, match=f"the connection to the Dask scheduler at {address} was lost"):
            result(executor, future)
        executor.close()


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({}, []),
        ({"bucket_url": None}, ["dask_scheduler needs bucket_url: its workers read files out of the bucket"]),
        ({"batch_config": None}, ["dask_scheduler needs batch_config: its workers write batch files"]),
        (
            {"stream_maps": {"users": {"mail": "email"}}},
            ["dask_scheduler does not go with stream_maps: its workers write rows as they are"],
        ),
        (
            {"stream_maps": {"apps": None}, "flattening_enabled": True},
            ["dask_scheduler does not go with stream_maps and flattening_enabled: its workers write rows as they are"],
        ),
        ({"dask_scheduler": None, "bucket_url": None, "stream_maps": {"apps": None}}, []),
    ],
)
def test_settings_that_a_cluster_needs(given: dict[str, Any], errors: list[str]) -> None:
    """One line for each that is missing or does not go with it."""
    works = {"dask_scheduler": "tcp://here:1", "bucket_url": "s3://b", "batch_config": config("out")}
    assert dask_cluster.errors_in(works | given) == errors


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    given = {"dask_scheduler": "tcp://here:1", "bucket_url": "s3://b", "batch_config": config("out")}
    assert dask_cluster.errors_in(given) == ["dask_scheduler needs: pip install 'tap-braze-export[dask]'"]
