"""Imports a program, and makes a copy of this process for each request; run by the interpreter of the program.

A request is a packet of JSON with four descriptors: standard input, output and error, and one for the report.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any

_MOST_BYTES = 1 << 18
NUMBER_BYTES = 4
"""Of each number of a report, so that two that come at once are two."""


def _function(entry: str) -> Any:
    if ":" not in entry:
        (script,) = entry_points(group="console_scripts", name=entry)
        return script.load()
    module, _, name = entry.partition(":")
    return attrgetter(name)(importlib.import_module(module))


def _is_copy(report: int, standard: list[int]) -> bool:
    """Make a copy of this process; True in the copy. The original reports its process id and exit code, and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        os.close(report)
        return True
    for descriptor in standard:
        os.close(descriptor)
    os.write(report, child.to_bytes(NUMBER_BYTES))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(report, code.to_bytes(NUMBER_BYTES, signed=True))
    os._exit(0)


def _become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Take over the surroundings of a request."""
    if request["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [sys.argv[0], *request["arguments"]]


def main() -> None:
    """Serve until the other side closes."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    entry, modules = sys.argv[2], sys.argv[3:]
    function = _function(entry)
    for module in modules:
        importlib.import_module(module)
    sys.argv[0] = entry
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that report
    while True:
        content, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES, 4)
        if not content:
            return
        if not os.fork():
            break
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    *standard, report = descriptors
    if _is_copy(report, standard):
        _become(json.loads(content), standard)
        sys.exit(function())


if __name__ == "__main__":
    main()
