"""The REST calls, against a real server on loopback: requests, and responses of success."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.client import Braze, IdsResponse, Started
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.errors import (
    BrazeError,
    ConfigError,
)
from tests.support.braze_calls import (
    KEY,
    PREFIX,
    SEGMENT,
    STARTED,
    attributes,
    cancel,
    details,
    export_ids,
    refused,
    segments,
    size,
    start,
    start_control_group,
)
from tests.support.fakes import FakeClock, Server, as_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# What is sent


def test_segment_export_sends_the_documented_request(server: Server, braze: Braze) -> None:
    server.answers = [STARTED]

    braze.start_segment_export(
        SEGMENT,
        fields_to_export=("braze_id", "email"),
        custom_attributes_to_export=["plan"],
        callback_endpoint="https://example.org/done",
        output_format="gzip",
    )

    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/users/export/segment")
    assert seen.headers["Authorization"] == f"Bearer {KEY}"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["User-Agent"].startswith("tap-braze-export/")
    assert json.loads(seen.body) == {
        "segment_id": SEGMENT,
        "fields_to_export": ["braze_id", "email"],
        "custom_attributes_to_export": ["plan"],
        "callback_endpoint": "https://example.org/done",
        "output_format": "gzip",
    }


def test_what_is_not_asked_for_is_not_sent(server: Server, braze: Braze) -> None:
    """Braze's page does not say what an empty callback or an empty list of attributes means."""
    server.answers = [STARTED]

    start(braze)
    start_control_group(braze)

    assert [(seen.path, json.loads(seen.body)) for seen in server.seen] == [
        (
            "/users/export/segment",
            {"segment_id": SEGMENT, "fields_to_export": ["braze_id"], "output_format": "zip"},
        ),
        ("/users/export/global_control_group", {"fields_to_export": ["braze_id"], "output_format": "zip"}),
    ]


def test_netrc_does_not_replace_the_key(
    server: Server, braze: Braze, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers = [STARTED]

    start(braze)

    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["", " ", "se\ncret", "schlüssel"])
def test_impossible_key_is_refused_without_being_shown(key: str) -> None:
    """http.client would put it into its exception."""
    with pytest.raises(ConfigError, match=r"^api_key is empty or holds characters") as caught:
        Braze("https://rest.iad-01.braze.com", key, clock=FakeClock())

    assert not key.strip() or key not in str(caught.value)


# What comes back


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("url", [{}, {"url": None}, {"url": ""}])
def test_any_2xx_starts_and_a_missing_url_means_the_bucket(
    server: Server, braze: Braze, clock: FakeClock, status: int, url: dict[str, None]
) -> None:
    server.answers = [as_json({"object_prefix": PREFIX, **url}, status)]

    assert start(braze) == Started(PREFIX, None, clock.time)


def test_url_is_given_but_never_shown(server: Server, braze: Braze, clock: FakeClock) -> None:
    url = "https://store.example.org/a.zip?Signature=topsecret"
    server.answers = [as_json({"object_prefix": PREFIX, "url": url})]

    started = start(braze)

    assert started.url == url
    assert repr(started) == f"Started(object_prefix='{PREFIX}', sent_at={clock.time}, braze_time=None)"


def test_queued_start_without_object_prefix_is_an_error(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "queued"}, 202)]

    assert "(202) but named no object_prefix" in refused(start, braze, BrazeError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("prefix", ["../../etc", "a/b", "..", "a\nb", 7, {"a": 1}, "x" * 300])
def test_object_prefix_that_is_no_folder_name_is_refused(server: Server, braze: Braze, prefix: object) -> None:
    server.answers = [as_json({"object_prefix": prefix})]

    assert "is no folder's name" in refused(start, braze, BrazeError)


@pytest.mark.parametrize("call", [start, details, size, attributes])
@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"[1]", b"\xff"])
def test_success_that_is_no_json_object_is_an_error(
    server: Server, braze: Braze, call: Callable[[Braze], object], body: bytes
) -> None:
    server.answers = [(200, {}, body)]

    message = refused(call, braze, BrazeError)
    assert "responded 200 without" in message
    assert "Welcome" not in message


OTHERS_JSON = [
    {},
    {"message": "error"},
    {"message": "Segment not found"},
    {"message": None, "name": "All", "attributes": None, "segments": {}, "data": 3},
    {"message": "success"},
    {"error": "login required", "login_url": "https://login.example.com"},
    {"status": "ok", "name": "proxy"},
    {"message": ["success"], "attributes": []},
    {"message": "Service unavailable", "attributes": [], "data": [], "segments": [], "name": "x"},
]
"""What proxies, login pages and maintenance pages say with status 200."""


@pytest.mark.parametrize("call", [details, attributes, size, cancel, segments])
def test_json_that_is_not_brazes_is_no_success(server: Server, braze: Braze, call: Callable[[Braze], object]) -> None:
    """Success is Braze's own message, with the members that it documents; the line says who may have responded."""
    for content in OTHERS_JSON:
        if call is cancel and content == {"message": "success"}:
            continue
        server.answers = [as_json(content, 200)]
        message = refused(call, braze, BrazeError)
        assert "responded 200 with JSON that is not Braze's" in message, content
        assert message.endswith("does no proxy or login page respond in its place?"), content
        assert "login.example" not in message
    server.answers = [as_json({"message": f"no {KEY}"}, 200)]
    assert "Braze's, as" in refused(call, braze, BrazeError)


