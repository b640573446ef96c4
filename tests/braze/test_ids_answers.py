"""Responses of success that say nothing about anybody: they are no answer, and are asked for again as after a 5xx."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import BrazeError
from tests.support.braze_calls import KEY, export_ids, refused
from tests.support.fakes import FakeClock, Server
from tests.support.simulation import ScriptedBraze, SimulatedRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.braze.client import IdsResponse
    from tests.support.fakes import Answer

pytestmark = pytest.mark.slow

USER = {"braze_id": "b1", "external_id": "ada"}
ANSWER = json.dumps({"message": "success", "users": [USER]}).encode()
GOOD: Answer = (201, {}, ANSWER)


def bodies(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


NO_ANSWERS = [
    *bodies({"users": None}, {"message": "success", "users": None}, {"message": "success"}, {}, {"users": []}),
    *bodies({"message": "queued", "users": []}, {"message": "Internal error", "users": []}),
    *bodies({"message": "queued", "users": [USER]}, {"message": ["success"], "users": []}),
    *bodies({"message": {"text": "success"}, "users": []}, {"message": True, "users": []}, {"message": 0, "users": []}),
    *bodies({"message": "", "users": []}, {"message": "no success", "users": []}),
    *bodies({"message": "success", "users": {}}, {"message": "success", "users": {"0": USER}}),
    *bodies({"message": "success", "users": "none"}, {"message": "success", "users": 0}),
    *bodies({"message": "success", "users": False}, {"message": "success", "users": [None]}),
    *bodies({"message": "success", "users": ["ada", 7]}, {"message": "success", "users": [[]]}),
    *bodies({"message": "success", "users": [], "errors": ["timed out"]}),
    *bodies({"message": "success", "users": [], "errors": [{"id": "x", "message": "timed out"}]}),
    *bodies({"data": {"message": "success", "users": []}}, [], [USER], None, "success", 7),
    *bodies({"message": None, "users": []}, {"users": [], "invalid_user_ids": None}),
    *bodies({"message": "success", "Users": [USER]}, {"invalid_user_ids": ["ada"], "message": "success"}),
    *(b"", b" ", b"null", b"<html>Welcome</html>", b'{"message":"success","users":[', b"\xff", b"{]"),
]


@pytest.mark.fault("Braze's answers", "an ids response that says nothing", "asked again, then one line")
def test_what_says_nothing_is_asked_again(server: Server, braze: Braze, clock: FakeClock) -> None:
    """As after a 5xx: by the next try, or as often as that."""
    for status, body in [(201, body) for body in NO_ANSWERS] + [(200, NO_ANSWERS[0]), (202, ANSWER), (204, b"")]:
        server.answers = [(status, {}, body), (status, {}, body), GOOD]

        assert len(export_ids(braze).users) == 1, (status, body)
        assert len(clock.slept) == 2, (status, body)
        clock.slept.clear()


def test_what_says_nothing_for_good_ends_in_one_line(server: Server, braze: Braze, clock: FakeClock) -> None:
    """It tells Braze's own words, where they are not personal, and nobody's data."""
    for body in NO_ANSWERS:
        server.answers = [(201, {}, body)]

        message = refused(export_ids, braze, BrazeError)
        assert message.startswith("POST /users/export/ids (identifiers) failed 8 times within "), body
        assert "Braze responded 201 with" in message, body
        assert "run again later" in message
        assert not [word for word in ("@", "Welcome", "braze_id") if word in message], body
    assert all(seconds <= 61 for seconds in clock.slept)

    server.answers = [(202, {}, b'{"message":"queued for ada@example.org"}')]
    assert "Braze responded 202 which means that nothing is done yet; run" in refused(export_ids, braze, BrazeError)
    server.answers = [(202, {}, b'{"message":"queued"}')]
    assert "Braze responded 202 which means that nothing is done yet (queued); run" in refused(
        export_ids, braze, BrazeError
    )


class Answering(ScriptedBraze):
    """A workspace behind a real client and server, which gives one response to everything."""

    def __init__(self, server: Server, clock: FakeClock) -> None:
        super().__init__(clock)
        self._client = Braze(server.url, KEY, clock=clock)

    @override
    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        return self._client.export_ids(body)


def test_a_resync_does_not_end_with_what_says_nothing(server: Server, clock: FakeClock, tmp_path: Path) -> None:
    """Nobody counts as missing, and the next run asks for all of them."""
    given_ids: dict[str, Any] = {"external_ids": ["ada", "kurt"], "emails": ["ada@example.org"]}
    for body in NO_ANSWERS:
        server.answers = [(201, {}, body)]

        run = SimulatedRun(Answering(server, clock), tmp_path, **given_ids)

        assert run.error.startswith("BrazeError: POST /users/export/ids (identifiers) failed 8 times"), body
        assert (run.invalid, run.users, run.states) == ([], [], []), body


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "success", "queued", "ada", "users"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["braze_id", "external_id", "x"]), inner)
    ),
    max_leaves=6,
)
_BODIES = st.dictionaries(
    st.sampled_from(["users", "message", "errors", "invalid_user_ids", "error", "status"]),
    _JUNK | st.just([]) | st.just("success"),
)


def says_who_is_missing(status: int, body: Mapping[str, Any]) -> bool:
    """True if Braze has looked and says so, in the form that it documents."""
    has_looked = body.get("message") == "success" or (body.get("message") is None and body.get("users"))
    return status != 202 and isinstance(body.get("users"), list) and (bool(has_looked) or _names_ada(body))


def _names_ada(body: Mapping[str, Any]) -> bool:
    listed = body.get("invalid_user_ids")
    return body.get("message") is None and isinstance(listed, list) and bool(listed)


def test_nobody_is_missing_because_of_an_odd_response(clock: FakeClock, tmp_path: Path) -> None:
    """Whatever the members of the response are."""
    with Server() as server:

        @given(st.sampled_from([200, 201, 202]), _BODIES)
        @settings(derandomize=True, database=None, deadline=None, max_examples=150)
        def check(status: int, body: Mapping[str, Any]) -> None:
            server.answers = [(status, {}, json.dumps(body).encode())]

            run = SimulatedRun(Answering(server, clock), tmp_path, external_ids=["ada"])

            assert not run.invalid or says_who_is_missing(status, body)
            assert run.error or run.invalid or run.users or body["users"]

        check()
