"""The rows of one stream from one block of lines, rendered as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tap_braze_export.conform import read_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE = 2**20
_DECODER = msgspec.json.Decoder(float_hook=read_number)


@dataclass(frozen=True)
class Rows:
    """Exactly what a BATCH file holds, and what RECORD messages hold between their constant head and tail."""

    jsonl: bytes
    """Each row followed by a newline."""
    count: int

    @classmethod
    def of(cls, rows: Iterable[bytes]) -> Rows:
        """The rendered rows, joined."""
        lines = [*rows, b""]
        return cls(b"\n".join(lines), len(lines) - 1)

    def pieces(self) -> Iterator[bytes]:
        """The lines in pieces of about 1 MiB, so that what is made of them is never the size of a file."""
        start = 0
        while start < len(self.jsonl):
            end = self.jsonl.find(b"\n", start + _PIECE) + 1 or len(self.jsonl)
            yield self.jsonl[start:end]
            start = end

    def objects(self) -> Iterator[dict[str, Any]]:
        """The rows as objects, for stream maps and flattening."""
        return map(_DECODER.decode, self.jsonl.split(b"\n")[:-1])
