"""Many nights in a row on one spool_dir and one STATE, and what each of them leaves behind.

Usage: python -m tests.support.soak [--nights 200]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.nights import Nights, user

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEGMENT = "soak"
_USERS = 60
_AWAY = 10
"""Users that are not in the segment; every night others."""
_CHANGED = 3
_EXPORTS_KEPT = 2
_NIGHTS_PER_RESYNC, _NIGHTS_PER_LOST_STATE = 3, 4
_COME_AND_GO = ("open_files", "threads", "resident_mib")
_TOLERANCE = 1.05
"""Numbers and names in files differ in length from night to night."""
_UNREADABLE = b'{"email":"no-id@example.org"}'


@dataclass(frozen=True)
class Traces:
    """The traces of a night: in spool_dir and at fingerprints_url, in STATE, and in a process that goes on."""

    spool_files: int
    spool_bytes: int
    fingerprint_files: int
    fingerprint_bytes: int
    state_bytes: int
    open_files: int
    threads: int
    resident_mib: int

    @classmethod
    def of(cls, nights: Nights) -> Traces:
        """Take stock after a night."""
        spool, fingerprints = (_files(folder) for folder in (nights.folder / "spool", nights.fingerprints))
        return cls(
            spool_files=len(spool),
            spool_bytes=sum(path.stat().st_size for path in spool),
            fingerprint_files=len(fingerprints),
            fingerprint_bytes=sum(path.stat().st_size for path in fingerprints),
            state_bytes=len(json.dumps(nights.state)),
            open_files=len(list(Path("/dev/fd").iterdir())),
            threads=threading.active_count(),
            resident_mib=_resident_mib(),
        )


def soak(folder: Path, nights: int, **config: Any) -> Iterator[Traces]:
    """Run night after night, yielding the traces of each.

    Every night some users change, leave and come back, and a line cannot be read; some nights are resyncs, and after
    some the loader fails: STATE is not handed on.
    """
    with Sandbox(users=0) as sandbox:
        clock = FakeClock(time.time(), tick=0.01)
        pipeline = Nights(sandbox, folder, clock=clock, max_rejected_lines=10, **config)
        for night in range(1, nights + 1):
            if night % _NIGHTS_PER_RESYNC == 0:
                pipeline.run(braze_ids=[f"u{number}" for number in range(5)])
            else:
                pipeline.run({SEGMENT: _users(night)}, confirms=bool(night % _NIGHTS_PER_LOST_STATE))
            pipeline.target.tables.clear()  # the loader's tables are no trace of the tap
            sandbox.calls.clear()  # neither is the sandbox's own memory
            del sandbox.workspace.exports[:-_EXPORTS_KEPT]
            _let_be_made_at(pipeline.clock.time, pipeline.folder)
            gc.collect()
            yield Traces.of(pipeline)


def _users(night: int) -> list[dict[str, Any] | bytes]:
    away = {(night * 7 + number) % _USERS for number in range(_AWAY)}
    changes = [(night + _CHANGED - number % _CHANGED) // _CHANGED for number in range(_USERS)]
    cities = [f"city {changes[number] if number % 20 == night % 20 else 0:06}" for number in range(_USERS)]
    present = (user(f"u{number}", cities[number]) for number in range(_USERS) if number not in away)
    return [*present, _UNREADABLE]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _let_be_made_at(now: float, folder: Path) -> None:
    """Move the times of new files to those of the simulated nights: their age decides when they are removed."""
    for path in folder.rglob("*"):
        if path.stat().st_mtime <= time.time() + 1:
            os.utime(path, (now, now))


def _resident_mib() -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)


def grown(traces: Sequence[Traces]) -> dict[str, tuple[int, int]]:
    """The traces of which the later half of the nights has more than the earlier half, with both numbers.

    A leak raises the least number of what comes and goes within a process, and the greatest of what nights leave.
    """
    halves = [[asdict(each) for each in half] for half in (traces[: len(traces) // 2], traces[len(traces) // 2 :])]
    result = {}
    for name in asdict(traces[0]):
        choose = min if name in _COME_AND_GO else max
        early, late = (choose(each[name] for each in half) for half in halves)
        if late > early * _TOLERANCE:
            result[name] = early, late
    return result


def main() -> None:
    """Print the traces of some nights, with and without fingerprints, and what has grown; that is a failure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--nights", type=int, default=200)
    count = options.parse_args().nights
    failed = False
    for title, config in (("with fingerprints", {}), ("without", {"fingerprints_url": None})):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            traces = list(soak(Path(folder), count, **config))
        print(f"{count} nights {title}, {time.monotonic() - began:.0f} s")  # noqa: T201
        for night in sorted({1, count // 10, count // 4, count // 2, count * 3 // 4, count}):
            print(f"  night {night}: {traces[night - 1]}")  # noqa: T201
        print(f"  grown: {grown(traces)}")  # noqa: T201
        failed |= bool(grown(traces))
    sys.exit(failed)


if __name__ == "__main__":
    main()
