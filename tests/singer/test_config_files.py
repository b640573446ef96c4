"""Files given with --config, --state and --catalog as Windows programs write them, or that are no JSON at all."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.runs import command, discover, refusal, settings

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"api_url": "https://rest.iad-01.braze.com", "api_key": "k", "segment_ids": ["one"]}
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def encoded(path: Path, value: Any, encoding: str) -> str:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding=encoding)
    return str(path)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_files_in_encodings_of_windows_are_read(tmp_path: Path, encoding: str) -> None:
    """With and without a byte order mark; all three files, and a stream map with letters beyond ASCII."""
    with Sandbox(users=12) as sandbox:
        given = settings(sandbox, tmp_path, stream_maps={"users": {"größe": "'é'"}})
        ended = command(
            *("--config", encoded(tmp_path / "config.json", given, encoding)),
            *("--catalog", encoded(tmp_path / "catalog.json", discover(), encoding)),
            *("--state", encoded(tmp_path / "state.json", {"bookmarks": {}}, encoding)),
        )
    assert ended.code == 0, ended.stderr
    assert {row["größe"] for row in ended.rows("users")} == {"é"}


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")
    return file.getvalue()


NO_JSON: list[tuple[bytes, str]] = [
    (gzip.compress(b"{}", mtime=0), "is compressed with gzip, not JSON"),
    (zipped(), "is a zip archive, not JSON"),
    (b"<!DOCTYPE html>", "is a web page (HTML), not JSON"),
    ('{"api_key": "é"}'.encode("latin-1"), "is no text in UTF-8 or UTF-16: save it as UTF-8"),
    ("{}".encode("utf-16")[:-1], "is no text in UTF-8 or UTF-16"),
    (b"# settings\napi_key: hidden\n", "is not JSON (line 1, column 1): it looks like YAML"),
    (b"TAP_BRAZE_EXPORT_API_KEY=hidden\n", "is not JSON (line 1, column 1): it looks like YAML"),
    ("{,".encode("utf-16"), "is not JSON (line 1, column 2)"),
    *((b'{"a": [%s]}' % number, "it holds NaN, Infinity or a number") for number in (b"NaN", b"-Infinity", b"1e400")),
]


def test_a_file_that_is_no_json_is_refused_by_what_it_is(tmp_path: Path) -> None:
    for (content, told), option in product(NO_JSON, ["--config", "--state", "--catalog"]):
        path = tmp_path / "given.json"
        path.write_bytes(content)
        usual = () if option == "--config" else ("--config", encoded(tmp_path / "config.json", BASE, "utf-8"))
        error = refusal(*usual, option, str(path))
        assert f"{option}: {path}" in error, (content, told, option)
        assert told in error, (content, told, option)
        assert "hidden" not in error, (content, told, option)
