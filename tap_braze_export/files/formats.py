"""Tells by its first bytes what a file is that should have been text, and how its text is encoded."""

from __future__ import annotations

import json

HEAD_BYTES = 4096
"""Bytes of a file's beginning that are enough for these functions."""
GZIP_MAGIC = b"\x1f\x8b"

_SPREADSHEETS = {
    b"[Content_Types].xml": "an Excel workbook",
    b"xl/": "an Excel workbook",
    b"application/vnd.oasis.opendocument": "an OpenDocument spreadsheet",
    b"Index/Document.iwa": "a Numbers spreadsheet",
}
"""Kinds of zip archives, by a name at their beginning."""
_BY_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (.xls)",
    GZIP_MAGIC: "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"SQLite format 3\x00": "an SQLite database",
    b"%PDF": "a PDF",
    b"{\\rtf": "an RTF document",
}
_TAR_MAGIC, _TAR_OFFSET = b"ustar", 257
_HTML_STARTS = ("<!doctype html", "<html", "<head", "<body")


def foreign_format(head: bytes) -> str:
    """Say what a file is that holds neither JSON nor CSV, such as "an Excel workbook"; empty if it may hold them.

    Args:
        head: The beginning of the file.
    """
    for magic, name in _BY_MAGIC.items():
        if head.startswith(magic):
            inside = (found for mark, found in _SPREADSHEETS.items() if magic[:2] == b"PK" and mark in head)
            return next(inside, name)
    if head[_TAR_OFFSET:].startswith(_TAR_MAGIC):
        return "a tar archive"
    start = head.decode(encoding_of(head), "replace").lstrip().lower()
    if start.startswith(_HTML_STARTS):
        return "a web page (HTML)"
    return "XML" if start.startswith("<") else ""


def encoding_of(head: bytes) -> str:
    """The encoding that a byte order mark names or NUL bytes show, without them UTF-8."""
    return json.detect_encoding(head[:4])
