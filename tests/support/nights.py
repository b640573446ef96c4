"""Runs night after night with fingerprints, into a stand-in of a target that upserts by key."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tap_braze_export.singer.logs import DROPPED_MESSAGES
from tests.support.fakes import FakeClock
from tests.support.runs import Output, Run, selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

    Users = Iterable[dict[str, Any] | bytes]

STREAMS = ("users", "apps", "custom_events", "segment_members", "export_files")
DAY = 24 * 3600.0


def user(braze_id: str, city: str = "Berlin", *, apps: Iterable[str] = ("Shop", "News"), **more: Any) -> dict[str, Any]:
    """A user with apps and an event."""
    return {
        "braze_id": braze_id,
        "home_city": city,
        "apps": [{"name": name, "sessions": 1, "platform": "iOS"} for name in apps],
        "custom_events": [{"name": "login", "count": 3}],
        **more,
    }


@dataclass
class Target:
    """The tables of a target: rows by stream and key."""

    tables: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def load(self, output: Output) -> None:
        """Upsert the records of a run; ACTIVATE_VERSION deletes the rows of other versions."""
        keys = {stream: schema["key_properties"] for stream, schema in output.schemas.items()}
        rows_of: dict[tuple[str, int | None], dict[tuple[Any, ...], dict[str, Any]]] = {}
        for message in output.of_type("RECORD"):
            row, stream = message["record"], message["stream"]
            for table in (self.tables.setdefault(stream, {}), rows_of.setdefault((stream, message.get("version")), {})):
                table[tuple(row[name] for name in keys[stream])] = row
        for message in output.of_type("ACTIVATE_VERSION"):
            self.tables[message["stream"]] = rows_of.get((message["stream"], message["version"]), {})

    def current(self, stream: str) -> list[dict[str, Any]]:
        """The rows of a stream without their time; of child streams those that are as old as their user's row."""
        users = {row["braze_id"]: row["exported_at"] for row in self.tables.get("users", {}).values()}
        rows = self.tables.get(stream, {}).values()
        return (
            [
                {name: value for name, value in row.items() if name != "exported_at"}
                for _, row in sorted(self.tables.get(stream, {}).items())
                if stream == "segment_members" or row["exported_at"] == users[row["braze_id"]]
            ]
            if rows
            else []
        )

    def members(self, segment_id: str) -> list[str]:
        """The users that are members of a segment."""
        rows = self.tables.get("segment_members", {}).values()
        return sorted(row["braze_id"] for row in rows if row["segment_id"] == segment_id and row["is_member"])


class Nights:
    """Runs of one pipeline, each a day after the one before.

    Args:
        sandbox: Braze.
        folder: Receives the spool and, unless `config` says otherwise, the fingerprints.
        streams: The selected streams.
        config: More settings.

    Attributes:
        target: What the loader has.
        state: The last STATE that it has confirmed.
        fingerprints: The local directory of fingerprints.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        folder: Path,
        *,
        streams: Iterable[str] = STREAMS,
        clock: FakeClock | None = None,
        **config: Any,
    ) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.fingerprints = folder / "fingerprints"
        self.clock = clock or FakeClock()
        self.catalog = selecting(streams)
        self.config = settings(sandbox, folder, **{"fingerprints_url": str(self.fingerprints), **config})
        self.target = Target()
        self.state: dict[str, Any] | None = None

    def run(
        self,
        segments: Mapping[str, Users] | None = None,
        *,
        loads: bool = True,
        confirms: bool = True,
        fails: bool = False,
        **config: Any,
    ) -> Run:
        """Run a night.

        Args:
            segments: The users of each segment that is exported; None for those of the configuration.
            loads: True if the loader loads the rows.
            confirms: True if it hands STATE on.
            fails: True if the run has to fail.
            config: More settings.
        """
        self.clock.time += DAY
        for segment_id, users in (segments or {}).items():
            self.sandbox.add_segment(segment_id, users)
        given = {**self.config, **({"segment_ids": [*segments]} if segments is not None else {}), **config}
        run = sync(given, catalog=self.catalog, state=copy.deepcopy(self.state), clock=self.clock, fails=fails)
        if loads:
            self.target.load(run)
        if confirms and run.states:
            self.state = run.states[-1]
        return run

    def files(self, pattern: str = "*") -> list[Path]:
        """The files of fingerprints, in the order of their names."""
        return sorted(path for path in self.fingerprints.rglob(pattern) if path.is_file())


def emitted(run: Output) -> dict[str, list[str]]:
    """The users of each stream that a run has emitted rows of, without `export_files`."""
    streams = {
        stream: sorted({row["braze_id"] for row in run.rows(stream)})
        for stream in run.schemas
        if stream != "export_files"
    }
    return {stream: ids for stream, ids in streams.items() if ids}


def unchanged(run: Output) -> int:
    """The number of users that a run has skipped, as `export_files` says it."""
    return sum(row["unchanged"] for row in run.rows("export_files"))


def last_line(run: Run) -> str:
    """The last line of a run's log."""
    return [record.getMessage() for record in run.log if record.msg not in DROPPED_MESSAGES and record.levelno >= 20][
        -1
    ]
