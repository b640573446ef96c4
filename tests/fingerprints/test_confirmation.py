"""The target never lacks a change: what a confirmed STATE names is skipped, unless something else was emitted."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from tests.support.night import at_night
from tests.support.nights import STREAMS, Nights, emitted, unchanged, user
from tests.support.resyncs import resync
from tests.support.runs import selecting, sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

A, B, PARIS = user("a"), user("b"), user("a", "Paris")


@pytest.fixture
def nights(sandbox: Sandbox, tmp_path: Path) -> Nights:
    return Nights(sandbox, tmp_path)


def city_of(nights: Nights, braze_id: str = "a") -> str:
    """The city that the target has of a user."""
    (city,) = (str(row["home_city"]) for row in nights.target.current("users") if row["braze_id"] == braze_id)
    return city


# STATE


def test_what_the_loader_did_not_confirm_is_emitted_again(nights: Nights) -> None:
    """Even if it has loaded the rows."""
    nights.run({"s": [A, B]})
    nights.run({"s": [PARIS, B]}, loads=False, confirms=False)

    assert emitted(nights.run({"s": [PARIS, B]}))["users"] == ["a"]


def test_a_change_that_was_loaded_and_not_confirmed_is_taken_back(nights: Nights) -> None:
    """Berlin is confirmed, Paris was loaded by a run whose STATE was lost, and then it is Berlin again."""
    nights.run({"s": [A, B]})
    nights.run({"s": [PARIS, B]}, confirms=False)

    back = nights.run({"s": [A, B]})

    assert emitted(back)["users"] == ["a"]
    assert city_of(nights) == "Berlin"
    assert emitted(nights.run({"s": [A, B]})) == {}


def test_an_older_state_is_what_counts(nights: Nights) -> None:
    """The target and its STATE are restored from a backup: of fingerprints that are gone by then all are emitted."""
    nights.run({"s": [A, B]})
    backup = copy.deepcopy((nights.target, nights.state))
    for city in ("Paris", "Rome", "Madrid"):
        nights.run({"s": [user("a", city), B]})
    nights.target, nights.state = backup

    restored = nights.run({"s": [user("a", "Madrid"), B]})

    assert emitted(restored)["users"] == ["a", "b"]
    assert "which STATE names, is missing at fingerprints_url" in restored.warnings[0]
    assert emitted(nights.run({"s": [user("a", "Madrid"), B]})) == {}


def test_without_state_all_are_emitted(nights: Nights) -> None:
    nights.run({"s": [A, B]})
    nights.state = None

    assert emitted(nights.run({"s": [A, B]}))["users"] == ["a", "b"]
    assert emitted(nights.run({"s": [A, B]})) == {}


@pytest.mark.parametrize(
    "fingerprints",
    at_night(
        [
            None,
            7,
            [],
            [None],
            [[]],
            [{"version": 7, "parts": []}],
            {"version": 7, "parts": []},
            {"version": "x"},
            {"version": "../../x", "parts": [["..", 2]]},
            {"version": "", "parts": [["x", 10**15]]},
            {"version": "", "parts": [["x", 1.5]]},
            {"version": "", "parts": {"x": 1}},
        ],
        but=[None, [None], {"version": "../../x", "parts": [["..", 2]]}, {"version": "", "parts": {"x": 1}}],
    ),
)
def test_odd_members_of_state_are_nothing(nights: Nights, fingerprints: Any) -> None:
    nights.run({"s": [A]})
    assert nights.state
    nights.state["bookmarks"]["export_files"]["fingerprints"] = fingerprints

    assert emitted(nights.run({"s": [A]}))["users"] == ["a"]


def test_a_night_without_the_setting_is_noted_in_state(nights: Nights) -> None:
    """Its rows are recorded nowhere, so the next night with the setting emits all."""
    nights.run({"s": [A]})
    nights.run({"s": [PARIS]}, fingerprints_url=None)
    assert nights.state
    assert nights.state["bookmarks"]["export_files"]["fingerprints"] == []

    assert emitted(nights.run({"s": [A]}))["users"] == ["a"]
    assert city_of(nights) == "Berlin"


# What shapes rows


@pytest.mark.parametrize(
    "change",
    [
        lambda nights: setattr(nights, "catalog", selecting([*STREAMS, "purchases"])),
        lambda nights: setattr(nights, "catalog", selecting(STREAMS, {"users": ["home_city"]})),
        lambda nights: nights.config.update(stream_maps={"users": {"home_city": "home_city.upper()"}}),
        lambda nights: nights.config.update(flattening_enabled=True, flattening_max_depth=1),
        lambda nights: nights.config.update(extra_export_fields=["new_field"]),
    ],
)
def test_other_rows_are_all_emitted(nights: Nights, change: Callable[[Nights], None]) -> None:
    nights.run({"s": [A, B]})
    change(nights)

    changed = nights.run({"s": [A, B]})

    assert emitted(changed)["users"] == ["a", "b"]
    assert changed.warnings == [
        "All users are emitted: the last fingerprints are of another selection, schema, stream map or tap version"
    ]
    assert emitted(nights.run({"s": [A, B]})) == {}


def test_leavers_are_known_after_another_selection_too(nights: Nights) -> None:
    nights.run({"s": [A, B]})
    nights.catalog = selecting([*STREAMS, "purchases"])

    nights.run({"s": [A]})

    assert nights.target.members("s") == ["a"]


# Other runs


def test_a_resync_marks_its_users(nights: Nights, tmp_path: Path) -> None:
    """It has a STATE of its own: the nightly run finds its marks, emits its users once more, and then no longer."""
    nights.run({"s": [A, B]})
    nights.sandbox.add_segment("s", [PARIS, B])
    found = resync(nights.sandbox, tmp_path / "other", braze_ids=["a"], fingerprints_url=str(nights.fingerprints))
    nights.target.load(found)
    assert city_of(nights) == "Paris"

    assert emitted(nights.run({"s": [A, B]}))["users"] == ["a"]
    assert city_of(nights) == "Berlin"
    assert emitted(nights.run({"s": [A, B]})) == {}


def test_a_resync_with_the_state_of_the_nightly_run_keeps_what_it_names(nights: Nights, tmp_path: Path) -> None:
    nights.run({"s": [A, B]})
    nights.sandbox.add_segment("s", [PARIS, B])
    found = resync(
        nights.sandbox, tmp_path, state=nights.state, braze_ids=["a"], fingerprints_url=str(nights.fingerprints)
    )
    nights.target.load(found)
    nights.state = found.states[-1]

    assert emitted(nights.run({"s": [A, B]}))["users"] == ["a"]


def test_two_runs_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Both begin with the same STATE; whichever of their STATEs is kept, the next night makes good what differs."""
    for kept in (0, 1):
        folder = tmp_path / str(kept)
        nights = Nights(sandbox, folder)
        nights.run({"s": [A, B]})
        twin = copy.copy(nights)
        twin.config = {**nights.config, "spool_dir": str(folder / "twin")}
        runs = [nights.run({"s": [PARIS, B]}, confirms=False), twin.run({"s": [A, user("b", "Rome")]}, confirms=False)]
        nights.state = runs[kept].states[-1]

        nights.run({"s": [A, B]})
        assert (city_of(nights, "a"), city_of(nights, "b")) == ("Berlin", "Berlin")
        assert emitted(nights.run({"s": [A, B]})) == {}


