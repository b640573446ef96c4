"""The fault matrix: what the tests that are marked as its rows say of themselves, as tables."""  # noqa: INP001

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_DOORS = (
    "Braze's answers",
    "Download",
    "Archive",
    "Lines",
    "Bucket",
    "Local disk",
    "STATE",
    "Loader and signals",
    "Workers",
)
"""Where a fault comes in, in the order of the tables."""
_MARKS = ("fault", "row", "night_row")
"""`pytest.mark.fault` marks a whole test, the others, of tests/support/faults.py, one set of its parameters."""


class _Row(NamedTuple):
    door: str
    fault: str
    outcome: str


def fault_matrix(root: Path) -> str:
    """A table for each door, with a link to the tests of each row.

    Args:
        root: The checkout.

    Raises:
        ValueError: A row names a door that there is not.
    """
    tests: dict[_Row, list[str]] = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        for row, name in _rows(ast.parse(path.read_text(encoding="utf-8"))):
            link = f"[{name}](../{path.relative_to(root).as_posix()})"
            if link not in tests[row]:
                tests[row].append(link)
    if strange := sorted({row.door for row in tests} - {*_DOORS}):
        raise ValueError(f"rows of the fault matrix name no known door: {strange}")
    parts = []
    for door in _DOORS:
        rows = {row: links for row, links in tests.items() if row.door == door}
        lines = [f"### {door}", "", "| fault | outcome | tests |", "|---|---|---|"]
        lines += [f"| {row.fault} | {row.outcome} | {', '.join(links)} |" for row, links in rows.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n" + "\n".join(parts) + "\n"


def _rows(module: ast.Module) -> Iterator[tuple[_Row, str]]:
    """The rows in the decorators of a module's tests, and the tests' names."""
    constants = {
        target.id: statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for test in module.body:
        if isinstance(test, ast.FunctionDef):
            for decorator in test.decorator_list:
                for node in ast.walk(decorator):
                    if isinstance(node, ast.Call) and _name(node.func) in _MARKS:
                        door, fault, outcome = (_text(argument, constants) for argument in node.args[:3])
                        yield _Row(door, fault, outcome), test.name


def _name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _text(argument: ast.expr, constants: Mapping[str, object]) -> str:
    """A text, or a module's constant, as a cell of a table."""
    value = constants[argument.id] if isinstance(argument, ast.Name) else ast.literal_eval(argument)
    return str(value).replace("|", "\\|")
