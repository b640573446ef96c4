"""Counts rows by rescued member, under names that cannot be personal data."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    MemberCounts = Counter[tuple[str, str]]
    """Rows by stream and rescued member."""

OTHER = ""
"""Stands for all members whose names are not kept."""
_MOST_NAMES = 100
"""Members that are counted by name; those of a row beyond them are not even read."""
_MOST_CHARS, _MOST_DIGITS = 64, 4
_find_name = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)?", re.ASCII | re.IGNORECASE).fullmatch
_digits = re.compile(r"\d", re.ASCII).findall


def count_rows(stream: str, rescued: Sequence[Mapping[str, object]], counts: MemberCounts) -> None:
    """Add the rows of a stream, given the rescued data of each, to the numbers of rows by member."""
    names = Counter(chain.from_iterable(islice(data, _MOST_NAMES) for data in rescued))
    add(counts, (((stream, name), rows) for name, rows in names.items() if _is_plain(name)))
    others = {name for name in names if not _is_plain(name)}
    if rows := sum(len(data) > _MOST_NAMES or not data.keys().isdisjoint(others) for data in rescued):
        counts[stream, OTHER] += rows


def add(counts: MemberCounts, more: Iterable[tuple[tuple[str, str], int]]) -> None:
    """Add numbers of rows, by name for as many members as may have one."""
    for (stream, name), rows in more:
        known = (stream, name) in counts or len(counts) < _MOST_NAMES
        counts[stream, name if known else OTHER] += rows


def _is_plain(name: str) -> bool:
    """True for names such as Braze gives its fields: identifiers of few digits, so no address, number or id."""
    return len(name) <= _MOST_CHARS and bool(_find_name(name)) and len(_digits(name)) <= _MOST_DIGITS
