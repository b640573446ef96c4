"""The REST API of the sandbox: keys, paths, bodies, segments and custom attributes."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tap_braze_export.sandbox import Sandbox
from tests.support.sandbox_client import NOW, TWO_FIELDS, fetch, get, post, start

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


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
    assert requests.get(sandbox.api_url + "/segments/list", headers=headers, timeout=60).status_code == 401


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
    response = post(sandbox, path, {})
    assert (response.status_code, response.json()) == (404, {"message": "Invalid URL"})
    assert get(sandbox, "/users/export/segment").status_code == 404


def test_body_must_be_json(sandbox: Sandbox) -> None:
    """415 without the content type; 400 with `error`, not `message`, for a body that is no JSON."""
    url = sandbox.api_url + "/users/export/segment"
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    assert requests.post(url, data="{}", headers=headers, timeout=60).status_code == 415
    broken = requests.post(url, data="{", headers={**headers, "Content-Type": "application/json"}, timeout=60)
    assert broken.status_code == 400
    assert list(broken.json()) == ["error"]


@pytest.mark.parametrize("path", ["/users/export/segment", "/users/export/ids", "/export/segment/cancel"])
@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 100_000, '{"segment_id": ' + "9" * 5_000 + "}"])
def test_body_that_cannot_be_read_is_refused(sandbox: Sandbox, path: str, body: str) -> None:
    """Too deep, or with a number that is too long: 400, and the sandbox goes on."""
    headers = {"Authorization": f"Bearer {sandbox.api_key}", "Content-Type": "application/json"}
    response = requests.post(sandbox.api_url + path, data=body.encode(), headers=headers, timeout=60)
    assert (response.status_code, list(response.json())) == (400, ["error"])
    assert start(sandbox).status_code == 201


@pytest.mark.parametrize(
    ("path", "body", "message"),
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
def test_incomplete_requests_are_400(sandbox: Sandbox, path: str, body: dict[str, Any], message: str) -> None:
    response = post(sandbox, path, body)
    assert response.status_code == 400
    assert message in response.json()["message"]


def test_more_than_500_custom_attributes_are_400(sandbox: Sandbox) -> None:
    names = [f"attribute {number}" for number in range(501)]
    assert start(sandbox, custom_attributes_to_export=names).status_code == 400
    assert start(sandbox, custom_attributes_to_export=names[:500]).status_code == 201


def test_every_response_has_the_rate_limit_headers(sandbox: Sandbox) -> None:
    first, second = get(sandbox, "/segments/list"), post(sandbox, "/nowhere", {})
    limits = [{k: v for k, v in a.headers.items() if k.startswith("X-RateLimit")} for a in (first, second)]
    hour = str(1_790_002_800)  # the next full hour of the test's clock
    assert limits == [
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
    response = get(sandbox, "/custom_attributes")
    pages = [response.json()["attributes"]]
    while following := response.links.get("next"):
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        response = requests.get(following["url"], headers=headers, timeout=60)
        pages.append(response.json()["attributes"])
    names = [attribute["name"] for page in pages for attribute in page]
    assert [len(page) for page in pages] == [50, 50, 7]
    assert names == sorted(names)
    assert {"Favorite Color", "click-timestamp", "loyaltyId", "ünïcode"} <= set(names)
    assert {attribute["status"] for page in pages for attribute in page} == {"Active", "Blocklisted"}
    assert get(sandbox, "/custom_attributes", cursor="!").status_code == 400


def test_custom_attributes_have_a_limit_an_hour(sandbox: Sandbox) -> None:
    response = get(sandbox, "/custom_attributes")
    assert (response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"]) == ("1000", "999")
    sandbox.workspace.catalog_limit.limit = 1
    assert get(sandbox, "/custom_attributes").status_code == 429
