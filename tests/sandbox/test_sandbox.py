"""The sandbox keeps its promises, over real HTTP."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec
import pytest
import requests
from click.testing import CliRunner

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.sandbox.cli import main
from tap_braze_export.sandbox.faults import FAULTS
from tap_braze_export.sandbox.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

TWO_FIELDS = ["braze_id", "email"]
EVERYTHING = [
    *("apps", "attributed_campaign", "attributed_source", "attributed_adgroup", "attributed_ad", "braze_id"),
    *("campaigns_received", "canvases_received", "cards_clicked", "country", "created_at", "created_from"),
    *("custom_attributes", "custom_events", "devices", "dob", "email", "email_subscribe", "external_id"),
    *("first_name", "gender", "home_city", "language", "last_coordinates", "last_name", "phone", "purchases"),
    *("push_subscribe", "push_tokens", "random_bucket", "time_zone", "total_revenue", "uninstalled_at"),
    "user_aliases",
]
ODD_USERS = Path(__file__).parents[2] / "tap_braze_export" / "sandbox" / "odd_users.jsonl"


class Clock:
    """A time that only tests move."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0  # 2026-09-21T14:13:20Z

    def __call__(self) -> float:
        return self.now


class Listener:
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        posted = self.posted = []  # type: list[Any]
        arrived = self.arrived = threading.Event()

        class Receive(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                arrived.set()

            def log_message(self, *_: object) -> None:
                """Keep silent."""

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Receive)
        self.url = f"http://127.0.0.1:{self._server.server_port}/ready"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(users=30, clock=Clock()) as sandbox:
        yield sandbox


def post(sandbox: Sandbox, path: str, body: Any = None, key: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Bearer {key or sandbox.api_key}"}
    return requests.post(sandbox.api_url + path, json=body, headers=headers, timeout=10)


def get(sandbox: Sandbox, path: str, **query: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    return requests.get(sandbox.api_url + path, params=query, headers=headers, timeout=10)


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
    return requests.get(url, headers=headers, timeout=10)


def members(content: bytes) -> list[list[Any]]:
    """The users of each member of a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [[json.loads(line) for line in archive.read(name).splitlines()] for name in archive.namelist()]


def exported(sandbox: Sandbox, segment: str = "all-users", fields: list[str] = TWO_FIELDS, **more: Any) -> list[Any]:
    """Every user of an export, in order."""
    content = fetch(start(sandbox, segment, fields, **more).json()["url"]).content
    return [user for file in members(content) for user in file]


def download(sandbox: Sandbox) -> requests.Response:
    """The answer to the first look at a new export."""
    return fetch(start(sandbox).json()["url"])


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Keys, paths and bodies


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("/users/export/segment", "users.export.segment"),
        ("/users/export/ids", "users.export.ids"),
        ("/users/export/global_control_group", "users.export.global_control_group"),
    ],
)
def test_key_is_checked(path: str, permission: str) -> None:
    """An unknown key is 401, a missing permission 403 and names it."""
    with Sandbox(users=0, deny=[permission]) as sandbox:
        unknown = post(sandbox, path, {}, key="guess")
        denied = post(sandbox, path, {})
    assert (unknown.status_code, unknown.json()) == (401, {"message": "Invalid API key"})
    assert denied.status_code == 403
    assert permission in denied.json()["message"]


@pytest.mark.parametrize(
    ("path", "permission"),
    [
        ("/segments/list", "segments.list"),
        ("/segments/details", "segments.details"),
        ("/segments/data_series", "segments.data_series"),
        ("/custom_attributes", "custom_attributes.get"),
    ],
)
def test_reading_needs_a_permission(path: str, permission: str) -> None:
    with Sandbox(users=0, deny=[permission]) as sandbox:
        assert get(sandbox, path).status_code == 403


def test_cancelling_needs_one_of_two_permissions() -> None:
    """Braze's page and its OpenAPI file name different ones."""
    body = {"segment_id": "all-users"}
    with Sandbox(users=0, deny=["segments.list"]) as sandbox:
        assert post(sandbox, "/export/segment/cancel", body).status_code == 201
    with Sandbox(users=0, deny=["segments.list", "users.export.segment"]) as sandbox:
        assert post(sandbox, "/export/segment/cancel", body).status_code == 403


def test_key_needs_its_scheme(sandbox: Sandbox) -> None:
    headers = {"Authorization": sandbox.api_key}
    assert requests.get(sandbox.api_url + "/segments/list", headers=headers, timeout=10).status_code == 401


def test_several_keys_are_accepted() -> None:
    with Sandbox(users=0, api_keys=["one", "two"]) as sandbox:
        body = {"segment_id": "all-users", "fields_to_export": ["braze_id"]}
        assert sandbox.api_key == "one"
        assert [
            post(sandbox, "/users/export/segment", body, key).status_code for key in ("one", "two", "sandbox-key")
        ] == [
            201,
            201,
            401,
        ]


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown permission: users\.write"):
        Sandbox(deny=["users.write"])
    with pytest.raises(ValueError, match="unknown fault: earthquake"):
        Sandbox(faults=["earthquake"])


@pytest.mark.parametrize("path", ["/users/export/segments", "/users/export/segment/", "/"])
def test_wrong_paths_are_404(sandbox: Sandbox, path: str) -> None:
    """A trailing slash is a wrong path, too."""
    answer = post(sandbox, path, {})
    assert (answer.status_code, answer.json()) == (404, {"message": "Invalid URL"})
    assert get(sandbox, "/users/export/segment").status_code == 404


def test_body_must_be_json(sandbox: Sandbox) -> None:
    """415 without the content type; 400 with `error`, not `message`, for a body that is no JSON."""
    url = sandbox.api_url + "/users/export/segment"
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    assert requests.post(url, data="{}", headers=headers, timeout=10).status_code == 415
    broken = requests.post(url, data="{", headers={**headers, "Content-Type": "application/json"}, timeout=10)
    assert broken.status_code == 400
    assert list(broken.json()) == ["error"]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/users/export/segment", {"segment_id": "all-users"}, "fields_to_export"),
        ("/users/export/segment", {"segment_id": "all-users", "fields_to_export": []}, "fields_to_export"),
        ("/users/export/segment", {"segment_id": "gone", "fields_to_export": ["braze_id"]}, "segment_id"),
        ("/users/export/segment", {"fields_to_export": "braze_id"}, "array of strings"),
        ("/users/export/global_control_group", {}, "fields_to_export"),
        ("/users/export/ids", {"external_ids": ["a"]}, "fields_to_export"),
        ("/users/export/ids", {"fields_to_export": ["braze_id"]}, "identifier"),
        ("/users/export/ids", {"fields_to_export": ["braze_id"], "braze_id": ["a"]}, "single string"),
        ("/export/segment/cancel", {}, "segment_id"),
    ],
)
def test_incomplete_requests_are_400(sandbox: Sandbox, path: str, body: dict[str, Any], told: str) -> None:
    answer = post(sandbox, path, body)
    assert answer.status_code == 400
    assert told in answer.json()["message"]


