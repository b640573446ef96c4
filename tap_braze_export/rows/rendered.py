"""The rows of one stream from one block of lines, rendered as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.conform import as_loaded
from tap_braze_export.rows.exact_json import DECODER, ENCODER
from tap_braze_export.schema.table import RESCUED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import msgspec

    from tap_braze_export.schema.selection import Selection
    from tap_braze_export.schema.table import Field

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


def row_encoders(selections: Mapping[str, Selection]) -> dict[str, Callable[[dict[str, Any]], bytes]]:
    """Return the function that renders a row of the careful path, by stream: rescued data may have to be text."""
    texts = {
        name: [column for column in selection.columns if column.name == RESCUED and column.loaded]
        for name, selection in selections.items()
    }
    return {name: partial(_encode_with, columns) if columns else ENCODER.encode for name, columns in texts.items()}


def _encode_with(texts: list[Field], row: dict[str, Any]) -> bytes:
    return ENCODER.encode(row | as_loaded(texts, row))
