"""The writer writes whole lines in blocks; a signal ends the output between two blocks."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from typing import TYPE_CHECKING

import pytest
from singer_sdk.singerlib.messages import RecordMessage, StateMessage

from tap_braze_export.clock import Interruption, Signals
from tap_braze_export.rows.rendered import Rows
from tap_braze_export.singer.messages import MessageWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Raw(io.RawIOBase):
    """Keeps the bytes written and the size of each write; calls `event` at each write."""

    def __init__(self, event: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.written = b""
        self.sizes: list[int] = []
        self._event = event

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        self.written += content
        self.sizes.append(len(content))
        self._event()
        return len(content)


@contextlib.contextmanager
def output(raw: Raw) -> Iterator[Raw]:
    """Standard output, as the interpreter makes it."""
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")) as stream:
        yield raw
        stream.flush()


def record(text: str) -> bytes:
    return json.dumps({"type": "RECORD", "stream": "s", "record": {"text": text}}).encode() + b"\n"


def test_lines_arrive_as_they_are() -> None:
    """Short and long lines are written unchanged, and their bytes are counted."""
    lines = b"".join(record("x" * size) for size in (1, 300_000, 10, 2_000_000, 5))
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_lines(lines)
    assert raw.written == lines
    assert writer.written == len(lines)


@pytest.mark.parametrize("version", [None, 7])
def test_rows_become_record_messages(version: int | None) -> None:
    """Each row gets head and tail of a message; nothing precedes the first or follows the last."""
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_rows("s", Rows.of([{"a": 1}, {"a": 2}]), exported_at="2027-01-15T08:00:00Z", version=version)
    version_member = "" if version is None else ',"version":7'
    assert raw.written.decode() == "".join(
        f'{{"type":"RECORD","stream":"s","record":{{"a":{number}}}{version_member},"time_extracted":"2027-01-15T08:00:00Z"}}\n'
        for number in (1, 2)
    )
    assert writer.written == len(raw.written)


def test_state_is_not_held_back() -> None:
    """A message that is no RECORD reaches the loader at once, and so does everything before it."""
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_message(RecordMessage(stream="s", record={"a": 1}))
        assert raw.written == b""
        writer.write_message(StateMessage(value={"bookmarks": {}}))
        assert [json.loads(line)["type"] for line in raw.written.splitlines()] == ["RECORD", "STATE"]


def test_signal_ends_the_output_at_a_line() -> None:
    """After a signal the block in progress is written to its end, and no other."""
    signals = Signals()
    lines = record("x" * 1000) * 2000

    def receive() -> None:
        signals.received = signal.SIGTERM

    writer = MessageWriter(signals)
    with output(Raw(receive)) as raw, pytest.raises(Interruption):
        writer.write_lines(lines)
    assert 0 < len(raw.written) < len(lines) / 2
    assert raw.written.endswith(b"}\n")


def test_nothing_after_a_signal() -> None:
    """After a signal neither RECORD nor STATE is written."""
    signals = Signals()
    signals.received = signal.SIGINT
    writer = MessageWriter(signals)
    with output(Raw()) as raw:
        for message in (RecordMessage(stream="s", record={}), StateMessage(value={})):
            with pytest.raises(Interruption):
                writer.write_message(message)
    assert raw.written == b""


def test_writing_is_known_to_the_signals() -> None:
    """`writing` is set during writes and flushes, so that the alarm does not cut a line."""
    signals = Signals()
    seen: list[bool] = []
    writer = MessageWriter(signals)
    with output(Raw(lambda: seen.append(signals.writing))):
        writer.write_lines(record("x" * 500_000))
        writer.write_message(StateMessage(value={}))
        assert seen == [True] * len(seen)
        assert len(seen) > 1
        assert not signals.writing


def test_rows_come_in_pieces_of_whole_lines() -> None:
    """No piece cuts a line, however long, and together they are all lines."""
    rows = Rows.of(["x" * size for size in (0, 10, 3 * 2**20, 2**20 - 1, 2**20, 5, 7)])
    pieces = list(rows.pieces())
    assert b"".join(pieces) == rows.jsonl
    assert len(pieces) > 2
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert list(Rows.of([]).pieces()) == []
