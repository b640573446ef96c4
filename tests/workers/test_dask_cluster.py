"""Files read on a real Dask cluster: what is announced is that of one process, and only counts come back."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import pytest
from distributed import Client, LocalCluster, WorkerPlugin

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import DamagedFileError
from tap_braze_export.files.archive import Member
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.objects import ReadInPlace
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.singer.batch_files import BatchFiles
from tap_braze_export.workers import dask_cluster as cluster_module
from tap_braze_export.workers.dask_cluster import Cluster
from tap_braze_export.workers.file_reader import FileReader, Job
from tests.support import batches, clouds
from tests.support.batches import config
from tests.support.fakes import FakeClock
from tests.support.rows import AT, selected
from tests.support.runs import (
    COMMAND,
    Ended,
    Output,
    Run,
    command,
    environment,
    refusal,
    selecting,
    settings,
    sync,
    written,
)
from tests.support.steps import posts
from tests.workers.test_processes import ended, told, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DASK = str(Path(sys.executable).with_name("dask"))
ANY_PORT = "127.0.0.1:0"
QUICKLY = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
EXPORT = "0a1b2c3d-1800000000"
pytestmark = pytest.mark.external


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two processes with a thread each; a task that killed two is not given to a third."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=ANY_PORT) as cluster,
    ):
        yield cluster


@contextmanager
def delivering(folder: Path, delivery: str, **options: Any) -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    """A Braze with 60 users in six files, which come into a bucket or behind a URL; and the settings for it."""
    (folder / "bucket").mkdir()
    bucket: dict[str, Any] = {} if delivery == "hosted" else {"bucket_url": str(folder / "bucket")}
    given: dict[str, Any] = {"users": 60, "users_per_file": 10, "odd_users": False, **options}
    with Sandbox(**given, **bucket) as sandbox:
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
        assert rows(several, stream) == rows(one, stream), stream
    assert told(several)[-1] == told(one)[-1]
    assert several.metrics == one.metrics
    assert several.of_type("SCHEMA") == one.of_type("SCHEMA")
    assert not several.of_type("RECORD")


def rows(run: Output, stream: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """The rows of a stream in an order of their own: that of files goes by their names, which are made up."""
    own = {"export_id", "file", "bytes", "exported_at"}  # archives hold times
    found = batches.jsonl(run, options).get(stream, [])
    return sorted(json.dumps({name: row[name] for name in row if name not in own}) for row in found)


def written_by_workers(run: Output, stream: str) -> bool:
    """Whether its files are named after a delivered file and a block, not numbered."""
    return all(re.search(r"-[0-9a-f]{24}-\d+\.json\.gz$", url) for url in batches.manifests(run)[stream])


@pytest.mark.parametrize(
    "maps", [{}, {"stream_maps": {"users": {"mail": "email"}, "apps": None}}], ids=["plain", "maps"]
)
@pytest.mark.parametrize("delivery", ["zip", "gzip", "hosted"])
def test_output_is_that_of_one_process(
    cluster: LocalCluster, tmp_path: Path, delivery: str, maps: dict[str, Any]
) -> None:
    """Row by row; mapped streams are written by the run, the others by the workers, a part for each file."""
    with delivering(tmp_path, delivery) as (_, given):
        output_format = "gzip" if delivery == "gzip" else "zip"
        one, several = both({**given, **maps, "output_format": output_format}, cluster)
    compare(one, several)
    assert len(batches.manifests(several)["devices"]) == 6
    assert written_by_workers(several, "devices")
    assert written_by_workers(several, "users") == (not maps)
    assert not [*(tmp_path / "spool" / "exports").iterdir()]


def test_odd_users(cluster: LocalCluster, tmp_path: Path) -> None:
    """They take the careful path there, too; lines that are no users come back and are kept here."""
    with delivering(tmp_path, "zip", odd_users=True, faults=["bad-line"]) as (_, given):
        one, several = both({**given, "max_rejected_lines": 2}, cluster)
    compare(one, several)
    assert [line for line in several.warnings if "2 lines are no user objects" in line]
    (kept,) = {path.read_bytes() for path in (tmp_path / "spool" / "rejected").iterdir()}
    assert kept.count(b"\n") == 2


def put(folder: Path, *members: str) -> Path:
    """A zip in the bucket whose members hold a user each."""
    path = folder / "segment-export" / "seg" / "2027-01-15" / EXPORT / "a.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in members:
            archive.writestr(name, json.dumps({"braze_id": name, "email": "somebody@example.com" * 1000}))
    return path


def jobs(folder: Path) -> list[Job]:
    """A job for each file of the export in a bucket, where it is left."""
    bucket = Bucket(str(folder), {}, clock=FakeClock())
    (found,) = bucket.objects(EXPORT, "seg")
    place, members = ReadInPlace(bucket).take(found)
    return [Job(place, member, EXPORT, AT, "segment", "seg") for member in members]


@pytest.fixture
def executor(cluster: LocalCluster, tmp_path: Path) -> Iterator[Cluster]:
    """What a run has of the cluster; all streams are plain."""
    selections = selected(only=["users", "devices"])
    files = BatchFiles.of(config(tmp_path / "out"), FakeClock()).elsewhere()
    reader = FileReader(selections, None, files, frozenset(selections), bucket_url=str(tmp_path))
    executor = Cluster(cluster.scheduler_address, reader, clock=FakeClock())
    yield executor
    executor.close()


def test_only_counts_and_manifests_come_back(executor: Cluster, tmp_path: Path) -> None:
    """Of each member of a zip that stays in the bucket: 20 KB were read, no row is on its way."""
    put(tmp_path, "first", "second", "third")
    results = [executor.result(executor.submit(job)) for job in jobs(tmp_path)]
    for result in results:
        assert result
        (to_rows,) = result
        assert to_rows.rows == {}
        assert (to_rows.lines, to_rows.users) == (1, 1)
        assert {stream: file.count for stream, file in to_rows.batch_files.items()} == {"users": 1}
        assert len(pickle.dumps(result)) < 1000
    assert len([*(tmp_path / "out").iterdir()]) == 3


def test_file_that_is_read_again_replaces_its_batch_files(executor: Cluster, tmp_path: Path) -> None:
    """So what a worker left that died is no second copy."""
    put(tmp_path, "first")
    (job,) = jobs(tmp_path)
    one, again = (executor.result(executor.submit(job)) for _ in range(2))
    assert one == again
    assert len([*(tmp_path / "out").iterdir()]) == 1


def test_what_is_wrong_with_a_file_is_told_in_its_turn(
    cluster: LocalCluster, executor: Cluster, tmp_path: Path
) -> None:
    path = put(tmp_path, "first", "second")
    first, second = jobs(tmp_path)
    content = bytearray(path.read_bytes())
    content[(second.member.offset or 0) + 40] ^= 1
    path.write_bytes(content)
    answers = [executor.submit(job) for job in (first, second)]
    assert executor.result(answers[0])
    with pytest.raises(DamagedFileError, match=r"a\.zip!1-second is damaged"):
        executor.result(answers[1])
    with Client(cluster, set_as_default=False) as client:
        assert "Compute Failed" not in str(client.get_worker_logs())  # with what was computed


@pytest.mark.parametrize("most", [1, 30_000])
def test_downloads_on_their_way_are_bounded(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What is too big to be sent is read by the run; of the others, so many are sent at a time."""
    monkeypatch.setattr(cluster_module, "_MOST_BYTES", most)
    with delivering(tmp_path, "hosted") as (_, given):
        one, several = both(given, cluster)
    compare(one, several)
    assert written_by_workers(several, "users") == (most > 1)


