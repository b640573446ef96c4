"""Read batch files without the tap's own code."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.runs import Output

    RowsByStream = dict[str, list[dict[str, Any]]]


def config(
    root: Path | str, file_format: str = "jsonl", compression: str | None = "gzip", **more: Any
) -> dict[str, Any]:
    """A value of `batch_config`; `storage` and `batch_size` may be given."""
    encoding = {"format": file_format} | ({"compression": compression} if compression else {})
    storage = {"root": str(root), **more.pop("storage", {})}
    return {"encoding": encoding, "storage": storage, **more}


def manifests(output: Output) -> dict[str, list[str]]:
    """The files of each stream, in the order in which they were announced."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for message in output.of_type("BATCH"):
        found[message["stream"]] += message["manifest"]
    return dict(found)


def lines(output: Output, options: Mapping[str, Any] | None = None) -> dict[str, list[bytes]]:
    """The lines of all JSONL files by stream."""
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for message in output.of_type("BATCH"):
        for url in message["manifest"]:
            with fsspec.open(url, "rb", **(options or {})) as file:
                content = file.read()
            if message["encoding"].get("compression") == "gzip":
                content = gzip.decompress(content)
            assert content.endswith(b"\n")
            found[message["stream"]] += content.split(b"\n")[:-1]
    return dict(found)


def exact(text: str | bytes) -> Any:
    """JSON with every digit of its numbers (1e-07 and 1E-7 are the same)."""
    return json.loads(text, parse_float=lambda number: Decimal(number).as_tuple())


def jsonl(output: Output, options: Mapping[str, Any] | None = None) -> RowsByStream:
    """The rows of all JSONL files by stream."""
    return {stream: [exact(line) for line in found] for stream, found in lines(output, options).items()}


def parquet(output: Output) -> RowsByStream:
    """The rows of all Parquet files by stream; times and dates as Python's."""
    return {
        stream: [row for url in urls for row in pq.read_table(url.removeprefix("file://")).to_pylist()]
        for stream, urls in manifests(output).items()
    }


def records(output: Output) -> RowsByStream:
    """The rows of RECORD messages by stream."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in output.stdout.split(b"\n"):
        if line.startswith(b'{"type":"RECORD"'):
            message = exact(line)
            found[message["stream"]].append(message["record"])
    return dict(found)


def comparable(rows: RowsByStream) -> RowsByStream:
    """Rows without the columns that differ between two runs of one clock."""
    own = {"export_id", "file"}
    return {
        stream: [{name: value for name, value in row.items() if name not in own} for row in found]
        for stream, found in rows.items()
    }
