"""Archives that are small and become much: blank lines, short lines, members without content."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.files import archive, inflate
from tap_braze_export.files.archive import Member
from tests.support.night import at_night

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.files.archive import Block

pytestmark = pytest.mark.slow


def blocks(content: bytes) -> Iterator[Block]:
    """The lines of a gzip stream."""
    return archive.blocks(io.BytesIO(content), Member("a", len(content)))


def test_short_lines_are_split_into_blocks() -> None:
    """A block's lines cost memory beyond their bytes, so their number is bounded, too."""
    content = gzip.compress(b"1\n" * 1_200_000, 1)

    counts = [len(block.lines) for block in blocks(content)]

    assert counts == [2**19, 2**19, 1_200_000 - 2**20]


@pytest.mark.parametrize("blank", at_night([b"\n", b"\r\n", b" \n"], but=[b"\r\n"]))
def test_many_blank_lines_are_in_no_block(blank: bytes) -> None:
    """They cost nothing, and the numbers of the lines after them hold."""
    content = gzip.compress(b"1\n" + blank * 2_000_000 + b"2\n" + blank * 3_000_000 + b"3", 1)

    found = [block for block in blocks(content) if any(line.strip() for line in block.lines)]

    assert sum(len(block.lines) for block in blocks(content)) < 100_000
    assert [
        (block.first_line + number, line) for block in found for number, line in enumerate(block.lines) if line.strip()
    ] == [(1, b"1"), (2_000_002, b"2"), (5_000_003, b"3")]


def test_many_gzip_members_are_inflated_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a piece is copied after each member: with a mebibyte, a million empty ones would take minutes."""
    fed: list[int] = []

    class Inflating:
        error = zlib.error

        def decompressobj(self, wbits: int) -> object:
            inner = zlib.decompressobj(wbits)

            class Noting:
                eof = property(lambda _: inner.eof)
                unused_data = property(lambda _: inner.unused_data)
                unconsumed_tail = property(lambda _: inner.unconsumed_tail)

                def decompress(self, data: bytes, most: int) -> bytes:
                    fed.append(len(data))
                    return inner.decompress(data, most)

            return Noting()

    monkeypatch.setattr(inflate, "fast_zlib", Inflating())
    content = gzip.compress(b"") * 5_000 + gzip.compress(b"1\n")

    assert [block.lines for block in blocks(content)] == [[b"1"]]
    assert max(fed) <= 2**16