def test_what_a_killed_run_emitted_is_emitted_once_more(nights: Nights) -> None:
    """It has left its mark, which nobody holds."""
    nights.run({"s": [A, B]})
    nights.run({"s": [PARIS, B]}, confirms=False)
    killed = max(path.parent for path in nights.files("*.npz"))
    (killed / "running").touch()

    assert [emitted(nights.run({"s": [A, B]})).get("users") for _ in range(2)] == [["a"], None]


def test_what_a_live_run_has_begun_to_emit_is_emitted_twice(nights: Nights) -> None:
    """Nobody knows which of both loaders comes last: once more the night after."""
    nights.run({"s": [A, B]})
    nights.run({"s": [PARIS, B]}, confirms=False)
    live = max(path.parent for path in nights.files("*.npz"))

    with FileLock(live / "running"):
        assert [emitted(nights.run({"s": [A, B]})).get("users") for _ in range(3)] == [["a"], ["a"], None]
        assert (live / "000000.npz").exists()
    assert [emitted(nights.run({"s": [A, B]})).get("users") for _ in range(2)] == [None, None]


def test_another_pipeline_in_the_same_directory(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two pipelines with a STATE each load the same tables: each emits again what the other one has changed."""
    first, second = Nights(sandbox, tmp_path), Nights(sandbox, tmp_path)
    second.target, second.config = first.target, {**first.config, "spool_dir": str(tmp_path / "second")}
    first.run({"s": [A, B]})
    second.run({"t": [PARIS]})

    first.run({"s": [A, B]})

    assert city_of(first) == "Berlin"


# The files


def test_the_version_before_goes_once_a_newer_one_is_confirmed(nights: Nights) -> None:
    for city in ("Berlin", "Paris", "Rome", "Oslo"):
        nights.run({"s": [user("a", city), B]})

    assert len(nights.files("version.json")) == 2  # the confirmed one is kept until the next one is
    assert len(nights.files("*.npz")) == 4


def test_parts_go_by_age(nights: Nights) -> None:
    """Fourteen days after their run began, other pipelines have seen them."""
    for number in range(17):
        nights.run({"s": [user("a", f"city {number}"), B]})

    assert len({path.parent for path in nights.files("*.npz")}) == 15
    assert {path.name for path in nights.files() if path.suffix != ".npz"} == {
        "version.json",
        *(f"version-{number}-{name}.npy" for number, names in COLUMNS for name in names),
    }


COLUMNS = [(0, ("key", "id", "state")), (1, ("key", "raw", "content"))]
"""Of the tables of members and users, in the order of their names."""


def test_files_are_private(nights: Nights) -> None:
    nights.run({"s": [A]})

    assert {path.stat().st_mode & 0o777 for path in nights.files()} == {0o600}


def test_no_profile_is_stored(nights: Nights) -> None:
    """Ids and hashes only."""
    nights.run({"s": [user("the-id", "Reykjavik", email="anna@example.com")]})

    content = b"".join(path.read_bytes() for path in nights.files())
    assert b"the-id" in content
    assert not any(text in content for text in (b"Reykjavik", b"anna", b"Shop", b"sandbox-key"))


def test_a_removed_directory_starts_anew(nights: Nights) -> None:
    nights.run({"s": [A, B]})
    for path in nights.files():
        path.unlink()

    assert emitted(nights.run({"s": [A, B]}))["users"] == ["a", "b"]
    assert unchanged(nights.run({"s": [A, B]})) == 2


def test_foreign_files_are_left_alone(nights: Nights) -> None:
    nights.fingerprints.mkdir()
    (nights.fingerprints / "README.txt").write_text("mine")
    (nights.fingerprints / ".version").write_text("x")
    for _ in range(3):
        run = nights.run({"s": [A]})

    assert emitted(run) == {}
    assert (nights.fingerprints / "README.txt").read_text() == "mine"


def test_a_dry_run_leaves_no_fingerprints(nights: Nights) -> None:
    sync({**nights.config, "segment_ids": ["all-users"]}, catalog=nights.catalog, limit=1)

    assert nights.files() == []


# Damage


@pytest.mark.parametrize("what", ["flip", "cut", "empty", "remove", "foreign"])
@pytest.mark.parametrize("position", at_night([0, 7, 40, -1, -9, -50], but=[7]))
def test_a_damaged_version_means_emit(nights: Nights, what: str, position: int) -> None:
    nights.run({"s": [A, B]})
    version = random.Random(f"{what} {position}").choice(nights.files("version*"))
    _damage(version, what, position)

    run = nights.run({"s": [A, B]})

    assert emitted(run)["users"] == ["a", "b"]
    assert len(run.warnings) == 1
    assert "All users are emitted: " in run.warnings[0]
    assert emitted(nights.run({"s": [A, B]})) == {}


@pytest.mark.parametrize("what", ["flip", "cut", "empty", "remove", "foreign"])
def test_damaged_parts_of_a_run_that_was_not_confirmed_mean_emit(nights: Nights, what: str) -> None:
    """Nobody knows whose rows they were; a removed one is noticed by the parts after it."""
    nights.run({"s": [A, B], "t": [B]})
    nights.run({"s": [PARIS, B], "t": [B]}, confirms=False)
    part = min((path for path in nights.files("000000.npz")), key=lambda path: -path.stat().st_mtime)
    _damage(part, what, 3)
    for version in nights.files("version*"):
        if version.parent == part.parent:
            version.unlink()

    run = nights.run({"s": [A, B], "t": [B]})

    assert "a" in emitted(run)["users"]
    assert city_of(nights) == "Berlin"
    assert len(run.warnings) == 1


def test_damaged_parts_that_a_version_includes_do_not_matter(nights: Nights) -> None:
    nights.run({"s": [A, B]})
    for part in nights.files("*.npz"):
        _damage(part, "flip", 3)

    assert emitted(nights.run({"s": [A, B]})) == {}


def test_a_removal_that_was_killed_is_no_damage(nights: Nights) -> None:
    """Files that the version includes are removed one by one; that may end anywhere."""
    users = {"s": [A, B], "t": [B]}
    nights.run(users)
    first, *_ = nights.files("000000.npz")
    first.unlink()

    found = [emitted(nights.run(users, extra_export_fields=["more"])).get("users") for _ in range(3)]

    assert found == [["a", "b"], None, None]


@pytest.mark.parametrize("damage", ["flip", "remove"])
@pytest.mark.parametrize(
    ("unconfirmed", "number"),
    at_night(
        [(late, number) for late in (False, True) for number in range(10 + late)],
        but=[(False, 0), (True, 3), (True, 10)],
    ),
)
def test_two_nights_heal_any_damage(nights: Nights, number: int, damage: str, *, unconfirmed: bool) -> None:
    """Whichever file it was, of a version or a part, confirmed or not: the third night emits nobody."""
    users = {"s": [A, B], "t": [B]}
    nights.run(users)
    if unconfirmed:
        nights.run(users, confirms=False)
    _damage(nights.files()[number], damage, 3)

    assert [emitted(nights.run(users)).get("users") for _ in range(3)][2] is None


def _damage(path: Path, what: str, position: int) -> None:
    content = bytearray(path.read_bytes())
    if what == "flip":
        content[position] ^= 1
    elif what == "cut":
        del content[position:]
    elif what == "empty":
        content.clear()
    elif what == "foreign":
        content[:] = b"PAR1" * 100
    path.write_bytes(content)
    if what == "remove":
        path.unlink()
