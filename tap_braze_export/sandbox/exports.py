"""One export: the steps in which its files are written and delivered, and when it counts as running."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from tap_braze_export.sandbox.archives import write_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tap_braze_export.sandbox.bucket import Bucket
    from tap_braze_export.sandbox.faults import Faults
    from tap_braze_export.sandbox.segments import Segment
    from tap_braze_export.sandbox.selection import Selection


@dataclass(frozen=True)
class Step:
    """One step of an export; `run` returns the path of the file that it delivered, or an empty string."""

    run: Callable[[], str]
    later: bool = False  # True if time passes before it
    completes: bool = False  # True if the export no longer runs afterwards


@dataclass(eq=False)
class Export:
    """One running or finished export."""

    segment: Segment
    selection: Selection
    kind: str  # zip or gzip
    requested_at: float
    callback: str = ""
    source: str = "segment"
    updated_since: float | None = None
    object_prefix: str = ""
    running: bool = True
    cancelled: bool = False
    polls: int = 0
    downloaded: bool = False
    url: str = ""
    archive: Path | None = None
    steps: Iterator[Step] = field(default_factory=lambda: iter(()))
    _next: Step | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        """Make the object prefix as Braze does: a UUID and the second of the request."""
        self.object_prefix = f"{uuid.uuid4()}-{int(self.requested_at)}"

    @property
    def ready(self) -> bool:
        """True if every file is there."""
        return not self.running and not self.cancelled

    @property
    def is_empty(self) -> bool:
        """True if it has no users."""
        return len(self.segment) == 0

    def complete(self) -> str:
        """Count as finished."""
        self.running = False
        return ""

    def vanish(self) -> str:
        """Run no longer, without ever being ready."""
        self.cancelled = True
        return ""

    def upcoming(self) -> Step | None:
        """The next step; None if there is none, or the export is cancelled."""
        with self._lock:
            if self.cancelled:
                return None
            if self._next is None:
                self._next = next(self.steps, None)
            return self._next

    def advance(self) -> str:
        """Run the next step; return the file that it delivered, or an empty string."""
        with self._lock:
            step = self.upcoming()
            self._next = None
            return step.run() if step else ""

    def proceed(self) -> None:
        """Run every step up to the next one that comes later."""
        while (step := self.upcoming()) and not step.later:
            self.advance()

    def finish(self) -> None:
        """Run the steps up to completion, also those that come later."""
        while self.running and self.upcoming():
            self.advance()

    def deliver_next_file(self) -> str | None:
        """Run the steps up to the next delivered file, but not completion."""
        while (step := self.upcoming()) and not step.completes:
            if delivered := self.advance():
                return delivered
        return None


def steps_to_readiness(export: Export, faults: Faults, steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps of an export; those of one that is never ready lead to nothing."""
    if "never-ready" in faults:
        return
    if export.is_empty and "empty-never-ready" in faults:
        yield Step(export.vanish, completes=True)
        return
    yield from steps


def _members(export: Export, faults: Faults, parts: Iterable[Iterator[bytes]]) -> Iterable[Iterator[bytes]]:
    return () if export.is_empty and "empty-archive" in faults else parts


def hosted_steps(export: Export, folder: Path, faults: Faults, users_per_file: int) -> Iterator[Step]:
    """Yield the steps of an export with one archive behind a signed URL."""

    def build() -> str:
        export.archive = folder / export.object_prefix
        parts = export.segment.parts(export.selection, users_per_file)
        # Or a stopping sandbox would write for minutes.
        parts = takewhile(lambda _: not export.cancelled, parts)
        write_archive(export.archive, export.kind, _members(export, faults, parts), faults)
        return ""

    yield Step(build)
    if "never-complete" not in faults:
        yield Step(export.complete, completes=True)


@dataclass
class BucketDelivery:
    """Delivers the files of one export to a bucket, one for each `users_per_file` users."""

    export: Export
    folder: Path
    faults: Faults
    users_per_file: int
    bucket: Bucket

    def steps(self) -> Iterator[Step]:
        """Yield the steps of the export, in order."""
        export, faults = self.export, self.faults
        if "foreign-export" in faults:
            yield Step(self._put_other_files)
        unwritten = "no-file" in faults or (export.is_empty and "empty-bucket" in faults)
        count = 0 if unwritten else export.segment.file_count(self.users_per_file)
        parts = export.segment.parts(export.selection, self.users_per_file)
        for number, lines in zip(range(count), parts, strict=False):
            last = number == count - 1
            late = last and "late-file" in faults
            if late:
                yield from self._completion()
            later = late or (number > 0 and "slow-trickle" in faults)
            if last and "half-written-file" in faults:
                yield from self._growing(number, lines, later=later)
            else:
                yield Step(partial(self._put, number, lines), later=later)
        if export.running:
            yield from self._completion()

    def _completion(self) -> Iterator[Step]:
        if "never-complete" not in self.faults:
            yield Step(self.export.complete, completes=True)

    def _folder_key(self, days: int = 0) -> str:
        day = datetime.fromtimestamp(self.export.requested_at, UTC) + timedelta(days=days)
        return f"segment-export/{self.export.segment.id}/{day:%Y-%m-%d}"

    def _key(self, number: int) -> str:
        folder = self._folder_key(1 + number % 2 if "other-date-folder" in self.faults else 0)
        extension = "gz" if self.export.kind == "gzip" else "zip"
        return f"{folder}/{self.export.object_prefix}/{uuid.uuid4().hex}.{extension}"

    def _write(self, number: int, lines: Iterator[bytes]) -> Path:
        path = self.folder / f"{self.export.object_prefix}-{number}"
        write_archive(
            path, self.export.kind, _members(self.export, self.faults, [lines]), self.faults, first=number == 0
        )
        return path

    def _put(self, number: int, lines: Iterator[bytes]) -> str:
        path = self._write(number, lines)
        if number == 0 and "leftover-file" in self.faults:
            self.bucket.put(path.read_bytes()[: path.stat().st_size // 2], self._key(number))
        try:
            return self.bucket.put(path, self._key(number))
        finally:
            path.unlink()

    def _growing(self, number: int, lines: Iterator[bytes], *, later: bool) -> Iterator[Step]:
        path, key = self._write(number, lines), self._key(number)
        content = path.read_bytes()
        path.unlink()
        yield Step(partial(self.bucket.put, content[: len(content) // 2], key), later=later)
        yield Step(partial(self.bucket.put, content, key), later=True)

    def _put_other_files(self) -> str:
        folder = self._folder_key()
        self.bucket.put(b"PK\x05\x06" + bytes(18), f"{folder}/{uuid.uuid4()}-1464728599/{'0' * 32}.zip")
        self.bucket.put(b"external_id,email\n1,a@example.com\n", f"{folder}/users-a1b2c3.zip")
        return ""
