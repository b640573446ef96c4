"""A resync in which Braze refuses or fails requests, or the identifiers cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import BrazeError
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.resyncs import PEOPLE, emails
from tests.support.runs import command, settings, written
from tests.support.simulation import ScriptedBraze, SimulatedRun

if TYPE_CHECKING:
    from pathlib import Path

# A workspace with PEOPLE, and a limit that no test comes near.
pytestmark = pytest.mark.sandbox(users=0, ids_limit=1_000_000, segments={"people": PEOPLE})


def test_failing_call_ends_the_run_at_a_checkpoint(tmp_path: Path) -> None:
    """Responses to earlier requests are emitted first; the next run continues from there."""
    braze = ScriptedBraze(FakeClock())
    braze.errors = {70: BrazeError("POST /users/export/ids failed")}

    run = SimulatedRun(braze, tmp_path, emails=emails(300))

    assert run.error == "BrazeError: POST /users/export/ids failed"
    assert [name for name, _, _ in run.files] == ["requests 0-49", "requests 50-69"]
    assert run.state["resync"][0]["requests"] == 70


def test_unreadable_file_ends_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """With one line, which names the setting."""
    config = settings(sandbox, tmp_path, identifiers_url=str(tmp_path / "none.csv"))

    ended = command("--config", written(tmp_path, config))

    assert "identifiers_url" in ended.error
    assert "names a file that does not exist" in ended.error


def test_missing_permission_is_named(tmp_path: Path) -> None:
    """`users.export.ids`, in one line."""
    with Sandbox(users=1, deny=("users.export.ids",)) as sandbox:
        ended = command("--config", written(tmp_path, settings(sandbox, tmp_path, external_ids=["x"])))

    assert "users.export.ids" in ended.error