@pytest.mark.parametrize("maps", [{}, {"stream_maps": {"users": {"mail": "email"}}}], ids=["plain", "maps"])
def test_huge_file(cluster: LocalCluster, tmp_path: Path, maps: dict[str, Any]) -> None:
    """A worker writes it block by block; rows to be mapped, which would be too many in one piece, are read here."""
    people = [{"braze_id": f"b{number}", "custom_attributes": {"text": "x" * 100_000}} for number in range(800)]
    with delivering(tmp_path, "zip", users_per_file=1000) as (sandbox, given):
        sandbox.add_segment("large", people)
        given |= {"segment_ids": ["large"], "dask_scheduler": cluster.scheduler_address, **maps}
        run = sync(given, catalog=selecting(["users"]))
    assert {row["braze_id"] for row in batches.jsonl(run)["users"]} == {person["braze_id"] for person in people}
    assert written_by_workers(run, "users") == (not maps)
    assert len(batches.manifests(run)["users"]) > 1
    assert run.metrics["users"] == 800


def test_rows_of_a_huge_file_do_not_come_back() -> None:
    """Whoever would have to send them says that the run has to read it."""
    line = json.dumps({"braze_id": "b", "custom_attributes": {"text": "x" * 100_000}}).encode() + b"\n"
    content = gzip.compress(line * 800, 1)
    job = Job(content, Member("a.gz", len(content)), EXPORT, AT, "segment", "seg")
    assert FileReader(selected(only=["users"])).read(job) is None
    assert FileReader(selected(only=["users"])).read(replace(job, place=gzip.compress(line)))


