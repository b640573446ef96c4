"""Rules that deselect what does not exist are refused: in a catalog, in Meltano's extras, in the settings."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.singerlib import Catalog

from tap_braze_export.errors import ConfigError, Problem, problems_in_words
from tap_braze_export.singer.selection_rules import Known, Rule, catalog_rules, meltano_rules
from tests.support.runs import command, discover, selecting, settings, sync, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

ATTRIBUTES = {"plan": "string", "some.name": "string", "[vip]": "boolean", "properties": "string"}
ADDRESS = ("custom_attributes", "address")
SELECT = "MELTANO_EXTRACT__SELECT"
REFUSED_RULES: tuple[tuple[str, str], ...] = (
    ("!user", "select: !user names no stream: user (did you mean users?)"),
    ("!user.*", "select: !user.* names no stream: user (did you mean users?)"),
    ("!users.emial", "select: !users.emial names no column of users: emial (did you mean email?)"),
    ("!*.emial", "select: !*.emial names no column"),
    ("!users.emial.x", "select: !users.emial.x names no column of users"),
    ("!users.custom_attributes.address", "names the custom attribute address, which the catalog does not know"),
    ("!users.custom_attributes.paln", "names the custom attribute paln (did you mean plan?), which the catalog"),
    ("!users.custom_attributes.some.name", "some.name: Meltano takes a dot for a member inside; write ? for it"),
    ("!users.custom_attributes.address*", "names the custom attribute address*"),
    ("!campaigns_received.engaged.opened", "names no member of engaged: opened (did you mean opened_push?)"),
    ("!campaigns_received.multiple_converted.x", "names no member of multiple_converted: x"),
)
FINE_RULES = (
    *("*.*", "!segment_members.*", "!invalid_user_ids", "!users.email", "!*.name", "!users.*_subscribe", "!u*.phone"),
    *("!users.custom_attributes.plan", "users.custom_attributes.some?name", "!users.custom_attributes.[[]vip]"),
    *("!users.custom_attributes", "!users.custom_attributes.*", "!campaigns_received.engaged.opened_email"),
    "!users.custom_attributes.properties",
)


def catalog(chosen: Mapping[str, bool], attributes: Mapping[str, str] = ATTRIBUTES) -> dict[str, Any]:
    """The catalog of discovery, with more metadata: path and choice."""
    found = discover({"custom_attributes": dict(attributes)})
    for path, choice in chosen.items():
        stream, *inside = path.split("/")
        breadcrumb = [part for name in inside for part in ("properties", name)]
        entry = next((each for each in found["streams"] if each["tap_stream_id"] == stream), None)
        if entry is None:
            entry = {**copy.deepcopy(found["streams"][0]), "tap_stream_id": stream, "metadata": []}
            found["streams"].append(entry)
        entry["metadata"] = [each for each in entry["metadata"] if each["breadcrumb"] != breadcrumb]
        entry["metadata"].append({"breadcrumb": breadcrumb, "metadata": {"selected": choice}})
    return found


def known(
    chosen: Mapping[str, bool] | None = None, *, attributes: Mapping[str, str] = ATTRIBUTES, are_known: bool = True
) -> Known:
    return Known(Catalog.from_dict(catalog(chosen or {}, attributes)), attributes_are_known=are_known)


def rules(*patterns: str, **extras: Any) -> list[Rule]:
    environment = {SELECT: json.dumps(patterns)}
    return [*meltano_rules(environment | {f"MELTANO_EXTRACT__{name}": value for name, value in extras.items()})]


def catalog_problems(known: Known) -> list[Problem]:
    return [*known.problems([*catalog_rules(known.catalog)])]


def meltano_problems(known: Known, given: list[Rule]) -> list[Problem]:
    return [*known.problems(given)]


# Catalogs


def test_catalog_of_discovery_is_fine() -> None:
    assert not catalog_problems(known())
    assert not catalog_problems(known({"users/email": False, "users/custom_attributes/plan": False}))
    assert not catalog_problems(known({"users": False, "campaigns_received/engaged/opened_push": False}))


def test_metadata_that_deselects_the_unknown_is_refused() -> None:
    for path, told in (
        ("user", "catalog: user names no stream: user (did you mean users?)"),
        ("users/emial", "catalog: deselected users.emial names no column of users: emial (did you mean email?)"),
        (
            "users/custom_attributes/address",
            "catalog: deselected users.custom_attributes.address names the custom attribute address, which",
        ),
        ("users/custom_attributes/paln", "the custom attribute paln (did you mean plan?), which the catalog does not"),
        ("users/custom_attributes/plan/tier", "the custom attribute plan.tier (did you mean plan?), which the catalog"),
        (
            "campaigns_received/engaged/x",
            "catalog: deselected campaigns_received.engaged.x names no member of engaged: x",
        ),
        ("campaigns_received/multiple_converted/x", "multiple_converted.x names no member of multiple_converted: x"),
    ):
        (problem,) = catalog_problems(known({path: False}))
        assert told in problem.text, path
        assert problem.is_refused, path
        (problem,) = catalog_problems(known({path: True}))
        assert not problem.is_refused, path


def test_breadcrumb_that_leads_to_no_column() -> None:
    for crumb in (["properties"], ["properties", "email", "items"]):
        given = catalog({})
        (users,) = [each for each in given["streams"] if each["tap_stream_id"] == "users"]
        users["metadata"].append({"breadcrumb": crumb, "metadata": {"selected": False}})
        (problem,) = catalog_problems(Known(Catalog.from_dict(given)))
        assert "names no column of users: properties" in problem.text, crumb
        assert problem.is_refused, crumb


def test_what_leaves_with_its_holder_may_be_unknown() -> None:
    """Nothing of a deselected stream or column is exported."""
    for holder in ("users", "users/custom_attributes"):
        (problem,) = catalog_problems(known({"users/custom_attributes/address": False, holder: False}))
        assert not problem.is_refused, holder


def test_closed_list_of_attributes_keeps_unknown_ones_out() -> None:
    """Once one is deselected the selected ones alone are requested; a misspelt name is refused all the same."""
    closed = {"users/custom_attributes/plan": False}
    for name, is_refused in (("address", False), ("viip", True)):
        (problem,) = catalog_problems(known({**closed, f"users/custom_attributes/{name}": False}))
        assert problem.is_refused is is_refused, name
        (problem,) = meltano_problems(known(closed), rules("*.*", f"!users.custom_attributes.{name}"))
        assert problem.is_refused is is_refused, name


def test_run_with_such_a_catalog_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    given = catalog({"users/custom_attributes/address": False}, {})
    calls = len(sandbox.calls)
    with pytest.raises(ConfigError, match="the custom attribute address, which the catalog does not know") as raised:
        sync(settings(sandbox, tmp_path), catalog=given)
    assert "it would be exported; set discover_custom_attributes" in str(raised.value)
    assert len(sandbox.calls) == calls


def test_checklist_reads_the_catalog_wherever_it_stands(sandbox: Sandbox, tmp_path: Path) -> None:
    given = written(tmp_path, catalog({"users/emial": False}), "catalog.json")
    config = written(tmp_path, settings(sandbox, tmp_path))
    for arguments in (("--test", "--catalog", given), ("--catalog", given, "--test")):
        assert (
            "deselected users.emial names no column of users: emial (did you mean email?)"
            in command("--config", config, *arguments).error
        )


# Meltano


def test_rules_that_deselect_nothing_are_refused() -> None:
    for rule, told in REFUSED_RULES:
        found = [*meltano_problems(known(), rules("*.*", rule))]
        assert [problem.is_refused for problem in found] == [True], rule
        assert told in found[0].text, rule


def test_rules_that_match_are_fine() -> None:
    for rule in FINE_RULES:
        assert not [*meltano_problems(known(), rules("*.*", rule))], rule


def test_rules_that_select_nothing_are_named() -> None:
    for rule, told in REFUSED_RULES:
        found = [*meltano_problems(known(), rules("*.*", rule.removeprefix("!")))]
        assert [problem.is_refused for problem in found] == [False], rule
        assert told.replace("!", "") in found[0].text, rule


def test_one_attribute_that_is_unknown_would_select_them_all() -> None:
    """Meltano selects the column that holds it, and the tap would know no member to leave out."""
    (problem,) = meltano_problems(known(attributes={}), rules("users.email", "users.custom_attributes.plan"))
    assert problem.is_refused
    assert "all the others would be exported, too" in problem.remedy


def test_metadata_and_filters_of_meltano() -> None:
    address = '{"users": {"custom_attributes": {"address": {"selected": false}, "plan": {"selected": false}}}}'
    (problem,) = meltano_problems(known(), rules(METADATA=address))
    assert "metadata: users.custom_attributes.address names the custom attribute address" in problem.text
    assert problem.is_refused
    (problem,) = meltano_problems(known(), rules(SELECT_FILTER='["!user", "apps"]'))
    assert problem.text == "select_filter: !user names no stream: user (did you mean users?)"


def test_rules_that_meltano_does_not_apply() -> None:
    """It leaves a given catalog as it is; what is no list is no rule."""
    assert not rules("!user", METADATA='{"user": {"selected": false}}', CATALOG="catalog.json")
    assert not [*meltano_rules({SELECT: "!user"})]
    assert not [*meltano_rules({})]


def test_attributes_that_nobody_was_asked_for() -> None:
    """`--test` without a catalog does not ask Braze for attributes that the run will know."""
    assert not [
        *meltano_problems(known(attributes={}, are_known=False), rules("*.*", "!users.custom_attributes.address"))
    ]


def test_run_and_checklist_read_meltanos_environment(sandbox: Sandbox, tmp_path: Path) -> None:
    config = written(tmp_path, settings(sandbox, tmp_path))
    rule = json.dumps(["*.*", "!users.custom_attributes.address"])
    told = (
        "select: !users.custom_attributes.address names the custom attribute address, which the catalog does not know"
    )
    for mode in ((), ("--test",)):
        assert command("--config", config, *mode, **{SELECT: rule}).error.startswith(told), mode
    discovery = command("--config", config, "--discover", **{SELECT: rule})
    assert discovery.code == 0
    assert re.search(rf"WARNING .*{re.escape(told)}", discovery.stderr)
    attributes = written(tmp_path, settings(sandbox, tmp_path, discover_custom_attributes=True), "more.json")
    assert command("--config", attributes, "--test", **{SELECT: rule}).code == 0


# extra_export_fields


def test_extra_fields_that_would_be_dropped_are_refused() -> None:
    for path, extra in (
        ("users/email", "email"),
        ("users/push_subscribe", "push_subscribe"),
        ("users/push_opted_in_at", "push_opted_in_at"),
        ("users/custom_attributes", "custom_attributes"),
        ("users/custom_attributes/plan", "custom_attributes"),
        ("devices", "devices"),
        ("users", "email"),
    ):
        (problem,) = known({path: False}).extra_field_problems([extra])
        assert problem.text == f"extra_export_fields asks Braze for {extra}, which the catalog deselects"
        assert problem.is_refused


def test_other_extra_fields_are_fine() -> None:
    selected = known({"canvases_received": False})
    extra = ["email", "devices", "custom_attributes", "canvases_received", "horoscope", "braze_id"]
    assert not [*selected.extra_field_problems(extra)]


def test_extra_fields_that_land_nowhere() -> None:
    (other,) = known({"users/_rescued_data": False}).extra_field_problems(["horoscope"])
    assert (
        other.text
        == "extra_export_fields asks Braze for horoscope, whose values are dropped: select _rescued_data of users"
    )
    assert not other.is_refused


def test_run_with_such_a_field_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    given = settings(sandbox, tmp_path, extra_export_fields=["phone"])
    with pytest.raises(ConfigError, match="extra_export_fields asks Braze for phone, which the catalog deselects"):
        sync(given, catalog=selecting(["users"], {"users": ["email"]}))
    assert sync(given, catalog=selecting(["users"])).rows("users")


def test_words_name_ten_and_a_remedy_once() -> None:
    found = [Problem(f"name {number}", "mend it") for number in range(12)]
    assert problems_in_words([*found, found[0]]) == (
        "name 0; name 1; name 2; name 3; name 4; name 5; name 6; name 7; name 8; name 9; 2 more: mend it"
    )
