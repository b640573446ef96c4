"""Numbers in stream maps: expressions calculate with floats, and what they leave alone keeps every digit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from tap_braze_export.rows.exact_json import read_number

if TYPE_CHECKING:
    from decimal import Decimal


class ExactFloat(float):
    """A float that remembers the number it was read from; the result of a calculation is a plain float.

    Attributes:
        exact: The number with every digit.
    """

    __slots__ = ("exact",)

    exact: Decimal

    @override
    def __str__(self) -> str:
        """The number with every digit."""
        return str(self.exact)


def exact(value: Any) -> Any:
    """Replace floats that no expression touched by what they were read from."""
    if isinstance(value, ExactFloat):
        return value.exact
    if isinstance(value, dict):
        return {name: exact(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(item) for item in value]
    return value


def _read_float(text: str) -> ExactFloat | str:
    number = read_number(text)
    if isinstance(number, str):
        return number
    made = ExactFloat(text)
    made.exact = number
    return made


DECODER = msgspec.json.Decoder(float_hook=_read_float)
"""Decodes rows for stream maps."""
