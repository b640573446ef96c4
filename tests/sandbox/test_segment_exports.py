"""Segment exports of the sandbox: the request, the users in the file, when it is ready, and callbacks."""

from __future__ import annotations

import gzip
import io
import json
import re
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.sandbox.segments import Segment
from tests.support.sandbox_client import (
    EVERYTHING,
    NOW,
    CallbackReceiver,
    download,
    exported,
    fetch,
    files_below,
    members,
    post,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ODD_USERS = Path(__file__).parents[2] / "tap_braze_export" / "sandbox" / "odd_users.jsonl"
pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


# Segment exports


def test_export_responds_before_the_download(sandbox: Sandbox) -> None:
    """201, an object_prefix of UUID and request second, and an address on another port."""
    response = start(sandbox)
    body = response.json()
    assert response.status_code == 201
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
        response = post(sandbox, "/users/export/global_control_group", {"fields_to_export": EVERYTHING}).json()
        users = [user for file in members(fetch(response["url"]).content) for user in file]
    keys = {key for user in users for key in user}
    assert "/segment-export/global-control-group-segment/" in response["url"]
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


def test_first_polls_find_nothing() -> None:
    with Sandbox(users=3, empty_polls=2) as sandbox:
        url = start(sandbox).json()["url"]
        assert [fetch(url).status_code for _ in range(2)] == [403, 403]
        assert start(sandbox).status_code == 429
        assert [fetch(url).status_code for _ in range(2)] == [200, 200]
        assert start(sandbox).status_code == 201


def test_not_ready_is_xml() -> None:
    with Sandbox(users=3, hold=True) as sandbox:
        response = download(sandbox)
    assert (response.status_code, response.headers["Content-Type"]) == (403, "application/xml")
    assert "<Code>AccessDenied</Code>" in response.text


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


def test_callback_brings_the_url(listener: CallbackReceiver) -> None:
    with Sandbox(users=3) as sandbox:
        url = start(sandbox, callback_endpoint=listener.url).json()["url"]
        assert listener.arrived.wait(10)
    assert listener.posted == [{"success": True, "url": url}]


def test_callback_of_a_bucket_export_has_no_url(listener: CallbackReceiver, tmp_path: Path) -> None:
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
