"""Resyncs as real processes, over real HTTP, stopped and killed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import Clock
from tap_braze_export.sandbox import Sandbox
from tests.support import preloaded
from tests.support.night import at_night
from tests.support.resyncs import PEOPLE, bodies, emails
from tests.support.runs import Output, command, environment, selecting, settings, sync, written

if TYPE_CHECKING:
    from collections.abc import Sequence

# A workspace with PEOPLE, and a limit that no test comes near.
pytestmark = pytest.mark.sandbox(users=0, ids_limit=1_000_000, segments={"people": PEOPLE})


@pytest.mark.slow
def test_rate_limit_of_the_sandbox_is_kept(tmp_path: Path) -> None:
    """Over real HTTP, at 40 requests a second."""
    with Sandbox(users=60, ids_latency=0.1) as sandbox:
        config = settings(sandbox, tmp_path, emails=emails(60))
        sync(config, catalog=selecting(["users"], {"users": ["email"]}), clock=Clock())

        assert len(bodies(sandbox)) == 60
        assert sandbox.violations == 0


@pytest.mark.slow
def test_signal_does_not_wait_for_responses(tmp_path: Path) -> None:
    """Requests that hang for minutes do not keep the process."""
    with Sandbox(users=1, ids_latency=600.0) as sandbox:
        config = written(tmp_path, settings(sandbox, tmp_path, emails=emails(5)))
        with (
            (tmp_path / "log").open("wb") as log,
            preloaded.tap().start(["--config", config], env=environment(), stderr=log.fileno()) as process,
        ):
            while not sandbox.workspace.most_ids_in_flight:
                assert process.poll() is None
            signalled = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=30)

        assert code == 143
        assert time.monotonic() - signalled < 5


PLAIN = ("users", "devices", "purchases")


def _killed(arguments: Sequence[str], after: int) -> Output:
    """The output of a run that is killed after this many lines."""
    with (
        Path(os.devnull).open("wb") as nothing,
        preloaded.tap().start(arguments, env=environment(), stderr=nothing.fileno()) as process,
    ):
        lines = [line for _, line in zip(range(after), process.stdout, strict=False)]
        process.kill()
        lines += process.stdout.readlines()
    return Output(b"".join(line for line in lines if line.endswith(b"\n")))


def _until_state(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The records that the last STATE covers, and that STATE."""
    places = [place for place, message in enumerate(messages) if message["type"] == "STATE"]
    if not places:
        return [], None
    return [m for m in messages[: places[-1]] if m["type"] == "RECORD"], messages[places[-1]]["value"]


def _plain_rows(records: list[dict[str, Any]]) -> list[Any]:
    """The rows of users and what belongs to them, without the time."""
    return [
        (record["stream"], {**record["record"], "exported_at": ""}) for record in records if record["stream"] in PLAIN
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", at_night(range(3), but=[0]))
@pytest.mark.fault("Loader and signals", "kill -9 at any moment of a resync", "the same rows after the next run")
def test_kill_at_any_moment_loses_and_repeats_nothing(tmp_path: Path, seed: int) -> None:
    """Three kills in a row, each run with the last STATE of the one before, give the rows of one undisturbed run."""
    chance = random.Random(seed)
    with Sandbox(users=800, odd_users=False, ids_limit=1_000_000) as sandbox:
        everybody = [json.loads(line)["braze_id"] for line in sandbox.lines("all-users", ["braze_id"])]
        wanted = [braze_id for pair in zip(everybody[:400], reversed(everybody), strict=False) for braze_id in pair]
        config = settings(sandbox, tmp_path, braze_ids=wanted[:700])
        catalog = selecting([*PLAIN, "export_files"])
        files = ["--config", written(tmp_path, config), "--catalog", written(tmp_path, catalog, "catalog.json")]
        undisturbed = sync({**config, "spool_dir": str(tmp_path / "other")}, catalog=catalog, clock=Clock())
        expected = _plain_rows(undisturbed.of_type("RECORD"))
        lines = len(undisturbed.messages)

        records: list[dict[str, Any]] = []
        state: dict[str, Any] | None = None
        for _ in range(3):
            before = len(bodies(sandbox))
            output = _killed([*files, *_given(state, tmp_path)], chance.randrange(lines // 8))
            covered, last = _until_state(output.messages)
            sent = len(bodies(sandbox)) - before
            done = _position(last or state) - _position(state)
            assert sent - done <= 100
            records += covered
            state = last or state
        rest = command(*files, *_given(state, tmp_path))

    assert _plain_rows([*records, *rest.of_type("RECORD")]) == expected
    assert rest.states[-1]["bookmarks"]["export_files"]["resync"] == []


def _given(state: dict[str, Any] | None, folder: Path) -> list[str]:
    """The arguments that hand a run its STATE."""
    return ["--state", written(folder, state, "state.json")] if state else []


def _position(state: dict[str, Any] | None) -> int:
    resync = state["bookmarks"]["export_files"]["resync"] if state else None
    return int(resync[0]["requests"]) if resync else 0
