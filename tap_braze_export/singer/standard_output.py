"""Standard output whose failures are errors of the tap, also where the program was started without one."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from typing_extensions import override

from tap_braze_export.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_INPUT, _OUTPUT, _ERRORS = 0, 1, 2


class _Descriptor(io.FileIO):
    """Descriptor 1; a reader that has closed its pipe stays a BrokenPipeError, as that ends the run quietly."""

    @override
    def write(self, b: ReadableBuffer, /) -> int:
        try:
            return super().write(b)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output cannot be written ({error.strerror}): run again with an output that works, the next"
                " run continues from the last STATE"
            ) from None


def install() -> None:
    """Have `sys.stdout` raise errors of the tap; standard descriptors that are closed become ones without content.

    Otherwise the next file or connection that is opened would get the number of a closed one.
    """
    for descriptor in (_INPUT, _OUTPUT, _ERRORS):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_WRONLY if descriptor == _ERRORS else os.O_RDONLY)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(_ERRORS, "w", closefd=False), encoding="utf-8", write_through=True)
    is_terminal = os.isatty(_OUTPUT)
    raw = _Descriptor(_OUTPUT, "w", closefd=False)
    encoding = getattr(sys.stdout, "encoding", "utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, line_buffering=is_terminal)


def end() -> OutputError | None:
    """Write what is left, and let nothing be written any more; returns the error if it cannot be written."""
    problem = None
    try:
        sys.stdout.flush()
    except OutputError as error:
        problem = error
    except OSError:  # nobody reads
        pass
    discard()
    return problem


def discard() -> None:
    """Lead what the interpreter writes at its end nowhere: it would fail as the last write did."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _OUTPUT)
    os.close(nowhere)
