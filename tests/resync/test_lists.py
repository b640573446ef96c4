"""Identifier files as other programs write them: compressed, from Excel, with odd headers, or no text at all."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from itertools import product
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from pytest import LogCaptureFixture  # noqa: PT013 - as a type it reads better so

CSV = "external_id,email\r\n4711,josé@example.org\r\n,b@example.org\r\n"
FOUND = [("external_id", "4711"), ("email", "josé@example.org"), ("email", "b@example.org")]
JSON_LINES = '{"external_id": "4711", "email": "josé@example.org"}\n{"email": "b@example.org"}\n'


def compressed(content: bytes) -> bytes:
    """The same bytes in each process, since they are part of the tests' names."""
    return gzip.compress(content, mtime=0)


def identifiers_of(path: Path, content: str | bytes) -> Identifiers:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = {"api_url": "https://braze", "api_key": "k", "identifiers_url": str(path)}
    return Identifiers(Settings.of(config), clock=FakeClock())


def read(path: Path, content: str | bytes) -> list[tuple[str, ...]]:
    """Kind and value of each identifier in a file of this content, of an alias its label as well."""
    return [tuple(part for part in identifier[:3] if part) for identifier in identifiers_of(path, content)]


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES: list[str] = ["people.csv", "people.csv.gz", "people", "people.txt", "people.gz"]


ENCODINGS: list[str] = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def test_compression_and_encoding_are_seen_in_the_bytes(tmp_path: Path) -> None:
    """Under any name: gzip, gzip twice, UTF-16 from Excel, byte order marks."""
    for name, encoding, times in product(NAMES, ENCODINGS, [0, 1, 2]):
        content = CSV.encode(encoding)
        for _ in range(times):
            content = compressed(content)
        assert read(tmp_path / name, content) == FOUND, (name, encoding, times)


@pytest.mark.parametrize("name", ["people.jsonl", "people.jsonl.gz", "people"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lines_as_well(tmp_path: Path, name: str, encoding: str) -> None:
    content = JSON_LINES.encode(encoding)
    assert read(tmp_path / name, content) == FOUND
    assert read(tmp_path / name, compressed(content)) == FOUND


def test_delimiters_and_line_ends(tmp_path: Path) -> None:
    """A first line may name the delimiter for Excel."""
    for delimiter, start, end in product(
        [",", ";", "\t", "|"], ["", "sep={}\r\n", '"sep={}"\r\n', "SEP={}\r\n\r\n", "\r\n"], ["\n", "\r\n", "\r"]
    ):
        content = (start.format(delimiter) + CSV.replace(",", delimiter)).replace("\r\n", end)
        assert read(tmp_path / "people.csv", content) == FOUND, (delimiter, start, end)


def test_delimiter_is_the_one_that_makes_columns_known(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", '"Name, first, last";E-Mail\n"a,b,c";a@example.org\n') == [
        ("email", "a@example.org")
    ]


HEADERS: list[tuple[str, str]] = [
    *((header, "email") for header in ("Email ", " E-Mail", '"email"', "EMAIL", "e_mail", "emails", "\u00a0email")),
    *((header, "external_id") for header in ("External ID", "externalId", "EXTERNAL-ID", '"External Id "')),
    *((header, "device_id") for header in ("Device ID", "deviceId", "device_ids")),
]


def test_headers_are_known_in_any_spelling(tmp_path: Path) -> None:
    for header, kind in HEADERS:
        for name in ("people.csv", "people"):
            assert read(tmp_path / name, f"{header}\nx@example.org\n") == [(kind, "x@example.org")], (header, kind)
        line = json.dumps({header.strip('"'): "x@example.org"})
        assert read(tmp_path / "people.jsonl", line) == [(kind, "x@example.org")], (header, kind)


def test_unknown_columns_are_named_with_the_nearest(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Names only where the first row has a known column as well: without one it may be no header but a person."""
    content = "customer,Emial,external_id,,some@body.example\n1,a@example.org,4711,,\n"
    identifiers = identifiers_of(tmp_path / "people.csv", content)
    assert [identifier.value for identifier in identifiers] == ["4711"]
    assert caplog.messages == [
        "identifiers_url has columns that are ignored: Emial (did you mean email?), customer, 1 more"
    ]


def test_unknown_members_of_json_lines_are_named(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    content = '{"external_id": "1", "brazeid": "2", "emal": "a@example.org"}\n{"external_id": "3", "a-person": 1}\n'
    assert len(read(tmp_path / "people.jsonl", content)) == 3
    assert caplog.messages == ["identifiers_url has columns that are ignored: emal (did you mean email?)"]


def test_row_numbers_count_the_lines_of_the_file(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    read(tmp_path / "people.csv", "sep=;\n\nexternal_id;email\n1;\n;wrong\n")
    assert caplog.messages == ["Identifiers left out: identifiers_url: 1 malformed (row 5)"]


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, CSV)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("people.csv")
        member.size = len(CSV.encode())
        archive.addfile(member, io.BytesIO(CSV.encode()))
    return file.getvalue()


NO_TEXTS: list[tuple[bytes, str]] = [
    (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook"),
    (zipped("people.csv"), "a zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel workbook"),
    (b"PAR1" + bytes(100), "a Parquet file"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"\n<!DOCTYPE html><html>", "a web page"),
    ("<html>".encode("utf-16"), "a web page"),
    (b"<?xml version='1.0'?><Error/>", "XML"),
    (b"BZh91AY", "bzip2"),
    (b"\x28\xb5\x2f\xfd" + bytes(10), "zstd"),
    (b"SQLite format 3\x00" + bytes(100), "an SQLite database"),
    (tarred(), "a tar archive"),
    (compressed(tarred()), "a tar archive"),
    (compressed(zipped("xl/workbook.xml")), "an Excel workbook"),
    (compressed(compressed(compressed(CSV.encode()))), "compressed with gzip"),
    (compressed(CSV.encode() * 100)[:60], "a damaged gzip file"),
    (compressed(CSV.encode())[:5], "a damaged gzip file"),
    (b"\x1f\x8b" + bytes(100), "a damaged gzip file"),
    (CSV.encode("utf-16")[:-1], "damaged utf-16 text"),
]


def test_what_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    for (content, told), name in product(NO_TEXTS, ["people.csv", "people.jsonl", "people"]):
        error = refusal(tmp_path / name, content)
        assert error.startswith("identifiers_url "), (content, told, name)
        assert told in error, (content, told, name)
        assert "example.org" not in error, (content, told, name)


@pytest.mark.parametrize("content", ['[\n{"external_id": "1"}\n]', '[{"external_id": "1"}]', '["1", "2"]'])
@pytest.mark.parametrize("name", ["people.json", "people"])
def test_one_json_list_is_refused(tmp_path: Path, content: str, name: str) -> None:
    assert "is one JSON list: write JSON lines" in refusal(tmp_path / name, content.encode())


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path / "people.csv", b"email,E-Mail\na@example.org,b@example.org\n")
    assert "email twice" in error
