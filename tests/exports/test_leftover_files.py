"""A truncated object beside the one that was written in its place: left behind where Braze may not delete objects."""

from __future__ import annotations

import gzip
import random
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.exports.test_polling import USERS, bucket_settings
from tests.support import ports
from tests.support.runs import sync
from tests.support.steps import Steps, braze, exports, nothing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.runs import Run


def run_with(
    folder: Path, change: Callable[[Path], None], *, calls_back: bool = True, fails: bool = False, **options: Any
) -> Run:
    """Export nine users in three files; this happens in the export's folder before Braze calls back."""
    port, clock = ports.free_port(), Steps()
    listening = {"callback_url": f"http://127.0.0.1:{port}", "callback_listen": f"127.0.0.1:{port}"}
    with braze(clock, folder, hold=True, **options) as sandbox:
        deliver = sandbox.deliver_next_file

        def spoil() -> None:
            (export,) = {path.parent for path in (folder / "bucket").rglob("*/*/*/*/*") if path.is_file()}
            change(export)

        clock.steps = [deliver, deliver, deliver, spoil, nothing, sandbox.finish_exports, nothing]
        config = bucket_settings(sandbox, folder, **(listening if calls_back else {}))
        return sync(config, clock=clock, catalog=USERS, fails=fails)


def cut(part: float, *, rewritten: bool = False) -> Callable[[Path], None]:
    """Leave this part of the largest file behind under another name; rewritten, it was compressed in another way."""

    def change(export: Path) -> None:
        file = max(export.iterdir(), key=lambda path: path.stat().st_size)
        left = export / "left.zip"
        left.write_bytes(file.read_bytes())
        if rewritten:
            with zipfile.ZipFile(file) as whole, zipfile.ZipFile(left, "w", zipfile.ZIP_STORED) as archive:
                for info in whole.infolist():
                    archive.writestr(info.filename, whole.read(info))
        left.write_bytes(left.read_bytes()[: int(left.stat().st_size * part)])

    return change


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.fault("Bucket", "a truncated file beside its good twin, and the callback", "every row, and a warning")
def test_leftover_of_a_complete_export(tmp_path: Path, *, rewritten: bool) -> None:
    run = run_with(tmp_path, cut(0.6, rewritten=rewritten))
    assert run.counts == {"users": 9, "export_files": 3}
    (warned,) = [line for line in run.warnings if "is left alone" in line]
    assert "left.zip is damaged: the zip's directory is truncated or wrong, and is left alone: it begins as" in warned
    assert "permission to delete objects" in warned
    assert exports(run.states[-1])[0]["running"] is False


def test_leftover_of_the_sandbox(tmp_path: Path) -> None:
    run = run_with(tmp_path, lambda _: None, faults=["leftover-file"])
    assert run.counts == {"users": 9, "export_files": 3}


@pytest.mark.fault("Bucket", "a truncated file beside its good twin, no callback", "one line that says what it may be")
def test_leftover_without_a_callback(tmp_path: Path) -> None:
    """Nobody knows if the export is complete: the person decides."""
    run = run_with(tmp_path, cut(0.6), calls_back=False, fails=True)
    assert "left.zip is damaged: the zip's directory is truncated or wrong, and begins as" in run.error
    for hint in ("it may be left from a first try", "delete it", "callback_url"):
        assert hint in run.error


def other_users(export: Path) -> None:
    """A truncated file whose users are in no other one."""
    dice = random.Random(1)
    lines = b"".join(b'{"braze_id":"new-%d","first_name":"%x"}\n' % (n, dice.getrandbits(99)) for n in range(99))
    (export / "left.zip").write_bytes(gzip.compress(lines)[:-100])


def nothing_to_read(export: Path) -> None:
    """So few bytes that every file may begin so."""
    (export / "left.zip").write_bytes(next(export.iterdir()).read_bytes()[:34])


def one_value_changed(export: Path) -> None:
    """A truncated file that begins as another one, but for a letter."""
    with zipfile.ZipFile(next(export.iterdir())) as archive:
        text = bytearray(archive.read(archive.infolist()[0]))
    text[-40] ^= 1
    with zipfile.ZipFile(export / "left.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("users.txt", bytes(text))
    (export / "left.zip").write_bytes((export / "left.zip").read_bytes()[: 39 + len(text)])


@pytest.mark.parametrize("change", [other_users, nothing_to_read, one_value_changed])
@pytest.mark.fault("Bucket", "a truncated file that no other one holds", "one line, also with the callback")
def test_a_truncated_file_that_no_other_one_holds(tmp_path: Path, change: Callable[[Path], None]) -> None:
    run = run_with(tmp_path, change, fails=True)
    assert "left.zip is damaged: " in run.error
    assert "it may be left from a first try to write another object" in run.error
    assert run.counts["users"] >= 9
