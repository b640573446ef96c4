"""A name in a setting or a rule that matches nothing, in words."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """A name that matches nothing, or the fault of an expression.

    Attributes:
        text: One line without values of rows: which setting, which name, and what to do.
        is_refused: True if the run would export what the user meant to take away, or could not end well.
    """

    text: str
    is_refused: bool = True
