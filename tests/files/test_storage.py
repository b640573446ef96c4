"""Storages: what is repeated, and what their errors say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import ConfigError, ExportError
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.storage import Storage, StorageLabels
from tests.support.s3 import CONTENT, EXPORT, FOLDER, SECRET, ScriptedS3, names

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.support.fakes import FakeClock


def test_unknown_scheme_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match=r"^bucket_url starts with nosuch://, which names no storage: use s3://"):
        Bucket("nosuch://bucket", {}, clock=clock)


def test_s3_denied_says_what_to_check_without_secrets(scripted_s3: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    scripted_s3.refuse = [(403, "AccessDenied")]

    error = s3.check()

    assert error == (
        "the bucket s3://bucket/braze/users cannot be listed: PermissionError. Check the credentials (bucket_options or"
        " the environment) and that they may list and get objects"
    )
    assert clock.slept == []
    with pytest.raises(ConfigError) as caught:
        s3.objects(EXPORT, "seg")
    assert str(caught.value) == error


def test_s3_failures_are_tried_again_on_the_clock(scripted_s3: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    scripted_s3.objects[f"{FOLDER}/a.zip"] = b"zip"
    scripted_s3.refuse = [(500, "Odd"), (500, "Odd"), (0, "")]

    assert names(s3.objects(EXPORT, "seg")) == ["a.zip"]
    assert len(clock.slept) == 2


def test_s3_failures_end(scripted_s3: ScriptedS3, s3: Bucket, clock: FakeClock) -> None:
    scripted_s3.refuse = [(500, "Odd")]

    with pytest.raises(ExportError, match=r"^the bucket s3://bucket/braze/users could not be listed 5 times: OSError$"):
        s3.objects(EXPORT, "seg")
    assert len(clock.slept) == 4


# Single files

LABELS = StorageLabels(
    "the list",
    url="list_url",
    options="list_options",
    needed="get the object",
    kind="a file",
    unreachable_error=ConfigError,
)


def opened(url: str, s3_options: dict[str, Any], clock: FakeClock) -> bytes:
    """The content of a single file."""
    storage = Storage(url, s3_options, LABELS, clock=clock)
    with storage.open(storage.root) as file:
        content: bytes = file.read()
        return content


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_single_file_is_read(tmp_path: Path, clock: FakeClock, scheme: str) -> None:
    (tmp_path / "list").write_bytes(CONTENT * 1000)

    assert opened(f"{scheme}{tmp_path}/list", {}, clock) == CONTENT * 1000


def test_text_is_read_line_by_line(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf\xc3\xa4\r\n\xff\n")
    storage = Storage(str(tmp_path / "list"), {}, LABELS, clock=clock)

    with storage.open(storage.root, "r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        assert list(file) == ["ä\r\n", "\udcff\n"]


def test_object_is_read_as_a_single_file(scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock) -> None:
    scripted_s3.objects["list"] = CONTENT

    assert opened("s3://bucket/list", s3_options, clock) == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "NoSuchKey"), "list_url names a file that does not exist"),
        ((500, "Odd"), "the list cannot be read: OSError"),
        (
            (403, "AccessDenied"),
            (
                "the list cannot be read: PermissionError (Forbidden). Check the credentials (list_options or the"
                " environment) and that they may get the object"
            ),
        ),
    ],
)
def test_single_file_that_cannot_be_read(
    scripted_s3: ScriptedS3, s3_options: dict[str, Any], clock: FakeClock, refusal: tuple[int, str], message: str
) -> None:
    scripted_s3.objects["list"] = CONTENT
    scripted_s3.refuse = [refusal]

    with pytest.raises(ConfigError) as caught:
        opened("s3://bucket/list", s3_options, clock)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)
    assert clock.slept == []


def test_missing_local_file_is_told(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match=r"^list_url names a file that does not exist$"):
        opened(str(tmp_path / "none"), {}, clock)


def test_secrets_of_a_url_are_not_told(clock: FakeClock) -> None:
    with pytest.raises(ConfigError) as caught:
        opened("nosuch://user:topsecret@host/list?Signature=topsecret", {}, clock)
    assert str(caught.value).startswith("list_url starts with nosuch://, which names no storage")
    assert "topsecret" not in str(caught.value)
