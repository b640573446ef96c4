"""The error lines in docs/troubleshooting.md are those of the code."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.support import documents
from tests.support.loaders import ROOT

LINES = [
    " ".join(block.text.split())
    for block in documents.blocks()
    if (block.document, block.language) == ("troubleshooting.md", "text")
]
GAP = "…"
"""Stands for what differs from error to error."""


@functools.cache
def texts() -> list[str]:
    """Every text of the package; its parts that are computed as a gap."""
    found = []
    for path in (ROOT / "tap_braze_export").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_there_are_lines() -> None:
    assert len(LINES) > 12


@pytest.mark.parametrize("line", LINES)
def test_a_documented_line_is_one_of_the_code(line: str) -> None:
    pattern = ".*".join(re.escape(part) for part in line.split(GAP))
    assert any(re.search(pattern, text) for text in texts()), line
