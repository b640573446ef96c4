"""Downloads while a loader takes its time: links that expire, a disk without room, and what is reported."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import threading
import zipfile
from concurrent.futures import wait
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from tap_braze_export.braze.client import Braze
from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import DiskFullError
from tap_braze_export.export import SEGMENT, Export
from tap_braze_export.exports.bucket_polling import BucketExport
from tap_braze_export.exports.lifecycle import Exports
from tap_braze_export.exports.scope import Source
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.disk import disk_full_error
from tap_braze_export.files.prefetch import CopyToDisk
from tap_braze_export.files.spool import Spool
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings
from tap_braze_export.state import Bookmark
from tests.support.deliveries import shared
from tests.support.fakes import FakeClock, Server, as_json
from tests.support.runs import selecting, sync, tap_class

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tap_braze_export.files.objects import BucketObject
    from tap_braze_export.files.prefetch import Fetched

MIB = 2**20
SECONDS = 30
LINK_SECONDS = 4 * 3600
LAST_NAMES = selecting(["users"], {"users": ["last_name"]})
USERS = selecting(["users", "export_files"])


def zipped(*contents: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for number, content in enumerate(contents):
            opened.writestr(f"{number}.txt", content)
    return written.getvalue()


class TwoSegments:
    """Braze with the segments `a` and `b`, each behind a link; `get` answers the store's requests for them.

    Args:
        server: Receives the requests.
        get: Called with the segment; returns status and content.
    """

    def __init__(self, server: Server, get: Callable[[str], tuple[int, bytes]]) -> None:
        self.posts: list[str] = []
        self._url = server.url
        self._get = get
        self._server = server
        server.answers = [self]

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            segment = json.loads(self._server.seen[-1].body)["segment_id"]
            self.posts.append(segment)
            content = json.dumps({"object_prefix": f"{segment}-1", "url": f"{self._url}/{segment}.zip"}).encode()
            status = 201
        elif handler.path.endswith(".zip"):
            status, content = self._get(handler.path[1])
        else:
            status, content = 403, b"{}"
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def config(server: Server, folder: Path, **more: Any) -> dict[str, Any]:
    common = {"api_url": server.url, "api_key": "key", "segment_ids": ["a", "b"], "workers": 1}
    return {**common, "spool_dir": str(folder / "spool"), **more}


# A link that dies in the queue


class SlowLoader(io.RawIOBase):
    """Takes twenty minutes for each user; before the tenth it has waited until something happened."""

    def __init__(self, clock: FakeClock, happened: threading.Event) -> None:
        super().__init__()
        self.users: list[bytes] = []
        self._clock = clock
        self._happened = happened

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any, /) -> int:
        for user in re.findall(rb'"braze_id":"(\w+)"', bytes(data)):
            if len(self.users) == 9:
                self._happened.wait(SECONDS)
            self.users.append(user)
            self._clock.time += 1200
        return len(data)


@pytest.mark.slow
@pytest.mark.fault(
    "Loader and signals", "a loader that takes hours for a file", "the same rows; links do not expire meanwhile"
)
def test_download_begins_while_a_huge_file_of_another_export_is_written(tmp_path: Path) -> None:
    """Its link would have expired by the end of that file, which has a block for every four or five of its users."""
    clock, fetched = FakeClock(), threading.Event()
    began = clock.time
    huge = b"".join(b'{"braze_id":"a%d","last_name":"%s"}\n' % (number, b"x" * 15 * MIB) for number in range(24))
    contents = {"a": gzip.compress(huge, 1), "b": zipped(b'{"braze_id":"b0"}\n')}
    requests: list[str] = []

    def get(segment: str) -> tuple[int, bytes]:
        requests.append(segment)
        if segment == "b":
            if requests.count("b") == 1:
                return 403, b"Access Denied"  # not ready
            fetched.set()
            if clock.time > began + LINK_SECONDS:
                return 403, b"Request has expired"
        return 200, contents[segment]

    loader = SlowLoader(clock, fetched)
    with Server() as server, redirect_stdout(io.TextIOWrapper(io.BufferedWriter(loader))):
        TwoSegments(server, get)
        tap_class(clock)(config=config(server, tmp_path, export_timeout_minutes=6000), catalog=LAST_NAMES).sync_all()
    assert loader.users == [*(b"a%d" % number for number in range(24)), b"b0"]


# A disk without room


def exporting(server: Server, folder: Path, clock: FakeClock, *, capacity: int) -> Exports:
    """The exports of two segments on a disk of this size.

    Args:
        server: Braze.
        folder: The spool.
        clock: Time.
        capacity: Bytes.
    """
    spool = Spool(str(folder), clock=clock)
    spool.open()

    def free(_folder: Path) -> int:
        return capacity - sum(path.stat().st_size for path in (folder / "exports").rglob("*") if path.is_file())

    fields = RequestedFields.of(())

    def write_state(*, must: bool) -> None:  # noqa: ARG001
        exports.stated()

    common = shared(
        Settings.of(config(server, folder)),
        spool,
        client=Braze(server.url, "key", clock=clock),
        clock=clock,
        write_state=write_state,
        free=free,
    )
    exports = Exports([Source(SEGMENT, segment, fields) for segment in ("a", "b")], common, {})
    return exports


def reading(
    server: Server, folder: Path, clock: FakeClock, *, capacity: int, begin: Callable[[], bool] = lambda: True
) -> tuple[list[str], list[str]]:
    """Read the exports of two segments on a disk of this size; lines and failures.

    Args:
        server: Braze.
        folder: The spool.
        clock: Time.
        capacity: Bytes.
        begin: Tells if the first file may be read.
    """
    with exporting(server, folder, clock, capacity=capacity) as exports:
        lines = []
        while not exports.ended:
            deliveries = exports.poll()
            if not begin():
                exports.wait()
            elif deliveries:
                lines += [line.decode() for block in deliveries[0].blocks() for line in block.lines]
                deliveries[0].done(1, 0)
            else:
                exports.wait()
        return lines, exports.failures


CONTENT = {segment: zipped(segment.encode() + b"x" * 50_000) for segment in ("a", "b")}


@pytest.mark.parametrize("capacity", [60_000, 90_000, 150_000])
def test_download_that_finds_the_disk_full_is_left_to_the_next_run(tmp_path: Path, capacity: int) -> None:
    """The other export is read, one line says what is full, and the next run goes on without a new export."""
    first = threading.Event()  # its download was there

    def get(segment: str) -> tuple[int, bytes]:
        if any((tmp_path / "exports").glob("*-a-1/download")):
            first.set()
        return (200, CONTENT[segment]) if segment == "a" or first.is_set() else (403, b"not ready")

    with Server() as server:
        braze = TwoSegments(server, get)
        clock = FakeClock()
        lines, failures = reading(server, tmp_path, clock, capacity=capacity, begin=first.is_set)
        posts = [*braze.posts]
        if failures:
            more, _ = reading(server, tmp_path, clock, capacity=10 * capacity)
            lines += more
    assert sorted({line[0] for line in lines}) == ["a", "b"]
    assert all("Export b-1 of segment b: the disk of" in failure and "is full" in failure for failure in failures)
    assert posts == ["a", "b"]
    assert braze.posts.count("b") == 1


def test_rows_that_find_the_disk_full(tmp_path: Path) -> None:
    """Rows of a worker: the file is read once more if a download that only stays in case of need gives way."""
    with Server() as server:
        TwoSegments(server, lambda segment: (200, CONTENT[segment]))
        clock = FakeClock()
        with exporting(server, tmp_path, clock, capacity=150_000) as exports:
            while not (deliveries := exports.poll()):
                exports.wait()
            deliveries[0].done(1, 0)
            while not (deliveries := exports.poll()):
                exports.wait()
            full = disk_full_error(tmp_path)
            deliveries[0].failed(full)
            (again,) = exports.poll()
            assert (again.name, exports.failures) == (deliveries[0].name, [])
            again.failed(full)
            assert exports.ended
            assert "is full" in exports.failures[0]


def test_disk_that_is_full_with_nothing_to_free_ends_the_exports(tmp_path: Path) -> None:
    with Server() as server:
        TwoSegments(server, lambda segment: (200, CONTENT[segment]))
        lines, failures = reading(server, tmp_path, FakeClock(), capacity=40_000)
    assert lines == []
    assert len(failures) == 2
    assert all("bytes are wanted): free some space there, or set spool_dir" in failure for failure in failures)


def test_copy_from_the_bucket_that_finds_the_disk_full_ends_the_export_once_the_others_are_read(tmp_path: Path) -> None:
    """Files that have found room are emitted first, so the next run goes on with the rest."""
    clock = FakeClock()

    class OneAtATime(CopyToDisk):
        """A disk with room for one object."""

        @override
        def fetch(self, wanted: BucketObject) -> Fetched:
            if any((tmp_path / "spool").iterdir()):
                raise disk_full_error(tmp_path / "spool")
            return super().fetch(wanted)

    folder = tmp_path / "segment-export" / "s" / "2027-01-15" / "e-1"
    folder.mkdir(parents=True)
    (tmp_path / "spool").mkdir()
    for number in range(4):
        (folder / f"{number}.zip").write_bytes(zipped(b"{}"))
    bucket = Bucket(str(tmp_path), {}, clock=clock)
    export = BucketExport(
        Bookmark(Export(SEGMENT, "s", "e-1", clock.time), (), "", in_bucket=True),
        bucket,
        OneAtATime(bucket, tmp_path / "spool"),
        timer=PollTimer(clock, 10),
        threads=DaemonThreads(1),
        clock=clock,
        settle_seconds=None,
        deadline=clock.elapsed + 3600,
        max_objects=3,
    )
    read = []

    def poll() -> None:
        while not export.complete:
            files = export.poll()
            wait(export.transfers)
            if files:
                export.poll()
                read.append(files[0].name)
                export.done(files[0], 1)

    with pytest.raises(DiskFullError, match="is full"):
        poll()
    assert read == ["0.zip!0-0.txt"]


# What is reported


class Telling(logging.Handler):
    """Notes that a download was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Downloading"):
            self.told.set()


def test_download_under_way_is_not_called_waiting_for_braze(tmp_path: Path) -> None:
    """The store sends the second half once the first was reported."""
    content = zipped(b'{"braze_id":"1"}\n' + b" " * 20_000_000)
    telling = Telling()
    logging.getLogger().addHandler(telling)

    def download(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        telling.told.wait(SECONDS)
        handler.wfile.write(content[len(content) // 2 :])

    try:
        with Server() as server:
            server.answers = [as_json({"object_prefix": "e-1", "url": f"{server.url}/e.zip"}), download]
            clock = FakeClock(tick=3)
            run = sync(config(server, tmp_path, segment_ids=["s"]), clock=clock, catalog=USERS)
    finally:
        logging.getLogger().removeHandler(telling)
    assert run.counts["users"] == 1
    lines = [line for line in run.lines if line.startswith("Downloading")]
    assert lines
    assert all(re.fullmatch(r"Downloading ([\d.]+ of )?20 MB: e-1", line) for line in lines)
    assert [line for line in run.lines if line.startswith("Waiting for Braze")] == []
