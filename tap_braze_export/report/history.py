"""The last runs, read from the pages that they left in the same directory."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MOST_RUNS = 10
_MOST_PAGES = 100
"""Pages that are opened: those of other programs may lie there, too."""
_MOST_ENTRIES = 10_000
"""Files of the directory that are considered."""
_MOST_BYTES = 64 * 1024
"""Of a page that are read: the facts stand at its beginning."""
_VERSION = 1
_BLOCK = re.compile(rb'<script type="application/json" id="tap-braze-export-run">([^<]*)</script>')

_Count = Annotated[int, Meta(ge=0, le=10**15)]
_Seconds = Annotated[float, Meta(ge=0, le=10**9)]
_Timestamp = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]


class PastRun(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The numbers of a run that later ones are compared with: they stand in its page as JSON.

    Names mean what they do in `RunFacts`, as sums over all streams and exports.
    """

    started_at: _Timestamp
    outcome: Annotated[str, Meta(pattern="^(done|failed|stopped)$")]
    resync: bool
    seconds: _Seconds
    seconds_waiting: _Seconds
    users: _Count
    unchanged: _Count
    rows: _Count
    rescued: _Count
    rejected: _Count
    memory: _Count
    version: Annotated[int, Meta(ge=_VERSION, le=_VERSION)] = _VERSION


_DECODER = msgspec.json.Decoder(PastRun)


def as_json(run: PastRun) -> str:
    """A run's facts as they stand in its page; numbers and fixed words only, so that nothing in them ends the block."""
    return msgspec.json.encode(run).decode()


def last_runs(path: Path, *, resync: bool) -> list[PastRun]:
    """The last runs of a kind whose pages lie beside a page's path; the latest first.

    A page that is damaged, of another program or of another kind of run is skipped.
    """
    runs = list[PastRun]()
    for page in _latest(path):
        with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if (found := _BLOCK.search(_beginning(page))) and (run := _DECODER.decode(found[1])).resync == resync:
                runs.append(run)
        if len(runs) == MOST_RUNS:
            break
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def _latest(path: Path) -> Iterable[Path]:
    """The pages of a directory that were written last."""
    entries = list[tuple[float, str]]()
    with suppress(OSError), os.scandir(path.parent) as found:
        for entry, _ in zip(found, range(_MOST_ENTRIES), strict=False):
            if entry.name.endswith(path.suffix) and not entry.name.startswith("."):
                with suppress(OSError):
                    entries.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    return (path.parent / name for _, name in sorted(entries, reverse=True)[:_MOST_PAGES])


def _beginning(page: Path) -> bytes:
    """The first bytes of a file; neither a link nor a pipe is opened.

    Raises:
        OSError: It is none, or cannot be read.
    """
    descriptor = os.open(page, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError
        return file.read(_MOST_BYTES)
