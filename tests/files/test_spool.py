"""The private directory on the local disk."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import ConfigError, DiskFullError, ExportError
from tap_braze_export.files.disk import private_file
from tap_braze_export.files.spool import Spool
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock
from tests.support.runs import sync

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_full_disk_names_the_directory_and_frees_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "object.part"

    with pytest.raises(ExportError, match=r"^the disk of .* is full: free some space there"):
        fill(path)
    assert not path.exists()


def fill(path: Path) -> None:
    with private_file(path) as file:
        file.write(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_told_where_rejected_lines_are_kept(tmp_path: Path, clock: FakeClock) -> None:
    """Lines that were kept before stay."""
    spool = Spool(str(tmp_path), clock=clock)
    spool.open()
    rejected = spool.rejected("e", "file")
    rejected.keep([(1, b"first")])

    with pytest.raises(DiskFullError, match=r"^the disk of .*rejected is full: free some space there"):
        rejected.keep(NoRoom([(2, b"second")]))
    assert (spool.root / "rejected" / "e.jsonl").read_bytes().startswith(b"first\n")


class NoRoom(list[tuple[int, bytes]]):
    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        yield from super().__iter__()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Symbolic links


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A directory of somebody else's, with a file."""
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    (target / "file").write_text("theirs")
    (target / "file").chmod(0o644)
    os.utime(target / "file", (0, 0))
    return target


def untouched(target: Path) -> bool:
    found = {path.name: path.read_text() for path in target.iterdir()}
    return (found, target.stat().st_mode & 0o777, (target / "file").stat().st_mode & 0o777) == (
        {"file": "theirs"},
        0o755,
        0o644,
    )


@pytest.mark.parametrize("name", ["exports", "journal", "rejected"])
def test_folder_that_is_a_link_is_refused(tmp_path: Path, target: Path, clock: FakeClock, name: str) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / name).symlink_to(target)

    assert refusal(spool, clock) == (f"spool_dir: {spool / name} is a symbolic link, which is not followed: remove it")
    assert untouched(target)


def test_links_in_the_folders_are_not_followed(tmp_path: Path, target: Path, clock: FakeClock) -> None:
    """An export's folder is made anew, a file of rejected lines refused, an old link removed; their targets stay."""
    spool = Spool(str(tmp_path / "spool"), clock=clock)
    spool.open()
    exports, rejected = (spool.root / name for name in ("exports", "rejected"))
    for link in (exports / "export", exports / "cleared", rejected / "old.jsonl"):
        link.symlink_to(target)
        os.utime(link, (0, 0), follow_symlinks=False)
    (rejected / "export.jsonl").symlink_to(target / "file")

    folder = spool.folder("export")
    spool.clear("cleared")
    with pytest.raises(ExportError) as caught:
        spool.rejected("export", "file").keep([(1, b"line")])

    assert not folder.is_symlink()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"unreadable lines cannot be kept in {rejected / 'export.jsonl'} (")
    assert sorted(path.name for path in spool.root.glob("*/*")) == ["export", "export.jsonl", "old.jsonl"]
    spool.open()
    assert not (rejected / "old.jsonl").is_symlink()
    assert untouched(target)


def test_spool_dir_itself_may_be_a_link(tmp_path: Path, clock: FakeClock) -> None:
    """The user has made it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "disk")

    Spool(str(tmp_path / "spool"), clock=clock).open()

    assert modes(tmp_path / "disk") == PRIVATE


# The default


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")
@pytest.mark.parametrize("home", ["", None])
def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, home: str | None) -> None:
    """As in a container that runs under a number of its own, which no list of users has."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    os.setresuid(54321, 54321, 0)
    try:
        error = refusal(None, clock)
    finally:
        os.setresuid(0, 0, 0)
    assert error.startswith("spool_dir is not set, and there is no default, as this user has no home: set it to a dir")