def test_dry_run_and_resync(cluster: LocalCluster, tmp_path: Path) -> None:
    """A dry run is limited; a resync has no files for a cluster, and asks for none."""
    with delivering(tmp_path, "hosted") as (_, given):
        one, several = both(given, cluster, limit=15)
        compare(one, several)
        nobody = f"tcp://127.0.0.1:{clouds.free_port()}"
        resync = sync({**given, "dask_scheduler": nobody, "braze_ids": ["nobody"]})
    assert resync.states


def test_s3(cluster: LocalCluster, store: clouds.Store, tmp_path: Path) -> None:
    """From bucket to bucket with the installed command, and no secret in any log, the workers' included."""
    storage = {"root": store.at("batches"), "params": store.writer}
    with Sandbox(
        users=60, users_per_file=10, odd_users=False, bucket_url=store.at("in"), bucket_options=store.writer
    ) as sandbox:
        bucket = {"bucket_url": store.at("in"), "bucket_options": store.reader, "settle_minutes": 0}
        given = settings(sandbox, tmp_path, **bucket, batch_config=config("", storage=storage))
        one = sync(given)
        several = command("--config", written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address}))
    assert several.code == 0, several.stderr
    assert not [line for line in several.stderr.splitlines() if " | " not in line or " | WARNING" in line]
    assert "Files are read by Dask at tcp://127.0.0.1:" in several.stderr
    assert written_by_workers(several, "users")
    assert rows(several, "users", store.writer) == rows(one, "users", store.writer)
    assert len(rows(several, "users", store.writer)) == 60
    with Client(cluster, set_as_default=False) as client:
        logs = f"{client.get_worker_logs()}{client.get_scheduler_logs()}"
    for secret in store.secrets:
        assert secret not in several.stderr + logs
        assert secret.encode() not in several.stdout


# Workers that die


@contextmanager
def deadly(cluster: LocalCluster, marker: Path | None) -> Iterator[None]:
    """Workers die as soon as they begin with a file: once, which the marker tells, or each time."""

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


def test_dead_worker_costs_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    """Dask gives its files to another one, and the run notices nothing."""
    with delivering(tmp_path, "zip") as (_, given), deadly(cluster, tmp_path / "died"):
        one, several = both(given, cluster)
    assert (tmp_path / "died").exists()
    compare(one, several)
    assert not several.warnings


