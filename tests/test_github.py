"""Issue templates and the release workflow ask for what they should, and for no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

GITHUB = Path(__file__).parents[1] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def _read(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_a_bug_report_asks_for_the_error_and_about_and_no_personal_data() -> None:
    template = _read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    required = {part["id"] for part in template["body"] if part.get("validations", {}).get("required")}
    assert {"error", "about"} <= required
    (box,) = next(part for part in template["body"] if part["type"] == "checkboxes")["attributes"]["options"]
    assert box["required"]
    assert "personal data" in box["label"]


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    """Trusted publishing: no secret is named, and what builds cannot publish."""
    text = (GITHUB / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
    jobs = _read(GITHUB / "workflows" / "release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["needs"] == "build"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_reads_only_and_ends(path: Path) -> None:
    workflow = _read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
