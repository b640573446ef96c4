"""The server of signed downloads, which behaves like an object store."""

from __future__ import annotations

import re
import uuid
from email.utils import formatdate
from typing import TYPE_CHECKING

from flask import Flask, Response, request

from tap_braze_export.sandbox.workspace import Call, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_braze_export.sandbox.exports import Export

_PIECE_BYTES = 256 * 1024
_SLOW_PIECE_BYTES = 64 * 1024
_SLOW_PAUSE_SECONDS = 0.25
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


def _refusal(status: int, code: str, message: str) -> Response:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{error}', status, content_type="application/xml")


def download_app(workspace: Workspace) -> Flask:
    """Make the application of the download server."""
    app = Flask("braze-sandbox-downloads")
    store = _Store(workspace)
    app.add_url_rule("/<path:key>", "download", store.get, methods=["GET"])

    @app.after_request
    def end(response: Response) -> Response:
        workspace.record(
            Call(
                "download",
                request.method,
                request.path,
                request.args.to_dict(),
                dict(request.headers),
                status=response.status_code,
            ),
        )
        response.call_on_close(workspace.send_callbacks)
        return response

    return app


class _Store:
    """Responds to GET requests."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._faults = workspace.faults

    def get(self, key: str) -> Response:
        """Respond with a file, or with an XML error."""
        return self._refused(f"/{key}") or self._file(f"/{key}")

    def _refused(self, path: str) -> Response | None:
        expires_at = request.args.get("X-Amz-Expires", "")
        if "Authorization" in request.headers:
            return _refusal(400, "InvalidArgument", "Only one auth mechanism allowed")
        # A signature is valid for one method only.
        if request.method != "GET" or request.args.get("X-Amz-Signature") != self._workspace.signature(
            path, expires_at
        ):
            return _refusal(403, "SignatureDoesNotMatch", "The request signature does not match")
        if self._workspace.clock() > int(expires_at):
            return _refusal(403, "AccessDenied", "Request has expired")
        if self._faults.strikes_once("server-error", path):
            return Response("<html><head><title>503 Slow Down</title></head></html>", 503, mimetype="text/html")
        return None

    def _file(self, path: str) -> Response:
        export = next((each for each in self._workspace.exports if each.object_prefix in path.split("/")), None)
        if export is None or not self._workspace.poll(export) or export.archive is None:
            if "not-ready-404" in self._faults:
                return _refusal(404, "NoSuchKey", "The specified key does not exist.")
            return _refusal(403, "AccessDenied", "Access Denied")
        if export.downloaded and "expires" in self._faults:
            return _refusal(403, "ExpiredToken", "The provided token has expired.")
        export.downloaded = True
        return self._send(export, export.archive)

    def _send(self, export: Export, archive: Path) -> Response:
        size = archive.stat().st_size
        if self._faults.strikes_once("damaged-once", export.object_prefix):
            size //= 2
        etag = f'"{(uuid.uuid4().hex if "changed-etag" in self._faults else export.object_prefix[:32])}"'
        headers = {
            "ETag": etag,
            "Last-Modified": formatdate(int(export.requested_at), usegmt=True),
            "Accept-Ranges": "bytes",
        }
        start, end, status = 0, size, 200
        if "no-range" in self._faults:
            del headers["Accept-Ranges"]
        elif (wanted := _RANGE.match(request.headers.get("Range", ""))) and request.headers.get("If-Range", etag) in (
            etag,
            headers["Last-Modified"],
        ):
            first, last = wanted.groups()
            start = int(first) if first else max(0, size - int(last or 0))
            end = min(size, int(last) + 1) if first and last else size
            if start >= end:
                refusal = _refusal(416, "InvalidRange", "The requested range is not satisfiable")
                refusal.headers["Content-Range"] = f"bytes */{size}"
                return refusal
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - start)
        breaks = self._faults.strikes_once("connection-reset", export.object_prefix)
        pieces = self._pieces(archive, start, end, start + (end - start) // 2 if breaks else end)
        kind = "application/gzip" if export.kind == "gzip" else "application/zip"
        return Response(pieces, status, headers, mimetype=kind)

    def _pieces(self, archive: Path, start: int, end: int, stop: int) -> Iterator[bytes]:
        slow = "slow-download" in self._faults
        with archive.open("rb") as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(_SLOW_PIECE_BYTES if slow else _PIECE_BYTES, stop - start))
                start += len(piece)
                yield piece
                if slow and start < stop:
                    self._workspace.wait(_SLOW_PAUSE_SECONDS)
        if stop < end:
            raise ConnectionResetError