def test_file_that_kills_every_worker(cluster: LocalCluster, tmp_path: Path) -> None:
    """One line tells of it, and the next run continues the export."""
    with delivering(tmp_path, "zip") as (sandbox, given):
        path = written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address})
        with deadly(cluster, None):
            done = command("--config", path)
        assert not [*(tmp_path / "spool").rglob("object-*")]  # nor was anything copied from the bucket
        rest = sync(given, state=done.states[-1], clock=FakeClock(sandbox_time(done)))
        assert posts(sandbox) == [201]
    assert done.error.startswith("2 Dask workers died while they read the same file, perhaps for lack of memory: ")
    assert len(batches.jsonl(rest)["users"]) == 60


def sandbox_time(done: Ended) -> float:
    """A moment after a run's export was requested."""
    from datetime import datetime

    (export,) = done.states[-1]["bookmarks"]["export_files"]["exports"]
    return datetime.fromisoformat(export["requested_at"]).timestamp() + 60


# Failures


@pytest.mark.parametrize(
    ("delivery", "fault"), [("zip", "truncated-file"), ("zip", "wrong-crc"), ("hosted", "wrong-crc")]
)
def test_damaged_file(cluster: LocalCluster, tmp_path: Path, delivery: str, fault: str) -> None:
    """Read once more, then the export is given up in the words of one process; what came before it stays."""
    with delivering(tmp_path, delivery, faults=[fault]) as (_, given):
        one, several = both(given, cluster, fails=True)

    def said(text: str) -> str:
        return re.sub(r"[0-9a-f-]{32,}", "…", text)

    assert [*map(said, several.warnings)] == [*map(said, one.warnings)]
    assert "fetching it once more" in several.warnings[0]
    assert said(several.error) == said(one.error)
    assert several.metrics == one.metrics


def test_damaged_download_is_fetched_once_more(cluster: LocalCluster, tmp_path: Path) -> None:
    with delivering(tmp_path, "hosted", faults=["damaged-once"]) as (_, given):
        run = sync({**given, "dask_scheduler": cluster.scheduler_address})
    assert len(batches.jsonl(run)["users"]) == 60


def test_check(cluster: LocalCluster, tmp_path: Path) -> None:
    """`--test` tells of the cluster."""
    with delivering(tmp_path, "hosted") as (_, given):
        path = written(tmp_path, {**given, "dask_scheduler": cluster.scheduler_address})
        done = command("--config", path, "--test")
    assert done.code == 0, done.stderr
    assert "Dask: works (2 workers, 2 threads)" in done.stderr


def test_unreachable_scheduler(tmp_path: Path) -> None:
    """One line, before Braze is asked for anything."""
    address = f"tcp://127.0.0.1:{clouds.free_port()}"
    with delivering(tmp_path, "hosted") as (sandbox, given):
        done = command("--config", written(tmp_path, {**given, "dask_scheduler": address}), **QUICKLY)
        assert not sandbox.calls
    assert done.error == (
        f"the Dask scheduler at {address} cannot be reached (OSError): see that it runs, and that "
        "dask_scheduler names it"
    )
    assert not done.states


def test_address_that_is_none(tmp_path: Path) -> None:
    with delivering(tmp_path, "hosted") as (sandbox, given):
        done = command("--config", written(tmp_path, {**given, "dask_scheduler": "nonsense"}))
        assert not sandbox.calls
    assert done.error == (
        "dask_scheduler nonsense cannot be used: ValueError (missing port number in address 'nonsense')"
    )


def test_refused_without_batch_config(cluster: LocalCluster, tmp_path: Path) -> None:
    """Its workers write batch files, there is nothing else that they could do."""
    with Sandbox(users=1) as sandbox:
        given = settings(sandbox, tmp_path, dask_scheduler=cluster.scheduler_address)
        error = refusal("--config", written(tmp_path, given))
        assert not sandbox.calls
    assert error == "Configuration: dask_scheduler needs batch_config: its workers write batch files"


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with the command that installs it; without the setting nothing is missed."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with delivering(tmp_path, "hosted") as (sandbox, given):
        error = refusal("--config", written(tmp_path, {**given, "dask_scheduler": "tcp://127.0.0.1:1"}))
        assert not sandbox.calls
        assert sync(given).states
    assert error == "Configuration: dask_scheduler needs: pip install 'tap-braze-export[dask]'"


