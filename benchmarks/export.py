"""The exports that are measured: zips of the sandbox's users, made once, and a Braze that has one of them ready."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from tap_braze_export.sandbox.changes import ChangedPopulation
from tap_braze_export.sandbox.segments import Segment
from tap_braze_export.sandbox.selection import Selection
from tap_braze_export.sandbox.users import Population
from tap_braze_export.schema.user_object import TABLES, USERS

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path(__file__).parents[1] / ".cache" / "bench"
USERS_PER_FILE = 5000
ALL = 100
"""Per cent."""
_STARTED_AT = 1_800_000_000.0
"""When the changed users were updated; no other was so late."""
EVERY_FIELD = [
    *(column.requested_as or column.name for column in USERS.fields),
    *(table.path[0] for table in TABLES if table.path),
]


def path_of(users: int, changed: int = 0) -> Path:
    """The zip of so many users, of which a percentage has changed; beside it, for DuckDB, the same files gzipped."""
    return CACHE / (f"{users}-changed-{changed}.zip" if changed else f"{users}.zip")


def updated_path(users: int, changed: int) -> Path:
    """The zip of the changed users of `path_of` alone: the export of those that were updated since the day before."""
    return CACHE / f"{users}-updated-{changed}.zip"


def gzipped(users: int) -> Path:
    """The folder that holds the files of a zip as gzip."""
    return CACHE / f"{users}.gz"


def make(users: int, changed: int = 0) -> None:
    """Write an export as Braze does: files of 5,000 users with every field, 4.6 KB each."""
    CACHE.mkdir(parents=True, exist_ok=True)
    population = ChangedPopulation(1, changed, _STARTED_AT) if changed else Population(1)
    segment = Segment("all-users", "All users", population, [], range(users))
    for_others = users <= MOST_FOR_OTHERS and not changed
    if for_others:
        shutil.rmtree(gzipped(users), ignore_errors=True)
        gzipped(users).mkdir()
    with _zip(path_of(users, changed)) as archive:
        for number, part in enumerate(segment.parts(Selection.of(EVERY_FIELD), USERS_PER_FILE)):
            content = b"".join(line + b"\n" for line in part)
            archive.writestr(f"{number:05}.txt", content)
            if for_others:
                (gzipped(users) / f"{number:05}.json.gz").write_bytes(gzip.compress(content, 6))
    if 0 < changed < ALL:
        updated = [index for index in range(users) if population.updated_at(index) >= _STARTED_AT]
        only = Segment("all-users", "All users", population, [], updated)
        with _zip(updated_path(users, changed)) as archive:
            for number, part in enumerate(only.parts(Selection.of(EVERY_FIELD), USERS_PER_FILE)):
                archive.writestr(f"{number:05}.txt", b"".join(line + b"\n" for line in part))


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that is there once it is whole."""
    draft = path.with_suffix(".draft")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        yield archive
    draft.rename(path)


MOST_FOR_OTHERS = 100_000
"""Larger exports are for the tap alone."""


class _Braze(BaseHTTPRequestHandler):
    export = Path()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Accept the export, whose download is ready at once."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.export.name
        if "user_last_updated_at" in asked:
            name = name.replace("-changed-", "-updated-")
        address = f"http://{self.headers['Host']}/{name}"
        body = json.dumps({"message": "success", "object_prefix": "bench-1", "url": address}).encode()
        self._answer(body, 201)

    def do_GET(self) -> None:
        """Send the zip; nothing is known of the segment."""
        path = CACHE / self.path.strip("/")
        if path.suffix != ".zip":
            self._answer(b"{}", 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            self.connection.sendfile(file)

    def _answer(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def braze(users: int, changed: int = 0) -> Iterator[str]:
    """The address of a Braze whose export has so many users, of which a percentage has changed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Braze", (_Braze,), {"export": path_of(users, changed)}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":  # in a process of its own: its memory would count as that of what it starts
    make(*map(int, sys.argv[1:]))
