"""The code keeps its shape: parts import downwards only, folders are described, files and docstrings stay readable."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tap_braze_export"
MOST_LINES_OF_A_MODULE, MOST_LINES_OF_A_TEST = 360, 500
# The sandbox is a package of its own, which tests and benchmarks import by its name.
PARTS = [path for path in sorted(PACKAGE.glob("*/__init__.py")) if path.parent.name != "sandbox"]
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the imports of the package in a folder against the contracts in pyproject.toml."""
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--no-logo",
        str(ROOT / "pyproject.toml"),
    ]
    environment = {**os.environ, "COLUMNS": "200"}  # or long lines are wrapped
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_keep_the_order_of_the_parts() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("clock", "errors"),
        ("rows.device_key", "files.storage"),
        ("exports.lifecycle", "resync.lifecycle"),
        ("sandbox.limits", "errors"),
        ("tap", "sandbox"),
    ],
)
def test_an_import_against_the_order_is_found(tmp_path: Path, importer: str, imported: str) -> None:
    """Also one for type checking alone."""
    copy = tmp_path / "tap_braze_export"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / f"{importer.replace('.', '/')}.py").open("a") as module:
        module.write(f"\nif TYPE_CHECKING:\n    import tap_braze_export.{imported}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert f"tap_braze_export.{importer} -> tap_braze_export.{imported}" in done.stdout


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.parent.name)
def test_the_file_of_a_folder_is_one_docstring(path: Path) -> None:
    """It says what the part does and may import, and imports nothing: a worker pays for no module it does not need."""
    (statement,) = ast.parse(path.read_text("utf-8")).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_its_docstrings_are_statements(path: Path) -> None:
    """A module fits one sitting; a docstring says who does what, and begins with neither "What" nor "Whether"."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= (MOST_LINES_OF_A_MODULE if path in MODULES else MOST_LINES_OF_A_TEST)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    assert not [text for text in docstrings if text and text.split()[0] in ("What", "Whether")]
