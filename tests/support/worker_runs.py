"""Whole runs whose files are read by workers, compared with those of one process."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.support import batches, preloaded
from tests.support.runs import Ended, environment, settings, written
from tests.support.workers import SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tests.support.preloaded import Copy
    from tests.support.runs import Output, Run

OWN_COLUMNS = {"export_id", "file", "bytes"}
"""Columns in which two exports of the same users differ: archives hold times."""


def files(run: Output) -> list[bytes]:
    """The RECORD lines of each file without what each export has of its own; workers do not keep their order."""
    output = re.sub(rb'"(export_id|file|emitted)":"[^"]*"', b"", run.stdout)
    output = re.sub(rb'"bytes":\d+', b"", output)
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in output.splitlines():
        if line.startswith(b'{"type":"RECORD"'):
            lines.append(line)
        if line.startswith(b'{"type":"RECORD","stream":"export_files"'):  # the last row of a file
            found.append(b"\n".join(lines))
            lines.clear()
    assert not lines
    return sorted(found)


def last_state(run: Run) -> list[dict[str, Any]]:
    """The exports in the last STATE, without ids."""
    exports = run.states[-1]["bookmarks"]["export_files"]["exports"]
    own = {"export_id", "emitted", "requested_at", "accepted_at", "complete"}  # no two have one time
    return [{name: value for name, value in export.items() if name not in own} for export in exports]


def in_any_order(rows: list[dict[str, Any]]) -> list[str]:
    """Rows of a stream in an order of their own, without what each export has of its own."""
    return sorted(
        json.dumps({name: value for name, value in row.items() if name not in OWN_COLUMNS}, default=str) for row in rows
    )


def batch_rows(run: Output, stream: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """The rows of a stream in batch files, in an order of their own, without the time of the export."""
    found = batches.jsonl(run, options).get(stream, [])
    return in_any_order([{name: value for name, value in row.items() if name != "exported_at"} for row in found])


def written_by_workers(run: Output, stream: str) -> list[str]:
    """Batch files that workers have written: they are named after a delivered file and a block, not numbered."""
    found = batches.manifests(run).get(stream, [])
    return [url for url in found if re.search(r"-[0-9a-f]{24}-\d+\.json\.gz$", url)]


def leftovers(folder: Path) -> list[Path]:
    """Rows in the spool that nobody has fetched."""
    return [*(folder / "spool" / "runs").iterdir()]


def running(folder: Path, sandbox: Sandbox, **more: Any) -> Copy:
    """Start the installed command, in a group of its own."""
    return started(folder, settings(sandbox, folder, **more))


def started(folder: Path, config: Mapping[str, Any], **variables: str) -> Copy:
    """Start the installed command with a configuration, in a group of its own."""
    path = written(folder, config)
    with (folder / "stderr.txt").open("wb") as log:
        return preloaded.tap().start(
            ["--config", path], env=environment(**variables), stderr=log.fileno(), new_session=True
        )


def ended(process: Copy, folder: Path) -> Ended:
    """Wait for the end of a command."""
    stdout = process.stdout.read()
    process.stdout.close()
    return Ended(stdout, process.wait(SECONDS), (folder / "stderr.txt").read_text("utf-8"))
