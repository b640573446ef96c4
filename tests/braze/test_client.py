"""The REST calls, against a real server on loopback: what is sent, repeated, and told."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_braze_export.braze.client import Braze, IdsResponse, RateLimit, Started
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    ConfigError,
    LostResponseError,
    RunningExportError,
    TapError,
)
from tests.support.fakes import FakeClock, Server, as_json, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fakes import Answer

KEY = "5f0c-secret-key-77aa"
SEGMENT = "11111111-2222-3333-4444-555555555555"
PREFIX = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599"
STARTED = as_json({"message": "success", "object_prefix": PREFIX})


@pytest.fixture
def braze(server: Server, clock: FakeClock) -> Iterator[Braze]:
    with requests.Session() as session:
        yield Braze(f" {server.url}/ ", f"{KEY}\n", clock=clock, session=session)


def start(braze: Braze) -> Started:
    return braze.start_segment_export(SEGMENT, fields_to_export=["braze_id"])


def start_control_group(braze: Braze) -> Started:
    return braze.start_control_group_export(fields_to_export=["braze_id"])


def export_ids(braze: Braze) -> IdsResponse:
    return braze.export_ids({"external_ids": ["ada@example.org", "4711-0815"], "phone": "+4930123456"})


def cancel(braze: Braze) -> None:
    braze.cancel_segment_export(SEGMENT)


def details(braze: Braze) -> dict[str, Any]:
    return braze.segment_details(SEGMENT)


def size(braze: Braze) -> int | None:
    return braze.segment_size(SEGMENT)


def attributes(braze: Braze) -> list[dict[str, Any]]:
    return list(braze.custom_attributes())


ALL: list[Callable[[Braze], object]] = [
    start,
    start_control_group,
    export_ids,
    cancel,
    details,
    size,
    attributes,
]
STARTS = [start, start_control_group]
REPEATABLE = [call for call in ALL if call not in STARTS]


def refused(call: Callable[[Braze], object], braze: Braze, kind: type[TapError]) -> str:
    with pytest.raises(TapError) as caught:
        call(braze)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert KEY not in message
    assert "segment_id=" not in message
    assert "://127" not in message
    return message


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
    server: Server, braze: Braze, status: int, url: dict[str, None]
) -> None:
    server.answers = [as_json({"object_prefix": PREFIX, **url}, status)]

    assert start(braze) == Started(PREFIX, None)


def test_url_is_given_but_never_shown(server: Server, braze: Braze) -> None:
    url = "https://store.example.org/a.zip?Signature=topsecret"
    server.answers = [as_json({"object_prefix": PREFIX, "url": url})]

    started = start(braze)

    assert started.url == url
    assert repr(started) == f"Started(object_prefix='{PREFIX}')"


def test_queued_start_without_object_prefix_is_an_error(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "queued"}, 202)]

    assert "(202) but named no object_prefix" in refused(start, braze, BrazeError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("prefix", ["../../etc", "a/b", "..", "a\nb", 7, {"a": 1}, "x" * 300])
def test_object_prefix_that_is_no_folder_name_is_refused(server: Server, braze: Braze, prefix: object) -> None:
    server.answers = [as_json({"object_prefix": prefix})]

    assert "is no folder's name" in refused(start, braze, BrazeError)


@pytest.mark.parametrize("call", [start, details, size, attributes, export_ids])
@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"", b"[1]", b"\xff"])
def test_success_that_is_no_json_object_is_an_error(
    server: Server, braze: Braze, call: Callable[[Braze], object], body: bytes
) -> None:
    server.answers = [(200, {}, body)]

    message = refused(call, braze, BrazeError)
    assert "answered 200 without" in message
    assert "Welcome" not in message


def test_details_are_passed_on(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "success", "name": "All users"}, 200)]

    assert details(braze)["name"] == "All users"
    assert server.seen[0].path == f"/segments/details?segment_id={SEGMENT}"


@pytest.mark.parametrize("status", [400, 404])
def test_unknown_segment_is_named(server: Server, braze: Braze, status: int) -> None:
    server.answers = [as_json({"message": "Segment not found"}, status)]

    assert f"(segment {SEGMENT}) was refused with {status} (Segment not found)" in refused(details, braze, BrazeError)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([{"time": "2026-01-01", "size": 5}, {"time": "2026-01-02", "size": 7}], 7),
        ([], None),
        (None, None),
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
        as_json({"attributes": None}, 200),
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
        server.answers = [as_json({}, 200, Link=f'<{other.url}/custom_attributes?cursor=x>; rel="next"')]

        assert "next page on another host" in refused(attributes, braze, BrazeError)
        assert other.seen == []


def test_link_to_a_page_that_was_read_ends_the_pages(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"attributes": [{"name": "a"}]}, 200, Link='</custom_attributes>; rel="next"')]

    assert attributes(braze) == [{"name": "a"}]


def test_ids_answer_keeps_each_users_bytes(server: Server, braze: Braze) -> None:
    """Digits, key order and spaces survive: the bytes are what Braze sent."""
    body = b'{"users":[{"b":1.50, "a":12345678901234567890123},{}],"invalid_user_ids":["x",{"y":1}]}'
    server.answers = [(201, {"x-ratelimit-limit": "250", "X-RateLimit-Remaining": "249"}, body)]

    assert export_ids(braze) == IdsResponse(
        [b'{"b":1.50, "a":12345678901234567890123}', b"{}"], ["x", {"y": 1}], RateLimit(250, 249, None)
    )


@pytest.mark.parametrize("body", [{"users": []}, {"users": None, "invalid_user_ids": None}])
def test_ids_answer_may_be_empty(server: Server, braze: Braze, body: object) -> None:
    server.answers = [as_json(body)]

    assert export_ids(braze) == IdsResponse([], [], RateLimit())


def test_ids_answer_without_users_is_an_error(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "queued"}, 202)]

    assert refused(export_ids, braze, BrazeError) == "POST /users/export/ids answered 202 without users"


def test_ids_answer_does_not_show_users() -> None:
    assert "ada" not in repr(IdsResponse([b'{"email":"ada@example.org"}'], ["ada"], RateLimit()))


def test_rate_limit_of_the_last_answer_is_known(server: Server, braze: Braze) -> None:
    """HTTP/2 sends the names in lower case; what is no number is as good as missing."""
    server.answers = [
        as_json(
            {},
            200,
            **{"x-ratelimit-limit": "250000", "X-RATELIMIT-Remaining": "7", "X-RateLimit-Reset": "18"},
        ),
        as_json({}, 200, **{"X-RateLimit-Limit": "many"}),
    ]
    assert braze.limit == RateLimit(None, None, None)
    details(braze)
    assert braze.limit == RateLimit(250_000, 7, 18)
    details(braze)
    assert braze.limit == RateLimit(None, None, None)


# What is refused


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("call", "permission"),
    [
        (start, "users.export.segment"),
        (start_control_group, "users.export.global_control_group"),
        (export_ids, "users.export.ids"),
        (cancel, "segments.list (or users.export.segment)"),
        (details, "segments.details"),
        (size, "segments.data_series"),
        (attributes, "custom_attributes.get"),
    ],
)
def test_refused_key_names_the_permission_and_what_to_do(
    server: Server, braze: Braze, call: Callable[[Braze], object], permission: str, status: int
) -> None:
    server.answers = [as_json({"message": "Invalid API key"}, status)]

    message = refused(call, braze, AuthError)

    assert f"needs the permission {permission}," in message
    assert server.seen[0].path.partition("?")[0] in message
    assert f"{status} (Invalid API key)" in message
    for hint in ("instance of api_url", "allow-list", "create a new one"):
        assert hint in message
    assert len(server.seen) == 1


@pytest.mark.parametrize("member", ["message", "error"])
def test_bad_request_tells_what_braze_says_on_one_line(server: Server, braze: Braze, member: str) -> None:
    said = "fields_to_export\n is \x1b[31mrequired, see https://example.org/?token=1 " + "x" * 300
    server.answers = [as_json({member: said}, 400)]

    message = refused(start, braze, BrazeError)
    assert "was refused with 400 (fields_to_export is [31mrequired, see <url> xxx" in message
    assert len(message) < 320
    assert "token" not in message


@pytest.mark.parametrize(
    "said",
    [
        "no user with ada@example.org",
        "bad phone 4930123456",
        "unknown 4711-0815",
        "bob@example.org",
        "dob 1980-12-21",
    ],
)
def test_personal_data_in_an_ids_refusal_is_not_told(server: Server, braze: Braze, said: str) -> None:
    server.answers = [as_json({"message": said}, 400)]

    assert refused(export_ids, braze, BrazeError) == "POST /users/export/ids (identifiers) was refused with 400"


def test_harmless_ids_refusal_is_told(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "The max number of ids per request was exceeded"}, 400)]

    assert "(The max number of ids per request was exceeded)" in refused(export_ids, braze, BrazeError)


@pytest.mark.parametrize("body", [f'{{"message": "bad key {KEY}"}}'.encode(), b"<html>proxy</html>", b'{"message":{}}'])
def test_key_and_foreign_bodies_are_not_told(server: Server, braze: Braze, body: bytes) -> None:
    server.answers = [(400, {}, body)]

    assert refused(start, braze, BrazeError).endswith("was refused with 400")


def test_wrong_path_hints_at_api_url(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "Invalid URL"}, 404)]

    assert "api_url is not the REST endpoint" in refused(start, braze, BrazeError)


@pytest.mark.parametrize("call", ALL)
def test_redirect_is_not_followed(server: Server, braze: Braze, call: Callable[[Braze], object]) -> None:
    with Server() as other:
        other.answers = [STARTED]
        server.answers = [(307, {"Location": other.url}, b"")]

        assert "api_url may be wrong" in refused(call, braze, BrazeError)
        assert other.seen == []


@pytest.mark.parametrize("api_url", ["rest.iad-01.braze.com", "https://", "ftp://example.org"])
def test_impossible_api_url_is_told(api_url: str) -> None:
    assert "api_url is no proper address" in refused(start, Braze(api_url, KEY, clock=FakeClock()), BrazeError)


# 429


@pytest.mark.parametrize("call", STARTS)
@pytest.mark.parametrize(
    ("message", "remaining"),
    [
        ("An export for this segment is already in progress", "0"),
        ("Export is running", "0"),
        ("Already exporting", "0"),
        ("Too many requests", "249999"),
    ],
)
def test_running_export_is_told_from_the_rate_limit(
    server: Server, braze: Braze, call: Callable[[Braze], object], message: str, remaining: str
) -> None:
    server.answers = [as_json({"message": message}, 429, X_RateLimit_Remaining=remaining, X_RateLimit_Reset="1")]

    assert message in refused(call, braze, RunningExportError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("call", ALL)
def test_rate_limit_waits_until_its_reset(
    server: Server, braze: Braze, clock: FakeClock, call: Callable[[Braze], object]
) -> None:
    reset = int(clock.time) + 120
    limited = as_json({"message": "Rate limited"}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=str(reset))
    server.answers = [limited, as_json({"object_prefix": PREFIX, "users": []})]

    call(braze)

    (slept,) = clock.slept
    assert 120 < slept <= 122


def test_retry_after_is_honoured(server: Server, braze: Braze, clock: FakeClock) -> None:
    server.answers = [as_json({}, 429, Retry_After="30", X_RateLimit_Remaining="0"), STARTED]

    start(braze)

    assert 30 < clock.slept[0] <= 32


@pytest.mark.parametrize("reset", ["99999999999", "nan", "-5"])
def test_senseless_reset_does_not_wait_for_ever(server: Server, braze: Braze, clock: FakeClock, reset: str) -> None:
    server.answers = [as_json({}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset), STARTED]

    start(braze)

    assert 1 <= clock.slept[0] <= 3_700


def test_endless_rate_limit_ends_in_an_error(server: Server, braze: Braze, clock: FakeClock) -> None:
    began = clock.time
    server.answers = [as_json({}, 429, X_RateLimit_Remaining="0")]

    assert "rate limit" in refused(details, braze, BrazeError)
    assert 3 * 3_600 < clock.time - began < 4 * 3_600


# Failures


@pytest.mark.parametrize("failure", [(503, {}, b"<html>"), hang_up])
@pytest.mark.parametrize("call", REPEATABLE)
def test_idempotent_calls_are_repeated(
    server: Server, braze: Braze, clock: FakeClock, call: Callable[[Braze], object], failure: Answer
) -> None:
    server.answers = [failure, failure, as_json({"users": []})]

    call(braze)

    assert len(server.seen) == 3
    assert len(clock.slept) == 2


def test_repeating_ends(server: Server, braze: Braze, clock: FakeClock) -> None:
    """Tries and total time are bounded, waits are jittered."""
    server.answers = [(502, {}, b"")]

    assert "Braze answered 502" in refused(details, braze, BrazeError)
    assert len(server.seen) == 8
    assert len(set(clock.slept)) == 7
    assert sum(clock.slept) < 600


def test_slow_failures_end_by_time(server: Server) -> None:
    with requests.Session() as session:
        braze = Braze(server.url, KEY, clock=FakeClock(tick=200), session=session)
        server.answers = [(502, {}, b"")]

        assert "Braze answered 502" in refused(details, braze, BrazeError)
    assert len(server.seen) < 8


def test_repeats_are_logged_without_the_url(server: Server, braze: Braze, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tap_braze_export")
    server.answers = [hang_up, as_json({"name": "All"}, 200)]

    details(braze)

    (record,) = [record for record in caplog.records if record.name.startswith("tap_braze_export")]
    assert record.getMessage().startswith(
        f"GET /segments/details (segment {SEGMENT}): the answer did not come (ConnectionError); repeated in "
    )


@pytest.mark.parametrize("failure", [(500, {}, b""), (504, {}, b"<html>"), hang_up])
@pytest.mark.parametrize("call", STARTS)
def test_start_whose_answer_is_lost_is_not_repeated(
    server: Server, braze: Braze, call: Callable[[Braze], object], failure: Answer
) -> None:
    server.answers = [failure, STARTED]

    assert "it may be running" in refused(call, braze, LostResponseError)
    assert len(server.seen) == 1


@pytest.mark.parametrize("call", ALL)
def test_refused_connection_is_repeated(clock: FakeClock, call: Callable[[Braze], object]) -> None:
    """Nothing was sent, so a start is repeated, too."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        braze = Braze(f"http://127.0.0.1:{unused.getsockname()[1]}", KEY, clock=clock)

        assert "no connection to the host of api_url" in refused(call, braze, BrazeError)
    assert len(clock.slept) == 7