def test_more_than_500_custom_attributes_are_400(sandbox: Sandbox) -> None:
    names = [f"attribute {number}" for number in range(501)]
    assert start(sandbox, custom_attributes_to_export=names).status_code == 400
    assert start(sandbox, custom_attributes_to_export=names[:500]).status_code == 201


def test_every_answer_has_the_rate_limit_headers(sandbox: Sandbox) -> None:
    first, second = get(sandbox, "/segments/list"), post(sandbox, "/nowhere", {})
    told = [{k: v for k, v in a.headers.items() if k.startswith("X-RateLimit")} for a in (first, second)]
    hour = str(1_790_002_800)  # the next full hour of the test's clock
    assert told == [
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "249999", "X-RateLimit-Reset": hour},
        {"X-RateLimit-Limit": "250000", "X-RateLimit-Remaining": "249998", "X-RateLimit-Reset": hour},
    ]


def test_calls_are_recorded() -> None:
    with Sandbox(users=3) as sandbox:
        fetch(start(sandbox).json()["url"])
        post(sandbox, "/nowhere", {"a": 1})
        calls = [(call.service, call.method, call.path.split("/")[1], call.body, call.status) for call in sandbox.calls]
        assert sandbox.calls[0].headers["Authorization"] == "Bearer sandbox-key"
    asked = {"segment_id": "all-users", "fields_to_export": TWO_FIELDS}
    assert calls == [
        ("rest", "POST", "users", asked, 201),
        ("download", "GET", "segment-export", None, 200),
        ("rest", "POST", "nowhere", {"a": 1}, 404),
    ]


# Segments and attributes


def test_segments_are_listed_with_their_sizes(sandbox: Sandbox) -> None:
    listed = get(sandbox, "/segments/list").json()["segments"]
    assert [segment["id"] for segment in listed] == ["all-users", "vip-users", "empty-segment"]
    sizes = [
        get(sandbox, "/segments/data_series", segment_id=segment["id"], length=1).json()["data"] for segment in listed
    ]
    assert sizes == [[{"time": "2026-09-21", "size": size}] for size in (30, 3, 0)]
    assert get(sandbox, "/segments/list", sort_direction="desc").json()["segments"][0]["id"] == "empty-segment"


def test_segments_come_in_pages_of_100(sandbox: Sandbox) -> None:
    for number in range(98):
        sandbox.add_segment(f"segment-{number}")
    pages = [get(sandbox, "/segments/list", page=page).json()["segments"] for page in range(3)]
    assert [len(page) for page in pages] == [100, 1, 0]


def test_segment_details(sandbox: Sandbox) -> None:
    assert get(sandbox, "/segments/details", segment_id="vip-users").json()["name"] == "VIP users"
    assert get(sandbox, "/segments/details", segment_id="gone").status_code == 400
    assert get(sandbox, "/segments/data_series", segment_id="vip-users").status_code == 400
    assert get(sandbox, "/segments/data_series", segment_id="vip-users", length=101).status_code == 400


def test_custom_attributes_come_in_pages_of_50(sandbox: Sandbox) -> None:
    """The next page's address stands in the Link header, which requests parses."""
    answer = get(sandbox, "/custom_attributes")
    pages = [answer.json()["attributes"]]
    while following := answer.links.get("next"):
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        answer = requests.get(following["url"], headers=headers, timeout=10)
        pages.append(answer.json()["attributes"])
    names = [attribute["name"] for page in pages for attribute in page]
    assert [len(page) for page in pages] == [50, 50, 7]
    assert names == sorted(names)
    assert {"Favorite Color", "click-timestamp", "loyaltyId", "ünïcode"} <= set(names)
    assert {attribute["status"] for page in pages for attribute in page} == {"Active", "Blocklisted"}
    assert get(sandbox, "/custom_attributes", cursor="!").status_code == 400


def test_custom_attributes_have_a_limit_an_hour(sandbox: Sandbox) -> None:
    answer = get(sandbox, "/custom_attributes")
    assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == ("1000", "999")
    sandbox.workspace.catalog_limit.limit = 1
    assert get(sandbox, "/custom_attributes").status_code == 429


# Segment exports


def test_export_answers_before_the_download(sandbox: Sandbox) -> None:
    """201, an object_prefix of UUID and request second, and an address on another port."""
    answer = start(sandbox)
    body = answer.json()
    assert answer.status_code == 201
    assert body["message"] == "success"
    assert re.fullmatch(r"[0-9a-f-]{36}-1790000000", body["object_prefix"])
    path = urlsplit(body["url"]).path
    assert re.fullmatch(rf"/segment-export/all-users/2026-09-21/{body['object_prefix']}/[0-9a-f]{{32}}\.zip", path)
    assert urlsplit(body["url"]).port != urlsplit(sandbox.api_url).port


def test_first_users_are_the_odd_ones() -> None:
    """Everything they hold arrives, the user that occurs twice included."""
    with Sandbox(users=30) as sandbox:
        users = exported(sandbox, fields=[*EVERYTHING, "appboy_id"])
    assert users[:8] == [json.loads(line) for line in ODD_USERS.read_text("utf-8").splitlines()]
    assert len(users) == 30
    assert len({user["braze_id"] for user in users}) == 29


def test_odd_users_can_be_left_out() -> None:
    with Sandbox(users=30, odd_users=False) as sandbox:
        assert len({user["braze_id"] for user in exported(sandbox)}) == 30


def test_only_requested_fields_are_exported(sandbox: Sandbox) -> None:
    """Unknown names are ignored; the companions of `*_subscribe` come along and only with it."""
    assert {key for user in exported(sandbox, fields=["braze_id", "surprise"]) for key in user} == {"braze_id"}
    push = exported(sandbox, fields=["push_subscribe", "email_opted_in_at"])
    assert {key for user in push for key in user} == {
        "push_subscribe",
        "push_opted_in_at",
        "push_unsubscribed_at",
    }
    mail = exported(sandbox, fields=["email_subscribe"])
    assert {key for user in mail for key in user} == {
        "email_subscribe",
        "email_opted_in_at",
        "email_unsubscribed_at",
    }


