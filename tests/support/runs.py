"""Run the tap in this process with a clock that takes no time, or as the installed command."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import SingerSDKError

from tap_braze_export.clock import Signals
from tap_braze_export.errors import TapError
from tap_braze_export.singer.command import describe
from tap_braze_export.tap import TapBrazeExport
from tests.support import preloaded
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.clock import Clock
    from tap_braze_export.sandbox import Sandbox

COMMAND = str(Path(sys.executable).with_name("tap-braze-export"))
SECONDS = 60
Message = dict[str, Any]
Key = tuple[Any, ...]


@dataclass
class Output:
    """The Singer messages of a run."""

    stdout: bytes

    @cached_property
    def messages(self) -> list[Message]:
        assert not self.stdout or self.stdout.endswith(b"\n")
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of_type(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        """The types of the messages, repeated ones once."""
        kinds = [message["type"] for message in self.messages]
        return [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]

    @property
    def schemas(self) -> dict[str, Message]:
        """The SCHEMA message of each stream, of which there must be one."""
        schemas = self.of_type("SCHEMA")
        by_stream = {schema["stream"]: schema for schema in schemas}
        assert len(by_stream) == len(schemas)
        return by_stream

    def columns(self, stream: str) -> set[str]:
        return set(self.schemas[stream]["schema"]["properties"])

    def rows(self, stream: str) -> list[dict[str, Any]]:
        records = self.of_type("RECORD")
        return [record["record"] for record in records if record["stream"] == stream]

    def ids(self, stream: str = "users") -> list[str]:
        return [row["braze_id"] for row in self.rows(stream)]

    @property
    def counts(self) -> Counter[str]:
        """Records by stream."""
        return Counter(record["stream"] for record in self.of_type("RECORD"))

    @property
    def states(self) -> list[dict[str, Any]]:
        return [message["value"] for message in self.of_type("STATE")]

    def keys(self, stream: str) -> list[Key]:
        names = self.schemas[stream]["key_properties"]
        return [tuple(row[name] for name in names) for row in self.rows(stream)]


@dataclass
class Run(Output):
    """A run in this process."""

    log: list[logging.LogRecord] = field(default_factory=list)
    error: str = ""

    @property
    def lines(self) -> list[str]:
        """The log messages from level INFO on."""
        return [record.getMessage() for record in self.log if record.levelno >= logging.INFO]

    @property
    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self.log if record.levelno == logging.WARNING]

    @property
    def metrics(self) -> dict[str, int]:
        """The record counts in the METRIC lines at level DEBUG, of which there must be one for each stream."""
        lines = [record.getMessage() for record in self.log if record.levelno == logging.DEBUG]
        points = [json.loads(line.removeprefix("METRIC: ")) for line in lines if line.startswith("METRIC: ")]
        counted = [(point["tags"]["stream"], point["value"]) for point in points if point["metric"] == "record_count"]
        assert len(dict(counted)) == len(counted)
        return dict(counted)


class _Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def _log() -> Iterator[list[logging.LogRecord]]:
    keeping, root = _Keeping(), logging.getLogger()
    level = root.level
    root.addHandler(keeping)
    root.setLevel(logging.INFO)
    try:
        yield keeping.records
    finally:
        root.setLevel(level)
        root.removeHandler(keeping)


def tap_class(clock: Clock) -> type[TapBrazeExport]:
    """The tap with another clock, and signals of its own."""
    return type("TapWithClock", (TapBrazeExport,), {"clock": clock, "signals": Signals()})


def sync(
    config: Mapping[str, Any],
    *,
    catalog: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    limit: int | None = None,
    fails: bool = False,
) -> Run:
    """Sync in this process; with `limit` as the SDK's dry run; it must fail if and only if `fails`."""
    error = ""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stdout), _log() as log:
        try:
            tap = tap_class(clock or FakeClock())(
                config=dict(config),
                catalog=dict(catalog) if catalog else None,
                state=dict(state) if state else None,
            )
            tap.metrics_logger.setLevel(logging.DEBUG)
            if limit is None:
                tap.sync_all()
            else:
                tap.run_sync_dry_run(limit)
        except (TapError, SingerSDKError) as raised:
            if not fails:
                raise
            error = str(raised) or type(raised).__name__
        stdout.flush()
    assert bool(error) == fails
    buffer = stdout.buffer
    assert isinstance(buffer, io.BytesIO)
    return Run(buffer.getvalue(), log=log, error=error)


def settings(sandbox: Sandbox, spool: Path, **more: Any) -> dict[str, Any]:
    """Settings for a sandbox; one process reads, so that rows come in the same order in every run."""
    return {**sandbox.config, "spool_dir": str(spool / "spool"), "workers": 1, **more}


def discover(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The catalog that discovery makes."""
    tap = TapBrazeExport(config=dict(config or {}), validate_config=False, setup_mapper=False)
    return tap.catalog_dict


def selecting(
    wanted: Iterable[str], fields: Mapping[str, Iterable[str]] | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A catalog that selects these streams; of those in `fields`, only these and the automatic fields."""
    catalog, streams = discover(config), set(wanted)
    for entry in catalog["streams"]:
        only = (fields or {}).get(entry["tap_stream_id"])
        for item in entry["metadata"]:
            crumb, metadata = item["breadcrumb"], item["metadata"]
            if not crumb:
                metadata["selected"] = entry["tap_stream_id"] in streams
            elif len(crumb) == 2 and only is not None:
                metadata["selected"] = crumb[1] in set(only)
    return catalog


def environment(**more: str) -> dict[str, str]:
    """Environment variables for a command: no settings of the tap, and the interpreter's own warnings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **more}


@dataclass
class Ended(Output):
    """How a command ended."""

    code: int
    stderr: str

    @property
    def errors(self) -> list[str]:
        """The ERROR lines without time and logger."""
        return [line.split(" | ", 3)[3] for line in self.stderr.splitlines() if re.search(r" \| ERROR +\|", line)]

    @property
    def error(self) -> str:
        """The one ERROR line of a run that failed as it should: code 1, no traceback, and the line is the last."""
        assert self.code == 1, self.stderr
        assert "Traceback" not in self.stderr
        assert all(re.match(r"\d{4}-\d\d-\d\d .* \| [A-Z]+ +\| ", line) for line in self.stderr.splitlines())
        (error,) = self.errors
        assert self.stderr.splitlines()[-1].endswith(error)
        return error


def command(*arguments: str, **variables: str) -> Ended:
    """Run the installed command to its end."""
    done: subprocess.CompletedProcess[bytes]
    if any(name.startswith(("LOGLEVEL", "PYTHON")) for name in variables):  # is read before the tap is imported
        done = subprocess.run(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(**variables),
            timeout=SECONDS,
            check=False,
        )
    else:
        done = preloaded.tap().run(arguments, env=environment(**variables), timeout=SECONDS)
    return Ended(done.stdout, done.returncode, done.stderr.decode())


def refusal(*arguments: str, **variables: str) -> str:
    """The ERROR line of a failing command line, run in this process."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
        for name, value in variables.items():
            patch.setenv(name, value)
        made = TapBrazeExport.get_singer_command()
        try:
            made.invoke(made.make_context("tap-braze-export", list(arguments)))
        except Exception as error:  # noqa: BLE001 - as the command itself does
            return describe(error)
    raise AssertionError(f"{arguments} did not fail")


def written(folder: Path, content: Any, name: str = "config.json") -> str:
    """Write content as JSON to a file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return str(folder / name)
