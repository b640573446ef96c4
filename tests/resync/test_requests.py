"""How identifiers are packed into requests, and how responses are matched with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.client import IdsResponse
from tap_braze_export.braze.rate_limit import RateLimit
from tap_braze_export.clock import Clock
from tap_braze_export.resync.identifiers import Identifier, Identifiers
from tap_braze_export.resync.requests import match_response, plan_requests
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock
from tests.support.resyncs import PEOPLE, bodies, resync
from tests.support.runs import selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

# A workspace with PEOPLE, and a limit that no test comes near.
pytestmark = pytest.mark.sandbox(users=0, ids_limit=1_000_000, segments={"people": PEOPLE})


@pytest.mark.parametrize(("count", "sizes"), [(49, [49]), (50, [50]), (51, [50, 1]), (100, [50, 50])])
def test_at_most_50_identifiers_go_together(sandbox: Sandbox, tmp_path: Path, count: int, sizes: list[int]) -> None:
    """External ids and aliases count together."""
    external_ids = [f"id-{number}" for number in range(count // 2)]
    aliases = [{"alias_name": f"a-{number}", "alias_label": "crm"} for number in range(count - count // 2)]

    resync(sandbox, tmp_path, external_ids=external_ids, user_aliases=aliases)

    sizes_sent = [len(body.get("external_ids", ())) + len(body.get("user_aliases", ())) for body in bodies(sandbox)]
    assert sorted(sizes_sent, reverse=True) == sizes


def test_requests_ask_for_exactly_what_is_selected(sandbox: Sandbox, tmp_path: Path) -> None:
    """And for the identifiers, which are dropped again; of custom attributes this endpoint gives all or none."""
    config = settings(
        sandbox,
        tmp_path,
        external_ids=["ada"],
        user_aliases=[{"alias_name": "lead-4", "alias_label": "crm"}],
        emails=["team@example.org"],
        custom_attributes={"plan": "string", "secret": "string"},
    )
    sandbox.add_segment(
        "vip", [{"braze_id": "b1", "external_id": "ada", "custom_attributes": {"plan": "x", "secret": "y"}}]
    )
    sandbox.add_segment("people")
    catalog = selecting(["users"], {"users": ["country", "custom_attributes"]}, config)
    for entry in catalog["streams"]:
        for item in entry["metadata"]:
            if item["breadcrumb"][-1:] == ["secret"]:
                item["metadata"]["selected"] = False

    run = sync(config, catalog=catalog, clock=Clock())

    fields = sorted(
        (call.body["fields_to_export"] for call in sandbox.calls if call.path == "/users/export/ids"), key=len
    )
    assert fields == [
        ["braze_id", "country", "custom_attributes"],
        ["braze_id", "country", "custom_attributes", "external_id", "user_aliases"],
    ]
    (user,) = run.rows("users")
    assert {**user, "exported_at": ""} == {
        "braze_id": "b1",
        "country": None,
        "custom_attributes": {"plan": "x"},
        "exported_at": "",
    }


def test_alternating_kinds_fill_their_requests() -> None:
    """A CSV with two columns does not send one external id at a time; the same input always gives the same requests."""
    rows = [Identifier(kind, str(row), "", "f", row) for row in range(120) for kind in ("external_id", "email")]

    planned = list(plan_requests(rows))

    together = [len(request) for request in planned if request[0].kind == "external_id"]
    assert together == [50, 50, 20]
    assert len(planned) == 123
    firsts = [request[0].row for request in planned]
    assert firsts == sorted(firsts)
    assert list(plan_requests(rows)) == planned


def test_few_external_ids_before_many_addresses_are_not_held_back_for_ever() -> None:
    """No request waits until it is full, so memory stays bounded."""
    rows = [Identifier("external_id", "x", "", "f", 0)]
    rows += [Identifier("email", str(row), "", "f", row) for row in range(100_000)]
    unread = iter(rows)

    first = next(plan_requests(unread))

    assert first == rows[:1]
    assert sum(1 for _ in unread) > 99_000


def test_user_that_braze_spells_otherwise_is_emitted_and_makes_no_false_miss() -> None:
    """Then only Braze's own list says which identifiers are misses."""
    config = Settings(api_url="u", api_key="k", external_ids=("Ada", "nobody", "kurt"))
    identifiers = Identifiers(config, clock=FakeClock())
    (request,) = plan_requests(identifiers)
    users = [b'{"braze_id":"b5","external_id":"kurt"}', b'{"braze_id":"b1","external_id":"ada"}', b'{"braze_id":"b7"}']

    found, misses = match_response(request, IdsResponse(users, ["nobody"], RateLimit()))

    assert [user.braze_id for user in found] == ["b5", "b1", "b7"]
    assert [miss.value for miss in misses] == ["nobody"]
