"""Documents that repeat the tap's settings and streams are as `make generate` would write them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tap_braze_export.sandbox import Sandbox
from tests.support.loaders import ROOT
from tests.support.runs import command, sync

GENERATOR = ROOT / "scripts" / "generate_docs.py"


def _plugin() -> dict[str, Any]:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    plugin, _resync = project["plugins"]["extractors"]
    return dict(plugin)


def test_generated_parts_are_up_to_date() -> None:
    """Settings in meltano.yml, plugin.yaml, .env.example and docs/settings.md, and the catalog, follow the code."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run([sys.executable, str(GENERATOR), "--check"], env=inherited, capture_output=True, check=False)
    assert done.returncode == 0, f"run `make generate`\n{done.stderr.decode()}"


PERSONAL = {
    "users": {
        *("external_id", "first_name", "last_name", "email", "dob", "home_city", "phone"),
        *("last_coordinates", "custom_attributes"),
    },
    "devices": {"device_id", "idfv", "idfa", "google_ad_id", "roku_ad_id", "windows_ad_id"},
}
"""Columns that identify a person, besides `_rescued_data` of every stream."""
PERSONAL_STREAMS = {"push_tokens", "user_aliases", "invalid_user_ids"}


def test_the_catalog_is_what_discovery_prints() -> None:
    """Byte for byte, so that a change of a schema is a diff that a reviewer reads."""
    assert command("--discover").stdout == (ROOT / "catalog" / "catalog.json").read_bytes()


def test_the_catalog_without_personal_data() -> None:
    """The same catalog, in which exactly the columns that identify a person are deselected."""
    whole, without = (json.loads((ROOT / "catalog" / f"{n}.json").read_text()) for n in ("catalog", "no-personal-data"))
    for entry, changed in zip(whole["streams"], without["streams"], strict=True):
        stream = entry["tap_stream_id"]
        personal = PERSONAL.get(stream, set()) | {"_rescued_data"}
        for item in entry["metadata"]:
            crumb = item["breadcrumb"]
            if (crumb and crumb[1] in personal) or (not crumb and stream in PERSONAL_STREAMS):
                item["metadata"]["selected"] = False
        assert changed == entry


def test_a_run_without_personal_data_asks_for_none(tmp_path: Path) -> None:
    """No request names it, and no row holds it."""
    catalog = json.loads((ROOT / "catalog" / "no-personal-data.json").read_text())
    with Sandbox(users=50) as sandbox:
        run = sync({**sandbox.config, "spool_dir": str(tmp_path)}, catalog=catalog)
        (body,) = [call.body for call in sandbox.calls if call.path == "/users/export/segment"]
    assert not set(body["fields_to_export"]) & (PERSONAL["users"] | PERSONAL_STREAMS)
    assert all(
        set(row) == {"braze_id", "device_key", "model", "os", "carrier", "ad_tracking_enabled", "exported_at"}
        for row in run.rows("devices")
    )
    assert b"@example" not in run.stdout


SELECTED = {
    "everything": {
        "apps", "campaigns_received", "canvas_steps_received", "canvases_received", "cards_clicked", "custom_events",
        "devices", "export_files", "invalid_user_ids", "purchases", "push_tokens", "segment_members", "user_aliases",
        "users",
    },
    "engagement": {
        "apps", "campaigns_received", "canvas_steps_received", "canvases_received", "cards_clicked", "custom_events",
        "export_files", "purchases", "users",
    },
    "identity": {"devices", "export_files", "user_aliases", "users"},
}  # fmt: skip
REQUESTED = {
    "engagement": {
        "apps", "braze_id", "campaigns_received", "canvases_received", "cards_clicked", "country", "created_at",
        "custom_events", "email_subscribe", "language", "purchases", "push_subscribe", "time_zone", "total_revenue",
    },
    "identity": {
        "braze_id", "created_at", "devices", "email", "external_id", "first_name", "last_name", "phone",
        "random_bucket", "user_aliases",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SELECTED)
def test_other_catalogs(tmp_path: Path, name: str) -> None:
    """Each gives the streams of its wish, and asks Braze for no more."""
    catalog = json.loads((ROOT / "catalog" / f"{name}.json").read_text())
    with Sandbox(users=50) as sandbox:
        run = sync({**sandbox.config, "spool_dir": str(tmp_path)}, catalog=catalog)
        (body,) = [call.body for call in sandbox.calls if call.path == "/users/export/segment"]
    assert run.schemas.keys() == SELECTED[name]
    assert set(body["fields_to_export"]) == REQUESTED.get(name, set(body["fields_to_export"]))


def test_each_catalog_is_explained() -> None:
    explained = (ROOT / "catalog" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "catalog").glob("*.json"):
        assert f"`{path.name}`" in explained


def test_meltano_hides_the_secrets() -> None:
    """Meltano masks settings that are marked as sensitive."""
    hidden = {setting["name"] for setting in _plugin()["settings"] if setting.get("sensitive")}
    assert hidden == {"api_key", "bucket_options"}


def test_the_schema_of_duckdb_is_not_named_like_its_file() -> None:
    """DuckDB names a database like its file, and would call the schema's tables ambiguous."""
    definition = yaml.safe_load((ROOT / "deploy" / "target-duckdb.yaml").read_text(encoding="utf-8"))
    values = {setting["name"]: setting.get("value") for setting in definition["settings"]}
    assert Path(values["filepath"]).stem != values["default_target_schema"] == "braze"


def test_plugin_definition_says_what_the_project_says() -> None:
    """`meltano add --from-ref` gives the settings that the project of this repository has."""
    definition = yaml.safe_load((ROOT / "plugin.yaml").read_text(encoding="utf-8"))
    plugin = _plugin()
    for part in ("name", "namespace", "executable", "capabilities", "settings", "settings_group_validation"):
        assert definition[part] == plugin[part]
