"""The writer: whole lines, in blocks, at which a signal takes effect."""

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
    """Takes bytes and counts how; something may happen at each write."""

    def __init__(self, event: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.taken = b""
        self.sizes: list[int] = []
        self._event = event

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        self.taken += content
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
    """Short and long ones, and the count of bytes is right."""
    lines = b"".join(record("x" * size) for size in (1, 300_000, 10, 2_000_000, 5))
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_lines(lines)
    assert raw.taken == lines
    assert writer.written == len(lines)


@pytest.mark.parametrize("version", [None, 7])
def test_rows_become_record_messages(version: int | None) -> None:
    """Head and tail of the message around each row, nothing before the first and after the last."""
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_rows("s", Rows.of([b'{"a":1}', b'{"a":2}']), exported_at="2027-01-15T08:00:00Z", version=version)
    told = "" if version is None else ',"version":7'
    assert raw.taken.decode() == "".join(
        f'{{"type":"RECORD","stream":"s","record":{{"a":{number}}}{told},"time_extracted":"2027-01-15T08:00:00Z"}}\n'
        for number in (1, 2)
    )
    assert writer.written == len(raw.taken)


def test_state_is_not_held_back() -> None:
    """Whatever is no RECORD reaches the loader at once, with all before it."""
    writer = MessageWriter()
    with output(Raw()) as raw:
        writer.write_message(RecordMessage(stream="s", record={"a": 1}))
        assert raw.taken == b""
        writer.write_message(StateMessage(value={"bookmarks": {}}))
        assert [json.loads(line)["type"] for line in raw.taken.splitlines()] == ["RECORD", "STATE"]


def test_signal_ends_the_output_at_a_line() -> None:
    """A signal in the middle of a large block of lines: what was begun is ended, and no more is written."""
    signals = Signals()
    lines = record("x" * 1000) * 2000

    def receive() -> None:
        signals.received = signal.SIGTERM

    writer = MessageWriter(signals)
    with output(Raw(receive)) as raw, pytest.raises(Interruption):
        writer.write_lines(lines)
    assert 0 < len(raw.taken) < len(lines) / 2
    assert raw.taken.endswith(b"}\n")


def test_nothing_after_a_signal() -> None:
    """Neither records nor STATE."""
    signals = Signals()
    signals.received = signal.SIGINT
    writer = MessageWriter(signals)
    with output(Raw()) as raw:
        for message in (RecordMessage(stream="s", record={}), StateMessage(value={})):
            with pytest.raises(Interruption):
                writer.write_message(message)
    assert raw.taken == b""


def test_writing_is_known_to_the_signals() -> None:
    """While bytes leave, also when they are flushed, the alarm must not cut the line."""
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
    """However long a line is, no piece cuts one, and nothing is missing."""
    rows = Rows.of([b"x" * size for size in (0, 10, 3 * 2**20, 2**20 - 1, 2**20, 5, 7)])
    pieces = list(rows.pieces())
    assert b"".join(pieces) == rows.jsonl
    assert len(pieces) > 2
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert list(Rows.of([]).pieces()) == []
