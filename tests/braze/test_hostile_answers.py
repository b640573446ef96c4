"""Whatever Braze, or who stands in its place, answers: a result, or an error of the tap in one line, within bounds."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip

from tap_braze_export.errors import BrazeError, LostResponseError, TapError
from tap_braze_export.schema.custom_attributes import discovered_types
from tap_braze_export.schema.table import Type
from tests.support.braze_calls import ALL, KEY, PREFIX, STARTS, attributes, details, export_ids, refused, start
from tests.support.fakes import as_json, endless
from tests.support.hostile import few_examples, odd_variants

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.braze.client import Braze
    from tests.support.fakes import Answer, FakeClock, Server

MIB = 2**20
USER = {"braze_id": "b1", "external_id": "e1", "user_aliases": [{"alias_name": "n", "alias_label": "l"}]}
GOOD: dict[str, Any] = {
    "message": "success",
    "object_prefix": PREFIX,
    "url": "https://store.example.org/a.zip?Signature=x",
    "users": [USER, USER],
    "invalid_user_ids": ["e2", {"alias_name": "n", "alias_label": "l"}],
    "name": "All users",
    "data": [{"time": "2027-01-15", "size": 7}],
    "attributes": [{"name": "plan", "data_type": "String (Automatically Detected)", "status": "Active"}],
}
"""A good response to every call."""
BOMB = (200, {"Content-Encoding": "gzip"}, igzip.compress(bytes(200 * MIB)))  # gzip takes ten times as long
BODIES = odd_variants(GOOD).map(str.encode) | st.binary()
STATUSES = st.sampled_from([200, 201, 202, 299, 300, 302, 400, 401, 403, 404, 408, 418, 429, 499, 500, 503, 599])
HEADERS = st.dictionaries(
    st.sampled_from(["Link", "Retry-After", "X-RateLimit-Reset", "Location", "Content-Type", "Content-Encoding"]),
    st.sampled_from(
        [
            *('<http://[::1>; rel="next"', '</x>; rel="next"', "<>; rel=next", '<//.a..b/>; rel="next"', ";;;,,,"),
            *("nan", "-1", "http://[::1", "/x", "gzip", "br", "identity", "\xff\xfe", "9" * 5_000),
        ]
    ),
)


def traced(call: Callable[[], object]) -> int:
    """The most bytes that a call held at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Bodies


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
@pytest.mark.parametrize("call", ALL)
def test_endless_refusal_is_read_for_its_beginning(
    server: Server, braze: Braze, call: Callable[[Braze], object], status: int
) -> None:
    server.answers = [endless(status)]

    assert traced(lambda: refusal(call, braze)) < 4 * MIB
    assert len(server.seen) == 1


@pytest.mark.parametrize("call", [call for call in ALL if call is not export_ids])
@pytest.mark.parametrize(
    "answer",
    [endless(200), BOMB],
    ids=["endless", "bomb"],
)
def test_body_beyond_the_limit_is_refused(
    server: Server, braze: Braze, clock: FakeClock, call: Callable[[Braze], object], answer: Answer
) -> None:
    """At once: repeated, it would be no shorter. A start may have started something all the same."""
    server.answers = [answer]

    def fail() -> None:
        told = refused(call, braze, LostResponseError if call in STARTS else BrazeError)
        assert call in STARTS or "the body is longer than 16777216 bytes: check api_url and any proxy" in told

    assert traced(fail) < 80 * MIB
    assert (len(server.seen), clock.slept) == (1, [])


@pytest.mark.slow
def test_users_of_an_ids_response_may_be_large(server: Server, braze: Braze) -> None:
    """50 of them, of more than a megabyte each; the limit is 64 MiB."""
    user = b'{"braze_id":"b","text":"' + b"x" * (1_300_000) + b'"}'
    server.answers = [
        (201, {"Content-Encoding": "gzip"}, gzip.compress(b'{"users":[' + b",".join([user] * 50) + b"]}", 1)),
        (201, {"Content-Encoding": "gzip"}, gzip.compress(b'{"users":[' + b",".join([user] * 52) + b"]}", 1)),
    ]

    assert export_ids(braze).users == [user] * 50
    assert "the body is longer than 67108864 bytes" in refused(export_ids, braze, BrazeError)


@pytest.mark.slow
def test_list_of_attributes_without_an_end_is_refused(server: Server, braze: Braze) -> None:
    numbers = iter(range(10_000))

    def page(handler: Any) -> None:
        handler.send_response_only(200)
        handler.send_header("Link", f'</custom_attributes?cursor={next(numbers)}>; rel="next"')
        handler.send_header("Content-Length", "17")
        handler.end_headers()
        handler.wfile.write(b'{"attributes":[]}')

    server.answers = [page]

    assert "named 1000 pages and no last one" in refused(attributes, braze, BrazeError)
    assert len(server.seen) == 1_000


# What they say


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "http://[::1", "http://.bad", "ftp://store/a.zip", "https://", "http://a:99999/", "http://a b/"),
        *(
            "https://\ud800.example/a.zip",
            "https://store/\x00",
            "https://store/\n",
            5,
            {"a": 1},
            ["https://store/a.zip"],
        ),
    ],
)
def test_url_that_is_no_address_is_refused(server: Server, braze: Braze, url: object) -> None:
    server.answers = [as_json({"object_prefix": PREFIX, "url": url})]

    assert refused(start, braze, BrazeError).startswith("Braze named a url for the export of segment ")


@pytest.mark.parametrize("name", ["", 5, None, ["a"], {"a": {}}])
def test_attribute_without_a_name_is_left_out(server: Server, braze: Braze, name: object) -> None:
    server.answers = [
        as_json({"attributes": [{"name": name, "data_type": "String"}, {"name": "b", "data_type": "String"}]})
    ]

    assert discovered_types(braze.custom_attributes()) == {"b": Type.STRING}


def refusal(call: Callable[[Braze], object], braze: Braze) -> str:
    """The error that a call ends in, if it does: of the tap, one line, without key and address."""
    try:
        found = call(braze)
        if call is attributes:
            discovered_types(found)  # type: ignore[arg-type]
    except TapError as error:
        told = str(error)
        assert told.isprintable()
        assert KEY not in told
        assert len(told) < 1_000
        return told
    return ""


@pytest.mark.parametrize("call", ALL)
@few_examples
@given(
    status=STATUSES,
    headers=HEADERS,
    body=odd_variants(GOOD).map(lambda text: text.encode("utf-8", "replace")) | st.binary(),
)
def test_whatever_the_answer_a_call_ends_as_it_should(
    server: Server, braze: Braze, call: Callable[[Braze], object], *, status: int, headers: dict[str, str], body: bytes
) -> None:
    server.answers = [(status, headers, body)]

    refusal(call, braze)


def test_the_good_answer_is_good(server: Server, braze: Braze) -> None:
    """So that the test before this one begins where things work."""
    server.answers = [as_json(GOOD)]

    assert [refusal(call, braze) for call in ALL] == [""] * len(ALL)
    assert details(braze)["name"] == "All users"
