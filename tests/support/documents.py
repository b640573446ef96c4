"""The commands and settings that README and the documents show."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.support.loaders import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHELLS = {"console", "sh", "bash", "shell", "zsh"}
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s+)#\s.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        document: The file's name.
        language: Of the block; empty if it names none.
        text: What stands in it.
    """

    document: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands, one a line, without comments."""
        lines = [_COMMENT.sub("", line).strip().removeprefix("$ ") for line in self.text.splitlines()]
        return [line for line in lines if line]


def paths() -> list[Path]:
    """README, the documents, and the notes for contributors."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


@cache
def blocks() -> tuple[Block, ...]:
    """Every fenced block of README, of the documents and of the notes for contributors."""
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in paths()]
    return tuple(Block(name, language, content) for name, text in texts for language, content in _fenced(text))


def _fenced(text: str) -> Iterator[tuple[str, str]]:
    for _indent, language, content in _BLOCK.findall(text):
        yield language, content


def shell_blocks() -> list[Block]:
    """The blocks of commands."""
    return [block for block in blocks() if block.language in SHELLS]


def commands() -> list[str]:
    """All commands, in the order in which they stand."""
    return [command for block in shell_blocks() for command in block.commands]


def json_blocks() -> list[dict[str, Any]]:
    """The blocks of JSON."""
    return [json.loads(block.text) for block in blocks() if block.language == "json"]


def queries(document: str) -> list[str]:
    """The blocks of SQL of one document."""
    return [block.text for block in blocks() if (block.document, block.language) == (document, "sql")]
