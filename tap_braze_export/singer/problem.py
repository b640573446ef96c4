"""A name in a setting or a rule that matches nothing, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MAX_NAMED = 10


class Problem(NamedTuple):
    """A name that matches nothing, or the fault of an expression.

    Attributes:
        text: Which setting and which name, without values of rows.
        remedy: Why it matters and what to do, where the text does not say so; told once for several problems.
        is_refused: True if the run would export what the user meant to take away, or could not end well.
    """

    text: str
    remedy: str = ""
    is_refused: bool = True


def in_words(problems: Iterable[Problem]) -> list[str]:
    """Word problems, those with one remedy together."""
    by_remedy: dict[str, list[str]] = {}
    for problem in problems:
        texts = by_remedy.setdefault(problem.remedy, [])
        if problem.text not in texts:
            texts.append(problem.text)
    return [
        f"{'; '.join([*texts[:_MAX_NAMED], *_rest(texts)])}{': ' if remedy else ''}{remedy}"
        for remedy, texts in by_remedy.items()
    ]


def _rest(texts: Sequence[str]) -> list[str]:
    return [f"{len(texts) - _MAX_NAMED} more"] if len(texts) > _MAX_NAMED else []
