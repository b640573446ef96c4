"""The code keeps its shape: parts import downwards only, folders are described, files and docstrings stay readable."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.night import at_night

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
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    environment = {**os.environ, "COLUMNS": "200"}  # or long lines are wrapped
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_imports_keep_the_order_of_the_parts() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("importer", "imported"),
    at_night(
        [
            ("clock", "errors"),
            ("rows.device_key", "files.storage"),
            ("exports.lifecycle", "resync.lifecycle"),
            ("sandbox.limits", "errors"),
            ("tap", "sandbox"),
        ],
        but=[("exports.lifecycle", "resync.lifecycle")],
    ),
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


def test_the_file_of_a_folder_is_one_docstring() -> None:
    """It says what the part does and may import, and imports nothing: a worker pays for no module it does not need."""
    for path in PARTS:
        (statement,) = ast.parse(path.read_text("utf-8")).body
        assert isinstance(statement, ast.Expr), path
        assert isinstance(statement.value, ast.Constant), path


def test_a_file_is_short_and_its_docstrings_are_statements() -> None:
    """A module fits one sitting; a docstring says who does what, and begins with neither "What" nor "Whether"."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in [*MODULES, *TESTS]:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= (MOST_LINES_OF_A_MODULE if path in MODULES else MOST_LINES_OF_A_TEST), path
        docstrings = [ast.get_docstring(node) for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
        assert not [text for text in docstrings if text and text.split()[0] in ("What", "Whether")], path


def imported_modules(path: Path) -> set[str]:
    """The top-level names that a module imports, for type checking alone, too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"tap_braze_export", "_typeshed"}


def test_every_library_that_the_package_imports_is_a_dependency_of_its_own() -> None:
    """Else an update of the library that happens to bring it breaks an installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    declared = {canonicalize_name(Requirement(each).name) for each in listed}
    distributions = packages_distributions()

    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in MODULES
        for module in imported_modules(path)
        if not {canonicalize_name(name) for name in distributions.get(module, ())} & declared
    }

    assert missing == set()
