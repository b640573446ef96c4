"""The files of docs/deploy.md are what the page says, as far as a machine without containers can tell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tap_braze_export.settings import Settings
from tests.support.loaders import ROOT
from tests.support.runs import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy"


@pytest.fixture
def cron() -> dict[str, Any]:
    """The specification of the CronJob."""
    job = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    return dict(job["spec"])


def test_the_cronjob_runs_once_at_a_time_without_rights(cron: dict[str, Any]) -> None:
    pod = cron["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    spool = next(volume for volume in pod["volumes"] if volume["name"] == "spool")
    assert "persistentVolumeClaim" in spool


def test_a_stopped_or_evicted_run_has_not_failed(cron: dict[str, Any]) -> None:
    """The next pod waits for the end of the last one; such a policy needs pods that are not restarted in place."""
    job = cron["jobTemplate"]["spec"]
    assert job["podReplacementPolicy"] == "Failed"
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    unit = (DEPLOY / "tap-braze-export.service").read_text(encoding="utf-8")
    assert "\nSuccessExitStatus=143 SIGTERM\n" in unit


@pytest.mark.parametrize("name", ["cronjob.yaml", "tap-braze-export.service"])
def test_the_page_says_what_each_line_is_for(name: str) -> None:
    """The lines that decide how a run starts and ends; those with names and settings explain themselves."""
    lines = (DEPLOY / name).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    keys = r"^ *([a-zA-Z]+(?:Policy|Limit|Seconds|NonRoot|User|Group|Filesystem|Escalation)):"
    options = r"^([A-Z]\w+(?:Sec|Status|Mode|StateDirectory|Paths|System|Home|Tmp|File|Privileges))="
    words = re.findall(keys, lines, re.MULTILINE) + re.findall(options, lines, re.MULTILINE)
    assert len(words) >= 9
    assert [word for word in words if word not in page and not word.endswith("JobsHistoryLimit")] == []


def test_the_cronjob_has_known_settings_and_no_secret(cron: dict[str, Any]) -> None:
    (container,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    for variable in container["env"]:
        name = variable["name"].removeprefix("TAP_BRAZE_EXPORT_").lower()
        assert name in Settings.__dataclass_fields__
        assert ("valueFrom" in variable) == (name == "api_key")


@pytest.mark.sandbox(users=20, delay=0, odd_users=False)
def test_the_cronjob_hands_state_on(cron: dict[str, Any], sandbox: Sandbox, tmp_path: Path) -> None:
    """Its script, typed twice with a loader that prints STATE: the second run begins with the first one's."""
    (container,) = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    programs, spool = tmp_path / "bin", tmp_path / "spool"
    programs.mkdir()
    spool.mkdir(0o700)
    loader = programs / "your-loader"
    loader.write_text('#!/bin/sh\nexec sed -nE \'s/^\\{"type":"STATE","value":(.*)\\}$/\\1/p\'\n')
    loader.chmod(0o755)
    tap = programs / "tap-braze-export"
    tap.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\nexec {COMMAND} "$@"\n')
    tap.chmod(0o755)
    variables = {f"TAP_BRAZE_EXPORT_{name.upper()}": _text(value) for name, value in sandbox.config.items()}
    variables |= {
        "TAP_BRAZE_EXPORT_SPOOL_DIR": str(spool),
        "PATH": f"{programs}:/usr/bin:/bin",
    }
    for _night in (1, 2):
        words = [*container["command"], script.replace("/spool/", f"{spool}/").replace("/tmp/tap", f"{tmp_path}/tap")]
        done = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
    state = spool / "state.json"
    assert "bookmarks" in json.loads(state.read_text())
    assert (tmp_path / "arguments").read_text().splitlines() == ["--config=ENV", f"--config=ENV --state {state}"]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_containerfile_has_no_root_and_installs_known_extras() -> None:
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    assert "USER 10001" in lines
    assert "VOLUME /spool" in lines
    (extras,) = re.findall(r"/source\[([a-z0-9,]+)\]", "\n".join(lines))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"\n{extra} = [" in project for extra in extras.split(","))


READ_ONLY = """
mount --bind "$TAP_BRAZE_EXPORT_SPOOL_DIR" "$TAP_BRAZE_EXPORT_SPOOL_DIR"
mount -o remount,bind,ro /
! touch /written 2> /dev/null
exec "$0" --config=ENV
"""


def _may_mount() -> bool:
    """True if this user may mount directories in a namespace of its own."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "--mount", "true"], check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="mounts the root read-only in a namespace of its own")
@pytest.mark.sandbox(users=20, delay=0, odd_users=False)
def test_a_read_only_root_is_enough(sandbox: Sandbox, tmp_path: Path) -> None:
    """As in the container: only the spool can be written, and there is no home."""
    spool = tmp_path / "spool"
    spool.mkdir(0o700)
    variables = {f"TAP_BRAZE_EXPORT_{name.upper()}": _text(value) for name, value in sandbox.config.items()}
    variables |= {"TAP_BRAZE_EXPORT_SPOOL_DIR": str(spool), "HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    words = ["unshare", "--mount", "bash", "-euc", READ_ONLY, COMMAND]
    done = subprocess.run(words, env=variables, cwd="/", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b'"type":"RECORD","stream":"users"') == 20


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("name", ["tap-braze-export.service", "tap-braze-export.timer"])
def test_systemd_knows_every_line(name: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "deploy" / name)]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr


@pytest.mark.parametrize("name", ["airflow_dag.py", "dagster_job.py", "load_duckdb.py"])
def test_scripts_compile(name: str) -> None:
    compile((DEPLOY / name).read_text(encoding="utf-8"), name, "exec", dont_inherit=True)
