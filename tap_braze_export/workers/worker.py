"""A process that reads files, started by `processes.py`: it lives as long as the pipe whose number it is given."""

from __future__ import annotations

import signal
import sys
import warnings
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_braze_export.workers.file_reader import FileReader


def main() -> None:
    """Read files until the run closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # it ends without a traceback
    warnings.simplefilter("ignore")  # the run shows its own
    # After the signals are handled, since these imports take a while.
    from tap_braze_export.errors import TapError, unforeseen  # noqa: PLC0415
    from tap_braze_export.workers.memory import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    connection = Connection(int(sys.argv[1]))
    try:
        reader: FileReader = connection.recv()
        while True:
            file = connection.recv()
            try:
                result = reader.read(file)
            except TapError as error:
                connection.send(error)
            except Exception as error:  # noqa: BLE001 - the other process tells of it
                connection.send(TapError(unforeseen(error)))
            else:
                connection.send(result)
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    main()