def test_told_to_end_it_does_not_repeat(server: Server, braze: Braze, clock: FakeClock) -> None:
    clock.told_to_end = True
    server.answers = [(502, {}, b"")]

    assert "the run was told to end" in refused(details, braze, BrazeError)
    assert len(server.seen) == 1


class FailingSession(requests.Session):
    """Fails before any request is made, and remembers the time that it was given."""

    def __init__(self, failure: requests.RequestException) -> None:
        super().__init__()
        self.failure = failure
        self.timeouts: list[object] = []

    def request(self, *_: object, **options: Any) -> requests.Response:
        self.timeouts.append(options["timeout"])
        raise self.failure


@pytest.mark.parametrize("call", ALL)
def test_every_call_has_time_limits(clock: FakeClock, call: Callable[[Braze], object]) -> None:
    """Connect 10 s; read 60 s, and 5 minutes for the ids export, which assembles whole profiles."""
    with FailingSession(requests.ConnectTimeout(f"{KEY}?segment_id=")) as session:
        refused(call, Braze("https://rest.example.org", KEY, clock=clock, session=session), BrazeError)

    assert session.timeouts == [(10, 300 if call is export_ids else 60)] * 8


@pytest.mark.parametrize("call", ALL)
def test_read_timeout_is_repeated_unless_it_may_have_started_an_export(
    clock: FakeClock, call: Callable[[Braze], object]
) -> None:
    with FailingSession(requests.ReadTimeout(f"{KEY}?segment_id=")) as session:
        braze = Braze("https://rest.example.org", KEY, clock=clock, session=session)
        assert "ReadTimeout" in refused(call, braze, LostResponseError if call in STARTS else BrazeError)

    assert len(session.timeouts) == (1 if call in STARTS else 8)


def test_untrusted_certificate_is_told_at_once(clock: FakeClock) -> None:
    with FailingSession(requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]")) as session:
        braze = Braze("https://rest.example.org", KEY, clock=clock, session=session)
        assert "REQUESTS_CA_BUNDLE" in refused(start, braze, BrazeError)

    assert len(session.timeouts) == 1
