"""A stand-in for S3, and the objects of an export in it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

    from tap_braze_export.files.objects import BucketObject

EXPORT = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599"
OTHER = "aaaaaaaa-c4aa-478b-b3f2-a4ee91731ad1-1464728000"
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
DATE = "braze/users/segment-export/seg/2026-01-02"
FOLDER = f"{DATE}/{EXPORT}"
"""The export's folder in the bucket."""
CONTENT = b"0123456789" * 1000
SECRET = "s3-secret-key"


def names(found: list[BucketObject]) -> list[str]:
    """The names of objects, in their order."""
    return [item.name for item in found]


class ScriptedS3:
    """The part of S3 that listing and reading need; responds with the statuses and codes in `refuse` first."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.forbidden: set[str] = set()  # objects that are listed, but cannot be read
        self.refuse: list[tuple[int, str]] = []

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if self.refuse:
            status, code = self.refuse.pop(0) if len(self.refuse) > 1 else self.refuse[0]
            if status:
                self._send(handler, status, f"<Error><Code>{code}</Code><Message>Sorry: {SECRET}</Message></Error>")
                return
        url = urlsplit(handler.path)
        bucket, _, key = url.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if bucket != "bucket":
            self._send(handler, 404, "<Error><Code>NoSuchBucket</Code><Message>No such bucket</Message></Error>")
        elif "list-type" in query:
            self._send(handler, 200, self._list(query.get("prefix", ""), query.get("delimiter", "")))
        elif key in self.forbidden:
            self._send(handler, 403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        elif key not in self.objects:
            self._send(handler, 404, "<Error><Code>NoSuchKey</Code><Message>No such key</Message></Error>")
        else:
            content, status = self.objects[key], 200
            if span := handler.headers.get("Range"):
                first, last = span.removeprefix("bytes=").split("-")
                content, status = content[int(first) : int(last or len(content)) + 1], 206
            self._send(handler, status, content)

    def _list(self, prefix: str, delimiter: str) -> str:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        folders = set()
        if delimiter:
            deeper = [key for key in keys if delimiter in key[len(prefix) :]]
            folders = {prefix + key[len(prefix) :].split(delimiter)[0] + delimiter for key in deeper}
            keys = [key for key in keys if key not in deeper]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>&quot;e&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, content: str | bytes) -> None:
        body = content.encode() if isinstance(content, str) else content
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"e"')
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
