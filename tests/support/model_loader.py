"""A stand-in of a target that loads some of what it reads, table by table, and confirms what it likes of that."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support import batches
from tests.support.nights import Target
from tests.support.runs import Output

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    Message = dict[str, Any]


@dataclass
class ModelLoader(Target):
    """Upserts rows by key; its tables are as far as it likes, but never behind the STATE that it confirms.

    Attributes:
        state: The last STATE that it has confirmed.
        files: Export and name of the files, by `export_files`, that this STATE covers.
        told: How it read each run, for the message of a failed test.
    """

    state: dict[str, Any] | None = None
    files: set[tuple[str, str]] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    _keys: dict[str, list[str]] = field(default_factory=dict)
    _versions: dict[tuple[str, tuple[Any, ...]], int | None] = field(default_factory=dict)

    def read_all(self, output: Output, *, confirms: bool = True) -> None:
        """Load everything, and confirm it."""
        messages = read_messages(output)
        self._load(messages, dict.fromkeys(_streams(messages), len(messages)))
        if confirms:
            self._confirm(messages, len(messages))

    def read_some(self, output: Output, seed: random.Random) -> None:
        """Fail somewhere: tables are at different messages, and the STATE of an earlier one is confirmed, or none."""
        messages = read_messages(output)
        states = [index for index, message in enumerate(messages) if message["type"] == "STATE"]
        read = seed.choice([len(messages), seed.randint(0, len(messages))])
        confirmable = [index + 1 for index in states if index < read]
        confirmed = seed.choice([0, *confirmable, *confirmable[-1:], *confirmable[-1:]])
        flushed = {
            stream: seed.choice([confirmed, read, seed.randint(confirmed, read)]) for stream in _streams(messages)
        }
        self._load(messages, flushed)
        self._confirm(messages, confirmed)
        self.told.append(f"{len(messages)} messages, STATEs at {states}, loaded {flushed}, confirmed {confirmed}")

    def _load(self, messages: Sequence[Message], flushed: dict[str, int]) -> None:
        for index, message in enumerate(messages):
            stream = message.get("stream", "")
            if index >= flushed.get(stream, 0):
                continue
            if message["type"] == "SCHEMA":
                self._keys[stream] = message["key_properties"]
            elif message["type"] == "ACTIVATE_VERSION":
                self._delete_others(stream, message["version"])
            for row in rows_of(message):
                key = tuple(row[name] for name in self._keys[stream])
                self.tables.setdefault(stream, {})[key] = row
                self._versions[stream, key] = message.get("version")

    def _delete_others(self, stream: str, version: int) -> None:
        table = self.tables.setdefault(stream, {})
        for key in [key for key in table if self._versions[stream, key] != version]:
            del table[key]

    def _confirm(self, messages: Sequence[Message], end: int) -> None:
        states = [message["value"] for message in messages[:end] if message["type"] == "STATE"]
        if states:
            self.state = states[-1]
            self.files |= emitted_files(messages[:end])


def read_messages(output: Output) -> list[Message]:
    """The messages of a run, as numbers of its whole lines."""
    return [json.loads(line) for line in output.stdout.splitlines()]


def rows_of(message: Message) -> list[dict[str, Any]]:
    """The rows of a RECORD or BATCH message."""
    if message["type"] == "RECORD":
        return [message["record"]]
    if message["type"] == "BATCH":
        return batches.jsonl(Output(json.dumps(message).encode() + b"\n"))[message["stream"]]
    return []


def emitted_files(messages: Sequence[Message]) -> set[tuple[str, str]]:
    """Export and name of each file in the rows of `export_files`."""
    own = [row for message in messages if message.get("stream") == "export_files" for row in rows_of(message)]
    return {(row["export_id"], row["file"]) for row in own}


def emitted_users(output: Output) -> set[str]:
    """The users of whom a run has emitted any row."""
    rows = [row for message in read_messages(output) for row in rows_of(message)]
    return {row["braze_id"] for row in rows if "braze_id" in row}


def _streams(messages: Sequence[Message]) -> list[str]:
    return sorted({message["stream"] for message in messages if "stream" in message})
