"""report_path is checked before a run, and the page takes its place there at once."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from tap_braze_export.report import page_file
from tap_braze_export.report.page import Ending
from tap_braze_export.report.page_file import errors_in, page_path, write, write_checks
from tap_braze_export.settings import Settings

MOMENT = 1_800_000_000.5  # 2027-01-15 08:00:00.5 UTC


def test_the_time_of_the_run_stands_in_the_name() -> None:
    assert page_path("/reports/run-{started_at}.html", MOMENT) == Path("/reports/run-20270115T080000Z.html")
    assert page_path("~/run.html", MOMENT) == Path.home() / "run.html"


@pytest.mark.parametrize("name", ["run.html", "run-{started_at}.html", "{started_at}", "a b-é"])
def test_a_path_that_can_be_written(tmp_path: Path, name: str) -> None:
    """Nothing is left by the check."""
    assert errors_in({"report_path": str(tmp_path / name)}) == []
    assert [*tmp_path.iterdir()] == []


def test_without_the_setting_there_is_no_error() -> None:
    assert errors_in({}) == errors_in({"report_path": None}) == errors_in({"report_path": " "}) == []


WRONG = {
    "TMP/gone/run.html": "lies in TMP/gone, which is no directory: make it, or name another",
    "TMP/a-file/run.html": "lies in TMP/a-file, which is no directory: make it, or name another",
    "TMP/folder": "names a directory: add the name of a file, such as run-{started_at}.html",
    "TMP/new/": "names a directory: add the name of a file, such as run-{started_at}.html",
    "TMP/pipe": "names TMP/pipe, which is no regular file: name another",
    "TMP/link": "names TMP/link, which is no regular file: name another",
    "TMP/{date}.html": "may hold {started_at}, and no other braces",
    "TMP/{started_at/run.html": "may hold {started_at}, and no other braces",
    "TMP/{started_at}/run.html": ("may hold {started_at} in the name of the file only, since its directory must exist"),
    "s3://bucket/run.html": "is a path on this machine, not an address",
    "TMP/a\0b": "holds characters that no name of a file should have",
    "TMP/a\ud800b": "holds characters that no name of a file should have",
    "~nobody-of-this-name/run.html": "begins with the home of a user who does not exist",
    f"TMP/{'x' * 300}": "cannot be written (File name too long): name a file in a directory of the tap's own user",
}


@pytest.mark.parametrize(("path", "problem"), WRONG.items(), ids=[*map(ascii, WRONG)])
def test_a_path_that_cannot_work_is_refused(tmp_path: Path, path: str, problem: str) -> None:
    """Each in one line, which says what to do."""
    (tmp_path / "a-file").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "a-file")
    (error,) = errors_in({"report_path": path.replace("TMP", str(tmp_path))})
    assert error == f"report_path {problem}".replace("TMP", str(tmp_path))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="uses /proc, which is Linux's")
def test_a_directory_that_cannot_be_written_is_refused() -> None:
    (error,) = errors_in({"report_path": "/proc/run.html"})
    assert error.startswith("report_path cannot be written (")


def test_the_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation without it: nothing on the path holds Jinja2."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    assert errors_in({"report_path": str(tmp_path / "run.html")}) == [
        "report_path needs: pip install 'tap-braze-export[report]'"
    ]


def test_a_page_is_private_and_complete(tmp_path: Path) -> None:
    """It replaces an earlier one that others could read; lone surrogates do not matter."""
    path = tmp_path / "run.html"
    path.write_text("old")
    path.chmod(0o644)
    write(path, "new \ud800")
    assert path.read_text() == "new ?"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_page_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(OSError):  # noqa: PT011 - the kind depends on the system
        write(path, "new")
    assert [*tmp_path.rglob("*")] == [path, path / "kept"]


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its directory may go while the run goes on."""
    path = tmp_path / "gone" / "run.html"
    settings = Settings(api_url="", api_key="", report_path=str(path))
    with caplog.at_level(logging.INFO, page_file.__name__):
        write_checks(settings, Ending(), MOMENT, 1.0, [])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"The page {path} is not written: No such file or directory"


def test_without_report_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checks(Settings(api_url="", api_key=""), Ending(), MOMENT, 1.0, [])
    assert [*tmp_path.iterdir()] == []