@contextmanager
def dask_process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or worker of an environment that has no tap."""
    (folder / "without").mkdir(exist_ok=True)
    (folder / "without" / "tap_braze_export.py").write_text("raise ModuleNotFoundError('No module named this')")
    # Other versions of what does not matter are no reason for a table of them in the log.
    (folder / "without" / "lz4-0.0.dist-info").mkdir(exist_ok=True)
    (folder / "without" / "lz4-0.0.dist-info" / "METADATA").write_text("Name: lz4\nVersion: 0.0\n")
    with (folder / f"{arguments[0]}.txt").open("wb") as log:
        process = subprocess.Popen(
            [DASK, *arguments, "--scheduler-file", str(folder / "scheduler.json"), "--dashboard-address", ANY_PORT],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment(PYTHONPATH=str(folder / "without")),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def listening(folder: Path) -> str:
    """The address of a scheduler, as soon as it has one."""
    with suppress(FileNotFoundError, ValueError):
        address: str = json.loads((folder / "scheduler.json").read_text())["address"]
        return address
    return ""


def test_worker_without_the_tap(tmp_path: Path) -> None:
    """One line says what to install; the scheduler can do without."""
    with (
        delivering(tmp_path, "hosted") as (_, given),
        dask_process(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", "0"),
    ):
        address = wait_for(lambda: listening(tmp_path))
        with dask_process(tmp_path, "worker", "--no-nanny", "--nthreads", "1"):
            path = written(tmp_path, {**given, "dask_scheduler": address})
            done = command("--config", path)
            checked = command("--config", path, "--test")
    for error in (done.error, checked.error.removeprefix("Dask: ")):
        assert error.startswith("the Dask workers need tap-braze-export ")
        assert "and have none (No module named this): install it there" in error
    assert "s3" not in (tmp_path / "worker.txt").read_text()


def test_worker_with_another_version() -> None:
    """It does not even try."""
    said = cluster_module._task("run", "0.0", b"", b"")()
    assert said.startswith("the Dask workers need tap-braze-export 0.0, which runs here, and have ")


def test_lost_scheduler(tmp_path: Path) -> None:
    """A run that waits for a cluster ends with one line when that goes."""
    with (
        delivering(tmp_path, "hosted") as (sandbox, given),
        dask_process(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", "0") as scheduler,
    ):
        path = written(tmp_path, {**given, "dask_scheduler": wait_for(lambda: listening(tmp_path))})
        with (tmp_path / "stderr.txt").open("wb") as log:
            run = subprocess.Popen(
                [COMMAND, "--config", path], stdout=subprocess.PIPE, stderr=log, env=environment(**QUICKLY)
            )
        wait_for(lambda: [call for call in sandbox.calls if call.service == "download"])
        scheduler.kill()
        done = ended(run, tmp_path)
    assert "the connection to the Dask scheduler at tcp://127.0.0.1:" in done.error
    assert "the next run continues from the last STATE" in done.error


def test_cluster_without_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of it, once; a run that is told to end while it waits ends."""

    class Ending(FakeClock):
        """Told to end at the fourth look."""

        looks = 0

        @property
        def stopped(self) -> bool:
            self.looks += 1
            return self.looks == 4

    monkeypatch.setattr(cluster_module, "_LOOKS_ALONE", 2)
    put(tmp_path, "first")
    with dask_process(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", "0"):
        address = wait_for(lambda: listening(tmp_path))
        executor = Cluster(address, FileReader({}), clock=Ending())
        (job,) = jobs(tmp_path)
        with pytest.raises(Interruption):
            executor.result(executor.submit(job))
        executor.close()
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"The Dask cluster at {address} has no worker: waiting for one"]
    assert executor.ahead == 32
