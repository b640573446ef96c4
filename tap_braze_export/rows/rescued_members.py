"""Counts rows by rescued member, under names that cannot be personal data."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    MemberCounts = Counter[tuple[str, str]]
    """Rows by stream and rescued member."""

OTHER = ""
"""Stands for all members whose names are not kept."""
_MOST_NAMES = 100
"""Members that are counted by name; those of a row beyond them are not even read."""
_MOST_CHARS, _MOST_DIGITS = 64, 4
_find_name = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)?", re.ASCII | re.IGNORECASE).fullmatch
_digits = re.compile(r"\d", re.ASCII).findall


def kept_names(members: Collection[str]) -> tuple[str, ...]:
    """The names of one row's rescued members that may be shown; `OTHER` once for all others."""
    names = [name for name in islice(members, _MOST_NAMES) if _is_plain(name)]
    return tuple(names) if len(names) == len(members) else (*names, OTHER)


def count_rows(stream: str, rescued: Sequence[Mapping[str, object]], counts: MemberCounts) -> None:
    """Count rows by the names of their rescued members.

    Args:
        stream: Their stream.
        rescued: The rescued data of each row.
        counts: Receives the numbers.
    """
    names = Counter(chain.from_iterable(rescued))
    add(counts, (((stream, name), rows) for name, rows in names.items() if _is_plain(name)))
    if others := [name for name in names if not _is_plain(name)]:
        counts[stream, OTHER] += sum(not data.keys().isdisjoint(others) for data in rescued)


def add(counts: MemberCounts, more: Iterable[tuple[tuple[str, str], int]]) -> None:
    """Add numbers of rows, by name for as many members as may have one."""
    for (stream, name), rows in more:
        known = (stream, name) in counts or len(counts) < _MOST_NAMES
        counts[stream, name if known else OTHER] += rows


def _is_plain(name: str) -> bool:
    """True for names such as Braze gives its fields: identifiers of few digits, so no address, number or id."""
    return len(name) <= _MOST_CHARS and bool(_find_name(name)) and len(_digits(name)) <= _MOST_DIGITS
