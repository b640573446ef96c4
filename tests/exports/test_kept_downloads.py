"""Downloads that stay in case a loader fails give way to others; what killed runs leave goes with the next run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.export import Export
from tap_braze_export.exports.journal import Journal, KnownExport
from tap_braze_export.files.spool import Spool
from tap_braze_export.state import Bookmark
from tests.support.fakes import FakeClock
from tests.support.runs import selecting, settings, sync
from tests.support.steps import Steps, braze, crash, nothing, posts

if TYPE_CHECKING:
    from pathlib import Path

USERS = selecting(["users", "export_files"])
API = "https://rest.example.com"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(str(tmp_path / "spool"), clock=FakeClock(time.time()))
    spool.open()
    return spool


def journal(spool: Spool, segment: str) -> Journal:
    return Journal(spool, API, ("segment", segment), {})


def downloaded(spool: Spool, segment: str, at: float, *, ended: bool = True) -> Journal:
    """The journal of a segment whose export was downloaded, and read if it has ended."""
    found = journal(spool, segment)
    bookmark = Bookmark(Export("segment", segment, f"{segment}-1", at), ("braze_id",), "rows")
    found.write(KnownExport(bookmark, f"https://store.example.com/{segment}.zip", "token"))
    found.download(bookmark.export.export_id).write_bytes(b"x" * 1000)
    if ended:
        found.end(replace(bookmark, running=False), proven=True)
    return found


def kept(spool: Spool) -> set[str]:
    """The segments of which a download is in the spool."""
    return {path.parent.name.split("-")[1] for path in spool.root.glob("exports/*/download")}


# Room for other exports


def test_disk_that_is_full_keeps_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record that an export was read finds no room: the run ends well, and the export is forgotten."""
    found = downloaded(spool, "s", 1000, ended=False)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found.end(Bookmark(Export("segment", "s", "s-1", 1000), ("braze_id",), "rows", running=False), proven=True)
    assert (found.read(), kept(spool)) == (None, set())


# What killed runs leave

HOLD_A_FOLDER = """
import sys, time
from tap_braze_export.clock import Clock
from tap_braze_export.files.spool import Spool
spool = Spool(sys.argv[1], clock=Clock())
spool.open()
folder = spool.run_folder("rows")
(folder / "rows").write_bytes(b"x" * 1000)
print(folder, flush=True)
time.sleep(60)
"""


def test_folder_of_a_run_goes_once_the_run_is_dead(spool: Spool) -> None:
    """Never while it lives; at once when it was killed, whatever its age; its lock goes with it."""
    command = [sys.executable, "-c", HOLD_A_FOLDER, str(spool.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        folder = spool.root / "runs" / run.stdout.readline().strip()
        own = spool.run_folder("rows")
        spool.open()
        assert {*spool.root.glob("runs/rows-*")} == {
            path for each in (folder, own) for path in (each, each.with_suffix(".lock"))
        }
        assert (folder / "rows").exists()
        run.send_signal(signal.SIGKILL)
    spool.open()
    assert {path.stem for path in (spool.root / "runs").iterdir()} == {own.name}
    spool.clear_run_folder(own)
    assert not [*(spool.root / "runs").iterdir()]


@pytest.mark.parametrize(("days", "stays"), [(1, True), (3, False)])
def test_lock_without_a_folder(spool: Spool, *, days: int, stays: bool) -> None:
    """A run may be about to make its folder; after two days it was killed before that."""
    lock = spool.root / "runs" / "rows-1.lock"
    lock.touch()
    at = time.time() - days * 24 * 3600
    os.utime(lock, (at, at))
    spool.open()
    assert lock.exists() == stays


def test_copies_of_a_dead_run_go_when_others_are_made(spool: Spool) -> None:
    """In the folder of an export in a bucket; the download of a hosted one stays, as it goes on."""
    found = journal(spool, "s")
    (found.copies("s-1") / "object-7").write_bytes(b"x")
    assert not [*found.copies("s-1").iterdir()]
    found.download("s-1").write_bytes(b"x")
    assert found.download("s-1").exists()


@pytest.mark.parametrize("in_bucket", [False, True])
@pytest.mark.fault("Local disk", "downloads that killed runs have left", "removed by the next run")
def test_exports_that_killed_runs_have_left(tmp_path: Path, *, in_bucket: bool) -> None:
    """All of this segment go, and copies in the folder of the one that goes on; another segment's stay."""
    clock = Steps(crash, now=time.time())
    with braze(clock, tmp_path if in_bucket else None, hold=True) as sandbox:
        config = settings(sandbox, tmp_path, **({"bucket_url": str(tmp_path / "bucket")} if in_bucket else {}))
        others = sync({**config, "segment_ids": ["vip-users"]}, clock=clock, catalog=USERS, fails=True)
        (other,) = (tmp_path / "spool" / "exports").iterdir()
        sync(config, clock=clock, catalog=USERS, fails=True)
        (own,) = {*(tmp_path / "spool" / "exports").iterdir()} - {other}
        orphan = own.with_name(f"{own.name.split('-')[0]}-killed-before")
        for folder in (other, own, orphan):
            folder.mkdir(exist_ok=True)
            (folder / "object-7").write_bytes(b"x")
        clock.steps = [sandbox.finish_exports, nothing]
        second = sync(config, clock=clock, catalog=USERS)
        assert posts(sandbox) == [201] * 2
    assert (others.counts["users"], second.counts["users"]) == (0, 9)
    assert (other / "object-7").exists()
    assert not orphan.exists()
    assert own.exists() == (not in_bucket)
