"""The journal on disk: private, whole or not at all, one run at a time."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import TapError
from tap_braze_export.export import Export
from tap_braze_export.exports.journal import Journal, KnownExport
from tap_braze_export.exports.phases import Phase
from tap_braze_export.files.spool import Spool
from tap_braze_export.http.addresses import read_api_url
from tap_braze_export.state import Bookmark, CompleteExports
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = ("segment", "seg-1")
API = "https://rest.example.com"
URL = "https://store.example.com/users.zip?X-Amz-Signature=topsecret"
BOOKMARK = Bookmark(Export("segment", "seg-1", "a-1800000000", 1_800_000_000.5), ("braze_id",), "rows_signature")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(str(tmp_path / "spool"), clock=FakeClock())
    spool.open()
    return spool


@pytest.fixture
def journal(spool: Spool) -> Iterator[Journal]:
    journal = Journal(spool, API, KEY, {})
    yield journal
    journal.unlock()


def test_what_is_written_is_read(journal: Journal) -> None:
    entry = KnownExport(BOOKMARK, URL, "token")
    journal.write(entry)
    assert journal.read() == entry


def test_files_are_not_written(journal: Journal) -> None:
    """Which files the target has is for STATE to say."""
    journal.write(KnownExport(Bookmark(**{**vars(BOOKMARK), "digests": {b"12345678": None}, "users": 5}), URL, "token"))
    read = journal.read()
    assert read is not None
    assert (read.bookmark.files, read.bookmark.users) == (0, 0)


def test_it_is_for_the_owner_only(spool: Spool, journal: Journal) -> None:
    """Directory 0700, files 0600, whatever the umask; nothing but the entry and its lock."""
    old = os.umask(0)
    try:
        journal.lock()
        journal.write(KnownExport(BOOKMARK, URL, "token"))
    finally:
        os.umask(old)
    folder = spool.root / "journal"
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(spool.root.stat().st_mode) == 0o700
    assert {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        ".json": 0o600,
        ".lock": 0o600,
    }


def test_it_shows_no_secret(journal: Journal) -> None:
    """An entry that somebody logs tells neither link nor token; a file's name tells no segment."""
    entry = KnownExport(BOOKMARK, URL, "secret-token")
    assert "topsecret" not in repr(entry)
    assert "secret-token" not in repr(entry)
    assert "seg-1" not in journal.path.name


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"bookmark":{},"url":null,"token":""}', b'{"bookmark":[]}', b"\xff"]
)
def test_what_is_no_entry_is_none(journal: Journal, content: bytes) -> None:
    """A file of another version, or of a disk that failed, is as good as no file."""
    journal.path.write_bytes(content)
    assert journal.read() is None


def test_a_new_entry_replaces_the_old_one_at_once(journal: Journal) -> None:
    """Whoever reads meanwhile sees the old or the new one; a leftover of a crash does not matter."""
    journal.write(KnownExport(BOOKMARK, URL, "old"))
    opened = journal.path.open("rb")
    journal.path.with_suffix(".part").write_bytes(b"half an ent")
    journal.write(KnownExport(BOOKMARK, None, "new"))
    with opened:
        assert b'"old"' in opened.read()
    read = journal.read()
    assert read is not None
    assert read.token == "new"
    assert [path.suffix for path in journal.path.parent.iterdir()] == [".json"]


def test_forgetting_twice_is_fine(journal: Journal) -> None:
    journal.write(KnownExport(BOOKMARK))
    journal.forget()
    journal.forget()
    assert journal.read() is None


def test_each_workspace_and_segment_has_its_own(spool: Spool) -> None:
    """Another spelling of api_url makes no other workspace, once it is read as a setting."""

    def path(api_url: str, key: tuple[str, str]) -> Path:
        return Journal(spool, read_api_url(api_url), key, {}).path

    paths = {
        path(API, KEY),
        path("https://rest.example.eu", KEY),
        path(API, ("segment", "seg-2")),
        path(API, ("global_control_group", "")),
    }
    assert len(paths) == 4
    assert {path(spelling, KEY) for spelling in (f"{API}/", f" {API}", API.upper())} == {path(API, KEY)}


def test_lock_keeps_a_second_run_away(spool: Spool, journal: Journal) -> None:
    """It is refused at once, with the segment and the lock's file named; of another segment it is not."""
    journal.lock()
    second = Journal(spool, API, KEY, {})
    with pytest.raises(TapError) as refused:
        second.lock()
    assert "another run is exporting segment seg-1" in str(refused.value)
    assert str(journal.path.with_suffix(".lock")) in str(refused.value)
    other = Journal(spool, API, ("segment", "seg-2"), {})
    other.lock()
    other.unlock()
    journal.unlock()
    second.lock()
    second.unlock()


def test_a_record_of_commit_f684153_is_read(journal: Journal) -> None:
    """Byte for byte as that commit wrote it: nights are running."""
    journal.path.write_bytes(
        b'{"bookmark":{"source":"segment","segment_id":"seg-1","export_id":"a-1800000000",'
        b'"requested_at":"2027-01-15T08:00:00.500000Z","requested_fields":["braze_id"],"rows_signature":"rows_signature",'
        b'"running":true,"in_bucket":false,"users":0,"last_users":7,"updated_since":"2027-01-14T07:00:00.000000Z",'
        b'"full":false,"accepted_at":null,"rejected":0,"complete":[{"full_at":"2027-01-13T08:00:00.000000Z",'
        b'"full_since":null,"accepted_at":"2027-01-14T08:00:00.000000Z","rows_signature":"rows_signature"}],"files":0,'
        b'"emitted":""},"url":"https://store.example.com/a.zip?Signature=topsecret","token":"token",'
        b'"given_state":"0f1e2d","proven":false,"follows":""}'
    )
    known = journal.read()
    assert known is not None
    assert (known.phase, known.token, known.given_state, known.read_before) == (Phase.RUNNING, "token", "0f1e2d", None)
    assert known.url == "https://store.example.com/a.zip?Signature=topsecret"
    assert known.export == Export("segment", "seg-1", "a-1800000000", 1_800_000_000.5, 1_799_910_000.0)
    assert (known.bookmark.last_users, known.bookmark.is_full) == (7, False)
    assert known.bookmark.complete == CompleteExports(1_799_827_200.0, None, 1_799_913_600.0, "rows_signature")
