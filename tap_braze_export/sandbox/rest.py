"""The REST endpoints, with Braze's responses."""

from __future__ import annotations

import base64
import json
import socket
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from tap_braze_export.sandbox import parameters
from tap_braze_export.sandbox.exports import Export
from tap_braze_export.sandbox.limits import Budget
from tap_braze_export.sandbox.lookup import identity
from tap_braze_export.sandbox.parameters import Refusal
from tap_braze_export.sandbox.selection import NOT_IN_CONTROL_GROUP, NOT_IN_IDS_EXPORT, Selection
from tap_braze_export.sandbox.updates import is_missed
from tap_braze_export.sandbox.workspace import MOST_EXPORTS, Call, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.sandbox.segments import Segment, User

IDS_AT_ONCE = 50
ATTRIBUTES_AT_ONCE = 500
_SEGMENTS_A_PAGE = 100
_ATTRIBUTES_A_PAGE = 50
_LONGEST_SERIES = 100
_ERROR_IDS = {401: "unauthorized", 403: "forbidden", 415: "unsupported-media-type", 429: "rate-limit-exceeded"}
_ODD_IDS_ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "ids-users-null": (201, {"message": "success", "users": None}),
    "ids-no-users": (201, {"message": "The request could not be completed", "users": []}),
    "ids-queued": (202, {"message": "queued"}),
}
_UNAVAILABLE = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>"


def _response(body: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(body, ensure_ascii=False), status, mimetype="application/json")


def rest_app(workspace: Workspace) -> Flask:  # noqa: C901 - the hooks of one application
    """Make the application of the REST server."""
    app = Flask("braze-sandbox-rest")
    endpoints = Endpoints(workspace)
    for (method, path), (permissions, view) in endpoints.table().items():
        app.add_url_rule(path, path, _permitted(workspace, permissions, view), methods=[method])

    @app.before_request
    def begin() -> Response | None:
        g.budget = None
        if request.method == "GET" and workspace.faults.strikes_once("server-error", request.path):
            return Response(_UNAVAILABLE, 503, mimetype="text/html")
        if request.url_rule is None:
            return None  # Braze sends 404 before it checks the key
        if request.headers.get("Authorization") not in [f"Bearer {key}" for key in workspace.options.api_keys]:
            raise Refusal(401, "Invalid API key")
        now = int(workspace.clock())
        if workspace.faults.strikes_once("rate-limited"):
            g.budget = Budget(1, 0, now + 1)
            raise Refusal(429, "Rate limited")
        if workspace.faults.strikes_once("retry-after"):
            g.budget = Budget(250_000, 0, now + 3000, retry_after=1)
            raise Refusal(429, "Rate limited")
        return None

    @app.after_request
    def end(response: Response) -> Response:
        budget = g.get("budget") or workspace.pool_limit.take()
        response.headers.update(budget.headers)
        if response.status_code == 201 and "status-200" in workspace.faults:  # noqa: PLR2004
            response.status_code = 200
        lost = request.path in endpoints.exporting and response.status_code in (200, 201)
        lost = lost and workspace.faults.strikes_once("lost-response")
        workspace.record(
            Call(
                "rest",
                request.method,
                request.path,
                request.args.to_dict(),
                dict(request.headers),
                _recorded_body(),
                0 if lost else response.status_code,
            ),
        )
        if lost:
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        response.call_on_close(workspace.send_callbacks)
        return response

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Response:
        if "errors-as-objects" in workspace.faults:
            error = {"id": _ERROR_IDS.get(refusal.status, "invalid-parameter"), "message": refusal.message}
            return _response({"errors": [error]}, refusal.status)
        return _response({refusal.key: refusal.message}, refusal.status)

    @app.errorhandler(HTTPException)
    def misdirected(error: HTTPException) -> Response:
        if error.code in (404, 405):
            return _response({"message": "Invalid URL"}, 404)
        return _response({"message": error.name}, error.code or 500)

    return app


def _recorded_body() -> Any:
    """The JSON of the request, None if it has none."""
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def _permitted(
    workspace: Workspace,
    permissions: tuple[str, ...],
    view: Callable[[dict[str, Any]], Response],
) -> Callable[[], Response]:
    """Make a view that checks the permissions of the key, then passes on the body of a POST."""

    def check() -> Response:
        if set(permissions) <= set(workspace.options.deny):
            raise Refusal(403, f"Access Denied: this key lacks the permission {permissions[0]}")
        if request.method != "POST":
            return view({})
        if request.mimetype != "application/json":
            raise Refusal(415, "Unsupported Media Type: send application/json")
        try:
            body = json.loads(request.get_data())
        except (ValueError, RecursionError):
            raise Refusal(400, "The request body is not valid application/json", key="error") from None
        if not isinstance(body, dict):
            raise Refusal(400, "The request body must be a JSON object", key="error")
        return view(body)

    return check