def test_success_may_have_warnings(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "Success", "errors": ["a warning"], "name": "All users"}, 201)]
    assert details(braze)["name"] == "All users"


def test_details_are_passed_on(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "success", "name": "All users"}, 200)]

    assert details(braze)["name"] == "All users"
    assert server.seen[0].path == f"/segments/details?segment_id={SEGMENT}"


@pytest.mark.parametrize("status", [400, 404])
def test_unknown_segment_is_named(server: Server, braze: Braze, status: int) -> None:
    server.answers = [as_json({"message": "Segment not found"}, status)]

    assert f"(segment {SEGMENT}) was refused with {status} (Segment not found)" in refused(details, braze, BrazeError)


@pytest.mark.parametrize("status", [400, 404])
@pytest.mark.parametrize("call", [start, details])
def test_who_names_an_unknown_segment_is_told_where_to_find_the_known_ones(
    server: Server, braze: Braze, call: Callable[[Braze], object], status: int
) -> None:
    server.answers = [as_json({"message": "Segment not found"}, status)]

    advice = "; check segment_ids: --test without them lists the segments of the workspace"
    assert refused(call, braze, BrazeError).endswith(advice)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([{"time": "2026-01-01", "size": 5}, {"time": "2026-01-02", "size": 7}], 7),
        ([], None),
        ([{"time": "2026-01-01", "size": None}], None),
        ([3], None),
    ],
)
def test_size_is_the_last_point(server: Server, braze: Braze, data: object, expected: int | None) -> None:
    server.answers = [as_json({"data": data}, 200)]

    assert size(braze) == expected


def test_custom_attributes_follow_the_link_header(server: Server, braze: Braze) -> None:
    """The cursor stands in no body; relative links are links, too."""
    server.answers = [
        as_json(
            {"attributes": [{"name": "a"}]},
            200,
            Link=f'<{server.url}/custom_attributes?cursor=x>; rel="next"',
        ),
        as_json({"attributes": [{"name": "b"}, 3]}, 200, Link='</custom_attributes?cursor=y>; rel="next"'),
        as_json({"attributes": []}, 200),
    ]

    assert attributes(braze) == [{"name": "a"}, {"name": "b"}]
    assert [seen.path for seen in server.seen] == [
        "/custom_attributes",
        "/custom_attributes?cursor=x",
        "/custom_attributes?cursor=y",
    ]


def test_link_to_another_host_does_not_get_the_key(server: Server, braze: Braze) -> None:
    with Server() as other:
        other.answers = [as_json({"attributes": []}, 200)]
        server.answers = [
            as_json({"attributes": []}, 200, Link=f'<{other.url}/custom_attributes?cursor=x>; rel="next"')
        ]

        assert "next page on another host" in refused(attributes, braze, BrazeError)
        assert other.seen == []


def test_link_to_a_page_that_was_read_ends_the_pages(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"attributes": [{"name": "a"}]}, 200, Link='</custom_attributes>; rel="next"')]

    assert attributes(braze) == [{"name": "a"}]


def test_ids_response_keeps_each_users_bytes(server: Server, braze: Braze) -> None:
    """Digits, key order and spaces survive: the bytes are what Braze sent."""
    body = b'{"users":[{"b":1.50, "a":12345678901234567890123},{}],"invalid_user_ids":["x",{"y":1}]}'
    server.answers = [(201, {"x-ratelimit-limit": "250", "X-RateLimit-Remaining": "249"}, body)]

    assert export_ids(braze) == IdsResponse(
        [b'{"b":1.50, "a":12345678901234567890123}', b"{}"], ["x", {"y": "1"}], RateLimit(250, 249, None)
    )


@pytest.mark.parametrize("message", ["success", "Success "])
def test_ids_response_may_be_empty(server: Server, braze: Braze, message: str) -> None:
    server.answers = [as_json({"message": message, "users": []})]

    assert export_ids(braze) == IdsResponse([], [], RateLimit())


def test_ids_response_does_not_show_users() -> None:
    assert "ada" not in repr(IdsResponse([b'{"email":"ada@example.org"}'], ["ada"], RateLimit()))


def test_rate_limit_of_a_response_is_read(server: Server, braze: Braze) -> None:
    """HTTP/2 sends the names in lower case; what is no number is as good as missing."""
    server.answers = [
        as_json(
            {"message": "success", "users": []},
            201,
            **{"x-ratelimit-limit": "250000", "X-RATELIMIT-Remaining": "7", "X-RateLimit-Reset": "18"},
        ),
        as_json({"message": "success", "users": []}, 201, **{"X-RateLimit-Limit": "many"}),
    ]
    assert export_ids(braze).limit == RateLimit(250_000, 7, 18)
    assert export_ids(braze).limit == RateLimit(None, None, None)
