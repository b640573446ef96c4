"""The rows of one stream from one block of lines, rendered as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.exact_json import DECODER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import msgspec

_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Rows:
    """Exactly what a BATCH file holds, and what RECORD messages hold between their constant head and tail.

    Attributes:
        parts: The rows in several parts, every row followed by a newline.
        count: Number of rows.
    """

    parts: tuple[bytes, ...]
    count: int

    @classmethod
    def of(cls, rows: Iterable[bytes]) -> Rows:
        """Join rendered rows."""
        lines = [*rows, b""]
        return cls((b"\n".join(lines),), len(lines) - 1)

    @classmethod
    def joined(cls, several: Sequence[Rows]) -> Rows:
        """Join several rows of one stream, without copying them."""
        return cls(tuple(part for rows in several for part in rows.parts), sum(rows.count for rows in several))

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return sum(map(len, self.parts))

    @property
    def jsonl(self) -> bytes:
        """All rows, each followed by a newline."""
        return b"".join(self.parts)

    def pieces(self) -> Iterator[bytes]:
        """Yield the lines in pieces of about 1 MiB at most, so that a copy of one is never the size of a file."""
        for part in self.parts:
            start = 0
            while start < len(part):
                end = part.find(b"\n", start + _PIECE_BYTES) + 1 or len(part)
                yield part[start:end]
                start = end

    def objects(self, decoder: msgspec.json.Decoder[Any] = DECODER) -> Iterator[dict[str, Any]]:
        """Yield the rows as objects, for stream maps and flattening; the decoder chooses the type of numbers."""
        return (decoder.decode(row) for part in self.parts for row in part.split(b"\n")[:-1])
