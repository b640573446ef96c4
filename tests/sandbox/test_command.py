"""The sandbox as an object and as the command `braze-sandbox`: ports, options, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner

from tap_braze_export.sandbox import Sandbox
from tap_braze_export.sandbox.cli import main
from tap_braze_export.sandbox.faults import FAULTS
from tests.support.sandbox_client import NOW, TWO_FIELDS, fetch, members, raw_lines, start

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.sandbox(users=30, clock=lambda: NOW)


def test_ports_can_be_chosen() -> None:
    with Sandbox(users=1) as other:
        ports = [urlsplit(url).port or 0 for url in (other.api_url, start(other).json()["url"])]
    with Sandbox(users=1, port=ports[0], download_port=ports[1]) as sandbox:
        assert [urlsplit(url).port for url in (sandbox.api_url, start(sandbox).json()["url"])] == ports


def test_lines_tell_what_an_export_holds(sandbox: Sandbox) -> None:
    assert list(sandbox.lines("all-users", TWO_FIELDS)) == raw_lines(sandbox)


def test_config_points_a_tap_at_it(sandbox: Sandbox) -> None:
    assert sandbox.config == {"api_url": sandbox.api_url, "api_key": "sandbox-key", "segment_ids": ["all-users"]}


def test_command_lists_the_faults() -> None:
    listed = CliRunner().invoke(main, ["--list-faults"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(FAULTS)


def test_command_refuses_bad_options() -> None:
    for options in (
        ["--bucket-options", "[]"],
        ["--bucket-options", "{"],
        ["--fault", "earthquake"],
        ["--deny", "x"],
    ):
        assert CliRunner().invoke(main, options).exit_code == 2


def test_command_refuses_an_unknown_bucket() -> None:
    refused = CliRunner().invoke(main, ["--bucket-url", "nowhere://bucket"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: cannot use the bucket: Protocol not known: nowhere")


def test_command_says_when_a_port_is_taken(sandbox: Sandbox) -> None:
    taken = CliRunner().invoke(main, ["--port", str(urlsplit(sandbox.api_url).port)])
    assert taken.exit_code == 1
    assert taken.output.startswith("Error: cannot listen")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_runs_until_a_signal(number: int, tmp_path: Path) -> None:
    """It writes its address for people and scripts, applies its options and exits with 0."""
    ready_file = tmp_path / "ready.json"
    command = [
        sys.executable,
        "-m",
        "tap_braze_export.sandbox",
        "--users",
        "12",
        "--delay",
        "0",
        "--api-key",
        "mine",
    ]
    command += ["--ready-file", str(ready_file), "--deny", "segments.list", "--fault", "status-200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        greeting = ""
        while "Ctrl+C" not in greeting:  # the last line of the greeting; the file is written before it
            line = process.stderr.readline()
            assert line, greeting
            greeting += line
        ready = json.loads(ready_file.read_text("utf-8"))
        headers = {"Authorization": "Bearer mine"}
        body = {"segment_id": "all-users", "fields_to_export": ["braze_id"]}
        response = requests.post(ready["api_url"] + "/users/export/segment", json=body, headers=headers, timeout=60)
        content = fetch(response.json()["url"]).content
        denied = requests.get(ready["api_url"] + "/segments/list", headers=headers, timeout=60)
        os.kill(ready["pid"], number)
        rest = process.stderr.read()
        code = process.wait(60)
    assert code == 0
    assert ready["pid"] == process.pid
    assert ready["api_key"] == "mine"
    assert ready["segment_ids"] == ["all-users", "vip-users", "empty-segment"]
    assert response.status_code == 200
    assert len(members(content)[0]) == 12
    assert denied.status_code == 403
    assert ready["api_url"] in greeting
    assert re.fullmatch(r"20\S+Z export of segment all-users: 12 of 12 users\n", rest)
    assert '"api_key": "mine"' in greeting


def test_document_names_faults_that_exist() -> None:
    rows = re.findall(
        r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", (ROOT / "docs" / "sandbox.md").read_text("utf-8"), re.MULTILINE
    )
    named = [name for row in rows for name in re.findall("[a-z-]+", row)]
    assert len(named) == 13
    assert set(named) <= FAULTS.keys()
    assert len(FAULTS) > 40  # as it says there