class Endpoints:
    """The endpoints of a workspace, each a method."""

    exporting = ("/users/export/segment", "/users/export/global_control_group")

    def __init__(self, workspace: Workspace) -> None:
        """Serve this workspace."""
        self._workspace = workspace

    def table(self) -> dict[tuple[str, str], tuple[tuple[str, ...], Callable[[dict[str, Any]], Response]]]:
        """Permissions, of which one is needed, and method by HTTP method and path."""
        return {
            ("POST", "/users/export/segment"): (("users.export.segment",), self.export_segment),
            ("POST", "/users/export/global_control_group"): (
                ("users.export.global_control_group",),
                self.export_control_group,
            ),
            ("POST", "/users/export/ids"): (("users.export.ids",), self.export_ids),
            # Braze's page names the second permission, its OpenAPI file the first.
            ("POST", "/export/segment/cancel"): (("users.export.segment", "segments.list"), self.cancel),
            ("GET", "/segments/list"): (("segments.list",), self.segments_list),
            ("GET", "/segments/details"): (("segments.details",), self.segment_details),
            ("GET", "/segments/data_series"): (("segments.data_series",), self.data_series),
            ("GET", "/custom_attributes"): (("custom_attributes.get",), self.custom_attributes),
        }

    def export_segment(self, body: dict[str, Any]) -> Response:
        """Start an export of a segment."""
        selected = parameters.fields(body)
        attributes = parameters.strings(body, "custom_attributes_to_export")
        if len(attributes) > ATTRIBUTES_AT_ONCE:
            raise Refusal(400, f"At most {ATTRIBUTES_AT_ONCE} custom attributes can be exported by name")
        segment = self._workspace.segments.get(str(body.get("segment_id")))
        if segment is None:
            raise Refusal(400, "The segment_id is invalid: there is no such segment")
        limited, since = self._limited(segment, body)
        now, kind = self._workspace.clock(), parameters.kind(body)
        export = Export(limited, Selection.of(selected, attributes), kind, now, updated_since=since)
        return self._begin(export, body, len(segment))

    def _limited(self, segment: Segment, body: dict[str, Any]) -> tuple[Segment, float | None]:
        """The users of a segment that the request asks for, and the time since which they were updated."""
        faults, name = self._workspace.faults, "user_last_updated_at"
        if name in body and "filter-refused" in faults:
            raise Refusal(400, f"The {name} parameter is not permitted")
        since = None if "filter-ignored" in faults else parameters.updated_since(body)
        if since is None:
            return segment, None
        return segment.updated_since(since, partial(is_missed, self._workspace.options.filter_misses)), since

    def export_control_group(self, body: dict[str, Any]) -> Response:
        """Start an export of the Global Control Group."""
        selection = Selection.of(parameters.fields(body), unavailable=NOT_IN_CONTROL_GROUP)
        segment, now = self._workspace.control_group, self._workspace.clock()
        export = Export(segment, selection, parameters.kind(body), now, source="global_control_group")
        return self._begin(export, body, len(segment))

    def _begin(self, export: Export, body: dict[str, Any], members: int) -> Response:
        workspace = self._workspace
        if "queued-202" in workspace.faults:
            return _response({"message": "queued"}, 202)
        export.callback = str(body.get("callback_endpoint") or "")
        if len(workspace.running()) >= MOST_EXPORTS:
            raise Refusal(429, f"More than {MOST_EXPORTS} segment exports are running")
        if not workspace.begin(export):
            raise Refusal(429, "An export of this segment is already in progress")
        workspace.tell(export, members)
        content: dict[str, Any] = {"message": "success", "object_prefix": export.object_prefix}
        if "url-empty" in workspace.faults:
            content["url"] = ""
        elif "url-absent" not in workspace.faults:
            content["url"] = None if "url-null" in workspace.faults else export.url or None
        return _response(content, 201)

    def cancel(self, body: dict[str, Any]) -> Response:
        """Cancel the running exports of a segment."""
        if not isinstance(body.get("segment_id"), str):
            raise Refusal(400, "The segment_id parameter is required")
        self._workspace.cancel(body["segment_id"])
        return _response({"message": "success"}, 201)

    def export_ids(self, body: dict[str, Any]) -> Response:
        """Export single users in the response."""
        selection = Selection.of(parameters.fields(body), unavailable=NOT_IN_IDS_EXPORT)
        limit = self._workspace.enter_ids(selection)
        try:
            g.budget = limit.take()
            if not g.budget.allowed:
                self._workspace.violate()
                raise Refusal(429, "Rate limited")
            if self._workspace.options.ids_latency:
                self._workspace.wait(self._workspace.options.ids_latency)
            for fault, (status, content) in _ODD_IDS_ANSWERS.items():
                if fault in self._workspace.faults:
                    return _response(content, status)
            return self._look_up(body, selection)
        finally:
            self._workspace.leave_ids()

    def _look_up(self, body: dict[str, Any], selection: Selection) -> Response:
        external_ids = parameters.strings(body, "external_ids")
        wanted = parameters.identifiers(body)
        if len(external_ids) + sum(kind == "user_alias" for kind, _ in wanted) > IDS_AT_ONCE:
            raise Refusal(400, "The max number of external_ids and aliases per request was exceeded")
        if sum(kind in ("device_id", "email", "phone") for kind, _ in wanted) > 1:
            raise Refusal(400, "Only one of device_id, email_address or phone can be given per request")
        if not external_ids and not wanted:
            raise Refusal(400, "At least one identifier is required")
        found: dict[Any, User] = {}
        missed = []
        for external_id in external_ids:
            users = self._workspace.people("external_id", external_id)
            found |= {identity(user).get("braze_id"): user for user in users}
            missed += [] if users else [external_id]
        for kind, identifier in wanted:
            users = self._workspace.people(kind, identifier)
            found |= {identity(user).get("braze_id"): user for user in users}
        lines = b",".join(user.line(selection) for user in found.values())
        invalid = b',"invalid_user_ids":' + json.dumps(missed).encode() if missed else b""
        content = b'{"message":"success","users":[' + lines + b"]" + invalid + b"}"
        return Response(content, 201, mimetype="application/json")

    def segments_list(self, _: dict[str, Any]) -> Response:
        """List a page of the segments, oldest first by default."""
        page = request.args.get("page", 0, type=int)
        segments = list(self._workspace.segments.values())
        if request.args.get("sort_direction") == "desc":
            segments.reverse()
        listed = [
            {"id": segment.id, "name": segment.name, "analytics_tracking_enabled": True, "tags": ["sandbox"]}
            for segment in segments[page * _SEGMENTS_A_PAGE : (page + 1) * _SEGMENTS_A_PAGE]
        ]
        return _response({"message": "success", "segments": listed}, 200)

    def _segment_size(self) -> tuple[str, int]:
        segment = self._workspace.segments.get(request.args.get("segment_id", ""))
        if segment is None:
            raise Refusal(400, "The segment_id is invalid: there is no such segment")
        return segment.name, len(segment)

    def segment_details(self, _: dict[str, Any]) -> Response:
        """Describe one segment."""
        name, _size = self._segment_size()
        details = {
            "message": "success",
            "created_at": "2026-01-05T23:59:59.999Z",
            "updated_at": "2026-01-05T23:59:59.999Z",
            "name": name,
            "description": "Made by the sandbox",
            "text_description": "",
            "tags": ["sandbox"],
            "teams": [],
        }
        return _response(details, 200)

    def data_series(self, _: dict[str, Any]) -> Response:
        """List the size of one segment by day."""
        _name, size = self._segment_size()
        estimate = self._workspace.estimated(size)
        length = request.args.get("length", 0, type=int)
        if not 1 <= length <= _LONGEST_SERIES:
            raise Refusal(400, f"The length must be between 1 and {_LONGEST_SERIES}")
        today = datetime.fromtimestamp(self._workspace.clock(), UTC)
        days = [today - timedelta(days=ago) for ago in reversed(range(length))]
        return _response(
            {"message": "success", "data": [{"time": f"{day:%Y-%m-%d}", "size": estimate} for day in days]}, 200
        )

    def custom_attributes(self, _: dict[str, Any]) -> Response:
        """List a page of the custom attributes; the Link header has the URL of the next page."""
        g.budget = self._workspace.catalog_limit.take()
        if not g.budget.allowed:
            raise Refusal(429, "Rate limited")
        try:
            start = int(base64.urlsafe_b64decode(request.args.get("cursor", "MA==")))
        except ValueError:
            raise Refusal(400, "The cursor is invalid") from None
        attributes = self._workspace.attributes
        response = _response(
            {"message": "success", "attributes": attributes[start : start + _ATTRIBUTES_A_PAGE]},
            200,
        )
        following = start + _ATTRIBUTES_A_PAGE
        if following < len(attributes):
            cursor = base64.urlsafe_b64encode(str(following).encode()).decode()
            response.headers["Link"] = f'<{request.base_url}?cursor={cursor}>; rel="next"'
        return response
