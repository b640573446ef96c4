"""The fault matrix, bucket, local disk and STATE: whole runs over HTTP, and what they leave or find on the disk."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fakes import FakeClock, Server, as_json
from tests.support.faults import LINES, USERS, Trial, download, night_row, replies, row, zipped
from tests.support.night import at_night
from tests.support.runs import selecting, sync
from tests.support.s3 import EXPORT, FOLDER, ScriptedS3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

pytestmark = pytest.mark.slow

BUCKET = "Bucket"
DISK = "Local disk"
STATE = "STATE"
SAME = "the same rows"
LINE = "one line; the next run gives the same rows"


# Bucket


@pytest.mark.parametrize("allowed", at_night([0, 1, 2], but=[1]))
@pytest.mark.fault(BUCKET, "permission is lost half-way", LINE)
def test_permission_is_lost(tmp_path: Path, server: Server, s3_options: dict[str, Any], allowed: int) -> None:
    s3 = ScriptedS3()
    s3.objects = {f"{FOLDER}/{number}.zip": zipped(b"\n".join(LINES[number : number + 2])) for number in (0, 2, 4)}
    s3.forbidden = {*sorted(s3.objects)[allowed:]}
    start = as_json({"object_prefix": EXPORT, "url": None})

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/bucket"):
            s3(handler)
            return
        status, headers, body = start if handler.command == "POST" else as_json({}, 403)  # type: ignore[misc]
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    server.answers = [answer]
    clock = FakeClock(1_464_728_599)
    config = {
        "api_url": server.url,
        "api_key": "key",
        "segment_ids": ["seg"],
        "bucket_url": "s3://bucket/braze/users",
        "bucket_options": s3_options,
        "settle_minutes": 0,
        "spool_dir": str(tmp_path / "spool"),
        "workers": 1,
    }
    catalog = selecting(["users", "export_files"])
    failed = sync(config, catalog=catalog, clock=clock, fails=True)
    s3.forbidden.clear()
    again = sync(config, catalog=catalog, clock=clock, state=failed.states[-1])
    assert "bucket" in failed.error
    assert "s3-secret-key" not in failed.error
    assert len(failed.ids()) == 2 * allowed
    assert sorted({*failed.ids(), *again.ids()}) == [user["braze_id"] for user in USERS]


# Local disk


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of its own; skips the test where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounts a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.fault(DISK, "the disk of spool_dir is full when a download comes", LINE)
def test_disk_is_full(tmp_path: Path) -> None:
    """The next run has more room."""
    noise = json.dumps({"braze_id": "b9", "last_name": random.Random(7).randbytes(200_000).hex()}).encode()
    with small_disk(tmp_path / "spool", 131_072), Trial(tmp_path, lines=[[*LINES, noise]], invented=["b9"]) as trial:
        trial.fails("is full", "spool_dir")
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path / "spool")], check=True)
        run = trial.run()
    assert sorted(run.ids()) == [*(user["braze_id"] for user in USERS), "b9"]


@pytest.mark.fault(DISK, "the disk of spool_dir is full when a rejected line is kept", LINE)
def test_disk_is_full_of_rejected_lines(tmp_path: Path) -> None:
    bad = b"{" + b"x" * 300_000
    with small_disk(tmp_path / "spool", 131_072), Trial(tmp_path, lines=[[*LINES[:3], bad, *LINES[3:]]]) as trial:
        trial.fails("is full", "spool_dir")
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path / "spool")], check=True)
        run = trial.fails("max_rejected_lines")
    assert len(run.ids()) == len(USERS)


@pytest.mark.parametrize("mode", at_night([0o755, 0o777], but=[0o777]))
@pytest.mark.fault(DISK, "spool_dir that all users can read", "the same rows; it is made private first")
def test_readable_spool(tmp_path: Path, mode: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(mode)
    with Trial(tmp_path) as trial:
        trial.delivers()
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700


@pytest.mark.fault(DISK, "spool_dir that all users share, such as /tmp", "one line")
def test_shared_spool(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o1777)
    with Trial(tmp_path) as trial:
        trial.fails("spool_dir", "shared by all users")
        assert not trial.requests
    assert stat.S_IMODE(spool.stat().st_mode) == 0o1777


@pytest.mark.parametrize(
    "content",
    [
        night_row(DISK, "an empty journal", SAME, b""),
        row(DISK, "a journal that is cut off", SAME, b'{"version":1,"url":"http'),
        night_row(DISK, "a journal of zeros", SAME, bytes(4096)),
        row(DISK, "a journal of another form", SAME, b'{"version":1,"url":5,"bookmark":[1]}'),
        night_row(DISK, "a journal of 100,000 brackets", SAME, b"[" * 100_000),
    ],
)
def test_spoilt_journal(tmp_path: Path, content: bytes) -> None:
    """The run after a failed one does without it."""
    with Trial(tmp_path, download(replies(500))) as trial:
        trial.fails("could not be fetched")
        (journal,) = (tmp_path / "spool" / "journal").glob("*.json")
        journal.write_bytes(content)
        trial.heal()
        trial.delivers()


# STATE


def of_last(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Change the only export in a STATE."""

    def spoil(state: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(state)
        change(changed["bookmarks"]["export_files"]["exports"][0])
        return changed

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        row(STATE, "STATE of another segment", "a new export", of_last(lambda entry: entry.update(segment_id="other"))),
        row(
            STATE,
            "STATE of a later version",
            "a new export; the log says why",
            lambda state: {"bookmarks": {"export_files": {**state["bookmarks"]["export_files"], "version": 99}}},
        ),
        row(
            STATE,
            "STATE that lacks members",
            "a new export; the log says why",
            of_last(lambda entry: entry.pop("emitted")),
        ),
        night_row(
            STATE,
            "members of another type",
            "a new export; the log says why",
            of_last(lambda entry: entry.update(segment_id=[1])),
        ),
        night_row(
            STATE,
            "a time that is none",
            "a new export; the log says why",
            of_last(lambda entry: entry.update(requested_at="soon")),
        ),
        night_row(
            STATE,
            "a number in place of a time",
            "a new export; the log says why",
            of_last(lambda entry: entry.update(requested_at=1e400)),
        ),
        night_row(
            STATE,
            "a count that is infinite",
            "a new export",
            of_last(lambda entry: entry.update(users=float("inf"), last_users=-1)),
        ),
        night_row(
            STATE,
            "a text in place of the exports",
            "a new export; the log says why",
            lambda _: {"bookmarks": {"export_files": {"version": 1, "exports": "x"}}},
        ),
        night_row(
            STATE,
            "null in place of an export",
            "a new export; the log says why",
            lambda _: {"bookmarks": {"export_files": {"version": 1, "exports": [None]}}},
        ),
        night_row(
            STATE,
            "bookmarks of other streams, and partitions",
            "a new export",
            lambda state: {"bookmarks": {**state["bookmarks"], "users": {"partitions": [{"context": {}}], "x": 1}}},
        ),
        night_row(
            STATE,
            "partitions in its own bookmark",
            "a new export",
            lambda state: {"bookmarks": {"export_files": {**state["bookmarks"]["export_files"], "partitions": [1]}}},
        ),
        row(STATE, "empty STATE", "a new export", lambda _: {}),
    ],
)
def test_state_that_is_odd(tmp_path: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """No row is missing, whatever STATE says of an export that is over."""
    with Trial(tmp_path) as trial:
        first = trial.delivers()
        trial.clock.time += 24 * 3600
        again = trial.run(state=spoil(first.states[-1]))
    assert sorted(again.ids()) == [user["braze_id"] for user in USERS]
