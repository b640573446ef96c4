"""The signature of rows has a version of the code that makes them, pinned to the rows of a fixed sample."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tap_braze_export.schema.selection import ROWS_VERSION, RequestedFields, rows_signature
from tests.support.fakes import FakeClock
from tests.support.rows import DATA, SAMPLES, select, selected, shown
from tests.support.runs import discover, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

PINNED = (1, "8905a5cc3cdf9d49", "74e247e5840c6343")
"""ROWS_VERSION, and the digests of the sample and of its rows, as the failing test says them."""

ATTRIBUTES = {
    "text": "string",
    "whole": "integer",
    "real": "number",
    "yes": "boolean",
    "when": "date-time",
    "list": "array",
    "thing": "object",
    "left": "string",
}
DESELECTED = ("users.custom_attributes.left", "devices.idfa", "campaigns_received.engaged.opened_push", "apps.version")
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "typed": {"custom_attributes": ATTRIBUTES},
    "flattened": {"flattening_enabled": True, "flattening_max_depth": 2, "custom_attributes": ATTRIBUTES},
    "mapped": {"stream_maps": {"users": {"name": "first_name", "twice": "random_bucket * 2 if random_bucket else 0"}}},
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def sample() -> list[bytes]:
    """The odd users of the sandbox, and a user for each conversion."""
    return [*SAMPLES.read_bytes().splitlines(), *(DATA / "conversions.jsonl").read_bytes().splitlines()]


def rows_of_sample(sandbox: Sandbox, folder: Path) -> bytes:
    """All rows of the sample in every shape, without times and columns that are null: a new one changes no other."""
    sandbox.add_segment("sample", sample())
    rows = []
    for shape, config in SHAPES.items():
        catalog = discover(config)
        if "custom_attributes" in config:
            select(catalog, DESELECTED, selected=False)
        given = settings(sandbox, folder / shape, segment_ids=["sample"], **config)
        run = sync(given, catalog=catalog, clock=FakeClock())
        for line in run.stdout.splitlines():
            message = json.loads(line, parse_float=shown, parse_int=shown)
            if message["type"] == "RECORD" and message["stream"] != "export_files":
                row = {name: value for name, value in message["record"].items() if value is not None}
                del row["exported_at"]
                rows.append(json.dumps([shape, message["stream"], row], sort_keys=True))
    return "\n".join(sorted(rows)).encode()


def test_other_rows_of_the_same_lines_have_another_version(sandbox: Sandbox, tmp_path: Path) -> None:
    """Else fingerprints hide what an upgrade makes of users that did not change, and an export is resumed midway."""
    found = (ROWS_VERSION, digest(b"\n".join(sample())), digest(rows_of_sample(sandbox, tmp_path)))

    is_hidden = found[:2] == PINNED[:2] and found[2] != PINNED[2]
    assert not is_hidden, "the code makes other rows of the same lines: raise ROWS_VERSION in schema/selection.py"
    assert found == PINNED, f"the version or the sample is another one: write PINNED = {found}"


def test_version_is_in_the_signature() -> None:
    """Rows of another version are not compared, and an export that an earlier version has begun is read anew."""
    fields = RequestedFields.of(selected().values())
    signatures = {rows_signature(selected(), fields, {}, version=ROWS_VERSION + raised) for raised in (0, 1)}

    assert signatures >= {rows_signature(selected(), fields, {})}
    assert len(signatures) == 2
