"""The rows of one stream from one block of lines, rendered as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tap_braze_export.rows.conform import as_loaded
from tap_braze_export.rows.exact_json import DECODER, ENCODER
from tap_braze_export.schema.table import EXPORTED_AT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import msgspec

    from tap_braze_export.schema.selection import Selection

_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Rows:
    """Exactly what a BATCH file holds, and what RECORD messages hold between their constant head and tail.

    They come in several parts; each row is followed by a newline.
    """

    parts: tuple[bytes, ...]
    count: int

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Rows:
        """Render rows: structs, or objects by column."""
        rows = [*rows]
        return cls((ENCODER.encode_lines(rows),), len(rows))

    @classmethod
    def joined(cls, several: Iterable[Rows]) -> Rows:
        """Join several rows of one stream, without copying them."""
        several = [*several]
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


def membership_rows(
    selection: Selection, braze_ids: Iterable[str], *, segment_id: str, is_member: bool, exported_at: str
) -> Rows:
    """Render the rows of users that are, or are no longer, members of a segment: they come from no line."""
    row = {"segment_id": segment_id, "braze_id": "", "is_member": is_member, EXPORTED_AT: exported_at}
    columns = as_loaded(selection.columns, row)
    return Rows.of(columns | {"braze_id": braze_id} for braze_id in braze_ids)