def test_custom_attributes_can_be_named(sandbox: Sandbox) -> None:
    """Named ones only, unless `custom_attributes` asks for all of them."""
    sandbox.add_segment(
        "mine", [{"braze_id": "1", "custom_attributes": {"a": 1, "b": 2}}, {"custom_attributes": {"b": 3}}]
    )
    named = exported(sandbox, "mine", ["braze_id"], custom_attributes_to_export=["a", "c"])
    every = exported(sandbox, "mine", ["custom_attributes"], custom_attributes_to_export=["a"])
    assert named == [{"braze_id": "1", "custom_attributes": {"a": 1}}, {}]
    assert every == [{"custom_attributes": {"a": 1, "b": 2}}, {"custom_attributes": {"b": 3}}]


def test_named_attributes_of_generated_users() -> None:
    with Sandbox(users=300, odd_users=False) as sandbox:
        users = exported(sandbox, fields=["braze_id"], custom_attributes_to_export=["score_001", "pets"])
    keys = {key for user in users for key in user.get("custom_attributes", {})}
    assert keys == {"score_001", "pets"}


def test_users_are_split_into_members() -> None:
    """A zip has one .txt for every 5,000 users."""
    with Sandbox(users=12_001) as sandbox:
        content = fetch(start(sandbox, fields=["braze_id"]).json()["url"]).content
    assert [len(file) for file in members(content)] == [5000, 5000, 2001]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert all(name.endswith(".txt") for name in archive.namelist())


def test_gzip_is_one_stream(sandbox: Sandbox) -> None:
    url = start(sandbox, output_format="gzip").json()["url"]
    assert urlsplit(url).path.endswith(".gz")
    assert len(gzip.decompress(fetch(url).content).splitlines()) == 30
    assert start(sandbox, output_format="rar").status_code == 400


def test_empty_segment_has_an_empty_file(sandbox: Sandbox) -> None:
    assert members(fetch(start(sandbox, "empty-segment").json()["url"]).content) == [[]]


def test_own_segments_take_objects_and_raw_lines(sandbox: Sandbox) -> None:
    """Objects are cut down to the request, raw lines stand as they are; lone surrogates survive as escapes."""
    sandbox.add_segment("mine", [{"braze_id": "1", "dob": "x"}, b'{"b":  1}', b"no json", {"email": "\ud800"}])
    with zipfile.ZipFile(io.BytesIO(fetch(start(sandbox, "mine").json()["url"]).content)) as archive:
        content = archive.read(archive.namelist()[0])
    assert content == b'{"braze_id":"1"}\n{"b":  1}\nno json\n{"email":"\\ud800"}\n'


def test_own_segments_take_files(sandbox: Sandbox) -> None:
    sandbox.add_segment("mine", files=[[{"braze_id": "1"}], [], [{"braze_id": "2"}, {"braze_id": "3"}]])
    content = fetch(start(sandbox, "mine").json()["url"]).content
    assert members(content) == [[{"braze_id": "1"}], [], [{"braze_id": "2"}, {"braze_id": "3"}]]
    with pytest.raises(ValueError, match="not both"):
        sandbox.add_segment("mine", [{}], files=[[]])


def test_one_export_of_a_segment_at_a_time() -> None:
    """The second is 429 with free rate limit; another segment, or the first one's end, lets it pass."""
    with Sandbox(users=10, hold=True) as sandbox:
        assert start(sandbox).status_code == 201
        refused = start(sandbox)
        assert refused.status_code == 429
        assert "already in progress" in refused.json()["message"]
        assert int(refused.headers["X-RateLimit-Remaining"]) > 0
        assert start(sandbox, "vip-users").status_code == 201
        assert sandbox.workspace.most_running == 2
        sandbox.finish_exports()
        assert start(sandbox).status_code == 201


def test_at_most_100_exports_at_a_time() -> None:
    with Sandbox(users=0, hold=True) as sandbox:
        for number in range(101):
            sandbox.add_segment(f"s{number}")
        statuses = [start(sandbox, f"s{number}").status_code for number in range(101)]
    assert statuses == [201] * 100 + [429]


def test_cancelled_export_makes_room() -> None:
    with Sandbox(users=10, hold=True) as sandbox:
        url = start(sandbox).json()["url"]
        assert post(sandbox, "/export/segment/cancel", {"segment_id": "all-users"}).status_code == 201
        assert start(sandbox).status_code == 201
        sandbox.finish_exports()
        assert fetch(url).status_code == 403


def test_cancelled_export_is_not_written_on() -> None:
    """Otherwise a stopping sandbox would write a big export for minutes."""
    written: list[int] = []

    class CancelledMeanwhile(Segment):
        def parts(self, *_: object) -> Iterator[Iterator[bytes]]:
            for number in range(9):
                written.append(number)
                yield iter([b"{}"])
                braze.workspace.cancel(self.id)

    with Sandbox(users=0) as braze:
        braze.workspace.segments["mine"] = CancelledMeanwhile("mine", "Mine", braze.workspace.population)
        start(braze, "mine")
    assert written == [0, 1]


def test_control_group_knows_fewer_fields() -> None:
    with Sandbox(users=2000, odd_users=False) as sandbox:
        answer = post(sandbox, "/users/export/global_control_group", {"fields_to_export": EVERYTHING}).json()
        users = [user for file in members(fetch(answer["url"]).content) for user in file]
    keys = {key for user in users for key in user}
    assert "/segment-export/global-control-group-segment/" in answer["url"]
    assert len(users) == 100
    assert {"braze_id", "custom_attributes", "custom_events"} <= keys
    assert not keys & {
        "campaigns_received",
        "canvases_received",
        "cards_clicked",
        "created_from",
        "push_tokens",
    }
    assert not keys & {"push_subscribe", "email_subscribe", "push_opted_in_at", "email_opted_in_at"}


# Readiness and callbacks


def test_first_looks_find_nothing() -> None:
    with Sandbox(users=3, looks=2) as sandbox:
        url = start(sandbox).json()["url"]
        assert [fetch(url).status_code for _ in range(2)] == [403, 403]
        assert start(sandbox).status_code == 429
        assert [fetch(url).status_code for _ in range(2)] == [200, 200]
        assert start(sandbox).status_code == 201


def test_not_ready_is_xml() -> None:
    with Sandbox(users=3, hold=True) as sandbox:
        answer = download(sandbox)
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/xml")
    assert "<Code>AccessDenied</Code>" in answer.text


