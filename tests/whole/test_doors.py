"""One whole run for each way in and out: `make check` has these, `make test` those in which something happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox import Sandbox
from tests.support import batches
from tests.support.fakes import FakeClock
from tests.support.runs import Run, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

USERS = 12


def delivered(folder: Path, sandbox: dict[str, Any] | None = None, **more: Any) -> Run:
    """A run of the tap, to which Braze delivers three files; each user comes once."""
    with Sandbox(users=USERS, users_per_file=4, odd_users=False, **(sandbox or {})) as braze:
        everybody = [json.loads(line)["braze_id"] for line in braze.lines("all-users", ["braze_id"])]
        run = sync(settings(braze, folder, **more), clock=FakeClock())
    found = batches.jsonl(run)["users"] if "batch_config" in more else run.rows("users")
    assert sorted(row["braze_id"] for row in found) == sorted(everybody)
    assert len(run.states) > 1
    return run


def test_download(tmp_path: Path) -> None:
    assert delivered(tmp_path).counts["export_files"] == 3


def test_bucket(tmp_path: Path) -> None:
    bucket = str(tmp_path / "bucket")
    assert delivered(tmp_path, {"bucket_url": bucket}, bucket_url=bucket).counts["export_files"] == 3


def test_processes(tmp_path: Path) -> None:
    assert delivered(tmp_path, workers=2).counts["export_files"] == 3


def test_batch_files(tmp_path: Path) -> None:
    assert not delivered(tmp_path, batch_config=batches.config(tmp_path / "batches")).counts["users"]


def test_resync(tmp_path: Path) -> None:
    """Two people by their identifiers, one of whom nobody knows."""
    with Sandbox(users=USERS, odd_users=False) as braze:
        (known, *_) = [json.loads(line)["braze_id"] for line in braze.lines("all-users", ["braze_id"])]
        run = sync(settings(braze, tmp_path, braze_ids=[known, "nobody"]))
    assert run.ids() == [known]
    assert [line for line in run.lines if line.startswith("Identifiers that matched nobody: 1 braze_id")]


def test_fingerprints(tmp_path: Path) -> None:
    """The second night emits nobody."""
    with Sandbox(users=USERS, odd_users=False) as braze:
        config = settings(braze, tmp_path, fingerprints_url=str(tmp_path / "fingerprints"))
        first = sync(config)
        second = sync(config, state=first.states[-1])
    assert (first.counts["users"], second.counts["users"]) == (USERS, 0)
