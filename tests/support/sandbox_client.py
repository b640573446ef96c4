"""Requests to the sandbox, and the users in its responses."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import requests

from tests.support.fakes import Server

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

TWO_FIELDS = ["braze_id", "email"]
EVERYTHING = [
    *("apps", "attributed_campaign", "attributed_source", "attributed_adgroup", "attributed_ad", "braze_id"),
    *("campaigns_received", "canvases_received", "cards_clicked", "country", "created_at", "created_from"),
    *("custom_attributes", "custom_events", "devices", "dob", "email", "email_subscribe", "external_id"),
    *("first_name", "gender", "home_city", "language", "last_coordinates", "last_name", "phone", "purchases"),
    *("push_subscribe", "push_tokens", "random_bucket", "time_zone", "total_revenue", "uninstalled_at"),
    "user_aliases",
]
NOW = 1_790_000_000.0
"""2026-09-21T14:13:20Z"""


class CallbackReceiver(Server):
    """Receives callbacks at `url`; `arrived` is set as soon as the first is there."""

    def __init__(self) -> None:
        super().__init__()
        self.url += "/ready"
        self.arrived = threading.Event()
        self.answers = [self._accept]

    def _accept(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        self.arrived.set()

    @property
    def posted(self) -> list[Any]:
        """The bodies of the callbacks."""
        return [json.loads(request.body) for request in self.seen]


def post(sandbox: Sandbox, path: str, body: Any = None, key: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {key or sandbox.api_key}"}
    return requests.post(sandbox.api_url + path, json=body, headers=headers, timeout=60)


def get(sandbox: Sandbox, path: str, **query: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    return requests.get(sandbox.api_url + path, params=query, headers=headers, timeout=60)


def start(
    sandbox: Sandbox,
    segment: str = "all-users",
    fields: list[str] = TWO_FIELDS,
    **more: Any,
) -> requests.Response:
    body = {"segment_id": segment, "fields_to_export": fields, **more}
    return post(sandbox, "/users/export/segment", body)


def ids(sandbox: Sandbox, fields: list[str] = TWO_FIELDS, **wanted: Any) -> requests.Response:
    return post(sandbox, "/users/export/ids", {"fields_to_export": fields, **wanted})


def fetch(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=60)


def members(content: bytes) -> list[list[Any]]:
    """The users of each member of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [[json.loads(line) for line in archive.read(name).splitlines()] for name in archive.namelist()]


def exported(sandbox: Sandbox, segment: str = "all-users", fields: list[str] = TWO_FIELDS, **more: Any) -> list[Any]:
    """Every user of an export, in order."""
    content = fetch(start(sandbox, segment, fields, **more).json()["url"]).content
    return [user for file in members(content) for user in file]


def download(sandbox: Sandbox) -> requests.Response:
    """The response to the first download of a new export."""
    return fetch(start(sandbox).json()["url"])


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def raw_lines(sandbox: Sandbox, **more: Any) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(fetch(start(sandbox, **more).json()["url"]).content)) as archive:
        return archive.read(archive.namelist()[0]).splitlines()