def test_delay_lets_time_pass() -> None:
    """The sandbox waits so many seconds before an export completes."""
    passed = threading.Event()
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        passed.wait(10)

    with Sandbox(users=3, delay=90, wait=wait) as sandbox:
        url = start(sandbox).json()["url"]
        assert fetch(url).status_code == 403
        passed.set()
        for worker in sandbox.workspace._workers:
            worker.join()
        assert fetch(url).status_code == 200
    assert waited == [90]


def test_delay_passes_between_trickling_files(tmp_path: Path) -> None:
    """Before each later file, and before the end."""
    waited: list[float] = []
    options: dict[str, Any] = {"users_per_file": 10, "delay": 5, "wait": waited.append, "faults": ["slow-trickle"]}
    with Sandbox(users=25, bucket_url=str(tmp_path), **options) as sandbox:
        start(sandbox)
        for worker in sandbox.workspace._workers:
            worker.join()
        assert len(files_below(tmp_path)) == 3
        assert not sandbox.workspace.running()
    assert waited == [5, 5, 5]


def test_closing_ends_a_delayed_export_at_once() -> None:
    with Sandbox(users=3, delay=3600) as sandbox:
        assert start(sandbox).status_code == 201


def test_callback_brings_the_url(listener: Listener) -> None:
    with Sandbox(users=3) as sandbox:
        url = start(sandbox, callback_endpoint=listener.url).json()["url"]
        assert listener.arrived.wait(10)
    assert listener.posted == [{"success": True, "url": url}]


def test_callback_of_a_bucket_export_has_no_url(listener: Listener, tmp_path: Path) -> None:
    with Sandbox(users=3, hold=True, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, callback_endpoint=listener.url)
        assert listener.posted == []
        sandbox.finish_exports()
        assert listener.posted == [{"success": True}]
        sandbox.finish_exports()
        assert len(listener.posted) == 1
        assert [(call.path, call.status) for call in sandbox.calls if call.service == "callback"] == [
            (listener.url, 200)
        ]


def test_failed_callback_is_not_repeated() -> None:
    with Sandbox(users=3, hold=True) as sandbox:
        start(sandbox, callback_endpoint="http://127.0.0.1:1/")
        sandbox.finish_exports()
        assert [call.status for call in sandbox.calls if call.service == "callback"] == [0]


def test_empty_callback_endpoint_is_none(sandbox: Sandbox) -> None:
    assert start(sandbox, callback_endpoint="").status_code == 201
    assert [call.service for call in sandbox.calls] == ["rest"]


# Downloads


def test_download_describes_itself(sandbox: Sandbox) -> None:
    answer = download(sandbox)
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Last-Modified"] == "Mon, 21 Sep 2026 14:13:20 GMT"
    assert answer.headers["Content-Type"] == "application/zip"
    assert re.fullmatch(r'"[0-9a-f-]+"', answer.headers["ETag"])


def test_download_refuses_an_authorization_header(sandbox: Sandbox) -> None:
    """As an object store does; it would also leak the key."""
    answer = fetch(start(sandbox).json()["url"], Authorization="Bearer sandbox-key")
    assert answer.status_code == 400
    assert "<Error>" in answer.text


