"""The wheel, which is what ships, is built, installed alone, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.external

ROOT = Path(__file__).parents[2]


def uv() -> str:
    """The uv that the Makefile uses."""
    places = (os.environ.get("UV"), shutil.which("uv"), ROOT / ".cache" / "uv" / "bin" / "uv")
    found = next((str(place) for place in places if place and Path(place).exists()), None)
    if found is None:
        pytest.fail("uv is missing: run `make setup`")
    return found


def run(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command without the virtual environment and settings of this process."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_", "TAP_"))}
    return subprocess.run(command, env=surroundings, cwd=ROOT, capture_output=True, timeout=300, check=False)


def output(done: subprocess.CompletedProcess[bytes]) -> bytes:
    """The standard output of a command that must have worked."""
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def with_uv(*arguments: str) -> None:
    """Run uv with the packages that `make setup` has fetched, and with the package index only if that fails."""
    done = run(uv(), *arguments, "--quiet", "--offline")
    output(done if done.returncode == 0 else run(uv(), *arguments, "--quiet"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    with_uv("build", "--wheel", "--out-dir", str(folder), "--python", sys.executable)
    (path,) = folder.glob("*.whl")
    return path


def test_contents(wheel: Path) -> None:
    """The package with its data and type marker, and nothing of the project around it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("tap_braze_export/")}
    data = {"py.typed", "report/page.html.j2", "sandbox/odd_users.jsonl"}
    assert {f"tap_braze_export/{name}" for name in data} <= package
    assert all(".dist-info/" in name for name in names - package)
    assert len([name for name in names if name.endswith("licenses/LICENSE")]) == 1


def test_installed_alone(wheel: Path, tmp_path: Path) -> None:
    """--about and --discover work in an environment with the wheel and its dependencies only."""
    python = tmp_path / "venv" / "bin" / "python"
    with_uv("venv", "--python", sys.executable, str(tmp_path / "venv"))
    with_uv("pip", "install", "--python", str(python), str(wheel))
    tap = str(python.with_name("tap-braze-export"))
    about = json.loads(output(run(tap, "--about", "--format=json")))
    assert about["name"] == "tap-braze-export"
    assert wheel.name.startswith(f"tap_braze_export-{about['version']}-")
    assert len(json.loads(output(run(tap, "--discover")))["streams"]) == 14
