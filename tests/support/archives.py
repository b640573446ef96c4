"""Archives in memory: written to what cannot be sought, and read line by line."""

from __future__ import annotations

import io

from tap_braze_export.files import archive


class Pipe(io.RawIOBase):
    """A file that cannot be sought: a zip written to it has checksums and sizes after the data."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]
        return len(data)  # type: ignore[arg-type]


def lines_of(content: bytes) -> list[bytes]:
    """All lines of an object called `a`."""
    return [
        line
        for member in archive.members(io.BytesIO(content), "a")
        for block in archive.blocks(io.BytesIO(content), member)
        for line in block.lines
    ]
