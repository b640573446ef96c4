"""A name in a setting or a rule that matches nothing, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tap_braze_export.errors import ConfigError, one_line

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

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
    by_remedy: dict[str, dict[str, None]] = {}
    for problem in problems:
        by_remedy.setdefault(problem.remedy, {})[problem.text] = None
    words = []
    for remedy, given in by_remedy.items():
        texts, rest = [*given][:_MAX_NAMED], len(given) - _MAX_NAMED
        texts += [f"{rest} more"] if rest > 0 else []
        words.append(f"{'; '.join(texts)}{': ' if remedy else ''}{remedy}")
    return words


def warn(problems: Iterable[Problem], logger: logging.Logger) -> None:
    """Log problems, none of which ends anything."""
    for problem in dict.fromkeys(problems):
        logger.warning("%s", one_line("; ".join(in_words([problem]))))


def refuse(problems: Iterable[Problem], logger: logging.Logger) -> None:
    """Log what does no harm.

    Raises:
        ConfigError: Something does; the message names all of it.
    """
    listed = [*problems]
    warn((problem for problem in listed if not problem.is_refused), logger)
    if refused := in_words(problem for problem in listed if problem.is_refused):
        raise ConfigError("; ".join(refused))
