"""Tells by its first bytes what a file is that should have been text, and how its text is encoded."""

from __future__ import annotations

import json

HEAD_BYTES = 4096
"""Bytes of a file's beginning that are enough for these functions."""
GZIP_MAGIC = b"\x1f\x8b"

ZIP_MAGIC, EMPTY_ZIP_MAGIC = b"PK\x03\x04", b"PK\x05\x06"

_ARCHIVES = {
    ZIP_MAGIC: "a zip archive",
    EMPTY_ZIP_MAGIC: "an empty zip archive",
    GZIP_MAGIC: "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed with snappy",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
}
"""How files begin that are compressed, and what they are; no JSON begins so."""
_TAR_MAGIC, _TAR_OFFSET = b"ustar", 257
_SPREADSHEETS = {
    b"[Content_Types].xml": "an Excel workbook",
    b"xl/": "an Excel workbook",
    b"application/vnd.oasis.opendocument": "an OpenDocument spreadsheet",
    b"Index/Document.iwa": "a Numbers spreadsheet",
}
"""Kinds of zip archives, by a name at their beginning."""
_OTHERS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"SQLite format 3\x00": "an SQLite database",
    b"%PDF": "a PDF",
    b"{\\rtf": "an RTF document",
}
_HTML_STARTS = ("<!doctype html", "<html", "<head", "<body")


def archive_format(head: bytes) -> str:
    """Say how a file is compressed, such as "compressed with gzip"; empty if nothing at its beginning says so."""
    if head[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        return "a tar archive"
    return _first_with(_ARCHIVES, head)


def foreign_format(head: bytes) -> str:
    """Say what a file is that holds neither JSON nor CSV, such as "an Excel workbook"; empty if it may hold them."""
    if head.startswith(ZIP_MAGIC[:2]):
        for mark, name in _SPREADSHEETS.items():
            if mark in head:
                return name
    if known := archive_format(head) or _first_with(_OTHERS, head):
        return known
    start = head.decode(encoding_of(head), "replace").lstrip().lower()
    if start.startswith(_HTML_STARTS):
        return "a web page (HTML)"
    return "XML" if start.startswith("<") else ""


def encoding_of(head: bytes) -> str:
    """The encoding that a byte order mark names or NUL bytes show, without them UTF-8."""
    return json.detect_encoding(head[:4])


def _first_with(names: dict[bytes, str], head: bytes) -> str:
    return next((name for magic, name in names.items() if head.startswith(magic)), "")
