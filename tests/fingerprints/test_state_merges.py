"""Orchestrators merge a STATE with an older one: whichever pair it is, fingerprints go on from the later one."""

from __future__ import annotations

import copy
import json
import subprocess
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.loaders import MELTANO
from tests.support.nights import Nights, emitted, user
from tests.support.resyncs import resync

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

    State = dict[str, Any]

A, PARIS = user("a"), user("a", "Paris")
_MERGE = """
import json, sys
from meltano.core.utils import merge
print(json.dumps([merge(later, earlier) for earlier, later in json.load(sys.stdin)]))
"""


def merged(pairs: list[tuple[State, State]]) -> list[State]:
    """Merge the later STATE of each pair into the earlier one, by Meltano's own function."""
    found = subprocess.run(
        [MELTANO.with_name("python"), "-c", _MERGE],
        input=json.dumps(pairs).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    states: list[State] = json.loads(found.stdout)
    return states


def member(state: State) -> Any:
    """The member `fingerprints` of a STATE."""
    return state["bookmarks"]["export_files"]["fingerprints"]


def as_it_was(state: State) -> list[State]:
    """The STATEs that a version of November 2026 wrote instead: null or the bare object, or no such member."""
    without = copy.deepcopy(state)
    (found,) = without["bookmarks"]["export_files"].pop("fingerprints") or [None]
    with_it = copy.deepcopy(without)
    with_it["bookmarks"]["export_files"]["fingerprints"] = found
    return [without, with_it]


@pytest.mark.external
def test_the_later_of_two_states_counts(sandbox: Sandbox, tmp_path: Path) -> None:
    """Every pair that runs can write, the earlier one perhaps by a version that wrote null or an object."""
    nights = Nights(sandbox, tmp_path)
    written = nights.run({"s": [A]}, fingerprints_url=None).states
    first = nights.run({"s": [A]}).states
    written += first
    nights.state = None  # --full-refresh
    written += nights.run({"s": [PARIS]}).states
    for url in (None, str(nights.fingerprints)):
        for state in (None, first[-1], *as_it_was(first[-1])):
            written += resync(sandbox, tmp_path / "other", state=state, braze_ids=["a"], fingerprints_url=url).states
    earlier = written + [old for state in written for old in as_it_was(state)]

    pairs = [*product(earlier, written)]
    found = merged(pairs)

    assert {type(member(state)) for state in written} == {list}
    assert [member(state) for state in found] == [member(later) for _, later in pairs]


@pytest.mark.external
def test_a_full_refresh_without_fingerprints_is_not_forgotten(sandbox: Sandbox, tmp_path: Path) -> None:
    """Meltano hands the third night the merge of both STATEs: the first night's fingerprints are not what counts."""
    nights = Nights(sandbox, tmp_path)
    first = nights.run({"s": [A]}).states[-1]
    nights.state = None
    second = nights.run({"s": [PARIS]}, fingerprints_url=None).states[-1]
    (nights.state,) = merged([(first, second)])

    assert emitted(nights.run({"s": [A]}))["users"] == ["a"]


def test_state_of_an_earlier_version_is_read(sandbox: Sandbox, tmp_path: Path) -> None:
    """It named the fingerprints by an object, where a list is now."""
    nights = Nights(sandbox, tmp_path)
    nights.run({"s": [A]})
    assert nights.state
    _, nights.state = as_it_was(nights.state)
    assert isinstance(member(nights.state), dict)

    assert emitted(nights.run({"s": [A]})) == {}


def test_a_resync_hands_on_what_it_was_handed(sandbox: Sandbox, tmp_path: Path) -> None:
    """A resync that knows of nothing writes so: a merge must not bring back what its loader may have overwritten."""
    nights = Nights(sandbox, tmp_path)
    nights.run({"s": [A]})
    assert nights.state
    without, before = as_it_was(nights.state)
    handed_on = {
        "nothing": (None, []),
        "no member": (without, []),
        "an object": (before, [member(before)]),
        "a list": (nights.state, member(nights.state)),
    }
    for what, (state, expected) in handed_on.items():
        found = resync(sandbox, tmp_path / "other", state=state, braze_ids=["a"])
        assert {json.dumps(member(each)) for each in found.states} == {json.dumps(expected)}, what


def test_fingerprints_of_an_earlier_format_are_not_usable(sandbox: Sandbox, tmp_path: Path) -> None:
    """STATE is read; the file that it names had its own format until December 2026: all are emitted once."""
    nights = Nights(sandbox, tmp_path)
    nights.run({"s": [A]})
    assert nights.state
    version = "20261130T020000Z-0123456789ab/version"
    member(nights.state)[:] = [{"version": version, "parts": []}]
    (nights.fingerprints / version).parent.mkdir()
    (nights.fingerprints / version).write_bytes(b"brazefp1")

    run = nights.run({"s": [A]})

    assert run.warnings == [f"All users are emitted: {version}, which STATE names, is missing at fingerprints_url"]
    assert emitted(run)["users"] == ["a"]
    assert emitted(nights.run({"s": [A]})) == {}
