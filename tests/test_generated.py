"""What repeats the tap's settings and streams is what `make generate` would write."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import yaml
from loaders import ROOT

GENERATOR = ROOT / "scripts" / "generate_docs.py"


def _plugin() -> dict[str, Any]:
    project = yaml.safe_load((ROOT / "meltano.yml").read_text(encoding="utf-8"))
    (plugin,) = project["plugins"]["extractors"]
    return dict(plugin)


def test_generated_parts_are_up_to_date() -> None:
    """Settings in meltano.yml, plugin.yaml, .env.example and the README, and the catalog, follow the code."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run([sys.executable, str(GENERATOR), "--check"], env=inherited, capture_output=True, check=False)
    assert done.returncode == 0, f"run `make generate`\n{done.stderr.decode()}"


def test_meltano_hides_the_secrets() -> None:
    """Meltano masks what is marked as sensitive."""
    hidden = {setting["name"] for setting in _plugin()["settings"] if setting.get("sensitive")}
    assert hidden == {"api_key", "bucket_options"}


def test_plugin_definition_says_what_the_project_says() -> None:
    """`meltano add --from-ref` gives the settings that the project of this repository has."""
    definition = yaml.safe_load((ROOT / "plugin.yaml").read_text(encoding="utf-8"))
    plugin = _plugin()
    for part in ("name", "namespace", "executable", "capabilities", "settings", "settings_group_validation"):
        assert definition[part] == plugin[part]
