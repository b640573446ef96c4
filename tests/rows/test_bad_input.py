"""Files that arrive damaged, odd or unreadable: nothing is lost in silence, and the rest of the run goes on."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.runs import selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

USERS = selecting(["users", "export_files"])
BAD_LINES = [b'{"braze_id": "5fbd99bac125ca40511f2cb1", "first_name": ', b'["no", "object"]']


def rejected_files(folder: Path) -> dict[str, bytes]:
    """The kept lines by export."""
    return {path.stem: path.read_bytes() for path in (folder / "spool" / "rejected").iterdir()}


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
def test_zip_and_gzip(tmp_path: Path, output_format: str) -> None:
    """Both formats give the same users; a gzip stream is one file, a zip has one for each member."""
    with Sandbox(users=30, odd_users=False, users_per_file=10) as sandbox:
        run = sync(settings(sandbox, tmp_path, output_format=output_format), catalog=USERS)
        (body,) = [call.body for call in sandbox.calls if call.method == "POST"]
    assert body["output_format"] == output_format
    assert run.counts["users"] == 30
    files = [row["file"] for row in run.rows("export_files")]
    assert len(files) == {"zip": 3, "gzip": 1}[output_format]
    assert all(("!" in file) == (output_format == "zip") for file in files)


def test_members_with_odd_names_are_read(tmp_path: Path) -> None:
    """Any extension is read; directories and what macOS adds are not, and the index in the name counts them."""
    with Sandbox(users=20, odd_users=False, users_per_file=10, faults=["macosx-entries"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS)
    assert run.counts["users"] == 20
    assert [row["file"].partition("!")[2].split("-")[0] for row in run.rows("export_files")] == ["2", "4"]
    assert all(row["file"].endswith(".jsonlines") for row in run.rows("export_files"))


def test_empty_archive(tmp_path: Path) -> None:
    """A zip without members is an export without users."""
    with Sandbox(users=20, faults=["empty-zip"]) as sandbox:
        run = sync(settings(sandbox, tmp_path))
    assert not run.counts


def test_unreadable_lines_are_kept_and_counted(tmp_path: Path) -> None:
    """They are kept as they came, told by file and line number without their content, and fail the run at its end."""
    with Sandbox(users=25, odd_users=False, users_per_file=10, faults=["bad-line", "no-braze-id"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS, fails=True)
    assert run.counts["users"] == 25
    export_id = run.rows("export_files")[0]["export_id"]
    assert rejected_files(tmp_path) == {
        export_id: b"\n".join([*BAD_LINES, b'{"first_name":"Nobody","external_id":"without-braze-id"}', b""])
    }
    assert [(row["lines"], row["users"], row["rejected"]) for row in run.rows("export_files")] == [
        (13, 10, 3),
        (10, 10, 0),
        (5, 5, 0),
    ]
    told = [line for line in run.warnings if "1, 2, 3" in line]
    assert len(told) == 1
    assert run.rows("export_files")[0]["file"] in told[0]
    assert "max_rejected_lines" in run.error
    assert not [line for line in [*run.lines, run.error] if "Nobody" in line or "5fbd99" in line]


def test_kept_lines_are_private(tmp_path: Path) -> None:
    with Sandbox(users=5, faults=["bad-line"]) as sandbox:
        sync(settings(sandbox, tmp_path), fails=True)
    spool = tmp_path / "spool"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [spool, *spool.rglob("*")]}
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {"0o700"}
    assert {oct(mode) for path, mode in modes.items() if path.is_file()} == {"0o600"}


@pytest.mark.parametrize(("most", "fails"), [(1, True), (2, False), (3, False)])
def test_some_unreadable_lines_can_be_allowed(tmp_path: Path, most: int, *, fails: bool) -> None:
    """max_rejected_lines is the number that a run still bears."""
    with Sandbox(users=5, faults=["bad-line"]) as sandbox:
        run = sync(settings(sandbox, tmp_path, max_rejected_lines=most), catalog=USERS, fails=fails)
    assert run.rows("export_files")[0]["rejected"] == 2
    assert run.counts["users"] == 5


def test_export_with_unreadable_lines_counts_as_read(tmp_path: Path) -> None:
    """The last STATE has the export as complete, so that the next run does not repeat it."""
    with Sandbox(users=5, faults=["bad-line"]) as sandbox:
        config = settings(sandbox, tmp_path, max_rejected_lines=9)
        failing = sync(config | {"max_rejected_lines": 0}, catalog=USERS, fails=True)
        fine = sync(config, catalog=USERS)
    for run in (failing, fine):
        (export,) = run.states[-1]["bookmarks"]["export_files"]["exports"]
        assert export["running"] is False


def test_user_twice_in_a_file(tmp_path: Path) -> None:
    """The later line wins, with its children; the audit row counts the other."""
    first = {"braze_id": "b1", "email": "old@example.com", "apps": [{"name": "Shop", "platform": "iOS"}]}
    second = {"braze_id": "b1", "email": "new@example.com", "apps": [{"name": "Blog", "platform": "Web"}]}
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("one", files=[[first, second]])
        run = sync(settings(sandbox, tmp_path, segment_ids=["one"]))
    assert [user["email"] for user in run.rows("users")] == ["new@example.com"]
    assert [app["name"] for app in run.rows("apps")] == ["Blog"]
    assert [(row["users"], row["duplicates"]) for row in run.rows("export_files")] == [(1, 1)]


def test_user_in_two_files(tmp_path: Path) -> None:
    """Files are deduplicated one by one: the user comes twice."""
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("one", files=[[{"braze_id": "b1"}], [{"braze_id": "b1"}]])
        run = sync(settings(sandbox, tmp_path, segment_ids=["one"]))
    assert run.ids() == ["b1", "b1"]


def test_blank_lines_and_line_ends(tmp_path: Path) -> None:
    """Blank lines are no lines; Windows line ends and a byte order mark do not matter."""
    lines = [b'\xef\xbb\xbf{"braze_id":"b1"}\r', b"\r", b"", b'{"braze_id":"b2"}\r']
    with Sandbox(users=0) as sandbox:
        sandbox.add_segment("one", files=[lines])
        run = sync(settings(sandbox, tmp_path, segment_ids=["one"]))
    assert run.ids() == ["b1", "b2"]
    assert [(row["lines"], row["rejected"]) for row in run.rows("export_files")] == [(2, 0)]


def test_huge_line_is_refused(tmp_path: Path) -> None:
    """A line of more than 64 MiB gives its export up, naming file and line, not its content."""
    with Sandbox(users=5, faults=["huge-line"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS, fails=True)
    assert "line 1 is longer than 64 MiB" in run.error
    assert "xxx" not in run.error
    assert not run.counts


def test_damaged_once(tmp_path: Path) -> None:
    """A damaged archive is fetched once more, and nothing is missing or twice."""
    with Sandbox(users=30, users_per_file=10, faults=["damaged-once"]) as sandbox:
        run = sync(settings(sandbox, tmp_path), catalog=USERS)
        downloads = [call for call in sandbox.calls if call.service == "download"]
    assert len(downloads) == 2
    assert len(run.ids()) == len(set(run.ids())) == 29
    assert [line for line in run.warnings if "damaged" in line]


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc", "not-an-archive"])
def test_damaged_for_good(tmp_path: Path, fault: str) -> None:
    """After one more fetch the export is given up, naming the file; the next run starts anew."""
    with Sandbox(users=30, users_per_file=10, faults=[fault]) as sandbox:
        config = settings(sandbox, tmp_path)
        run = sync(config, catalog=USERS, fails=True)
        downloads = [call for call in sandbox.calls if call.service == "download"]
        sandbox.set_faults()
        again = sync(config, catalog=USERS, state=run.states[-1])
    assert len(downloads) == 2
    assert ".zip" in run.error
    assert len(again.ids()) == len(set(again.ids())) == 29
    assert again.rows("export_files")[0]["export_id"] not in run.error


def test_leaves_no_download_behind(tmp_path: Path) -> None:
    """A damaged download is removed at once; a sound one stays only for a loader that failed: one at a time."""

    def downloads() -> list[Path]:
        return [path for path in (tmp_path / "spool").rglob("*") if path.is_file() and path.stat().st_size > 2000]

    with Sandbox(users=30, faults=["truncated-file"]) as sandbox:
        failed = sync(settings(sandbox, tmp_path), fails=True)
        assert downloads() == []
        sandbox.set_faults()
        first = sync(settings(sandbox, tmp_path), state=failed.states[-1])
        (kept,) = downloads()
        sync(settings(sandbox, tmp_path), state=first.states[-1])
    assert kept not in downloads()
    assert len(downloads()) == 1


def test_old_kept_lines_are_removed(tmp_path: Path) -> None:
    """Rejected lines are kept for seven days."""

    def touched(name: str, days: float) -> Path:
        path = tmp_path / "spool" / "rejected" / name
        path.write_bytes(b"x")
        then = 1_800_000_000 - days * 86400
        os.utime(path, (then, then))
        return path

    with Sandbox(users=5) as sandbox:
        config = settings(sandbox, tmp_path)
        sync(config)
        old, young = touched("old.jsonl", 7.1), touched("young.jsonl", 6.9)
        sync(config)
    assert (old.exists(), young.exists()) == (False, True)


def test_names_in_an_archive_are_no_paths(tmp_path: Path) -> None:
    """See test_archive for the names themselves; here: nothing is written outside the spool directory."""
    with Sandbox(users=5, faults=["macosx-entries", "bad-line"]) as sandbox:
        sync(settings(sandbox, tmp_path), fails=True)
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