def test_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """The error says that the setting is missing, not that somebody has chosen such a directory."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    assert refusal(None, clock) == (
        "spool_dir is not set, and its default cannot be used: spool_dir /dev/null/.cache/tap-braze-export cannot be"
        " written (Not a directory): name a directory of the tap's own user"
    )


# Directories of another owner


NOBODY = 65534
GROUP = 2000
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes its user")


@contextmanager
def another_user() -> Iterator[None]:
    """Go on as a user who owns nothing here and is in one group, as in a container with `fsGroup`."""
    groups = os.getgroups()
    os.setgroups([GROUP])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory of root's that everybody can reach; pytest's own lie below one that only its user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "volume").mkdir()
        yield path / "volume"


def given(volume: Path, mode: int, *, owner: int = 0, group: int = GROUP) -> Path:
    os.chown(volume, owner, group)
    volume.chmod(mode)
    return volume


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


PRIVATE = {"exports": 0o700, "journal": 0o700, "rejected": 0o700, "runs": 0o700}


def refusal(folder: Path | None, clock: FakeClock) -> str:
    with pytest.raises(ConfigError) as caught:
        Spool(str(folder) if folder else None, clock=clock).open()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@as_root
@pytest.mark.parametrize("mode", [0o2770, 0o2775, 0o770, 0o777 & ~0o002])
def test_directory_of_another_owner_is_used(volume: Path, clock: FakeClock, mode: int) -> None:
    """Its mode cannot be changed, but nobody outside the group can write to it, and what is in it is private."""
    given(volume, mode)
    with another_user():
        spool = Spool(str(volume), clock=clock)
        spool.open()
        spool.open()
        rejected = spool.root / "rejected" / "e.jsonl"
        spool.rejected("e", "file").keep([(1, b"line")])
        with private_file(spool.folder("e") / "download") as file:
            file.write(b"x")

    assert volume.stat().st_mode & 0o7777 == mode
    assert modes(volume) == PRIVATE
    assert rejected.stat().st_mode & 0o777 == 0o600
    assert modes(volume / "exports" / "e") == {"download": 0o600}


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o2777])
def test_directory_of_another_owner_that_all_can_write_to_is_refused(volume: Path, clock: FakeClock, mode: int) -> None:
    """As an emptyDir of Kubernetes has it; the error names a directory that works."""
    given(volume, mode)
    with another_user():
        error = refusal(volume, clock)
        Spool(str(volume / "spool"), clock=clock).open()

    assert error == (
        f"spool_dir: {volume}, which belongs to uid 0, lets all users in (mode 777), and the tap cannot change that:"
        f" name a directory below it that does not exist yet, such as {volume / 'spool'}, have its owner take these"
        " permissions away, or mount it for the tap's user alone (options such as uid, dir_mode=0700, file_mode=0600)"
    )
    assert modes(volume) == {"spool": 0o700}


@as_root
def test_directory_below_one_that_keeps_others_out_is_used(volume: Path, clock: FakeClock) -> None:
    """Whatever its own mode: nobody else gets there."""
    os.chown(volume.parent, 0, GROUP)
    volume.parent.chmod(0o770)
    given(volume, 0o777)
    with another_user():
        Spool(str(volume), clock=clock).open()

    assert modes(volume) == PRIVATE


@as_root
@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (0, 0o700), (NOBODY, 0o500)])
def test_directory_that_cannot_be_written_is_refused(volume: Path, clock: FakeClock, owner: int, mode: int) -> None:
    """Of another owner; one's own is made writable."""
    given(volume, mode, owner=owner)
    with another_user():
        if owner == NOBODY:
            Spool(str(volume), clock=clock).open()
            return
        error = refusal(volume, clock)

    assert error.startswith(f"spool_dir {volume}")
    assert error.endswith("cannot be written (Permission denied): name a directory of the tap's own user")


@as_root
def test_folder_that_another_user_has_left_is_refused(volume: Path, clock: FakeClock) -> None:
    """A run as root before this one: the error names the folder."""
    given(volume, 0o2770)
    (volume / "journal").mkdir(mode=0o700)
    with another_user():
        error = refusal(volume, clock)

    assert error.startswith(f"spool_dir {volume / 'journal'} cannot be written (Permission denied)")


@as_root
def test_folder_of_another_user_that_all_can_read_is_refused(volume: Path, clock: FakeClock) -> None:
    """It would hold what is personal, or somebody else's journal."""
    given(volume, 0o2775)
    (volume / "journal").mkdir()
    (volume / "journal").chmod(0o777)
    with another_user():
        assert f"{volume / 'journal'}, which belongs to uid 0, lets all users in" in refusal(volume, clock)


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770])
def test_mount_that_ignores_modes(volume: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """Such as CIFS or vfat: refused where the mount lets all users in, with the true reason; else used."""
    for folder in (volume, *(volume / name for name in PRIVATE)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    monkeypatch.setattr(os, "chmod", lambda *_args, **_options: None)  # what such a mount makes of it
    if mode == 0o770:
        Spool(str(volume), clock=clock).open()
        return
    error = refusal(volume, clock)

    assert f"lets all users in (mode {mode:o}), and the tap cannot change that" in error
    assert "or mount it for the tap's user alone" in error


@as_root
def test_whole_run_in_a_directory_of_another_owner(volume: Path, tmp_path: Path) -> None:
    """A run before it has imported all modules, which the other user may not read."""
    given(volume, 0o2775)
    s3_options: dict[str, Any] = {"users": 20, "odd_users": False, "users_per_file": 5}
    with Sandbox(**s3_options) as sandbox:
        sync({**sandbox.config, "spool_dir": str(tmp_path), "workers": 1}, clock=FakeClock())
    with another_user(), Sandbox(**s3_options) as sandbox:
        run = sync({**sandbox.config, "spool_dir": str(volume), "workers": 1}, clock=FakeClock())

    assert run.counts["users"] == 20
    assert modes(volume) == PRIVATE


def test_a_clock_that_is_set_ahead_in_the_run_makes_nothing_old(tmp_path: Path) -> None:
    """The leftovers of another run would look a year old."""
    clock = FakeClock(time.time())
    spool = Spool(str(tmp_path), clock=clock)
    spool.open()
    left = [spool.folder("of-another-run"), spool.root / "rejected" / "of-another-run.jsonl"]
    left[1].write_bytes(b"{")
    clock.ahead = 365 * 86_400

    spool.open()

    assert all(path.exists() for path in left)
