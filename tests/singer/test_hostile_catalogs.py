"""Whatever a file given with --catalog holds: it is used, or refused in one line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings

from fuzz import targets
from fuzz.stand_ins import named
from tap_braze_export.errors import ConfigError
from tap_braze_export.singer.given_files import read_catalog
from tests.support.hostile import few_examples, odd_variants
from tests.support.runs import selecting

_REST: dict[str, Any] = {
    **dict.fromkeys(("database_name", "database"), "braze"),
    "replication_key": None,
    "is_view": False,
    "row_count": 1,
    "replication_method": "FULL_TABLE",
}
"""Members of an entry that other programs write."""


def catalog() -> dict[str, Any]:
    """Users and the log of exports, with two columns each and every member that an entry can have."""
    found = selecting(["users", "export_files"], {"users": ["email"], "export_files": ["users"]})
    wanted = {"users": ("braze_id", "email"), "export_files": ("export_id", "file", "users")}
    entries = [entry for entry in found["streams"] if entry["tap_stream_id"] in wanted]
    for entry in entries:
        columns = wanted[entry["tap_stream_id"]]
        entry.update({**_REST, **dict.fromkeys(("stream", "stream_alias", "table_name"), entry["tap_stream_id"])})
        entry["schema"]["properties"] = {name: entry["schema"]["properties"][name] for name in columns}
        entry["metadata"] = [
            item for item in entry["metadata"] if not item["breadcrumb"] or item["breadcrumb"][1] in columns
        ]
    return {"streams": entries}


@settings(few_examples)
@given(odd_variants(catalog()))
def test_whatever_a_catalog_holds_it_is_used_or_refused_in_one_line(text: str) -> None:
    """`make fuzz` mutates the bytes of the same target, this test the values of a catalog."""
    targets.catalog(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ({"stream": ["users"]}, "streams.0.stream must be a text"),
        ({"metadata": [{"breadcrumb": [None], "metadata": {}}]}, "streams.0.metadata.0.breadcrumb.0 must be a text"),
        ({"metadata": [{"breadcrumb": [], "metadata": {"selected": "false"}}]}, "selected must be true or false"),
        ({"metadata": [{"breadcrumb": [], "metadata": {"table-key-properties": True}}]}, "must be a list"),
    ],
)
def test_place_of_a_fault_is_named(odd: dict[str, Any], told: str) -> None:
    content = json.dumps({"streams": [{**catalog()["streams"][0], **odd}]}).encode()
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_catalog(named(content, "catalog.json"))
