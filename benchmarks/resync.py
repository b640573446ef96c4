"""How fast a resync is: the share of the sandbox's rate limit that it uses, and reading a long list of identifiers.

Usage: .venv/bin/python -m benchmarks.resync [--seconds 20] [--rows 1000000] [--simulated 200000]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from tap_braze_export.clock import Clock
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.resync.requests import plan_requests
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock
from tests.support.simulation import ScriptedBraze, SimulatedRun, SimulatedThreads

LATENCY = 0.3
TAP = str(Path(sys.executable).with_name("tap-braze-export"))
HEAVY = ("campaigns_received", "canvases_received", "canvas_steps_received")
"""Streams for which Braze allows fewer requests."""

CHILDREN = (*HEAVY, "devices", "purchases", "custom_events", "apps", "push_tokens", "user_aliases", "cards_clicked")


def catalog(config: str, *, without: tuple[str, ...]) -> dict[str, Any]:
    """The catalog of discovery without these streams."""
    found: dict[str, Any] = json.loads(subprocess.check_output([TAP, "--config", config, "--discover"]))
    for stream in found["streams"]:
        for item in stream["metadata"]:
            if not item["breadcrumb"] and stream["tap_stream_id"] in without:
                item["metadata"]["selected"] = False
    return found


def against_sandbox(
    folder: Path, name: str, *, seconds: int, limit: int, rate: float, without: tuple[str, ...]
) -> None:
    """Request as many external ids as the limit allows in this time."""
    wanted = int(rate * seconds)
    with Sandbox(users=60 * wanted, ids_limit=limit, ids_latency=LATENCY) as sandbox:
        users = (json.loads(line) for line in sandbox.lines("all-users", ["external_id"]))
        external_ids = (user["external_id"] for user in users if user.get("external_id"))
        listed, settings, selection = folder / "ids.jsonl", folder / "config.json", folder / "catalog.json"
        listed.write_text("".join(f"{json.dumps(one)}\n" for one in islice(external_ids, 50 * wanted)))
        settings.write_text(
            json.dumps(
                {
                    **sandbox.config,
                    "identifiers_url": str(listed),
                    "concurrent_requests": 32,
                    "spool_dir": str(folder / "spool"),
                }
            )
        )
        selection.write_text(json.dumps(catalog(str(settings), without=without)))
        with (folder / "out.jsonl").open("wb") as out, (folder / "log").open("wb") as log:
            tap = subprocess.Popen(
                [TAP, "--config", str(settings), "--catalog", str(selection)], stdout=out, stderr=log
            )
            while not sandbox.calls and tap.poll() is None:
                time.sleep(0.001)
            began = time.monotonic()
            while len(sandbox.calls) < wanted and tap.poll() is None:
                time.sleep(0.005)
            took = time.monotonic() - began
            code = tap.wait()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{name}: {len(sandbox.calls)} requests, {(wanted - 1) / took:.2f} a second of {rate:.2f} allowed "
            f"({(wanted - 1) / took / rate:.1%}), {sandbox.violations} violations, exit code {code}, "
            f"at most {usage.ru_maxrss / 1024:.0f} MiB"
        )


def long_list(folder: Path, rows: int) -> None:
    """Read, check, deduplicate and pack a CSV with this many rows."""
    path = folder / "long.csv"
    with path.open("w") as file:
        file.write("external_id,email\n")
        file.writelines(f"user-{number:012d},\n" for number in range(rows))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    identifiers = Identifiers(Settings(api_url="u", api_key="k", identifiers_url=str(path)), clock=Clock())
    identifiers.fingerprint(b"key")
    hashed = time.monotonic()
    count = sum(len(request) for request in plan_requests(identifiers))
    took = time.monotonic() - hashed
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{count:,} identifiers of a {path.stat().st_size / 2**20:.0f} MiB CSV: hashed in {hashed - began:.1f} s, "
        f"read in {took:.1f} s ({count / took:,.0f} a second), {more:.0f} MiB more memory"
    )


def simulated(folder: Path, ids: int) -> None:
    """Request as many external ids at 40 requests a second on a simulated clock, of a Braze that takes 0.3 s."""
    listed = folder / "simulated.csv"
    with listed.open("w") as file:
        file.write("external_id\n")
        file.writelines(f"user-{number}\n" for number in range(ids))
    clock = FakeClock()
    workspace = ScriptedBraze(clock, limit=40, seconds=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    threads = SimulatedThreads(clock, latency=LATENCY)
    run = SimulatedRun(workspace, folder / "simulated", identifiers_url=str(listed), threads=threads)
    if run.error or len(run.users) != ids:
        sys.exit(f"{run.error}: {len(run.users)} of {ids} users came")
    print(
        f"{ids:,} ids, {len(workspace.bodies):,} requests in {run.seconds:.0f} simulated seconds"
        f" ({len(workspace.bodies) / run.seconds:.1f} a second), {workspace.violations} violations,"
        f" {len(run.states):,} STATE; {time.monotonic() - began:.0f} s of computing,"
        f" {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB more, all users included"
    )


def main() -> None:
    """Run all of it; takes about three times `--seconds`, and the list."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=20)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--simulated", type=int, default=200_000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulated(Path(folder), given.simulated)
        long_list(Path(folder), given.rows)
        for name, limit, rate, without in (
            ("40 a second, without campaigns and Canvases", 250, 40.0, HEAVY),
            ("40 a second, nothing but users", 250, 40.0, CHILDREN),
            ("250 a minute, all fields", 250, 250 / 60, ()),
        ):
            against_sandbox(Path(folder), name, seconds=given.seconds, limit=limit, rate=rate, without=without)


if __name__ == "__main__":
    main()
