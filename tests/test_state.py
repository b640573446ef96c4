"""STATE's memory of an export."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from tap_braze_export.clock import timestamp
from tap_braze_export.export import Export
from tap_braze_export.state import VERSION, Bookmark, read_bookmarks
from tests.support.loaders import ROOT

ENTRY = {
    "source": "segment",
    "segment_id": "seg",
    "export_id": "a-1800000000",
    "requested_at": "2027-01-15T08:00:00.500000Z",
    "requested_fields": ["braze_id", "email"],
    "rows_signature": "5ha9e",
    "running": True,
    "in_bucket": False,
    "users": 7,
    "last_users": None,
    "updated_since": "2027-01-14T07:00:00.000000Z",
    "full": False,
    "accepted_at": "2027-01-15T11:00:00.000000Z",
    "rejected": 2,
    "complete": [
        {
            "full_at": "2027-01-12T08:00:00.000000Z",
            "full_since": None,
            "accepted_at": "2027-01-14T08:00:00.000000Z",
            "rows_signature": "5ha9e",
        }
    ],
    "files": 1,
    "emitted": "MTIzNDU2Nzg=",
}
JUNK: list[Any] = [{}, [1], 1.5, float("inf"), -1, 2**80]
"""No member of an entry may be one of these."""


def state(**more: Any) -> dict[str, Any]:
    return {"version": VERSION, "exports": [ENTRY], "resync": [], **more}


def bookmark() -> Bookmark:
    return Bookmark(Export("segment", "seg", "a-1800000000", 1_800_000_000.5), ("braze_id",), "shape", in_bucket=True)


def test_entry_is_read_and_written() -> None:
    """An export is written to STATE and read from it unchanged, also through JSON."""
    (read,) = read_bookmarks(json.loads(json.dumps(state()))).values()
    assert read.to_dict() == ENTRY
    assert read.export.exported_at == "2027-01-15T08:00:00.500000Z"
    assert read.export.requested_at == 1_800_000_000.5
    assert read.export.key == ("segment", "seg")
    assert read.files == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_800_000_000.123456, "2027-01-15T08:00:00.123456Z"),
        (1_800_000_000, "2027-01-15T08:00:00.000000Z"),
    ],
)
def test_times_have_one_form(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


def test_time_is_the_same_after_any_number_of_runs() -> None:
    """Rows of one export carry one exported_at, however often it is adopted."""
    original = bookmark()
    original.export = replace(original.export, requested_at=1_800_000_000.123456789)
    once = Bookmark.from_dict(original.to_dict())
    twice = Bookmark.from_dict(once.to_dict())
    assert original.export.exported_at == once.export.exported_at == twice.export.exported_at
    assert once.export == twice.export


UNREADABLE = [
    state(version=VERSION + 1),
    state(version=None),
    state(exports=None),
    state(exports=[{}]),
    state(exports=["text"]),
    state(exports=[{**ENTRY, "emitted": "A"}]),
    state(exports=[{**ENTRY, "requested_at": 5}]),
    state(exports=[{**ENTRY, "requested_at": "0001-01-01T00:00:00+23:59"}]),
    state(exports=[{**ENTRY, "requested_at": "9999-12-31T23:59:59-23:59"}]),
    *(state(exports=[{**ENTRY, name: value}]) for name in ENTRY if name != "files" for value in JUNK),
    *(
        state(exports=[{**ENTRY, name: value}])
        for name in ENTRY
        if name != "files"
        for value in ([1], {"a": 1}, 1.5, float("inf"), float("nan"), -1)
    ),
    state(exports=[{**ENTRY, "export_id": "../x"}]),
    state(exports=[{**ENTRY, "export_id": "\ud800"}]),
    state(exports=[{**ENTRY, "requested_at": "2026-01-01T00:00:00"}]),
    {"partitions": []},
]


def test_what_cannot_be_read_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """Another version or junk: the run starts anew, and the log says so."""
    for found in UNREADABLE:
        caplog.clear()
        assert read_bookmarks(found) == {}, found
        assert [record.levelno for record in caplog.records] == [logging.WARNING], found


@pytest.mark.parametrize("found", [{}, state(exports=[])])
def test_nothing_known_is_nothing_to_say(found: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert read_bookmarks(found) == {}
    assert not caplog.records


def test_object_of_several_files() -> None:
    """File by file while it is read, one digest when it is done."""
    export = bookmark()
    export.emitted("x.zip!0-a", 3)
    assert (export.has_emitted("x.zip!0-a"), export.has_emitted("x.zip!1-b"), export.has_emitted("x.zip")) == (
        True,
        False,
        False,
    )
    export.emitted("x.zip!1-b", 2)
    export.emitted_whole("x.zip", ["x.zip!0-a", "x.zip!1-b"])
    assert export.has_emitted("x.zip")
    assert (export.files, export.users) == (1, 5)


def test_four_thousand_files_take_43_kilobytes() -> None:
    export = bookmark()
    for number in range(4000):
        export.emitted(f"{number:032x}.zip", 5000)
    assert len(json.dumps(export.to_dict())) < 44_000
    assert Bookmark.from_dict(export.to_dict()).has_emitted(f"{3999:032x}.zip")


def test_names_of_files_are_not_in_it() -> None:
    """Members' names may say anything; STATE holds digests."""
    export = bookmark()
    export.emitted("x.zip!0-jane@example.com.txt", 1)
    assert "jane" not in json.dumps(export.to_dict())
    assert "12345678" not in repr(export)


def test_the_page_names_every_member() -> None:
    """The example of docs/state.md has those of a STATE, and its table explains each."""
    page = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])["bookmarks"]["export_files"]
    (entry,) = example["exports"]
    table = page.partition("| member | is |\n")[2].partition("\n\n")[0]
    explained = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}

    assert entry.keys() == ENTRY.keys()
    assert {*entry["complete"][0]} == {"full_at", "full_since", "accepted_at", "rows_signature"}
    assert (example.keys() | entry.keys()) - {"exports"} == explained
