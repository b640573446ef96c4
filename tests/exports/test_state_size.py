"""STATE of many segments: it does not grow with their square."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.nights import user
from tests.support.runs import Run, selecting, settings, sync
from tests.support.steps import posts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SEGMENTS = [f"segment-{number:03}-0123456789abcdef0123456789abcdef" for number in range(50)]
ATTRIBUTES = {f"attribute of the workspace {number}": "string" for number in range(480)}
ENOUGH_BYTES = 1_000_000


def state_bytes(run: Run) -> int:
    return sum(len(json.dumps(message)) for message in run.of_type("STATE"))


def naming_attributes(config: dict[str, Any]) -> dict[str, Any]:
    """A catalog without one of the attributes, so that Braze is asked for the others by name."""
    catalog = selecting(["users", "export_files"], config=config)
    left_out = ["properties", "custom_attributes", "properties", next(iter(ATTRIBUTES))]
    for entry in catalog["streams"]:
        for item in entry["metadata"]:
            item["metadata"]["selected"] = item["metadata"].get("selected", True) and item["breadcrumb"] != left_out
    return catalog


def test_all_messages_are_little_beside_the_output(tmp_path: Path) -> None:
    """Fifty segments with 479 attributes that are named, in a first run and in one whose STATE has them all."""
    config = {"custom_attributes": ATTRIBUTES, "segment_ids": SEGMENTS, "concurrent_exports": 4}
    with Sandbox(users=0, odd_users=False) as sandbox:
        for segment_id in SEGMENTS:
            sandbox.add_segment(segment_id, [user("a"), user("b")])
        given = settings(sandbox, tmp_path, **config)
        catalog = naming_attributes(config)
        first = sync(given, catalog=catalog, clock=FakeClock())
        second = sync(given, catalog=catalog, clock=FakeClock(1_800_100_000.0), state=first.states[-1])
    for run in (first, second):
        assert run.counts == {"users": 100, "export_files": 50}
        assert state_bytes(run) <= max(ENOUGH_BYTES, len(run.stdout) / 100)
        exports = run.states[-1]["bookmarks"]["export_files"]["exports"]
        assert [entry["segment_id"] for entry in exports if not entry["running"]] == SEGMENTS
        assert [len(entry["requested_fields"]) > 479 for entry in exports] == [True] + [False] * 49


def test_exports_that_end_between_two_messages_are_continued_after_a_crash(tmp_path: Path) -> None:
    """Their journals say that they run until STATE says that they have ended: no second export, no row lost."""
    clock = FakeClock()
    with Sandbox(users=0, odd_users=False, clock=lambda: clock.time) as sandbox:
        for segment_id in SEGMENTS[:6]:
            sandbox.add_segment(segment_id, [user(segment_id)])
        config = settings(sandbox, tmp_path, segment_ids=SEGMENTS[:6], concurrent_exports=1)
        catalog = selecting(["users", "export_files"])
        whole = sync(config, catalog=catalog, clock=clock)
        assert whole.counts["users"] == 6
        assert posts(sandbox) == [201] * 6
        clock.time += 60
        # The loader has confirmed a STATE of the middle: what ended since is read again, and Braze is not asked.
        middle = whole.states[len(whole.states) // 2]
        again = sync(config, catalog=catalog, clock=clock, state=middle)
        done = {entry["segment_id"] for entry in middle["bookmarks"]["export_files"]["exports"] if not entry["running"]}
        assert {row["braze_id"] for row in again.rows("users")} >= set(SEGMENTS[:6]) - done
