"""A process that reads files, started by `processes.py`: it lives as long as the pipe whose number it is given."""

from __future__ import annotations

import pickle
import signal
import sys
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.workers.file_reader import FileReader


def main() -> None:
    """Read files until the run closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # it ends without a traceback
    warnings.simplefilter("ignore")  # the run shows its own
    from tap_braze_export.workers.memory import keep_freed_memory  # noqa: PLC0415 - after the signals

    keep_freed_memory()
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        reader: FileReader = connection.recv()
        while True:
            connection.send_bytes(pickle.dumps(reader.result(connection.recv())))


if __name__ == "__main__":
    main()