def test_download_needs_its_signature(sandbox: Sandbox) -> None:
    url = start(sandbox).json()["url"]
    assert fetch(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 403
    assert fetch(url.partition("?")[0]).status_code == 403
    assert fetch(url).status_code == 200


def test_download_expires_after_four_hours() -> None:
    clock = Clock()
    with Sandbox(users=3, clock=clock) as sandbox:
        url = start(sandbox).json()["url"]
        clock.now += 4 * 3600
        assert fetch(url).status_code == 200
        clock.now += 1
        assert fetch(url).status_code == 403


def test_signature_is_for_get_only(sandbox: Sandbox) -> None:
    assert requests.head(start(sandbox).json()["url"], timeout=10).status_code == 403


def test_expired_archives_leave_the_disk() -> None:
    clock = Clock()
    with Sandbox(users=3, clock=clock) as sandbox:
        start(sandbox)
        clock.now += 4 * 3600 + 1
        prefix = start(sandbox).json()["object_prefix"]
        assert [path.name for path in sandbox.workspace.folder.iterdir()] == [prefix]
    assert not sandbox.workspace.folder.exists()


def test_download_continues_from_a_byte(sandbox: Sandbox) -> None:
    url = start(sandbox).json()["url"]
    whole = fetch(url)
    size, etag = len(whole.content), whole.headers["ETag"]
    rest = fetch(url, Range="bytes=100-", **{"If-Range": etag})
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes 100-{size - 1}/{size}")
    assert rest.content == whole.content[100:]
    assert fetch(url, Range="bytes=2-5").content == whole.content[2:6]
    assert fetch(url, Range="bytes=-7").content == whole.content[-7:]
    assert fetch(url, Range="bytes=100-", **{"If-Range": '"other"'}).status_code == 200
    beyond = fetch(url, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")


# Buckets


def test_bucket_gets_a_file_for_every_5000_users(tmp_path: Path) -> None:
    with Sandbox(users=5001, bucket_url=str(tmp_path / "bucket" / "folder"), clock=Clock()) as sandbox:
        answer = start(sandbox, fields=["braze_id"]).json()
    assert answer["url"] is None
    folder = tmp_path / "bucket" / "folder" / "segment-export" / "all-users" / "2026-09-21" / answer["object_prefix"]
    files = files_below(tmp_path)
    assert len(files) == 2
    assert sorted(path.name for path in folder.iterdir()) == [Path(file).name for file in files]
    assert all(re.fullmatch(r"[0-9a-f]{32}\.zip", Path(file).name) for file in files)
    assert sorted(len(members((tmp_path / file).read_bytes())[0]) for file in files) == [1, 5000]


def test_bucket_gets_gzip_when_asked(tmp_path: Path) -> None:
    with Sandbox(users=9, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, output_format="gzip")
    (file,) = files_below(tmp_path)
    assert file.endswith(".gz")
    assert len(gzip.decompress((tmp_path / file).read_bytes()).splitlines()) == 9


def test_bucket_can_be_any_fsspec_url() -> None:
    with Sandbox(users=9, bucket_url="memory://sandbox-bucket/folder", bucket_options={}) as sandbox:
        prefix = start(sandbox).json()["object_prefix"]
    (path,) = fsspec.filesystem("memory").find("/sandbox-bucket")
    assert path.startswith("/sandbox-bucket/folder/segment-export/all-users/")
    assert f"/{prefix}/" in path


def test_bucket_files_can_trickle_in(tmp_path: Path) -> None:
    """With `hold` each file and the end come when the test says so."""
    with Sandbox(users=25, users_per_file=10, hold=True, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        assert files_below(tmp_path) == []
        delivered = [sandbox.deliver_next_file() for _ in range(4)]
        assert [path and len(members(Path(path).read_bytes())[0]) for path in delivered] == [10, 10, 5, None]
        assert start(sandbox).status_code == 429
        sandbox.finish_exports()
        assert start(sandbox).status_code == 201
        assert len(files_below(tmp_path)) == 3


def test_finishing_delivers_the_rest(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, hold=True, bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        sandbox.deliver_next_file()
        sandbox.finish_exports()
        assert len(files_below(tmp_path)) == 3


# The ids export


def test_ids_export_finds_users_by_every_identifier() -> None:
    fields = ["braze_id", "external_id", "user_aliases", "email", "phone", "devices"]
    with Sandbox(users=3000, odd_users=False) as sandbox:
        users = exported(sandbox, fields=fields)
        plain = next(
            user
            for user in users
            if {"external_id", "user_aliases", "phone"} <= user.keys()
            and user["user_aliases"]
            and user["phone"].startswith("+")
            and "device_id" in user["devices"][0]
        )
        for wanted in (
            {"external_ids": [plain["external_id"]]},
            {"user_aliases": plain["user_aliases"]},
            {"braze_id": plain["braze_id"]},
            {"phone": plain["phone"]},
            {"phone": plain["phone"].removeprefix("+")},
            {"device_id": plain["devices"][0]["device_id"]},
            {"email_address": plain["email"]},
        ):
            answer = ids(sandbox, fields, **wanted)
            assert answer.status_code == 201
            assert plain in answer.json()["users"], wanted
            assert "invalid_user_ids" not in answer.json()


def test_every_external_id_can_be_looked_up() -> None:
    """Whatever its form: words, digits, UUIDs, mail-like ones."""
    with Sandbox(users=400, ids_limit=1000) as sandbox:
        every = sorted({user["external_id"] for user in exported(sandbox, fields=["external_id"]) if user})
        found = [
            user["external_id"]
            for at in range(0, len(every), 50)
            for user in ids(sandbox, ["external_id"], external_ids=every[at : at + 50]).json()["users"]
        ]
    assert sorted(found) == every
    assert len(every) > 300


def test_ids_export_finds_given_users(sandbox: Sandbox) -> None:
    sandbox.add_segment(
        "mine", [{"braze_id": "b1", "external_id": "e1"}, b'{"braze_id":"b2","external_id":"e2"}', b"["]
    )
    assert ids(sandbox, external_ids=["e1", "e2"]).json()["users"] == [
        {"braze_id": "b1"},
        {"braze_id": "b2", "external_id": "e2"},  # a raw line stands as it is
    ]


def test_one_email_may_belong_to_several_profiles() -> None:
    with Sandbox(users=200, odd_users=False) as sandbox:
        shared = ids(sandbox, email_address="person48@example.com").json()["users"]
    assert [user["email"] for user in shared] == ["person48@example.com"] * 2
    assert len({user["braze_id"] for user in shared}) == 2


def test_misses_are_listed_for_external_ids_only(sandbox: Sandbox) -> None:
    alias = {"alias_label": "amplitude_id", "alias_name": "nobody"}
    missed = ids(sandbox, external_ids=["no-such-id", "A8i3mkd99"], user_aliases=[alias]).json()
    assert [user["email"] for user in missed["users"]] == ["example@example.com"]
    assert missed["invalid_user_ids"] == ["no-such-id"]
    unknown: list[dict[str, Any]] = [{"email_address": "a@b"}, {"phone": "1"}, {"device_id": "x"}, {"braze_id": "x"}]
    for wanted in unknown:
        assert ids(sandbox, **wanted).json() == {"message": "success", "users": []}


def test_one_user_asked_twice_comes_once(sandbox: Sandbox) -> None:
    alias = {"alias_label": "amplitude_id", "alias_name": "user_123"}
    users = ids(sandbox, external_ids=["A8i3mkd99", "A8i3mkd99"], user_aliases=[alias]).json()["users"]
    assert len(users) == 1


def test_at_most_50_external_ids_and_aliases(sandbox: Sandbox) -> None:
    external_ids = [f"e{number}" for number in range(49)]
    aliases = [{"alias_label": "a", "alias_name": "b"}, {"alias_label": "a", "alias_name": "c"}]
    assert ids(sandbox, external_ids=external_ids, user_aliases=aliases[:1]).status_code == 201
    answer = ids(sandbox, external_ids=external_ids, user_aliases=aliases)
    assert (answer.status_code, answer.json()) == (
        400,
        {"message": "The max number of external_ids and aliases per request was exceeded"},
    )


def test_one_device_email_or_phone_a_request(sandbox: Sandbox) -> None:
    assert ids(sandbox, email_address="a@b", phone="1").status_code == 400
    assert ids(sandbox, email_address="a@b", external_ids=["e"], braze_id="x").status_code == 201


def test_ids_export_has_no_created_from(sandbox: Sandbox) -> None:
    (user,) = ids(sandbox, EVERYTHING, external_ids=["3f2504e0-4f89-41d3-9a0c-0305e82c3301"]).json()["users"]
    assert "created_from" not in user
    assert user["custom_attributes"]["big"] == 9007199254740993


def test_ids_limit_a_minute() -> None:
    """250 in a clock minute when campaigns or canvases are asked for; more is 429 and a violation."""
    clock = Clock()
    with Sandbox(users=1, clock=clock) as sandbox:
        fields = ["braze_id", "campaigns_received"]
        answers = [ids(sandbox, fields, braze_id="x") for _ in range(251)]
        assert [answer.status_code for answer in answers] == [201] * 250 + [429]
        assert {k: v for k, v in answers[-1].headers.items() if k.startswith("X-Rate")} == {
            "X-RateLimit-Limit": "250",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": "1790000040",  # the next full minute
        }
        assert sandbox.violations == 1
        clock.now = 1_790_000_040
        assert ids(sandbox, fields, braze_id="x").headers["X-RateLimit-Remaining"] == "249"


def test_small_ids_requests_have_a_limit_a_second() -> None:
    clock = Clock()
    with Sandbox(users=1, clock=clock) as sandbox:
        statuses = [ids(sandbox, braze_id="x").status_code for _ in range(41)]
        assert statuses == [201] * 40 + [429]
        clock.now += 1
        assert ids(sandbox, braze_id="x").status_code == 201
        assert sandbox.violations == 1


def test_own_ids_limit_has_no_fast_lane() -> None:
    with Sandbox(users=1, clock=Clock(), ids_limit=3) as sandbox:
        assert [ids(sandbox, braze_id="x").status_code for _ in range(4)] == [201, 201, 201, 429]
    with Sandbox(users=1, clock=Clock(), ids_per_second=2) as sandbox:
        assert [ids(sandbox, braze_id="x").status_code for _ in range(3)] == [201, 201, 429]


def test_ids_latency() -> None:
    waited: list[float] = []
    with Sandbox(users=1, ids_latency=0.4, wait=waited.append) as sandbox:
        ids(sandbox, braze_id="x")
        assert sandbox.workspace.most_ids_in_flight == 1
    assert waited == [0.4]


# Generated users


def test_same_seed_makes_the_same_users() -> None:
    def made(seed: int, fields: list[str]) -> list[Any]:
        with Sandbox(users=50, seed=seed, odd_users=False) as sandbox:
            return exported(sandbox, fields=fields)

    first = made(7, EVERYTHING)
    assert made(7, EVERYTHING) == first
    assert made(8, EVERYTHING) != first
    emails = [{"email": user["email"]} if "email" in user else {} for user in first]
    assert made(7, ["email"]) == emails


def test_a_user_is_the_same_in_every_segment() -> None:
    with Sandbox(users=100) as sandbox:
        everybody = {user["braze_id"]: user for user in exported(sandbox, fields=EVERYTHING)}
        vips = exported(sandbox, "vip-users", EVERYTHING)
    assert len(vips) == 10
    assert all(everybody[vip["braze_id"]] == vip for vip in vips)


def test_generated_users_are_as_varied_as_real_ones() -> None:
    with Sandbox(users=2000, odd_users=False) as sandbox:
        users = exported(sandbox, fields=EVERYTHING)
    text = json.dumps(users, ensure_ascii=False)
    sizes = sorted(len(json.dumps(user, ensure_ascii=False, separators=(",", ":")).encode()) for user in users)
    dates = {re.sub(r"\d", "0", user["created_at"]) for user in users}
    gone = {type(user.get("uninstalled_at")) for user in users}
    steps = [
        step for user in users for canvas in user.get("canvases_received", []) for step in canvas["steps_received"]
    ]

    assert {key for user in users for key in user} >= set(EVERYTHING)
    assert 4000 < sum(sizes) / len(sizes) < 5500
    assert sizes[200] < 2000
    assert sizes[-20] > 12_000
    assert dates == {"0000-00-00 00:00:00.000 UTC", "0000-00-00T00:00:00.000Z", "0000-00-00T00:00:00Z"}
    assert gone == {str, int, type(None)}
    assert re.search(r'"last_entered": "[^"]+\.000\+00:00"', text)
    assert {"Favorite Color", "ünïcode", "dotted.name", "click-timestamp"} <= set(re.findall(r'"([^"]+)": ', text))
    assert {"Björn", "健", "Zoë"} <= {user.get("first_name") for user in users}
    assert any("external_id" not in user and user.get("user_aliases") for user in users)
    assert any("external_id" not in user and "user_aliases" not in user for user in users)
    assert any(not device.keys() & {"device_id", "idfv", "roku_ad_id"} for user in users for device in user["devices"])
    assert steps
    for field in ("custom_events", "purchases", "campaigns_received", "canvases_received", "cards_clicked"):
        for user in users:
            names = [item["name"] for item in user.get(field, [])]
            assert field == "cards_clicked" or len(names) == len(set(names)), (field, user)


# Faults


def kinds_of_url(sandbox: Sandbox) -> Any:
    return start(sandbox).json().get("url", "absent")


def test_every_fault_has_a_test() -> None:
    tested = set(re.findall(r'"([a-z0-9-]+)"', Path(__file__).read_text("utf-8").partition("# Faults\n")[2]))
    assert FAULTS.keys() - tested == set()


def test_faults_are_switched_off_again(sandbox: Sandbox) -> None:
    sandbox.set_faults("answer-200")
    assert start(sandbox).status_code == 200
    sandbox.set_faults()
    assert start(sandbox).status_code == 201


@pytest.mark.parametrize(("fault", "url"), [("url-null", None), ("url-absent", "absent"), ("url-empty", "")])
def test_fault_url(fault: str, url: str | None) -> None:
    with Sandbox(users=3, faults=[fault]) as sandbox:
        assert kinds_of_url(sandbox) == url


@pytest.mark.parametrize("fault", ["url-absent", "url-empty"])
def test_fault_url_of_a_bucket_export(fault: str, tmp_path: Path) -> None:
    with Sandbox(users=3, faults=[fault], bucket_url=str(tmp_path)) as sandbox:
        assert kinds_of_url(sandbox) == {"url-absent": "absent", "url-empty": ""}[fault]
        assert len(files_below(tmp_path)) == 1


def test_fault_queued(sandbox: Sandbox) -> None:
    sandbox.set_faults("queued-202")
    answer = start(sandbox)
    assert (answer.status_code, answer.json()) == (202, {"message": "queued"})
    assert sandbox.workspace.exports == []


def test_fault_lost_answer() -> None:
    """The export runs, though its caller never hears of it; only once."""
    with Sandbox(users=3, hold=True, faults=["lost-answer"]) as sandbox:
        with pytest.raises(requests.ConnectionError):
            start(sandbox)
        assert [(call.path, call.status) for call in sandbox.calls] == [("/users/export/segment", 0)]
        assert start(sandbox).status_code == 429
        assert start(sandbox, "vip-users").status_code == 201


def test_fault_server_error(sandbox: Sandbox) -> None:
    sandbox.set_faults("server-error")
    first, second = get(sandbox, "/segments/list"), get(sandbox, "/segments/list")
    assert (first.status_code, first.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert second.status_code == 200
    url = start(sandbox).json()["url"]
    assert [fetch(url).status_code for _ in range(2)] == [503, 200]


def test_fault_rate_limited(sandbox: Sandbox) -> None:
    sandbox.set_faults("rate-limited")
    answer = start(sandbox)
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (429, "0")
    assert answer.headers["X-RateLimit-Reset"] == "1790000001"
    assert start(sandbox).status_code == 201


def test_fault_not_ready_404() -> None:
    with Sandbox(users=3, hold=True, faults=["not-ready-404"]) as sandbox:
        answer = download(sandbox)
        assert (answer.status_code, "<Code>NoSuchKey</Code>" in answer.text) == (404, True)


def test_fault_never_ready(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.set_faults("never-ready")
    url = start(sandbox).json()["url"]
    sandbox.finish_exports()
    assert [fetch(url).status_code for _ in range(3)] == [403] * 3
    assert start(sandbox).status_code == 429
    with Sandbox(users=3, faults=["never-ready"], bucket_url=str(tmp_path)) as bucket:
        start(bucket)
        assert files_below(tmp_path) == []


def test_fault_never_complete(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, faults=["never-complete"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        sandbox.finish_exports()
        assert len(files_below(tmp_path)) == 3
        assert start(sandbox).status_code == 429


def test_fault_expires(sandbox: Sandbox) -> None:
    sandbox.set_faults("expires")
    url = start(sandbox).json()["url"]
    first, second = fetch(url), fetch(url)
    assert (first.status_code, second.status_code) == (200, 403)
    assert "<Code>ExpiredToken</Code>" in second.text


def test_fault_no_range(sandbox: Sandbox) -> None:
    sandbox.set_faults("no-range")
    answer = fetch(start(sandbox).json()["url"], Range="bytes=5-")
    assert (answer.status_code, "Accept-Ranges" in answer.headers) == (200, False)
    assert len(members(answer.content)[0]) == 30


def test_fault_changed_etag(sandbox: Sandbox) -> None:
    sandbox.set_faults("changed-etag")
    url = start(sandbox).json()["url"]
    etag = fetch(url).headers["ETag"]
    again = fetch(url, Range="bytes=5-", **{"If-Range": etag})
    assert again.headers["ETag"] != etag
    assert again.status_code == 200


def test_fault_slow_download() -> None:
    waited: list[float] = []
    with Sandbox(users=400, faults=["slow-download"], wait=waited.append) as sandbox:
        content = fetch(start(sandbox, fields=EVERYTHING).json()["url"]).content
    assert len(members(content)[0]) == 400
    assert waited == [0.25] * ((len(content) - 1) // 65536)
    assert waited


def test_fault_connection_reset(sandbox: Sandbox) -> None:
    """Half of it arrives, and the rest can be asked for."""
    sandbox.set_faults("connection-reset")
    url = start(sandbox).json()["url"]
    got = b""
    with pytest.raises(requests.exceptions.ChunkedEncodingError), requests.get(url, stream=True, timeout=10) as answer:  # noqa: PT012
        size = int(answer.headers["Content-Length"])
        for piece in answer.iter_content(100):
            got += piece
    assert len(got) <= size // 2
    rest = fetch(url, Range=f"bytes={len(got)}-")
    assert rest.status_code == 206
    assert len(members(got + rest.content)[0]) == 30


def test_fault_damaged_once(sandbox: Sandbox) -> None:
    sandbox.set_faults("damaged-once")
    url = start(sandbox).json()["url"]
    with pytest.raises(zipfile.BadZipFile):
        members(fetch(url).content)
    assert len(members(fetch(url).content)[0]) == 30


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc", "not-an-archive"])
def test_fault_damaged_zip(sandbox: Sandbox, fault: str) -> None:
    """Every time; an archive with a wrong checksum fails only where its member is read."""
    sandbox.set_faults(fault)
    url = start(sandbox).json()["url"]
    for _ in range(2):
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32" if fault == "wrong-crc" else "not a zip"):
            members(fetch(url).content)


@pytest.mark.parametrize("fault", ["truncated-file", "wrong-crc", "not-an-archive"])
def test_fault_damaged_gzip(sandbox: Sandbox, fault: str) -> None:
    sandbox.set_faults(fault)
    content = fetch(start(sandbox, output_format="gzip").json()["url"]).content
    with pytest.raises((EOFError, OSError), match=r"(?i)end-of-stream|CRC check|not a gzipped"):
        gzip.decompress(content)


def test_damage_strikes_the_first_bucket_file_only(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, hold=True, faults=["wrong-crc"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        first, second = (Path(sandbox.deliver_next_file() or "") for _ in range(2))
        with pytest.raises(zipfile.BadZipFile):
            members(first.read_bytes())
        assert len(members(second.read_bytes())[0]) == 10


def test_fault_empty_zip(sandbox: Sandbox) -> None:
    sandbox.set_faults("empty-zip")
    content = download(sandbox).content
    assert content.startswith(b"PK\x05\x06")
    assert members(content) == []


def test_fault_no_file(tmp_path: Path) -> None:
    with Sandbox(users=9, faults=["no-file"], bucket_url=str(tmp_path)) as sandbox:
        assert [start(sandbox).status_code for _ in range(2)] == [201, 201]
        assert files_below(tmp_path) == []


def test_fault_macosx_entries(sandbox: Sandbox) -> None:
    sandbox.set_faults("macosx-entries")
    with zipfile.ZipFile(io.BytesIO(download(sandbox).content)) as archive:
        names = archive.namelist()
        assert len(archive.read(names[2]).splitlines()) == 30
    assert names[0] == "export/"
    assert names[1].startswith("__MACOSX/")
    assert names[2].endswith(".jsonlines")


def raw_lines(sandbox: Sandbox, **more: Any) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(fetch(start(sandbox, **more).json()["url"]).content)) as archive:
        return archive.read(archive.namelist()[0]).splitlines()


def test_fault_bad_line(sandbox: Sandbox) -> None:
    sandbox.set_faults("bad-line")
    lines = raw_lines(sandbox)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(lines[0])
    assert isinstance(json.loads(lines[1]), list)
    assert len(lines) == 32


def test_bad_lines_stand_in_the_first_member_only() -> None:
    with Sandbox(users=20, users_per_file=10, faults=["bad-line", "no-braze-id", "duplicate-user"]) as sandbox:
        content = download(sandbox).content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert [len(archive.read(name).splitlines()) for name in archive.namelist()] == [14, 10]


def test_fault_no_braze_id(sandbox: Sandbox) -> None:
    sandbox.set_faults("no-braze-id")
    lines = raw_lines(sandbox)
    assert "braze_id" not in json.loads(lines[0])
    assert len(lines) == 31


def test_fault_duplicate_user(sandbox: Sandbox) -> None:
    sandbox.set_faults("duplicate-user")
    lines = raw_lines(sandbox)
    assert lines[0] == lines[1] != lines[2]
    assert len(lines) == 31


def test_fault_unasked_fields(sandbox: Sandbox) -> None:
    sandbox.set_faults("unasked-fields")
    users = [json.loads(line) for line in raw_lines(sandbox, fields=EVERYTHING)]
    assert all({"appboy_id", "brand_new_member"} <= user.keys() for user in users)


def test_fault_huge_line(sandbox: Sandbox) -> None:
    sandbox.set_faults("huge-line")
    lines = raw_lines(sandbox, segment="vip-users")
    assert len(lines[0]) > 64 * 1024 * 1024
    assert len(lines) == 4


def date_folders(folder: Path) -> list[str]:
    return sorted({Path(file).parts[2] for file in files_below(folder)})


def test_fault_other_date_folder(tmp_path: Path) -> None:
    faults = ["other-date-folder"]
    with Sandbox(users=25, users_per_file=10, faults=faults, bucket_url=str(tmp_path), clock=Clock()) as sandbox:
        start(sandbox)
    assert date_folders(tmp_path) == ["2026-09-22", "2026-09-23"]


def test_fault_foreign_export(tmp_path: Path) -> None:
    """Two things that are none of the export's: another export's file and a CSV export."""
    with Sandbox(users=9, faults=["foreign-export"], bucket_url=str(tmp_path), clock=Clock()) as sandbox:
        prefix = start(sandbox).json()["object_prefix"]
    files = files_below(tmp_path)
    assert date_folders(tmp_path) == ["2026-09-21"]
    assert [len(Path(file).parts) for file in files if prefix not in file and "users-" not in file] == [5]
    assert [Path(file).name for file in files if len(Path(file).parts) == 4] == ["users-a1b2c3.zip"]
    assert len([file for file in files if prefix in file]) == 1


def test_fault_half_written_file(tmp_path: Path) -> None:
    """The export runs on until the file has grown to its full length under the same name."""
    with Sandbox(users=9, faults=["half-written-file"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        (file,) = files_below(tmp_path)
        with pytest.raises(zipfile.BadZipFile):
            members((tmp_path / file).read_bytes())
        assert start(sandbox).status_code == 429
        assert sandbox.deliver_next_file() == str(tmp_path / file)
        assert len(members((tmp_path / file).read_bytes())[0]) == 9
        sandbox.finish_exports()
        assert files_below(tmp_path) == [file]


def test_fault_late_file(tmp_path: Path, listener: Listener) -> None:
    """The callback has come and the segment is free, and yet one more file arrives."""
    with Sandbox(users=25, users_per_file=10, faults=["late-file"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox, callback_endpoint=listener.url)
        assert listener.arrived.wait(10)
        assert len(files_below(tmp_path)) == 2
        assert not sandbox.workspace.running()
        assert sandbox.deliver_next_file()
        assert len(files_below(tmp_path)) == 3
        assert sandbox.deliver_next_file() is None


def test_fault_slow_trickle(tmp_path: Path) -> None:
    with Sandbox(users=25, users_per_file=10, faults=["slow-trickle"], bucket_url=str(tmp_path)) as sandbox:
        start(sandbox)
        counts = [len(files_below(tmp_path))]
        while sandbox.deliver_next_file():
            counts.append(len(files_below(tmp_path)))
        assert counts == [1, 2, 3]
        assert start(sandbox).status_code == 429
        sandbox.finish_exports()
        assert start(sandbox).status_code == 201


# The command


def test_ports_can_be_chosen() -> None:
    with Sandbox(users=1) as other:
        ports = [urlsplit(url).port or 0 for url in (other.api_url, start(other).json()["url"])]
    with Sandbox(users=1, port=ports[0], download_port=ports[1]) as sandbox:
        assert [urlsplit(url).port for url in (sandbox.api_url, start(sandbox).json()["url"])] == ports


def test_lines_tell_what_an_export_holds(sandbox: Sandbox) -> None:
    assert list(sandbox.lines("all-users", TWO_FIELDS)) == raw_lines(sandbox)


def test_config_points_a_tap_at_it(sandbox: Sandbox) -> None:
    assert sandbox.config == {"api_url": sandbox.api_url, "api_key": "sandbox-key", "segment_ids": ["all-users"]}


def test_command_lists_the_faults() -> None:
    listed = CliRunner().invoke(main, ["--list-faults"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(FAULTS)


def test_command_refuses_bad_options() -> None:
    for options in (
        ["--bucket-options", "[]"],
        ["--bucket-options", "{"],
        ["--fault", "earthquake"],
        ["--deny", "x"],
    ):
        assert CliRunner().invoke(main, options).exit_code == 2


def test_command_refuses_an_unknown_bucket() -> None:
    refused = CliRunner().invoke(main, ["--bucket-url", "nowhere://bucket"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: cannot use the bucket: Protocol not known: nowhere")


def test_command_says_when_a_port_is_taken(sandbox: Sandbox) -> None:
    taken = CliRunner().invoke(main, ["--port", str(urlsplit(sandbox.api_url).port)])
    assert taken.exit_code == 1
    assert taken.output.startswith("Error: cannot listen")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_runs_until_a_signal(number: int, tmp_path: Path) -> None:
    """It tells people and scripts where it listens, obeys its options and exits 0."""
    ready_file = tmp_path / "ready.json"
    command = [
        sys.executable,
        "-m",
        "tap_braze_export.sandbox",
        "--users",
        "12",
        "--delay",
        "0",
        "--api-key",
        "mine",
    ]
    command += ["--ready-file", str(ready_file), "--deny", "segments.list", "--fault", "answer-200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        told = ""
        while "Ctrl+C" not in told:  # the last line of the greeting; the file is written before it
            line = process.stderr.readline()
            assert line, told
            told += line
        ready = json.loads(ready_file.read_text("utf-8"))
        headers = {"Authorization": "Bearer mine"}
        body = {"segment_id": "all-users", "fields_to_export": ["braze_id"]}
        answer = requests.post(ready["api_url"] + "/users/export/segment", json=body, headers=headers, timeout=10)
        content = fetch(answer.json()["url"]).content
        denied = requests.get(ready["api_url"] + "/segments/list", headers=headers, timeout=10)
        os.kill(ready["pid"], number)
        rest = process.stderr.read()
        code = process.wait(10)
    assert code == 0
    assert ready["pid"] == process.pid
    assert ready["api_key"] == "mine"
    assert ready["segment_ids"] == ["all-users", "vip-users", "empty-segment"]
    assert answer.status_code == 200
    assert len(members(content)[0]) == 12
    assert denied.status_code == 403
    assert ready["api_url"] in told
    assert rest == ""
    assert '"api_key": "mine"' in told
