"""Tries a directory out while one call after the other is refused; run with `refusing_disk.c` preloaded.

Usage: python -m tests.support.refused_calls FOLDER, with the calls as JSON on standard input; prints what came of each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tap_braze_export.clock import Clock
from tap_braze_export.errors import TapError
from tap_braze_export.files.disk import free_bytes
from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.store import Store
from tap_braze_export.singer.batch_files import BatchFiles

if TYPE_CHECKING:
    from collections.abc import Callable


def _directories(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Each setting's directory, and the function that tries it out."""
    spool, prints, batches = (folder / name for name in ("spool", "prints", "batches"))
    config = {"encoding": {"format": "jsonl", "compression": "gzip"}, "storage": {"root": str(batches)}}
    return {
        "spool_dir": (spool, Spool(str(spool), clock=Clock()).check),
        "fingerprints_url": (prints, Store(str(prints), {}, None, Clock()).check),
        "batch_config.storage.root": (batches, BatchFiles.of(config, Clock()).check),
        "free space": (spool, lambda: free_bytes(spool)),
    }


def main(folder: Path) -> None:
    """Print a line of setting, call, number of the error and the message, for each call on standard input."""
    directories = _directories(folder)
    for _, check in directories.values():
        check()
    for setting, call, number in json.load(sys.stdin):
        below, check = directories[setting]
        os.environ.update({"REFUSED_CALL": call, "REFUSED_ERRNO": str(number), "REFUSED_BELOW": str(below)})
        try:
            message = check() and "told"
        except TapError as error:
            message = str(error)
        os.environ["REFUSED_CALL"] = ""
        sys.stdout.write(json.dumps([setting, call, number, message or ""]) + "\n")
        left = [str(path) for path in folder.rglob("*") if ".trial" in path.name or path.name == "running"]
        assert call == "unlink" or not left, left
        for path in left:
            Path(path).unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
