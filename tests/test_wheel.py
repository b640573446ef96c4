"""What ships is the wheel: it is built, installed alone, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from runs import environment

ROOT = Path(__file__).parents[1]


def uv() -> str:
    """The uv that the Makefile uses."""
    places = (os.environ.get("UV"), shutil.which("uv"), ROOT / ".cache" / "uv" / "bin" / "uv")
    found = next((str(place) for place in places if place and Path(place).exists()), None)
    if found is None:
        pytest.fail("uv is missing: run `make setup`")
    return found


def run(*command: str, **variables: str) -> bytes:
    """The standard output of a command that must work."""
    cache = {name: os.environ[name] for name in ("UV_CACHE_DIR", "UV_OFFLINE") if name in os.environ}
    done = subprocess.run(
        command, env=environment(**cache, **variables), cwd=ROOT, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder), "--python", sys.executable)
    (path,) = folder.glob("*.whl")
    return path


def test_contents(wheel: Path) -> None:
    """The package with its data and type marker, and nothing of the project around it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if name.startswith("tap_braze_export/")}
    assert {"tap_braze_export/py.typed", "tap_braze_export/sandbox/odd_users.jsonl"} <= package
    assert all(".dist-info/" in name for name in names - package)
    assert len([name for name in names if name.endswith("licenses/LICENSE")]) == 1


def test_installed_alone(wheel: Path, tmp_path: Path) -> None:
    """In an empty environment, with the newest of what it asks for: --about and --discover."""
    python = tmp_path / "venv" / "bin" / "python"
    run(uv(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    run(uv(), "pip", "install", "--quiet", "--python", str(python), str(wheel))
    tap = str(python.with_name("tap-braze-export"))
    about = json.loads(run(tap, "--about", "--format=json"))
    assert about["name"] == "tap-braze-export"
    assert wheel.name.startswith(f"tap_braze_export-{about['version']}-")
    assert len(json.loads(run(tap, "--discover"))["streams"]) == 14
