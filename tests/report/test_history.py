"""The last runs come from the pages in the directory; whatever else lies there is skipped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tap_braze_export.report.history import PastRun, as_json, last_runs

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = '<html><head><script type="application/json" id="tap-braze-export-run">{}</script></head></html>'


def run(day: int, **more: Any) -> PastRun:
    given: dict[str, Any] = {
        "started_at": f"2026-11-{day:02}T02:00:00.000000Z",
        "outcome": "done",
        "resync": False,
        "seconds": 1.5,
        "seconds_waiting": 1,
        **dict.fromkeys(("users", "unchanged", "rows", "rescued", "rejected", "memory"), day),
    }
    return PastRun(**{**given, **more})


@dataclass
class Pages:
    """A directory with pages, the later ones modified later."""

    folder: Path
    written: int = 0

    def write(self, name: str, content: bytes | str) -> None:
        self.written += 1
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, (self.written, self.written))

    @property
    def days(self) -> list[int]:
        """The days of the last runs, as users say them."""
        return [found.users for found in last_runs(self.folder / "new.html", resync=False)]


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return Pages(tmp_path)


def test_the_last_ten_runs(pages: Pages) -> None:
    """The latest first, whatever they are called."""
    for day in range(1, 15):
        pages.write(f"{30 - day}.html", BLOCK.format(as_json(run(day))))
    assert pages.days == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5]


def test_a_page_that_is_replaced_is_the_last_run(pages: Pages) -> None:
    """With a report_path that stays the same, the page that lies there is the one to compare with."""
    pages.write("new.html", BLOCK.format(as_json(run(3))))
    assert pages.days == [3]


def test_runs_of_another_kind_are_no_comparison(pages: Pages) -> None:
    pages.write("a.html", BLOCK.format(as_json(run(1, resync=True))))
    assert pages.days == []
    assert [found.users for found in last_runs(pages.folder / "x.html", resync=True)] == [1]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    assert last_runs(tmp_path / "gone" / "x.html", resync=False) == []


def changed(**more: Any) -> str:
    """The block of a run with other members."""
    return BLOCK.format(msgspec.json.encode({**msgspec.json.decode(as_json(run(2))), **more}).decode())


GOOD = BLOCK.format(as_json(run(2)))
DAMAGED = {
    "empty": "",
    "cut off": GOOD[: len(GOOD) // 2],
    "of another program": "<html><body>hello</body></html>",
    "no JSON": BLOCK.format("{"),
    "an array": BLOCK.format("[]"),
    "very deep": BLOCK.format("[" * 20_000),
    "very deep inside": BLOCK.format(as_json(run(2))[:-1] + ',"x":' + "[" * 20_000 + "]" * 20_000 + "}"),
    "bytes": bytes(range(256)) * 100,
    "not UTF-8": GOOD.encode().replace(b"done", b"d\xffne"),
    "another version": changed(version=2),
    "another kind": changed(kind="checks"),
    "a number as text": changed(users="2"),
    "a negative number": changed(rows=-1),
    "a huge number": changed(rows=10**30),
    "no number": changed(seconds=None),
    "another outcome": changed(outcome='"><img>'),
    "another moment": changed(started_at="2026-11-02 <b>"),
    "without a member": GOOD.replace('"rows":2,', ""),
    "behind many bytes": "<!-- " + "x" * 70_000 + " -->" + GOOD,
    "in another block": GOOD.replace("tap-braze-export-run", "other"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_page_is_skipped(pages: Pages, content: bytes | str) -> None:
    pages.write("a.html", BLOCK.format(as_json(run(1))))
    pages.write("b.html", content)
    pages.write("c.html", BLOCK.format(as_json(run(3))))
    assert pages.days == [3, 1]


def test_what_is_no_page_is_not_opened(pages: Pages) -> None:
    """A pipe would hold the run; a link may lead anywhere; hidden files are those of a run that is being written."""
    outside = pages.folder.parent / f"{pages.folder.name}-outside.html"
    outside.write_text(GOOD)
    os.mkfifo(pages.folder / "pipe.html")
    (pages.folder / "link.html").symlink_to(outside)
    (pages.folder / "folder.html").mkdir()
    pages.write(".hidden.html", GOOD)
    pages.write("other.txt", GOOD)
    pages.write("a.html", BLOCK.format(as_json(run(1))))
    assert pages.days == [1]


def test_pages_of_others_cost_little(pages: Pages) -> None:
    """Only the hundred newest files are opened."""
    pages.write("old.html", BLOCK.format(as_json(run(1))))
    for number in range(100):
        pages.write(f"{number}.html", "<html></html>")
    assert pages.days == []


def test_numbers_of_a_run_end_no_block() -> None:
    assert "<" not in as_json(run(2))
