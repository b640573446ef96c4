"""The error that the client raises for each response that is no success."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    RunningExportError,
)
from tests.support.braze_calls import (
    ALL,
    KEY,
    SEGMENT,
    STARTED,
    STARTS,
    attributes,
    cancel,
    details,
    export_ids,
    refused,
    size,
    start,
    start_control_group,
)
from tests.support.fakes import FakeClock, Server, as_json

if TYPE_CHECKING:
    from collections.abc import Callable


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
    assert len(message.partition("; check segment_ids")[0]) < 320
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


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([{"id": "invalid-segment", "message": "segment_id is unknown"}], "Bad; segment_id is unknown"),
        ([{"id": "invalid-segment"}, {"message": "fields are wrong"}], "Bad; invalid-segment; fields are wrong"),
        ([{"type": "'segment_id' is wrong", "input_array": "x", "index": 0}], "Bad; 'segment_id' is wrong"),
        (["first", "second", "first", "third"], "Bad; first; second"),
        ({"id": "one", "message": "alone"}, "Bad; alone"),
        ("a text", "Bad; a text"),
        ([{"message": f"the key {KEY}"}, {"message": "harmless"}], "Bad; harmless"),
        ([{"message": "see https://example.org/?token=1\nnow"}], "Bad; see <url> now"),
        ([{"message": ["odd"], "id": 7}, None, 7, [], {}], "Bad"),
        (None, "Bad"),
        ([{"message": "Bad"}], "Bad"),
    ],
)
def test_errors_of_a_refusal_are_told(server: Server, braze: Braze, errors: object, told: str) -> None:
    """Braze's newest endpoints put their words into objects; the key and addresses stay out."""
    server.answers = [as_json({"message": "Bad", "errors": errors}, 400)]

    assert f"was refused with 400 ({told}); check" in refused(start, braze, BrazeError)


def test_personal_data_in_errors_of_an_ids_refusal_is_not_told(server: Server, braze: Braze) -> None:
    """The other texts are."""
    personal = ["x@example.org is wrong", {"message": "bad phone 4930123456"}, {"message": "a phone is wrong"}]
    server.answers = [as_json({"errors": personal}, 400)]

    assert refused(export_ids, braze, BrazeError) == (
        "POST /users/export/ids (identifiers) was refused with 400 (a phone is wrong)"
    )


def test_harmless_ids_refusal_is_told(server: Server, braze: Braze) -> None:
    server.answers = [as_json({"message": "The max number of ids per request was exceeded"}, 400)]

    assert "(The max number of ids per request was exceeded)" in refused(export_ids, braze, BrazeError)


@pytest.mark.parametrize("body", [f'{{"message": "bad key {KEY}"}}'.encode(), b"<html>proxy</html>", b'{"message":{}}'])
def test_key_and_foreign_bodies_are_not_told(server: Server, braze: Braze, body: bytes) -> None:
    server.answers = [(400, {}, body)]

    told = f"POST /users/export/segment (segment {SEGMENT}) was refused with 400; check segment_ids: "
    assert refused(start, braze, BrazeError) == f"{told}--test without them lists the segments of the workspace"


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


PROXIES = [name for scheme in ("all", "http", "https", "no") for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper())]


@pytest.fixture
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine that runs the tests."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://secret:word@[::1", "socks5://secret:word@127.0.0.1:9", "http://", " "])
@pytest.mark.fault("Braze's answers", "a proxy's address in the environment that is none", "one line")
def test_impossible_proxy_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str) -> None:
    """It is the environment's fault, not that of api_url."""
    monkeypatch.setenv(variable, proxy)

    told = refused(start, Braze("http://braze.example", KEY, clock=FakeClock()), BrazeError)

    assert f"the environment sets {variable.lower()}, which must be like http://host:port" in told
    assert "api_url" not in told
    assert "word" not in told


@pytest.mark.usefixtures("without_proxies")
@pytest.mark.parametrize("api_url", ["rest.iad-01.braze.com", "https://", "ftp://example.org"])
def test_impossible_api_url_is_told(api_url: str) -> None:
    assert "api_url is no proper address" in refused(start, Braze(api_url, KEY, clock=FakeClock()), BrazeError)


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


@pytest.mark.parametrize("message", ["An export is already in progress", "Too many requests"])
@pytest.mark.parametrize("remaining", ["0", "249999"])
def test_a_429_that_says_how_long_to_wait_is_never_a_running_export(
    server: Server, braze: Braze, clock: FakeClock, *, message: str, remaining: str
) -> None:
    """Braze's new header belongs to rate limits alone, whatever it holds."""
    for seconds in ("30", "0", "soon"):
        headers = {"X_RateLimit_Retry_After": seconds, "X_RateLimit_Remaining": remaining}
        server.answers = [as_json({"message": message}, 429, **headers), STARTED]

        assert start(braze)
        assert clock.slept.pop() <= 33, seconds
        assert clock.slept == []
