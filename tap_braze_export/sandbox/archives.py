"""Write lines of JSON to zip or gzip files on disk, sound or damaged."""

from __future__ import annotations

import gzip
import uuid
import zipfile
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from pathlib import Path

    class _Sink(Protocol):
        def write(self, data: bytes, /) -> int: ...


_LINES_PER_WRITE = 500
_CRC_OFFSET_IN_DIRECTORY, _CRC_OFFSET_IN_HEADER = 16, 14  # bytes, by the zip format
_HUGE_LINE_BYTES = 64 * 1024 * 1024


def spoiled(lines: Iterable[bytes], faults: Container[str], *, first: bool) -> Iterator[bytes]:
    """Yield the lines of one file, with the bad ones that the faults add."""
    if first and "bad-line" in faults:
        yield b'{"braze_id": "5fbd99bac125ca40511f2cb1", "first_name": '
        yield b'["no", "object"]'
    if first and "no-braze-id" in faults:
        yield b'{"first_name":"Nobody","external_id":"without-braze-id"}'
    if first and "huge-line" in faults:
        yield b'{"braze_id":"ffffffffffffffffffffffff","first_name":"' + b"x" * _HUGE_LINE_BYTES + b'"}'
    unrequested = b',"appboy_id":"unrequested","brand_new_member":{"since":2026}}'
    repeat = first and "duplicate-user" in faults
    for line in lines:
        whole = (
            line[:-1] + unrequested if "unrequested-fields" in faults and line.endswith((b'"}', b"]}", b"}}")) else line
        )
        yield whole
        if repeat:
            yield whole
            repeat = False


def _write_lines(sink: _Sink, lines: Iterable[bytes]) -> None:
    rest = iter(lines)
    while batch := list(islice(rest, _LINES_PER_WRITE)):
        sink.write(b"\n".join(batch) + b"\n")


def _write_zip(path: Path, parts: Iterable[Iterable[bytes]], faults: Container[str]) -> None:
    odd = "macosx-entries" in faults
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if odd:
            archive.writestr("export/", b"")
        for lines in parts:
            name = f"{uuid.uuid4().hex}{'.jsonlines' if odd else '.txt'}"
            if odd:
                archive.writestr(f"__MACOSX/export/._{name}", b"\x00\x05\x16\x07 finder data")
                name = f"export/{name}"
            with archive.open(name, "w") as member:
                _write_lines(member, lines)


def _flip(file: BinaryIO, offset: int) -> None:
    file.seek(offset)
    byte = file.read(1)
    file.seek(offset)
    file.write(bytes([byte[0] ^ 0xFF]))


def _spoil_checksum(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        with path.open("r+b") as file:
            _flip(file, path.stat().st_size - 8)
        return
    with zipfile.ZipFile(path) as archive:
        directory = archive.start_dir
        first = min(archive.infolist(), key=lambda member: member.header_offset)
    with path.open("r+b") as file:
        _flip(file, directory + _CRC_OFFSET_IN_DIRECTORY)
        _flip(file, first.header_offset + _CRC_OFFSET_IN_HEADER)


def write_archive(
    path: Path,
    kind: str,
    parts: Iterable[Iterable[bytes]],
    faults: Container[str],
    *,
    first: bool = True,
) -> None:
    """Write one delivered file; `first` if it is, or begins with, the first file of its export."""
    if "empty-zip" in faults:
        parts = ()
    written = (spoiled(lines, faults, first=first and not number) for number, lines in enumerate(parts))
    if kind == "gzip":
        with gzip.open(path, "wb", compresslevel=1) as stream:
            for lines in written:
                _write_lines(stream, lines)
    else:
        _write_zip(path, written, faults)
    if first and "wrong-crc" in faults:
        _spoil_checksum(path)
    if first and "truncated-file" in faults:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    if first and "not-an-archive" in faults:
        path.write_bytes(b"<html><body>Gateway error</body></html>")
