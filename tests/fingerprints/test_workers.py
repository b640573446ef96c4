"""Fingerprints where workers read the files, where batch files are written, and in the stores of clouds."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.night import at_night
from tests.support.nights import STREAMS, Nights, emitted, unchanged, user
from tests.support.runs import selecting
from tests.support.worker_runs import written_by_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import LocalCluster

    from tests.support.clouds import Store
    from tests.support.runs import Run

PER_FILE = 5


def people(**cities: str) -> list[dict[str, Any]]:
    """Thirty users in six files, some of whom live elsewhere."""
    return [user(name, cities.get(name, "Berlin")) for name in (f"u{number:02}" for number in range(30))]


def batched(run: Run) -> dict[str, list[str]]:
    """The users of each stream in the batch files of a run, without `export_files`."""
    rows = batches.jsonl(run)
    return {name: sorted({row["braze_id"] for row in rows[name]}) for name in rows if name != "export_files"}


@pytest.mark.slow
@pytest.mark.sandbox(users=0, users_per_file=PER_FILE)
def test_processes_skip_what_did_not_change(sandbox: Sandbox, tmp_path: Path) -> None:
    nights = Nights(sandbox, tmp_path, workers=3)
    nights.run({"s": people()})

    second = nights.run({"s": people(u03="Paris", u28="Rome")})

    assert (emitted(second)["users"], unchanged(second)) == (["u03", "u28"], 28)
    assert nights.run({"s": people(u03="Paris", u28="Rome")}).rows("users") == []


@pytest.mark.slow
def test_a_user_of_two_files_that_different_workers_read(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever order the files come in, the target ends with the rows of the file that was emitted last."""
    nights = Nights(sandbox, tmp_path, workers=3, segment_ids=["s"])
    filler = [[user(f"{number}-{each}") for each in range(3)] for number in range(6)]
    sandbox.add_segment("s", files=[[user("a")], *filler])
    nights.run()
    sandbox.add_segment("s", files=[[user("a", "Paris")], *filler, [user("a"), user("b")]])

    run = nights.run()

    own = [row["home_city"] for row in run.rows("users") if row["braze_id"] == "a"]
    assert own in (["Paris", "Berlin"], ["Paris"])
    last_file = [row["file"] for row in run.rows("export_files")][-1]
    assert own[-1] == ("Berlin" if own == ["Paris", "Berlin"] else "Paris"), last_file


def test_batch_files_hold_the_changed_users(sandbox: Sandbox, tmp_path: Path) -> None:
    nights = Nights(sandbox, tmp_path, batch_config=batches.config(tmp_path / "out"))
    nights.run({"s": people()})

    second = nights.run({"s": people(u03="Paris")})

    assert batched(second) == {stream: ["u03"] for stream in ("users", "apps", "custom_events", "segment_members")}


def test_stream_maps_and_flattening(sandbox: Sandbox, tmp_path: Path) -> None:
    maps = {"users": {"city": "home_city.upper()"}}
    nights = Nights(sandbox, tmp_path, stream_maps=maps, flattening_enabled=True, flattening_max_depth=1)
    nights.run({"s": people()})

    assert nights.run({"s": people(u03="Paris")}).rows("users")[0]["city"] == "PARIS"


@pytest.mark.slow
def test_dask_workers_read_the_version_themselves(cluster: LocalCluster, tmp_path: Path) -> None:
    """Out of the storage of fingerprints; the rest of a night is that of one process."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with Sandbox(users=0, users_per_file=PER_FILE, bucket_url=str(bucket)) as braze:
        nights = Nights(
            braze,
            tmp_path,
            streams=[name for name in STREAMS if name != "export_files"],
            bucket_url=str(bucket),
            settle_minutes=0,
            batch_config=batches.config(tmp_path / "out"),
            dask_scheduler=cluster.scheduler_address,
        )
        nights.run({"s": people()})
        second = nights.run({"s": people(u03="Paris", u28="Rome")})

    assert batched(second)["users"] == ["u03", "u28"]
    assert any(written_by_workers(second, "users") or second.of_type("BATCH"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", at_night(["s3", "gcs", "azure"], but=["s3"]))
def test_fingerprints_in_a_cloud(cloud: Callable[[str], Store], sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    """Parts, versions, marks and pruning, with the options of a bucket of the same scheme."""
    store = cloud(kind)
    url = f"{store.at(f'fingerprints-{uuid.uuid4().hex}')}/here"
    nights = Nights(sandbox, tmp_path, bucket_url=store.url, bucket_options=store.writer, fingerprints_url=url)
    nights.catalog = selecting(STREAMS)
    for city in ("Berlin", "Paris", "Rome"):
        run = nights.run({"s": people(u03=city)})
        if city != "Berlin":
            assert (emitted(run)["users"], unchanged(run)) == (["u03"], 29)
    nights.run({"s": people(u03="Oslo")}, confirms=False)

    back = nights.run({"s": people(u03="Rome")})

    assert emitted(back)["users"] == ["u03"]
    assert [*(tmp_path / "spool" / "runs").iterdir()] == []
