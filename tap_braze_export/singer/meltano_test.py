"""Notices `meltano config test`, which runs the tap until its first RECORD message and then ends it.

An export for that one message would take Braze an hour, so such a call gets the checks of `--test`, and a message that
is made up.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

_STDOUT, _STDERR = 1, 2


def is_one_pipe() -> bool:
    """True if messages and log leave through one pipe: no loader could read that, and `meltano config test` does it."""
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(_STDOUT).st_mode)
        return is_pipe and os.path.sameopenfile(_STDOUT, _STDERR)
    except OSError:
        return False


def is_caller() -> bool:
    """True if the process that started this one is `meltano config test`; false where the system does not say."""
    if not is_one_pipe():
        return False
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return {b"config", b"test"} <= {*words} and any(Path(os.fsdecode(word)).name == "meltano" for word in words)


def answer() -> None:
    """Write the one message that `meltano config test` waits for."""
    sys.stdout.write(
        '{"type":"RECORD","stream":"export_files","record":{"export_id":"meltano config test","file":""}}\n'
    )
    sys.stdout.flush()
