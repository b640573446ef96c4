"""The identifiers that Braze refuses: each is found by splitting its request, left out, and named by its row."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tap_braze_export.errors import BrazeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tap_braze_export.resync.id_requests import Request
    from tap_braze_export.resync.identifiers import Identifier

_MAX_TOLD_RANGES = 5
_log = logging.getLogger(__name__)


@dataclass
class _Range:
    """Consecutive rows of a setting or of the file."""

    setting: str
    first: int
    last: int

    def __str__(self) -> str:
        rows = f"row {self.first}" if self.first == self.last else f"rows {self.first} to {self.last}"
        return f"{self.setting} {rows}"


class Refusals:
    """Finds and counts what Braze refuses in a resync; no identifier is shown, only its row.

    Args:
        before: Identifiers that Braze refused in earlier runs of this resync.
    """

    def __init__(self, before: int) -> None:
        self._before = before
        self._count = 0
        self._first_ranges: list[_Range] = []
        self._last_error = ""
        self._fields_are_accepted = False

    @property
    def count(self) -> int:
        """Identifiers refused so far, in all runs of this resync."""
        return self._before + self._count

    def smaller_requests(self, request: Request, error: BrazeError) -> Sequence[Request]:
        """The requests to send instead of a refused one; none if a single identifier is at fault.

        While Braze has accepted nothing, it may find fault with the fields: a single identifier is then asked for
        once more, with no other field than `braze_id`.
        """
        self._last_error = str(error)
        if halves := request.halves():
            return halves
        if self._fields_are_accepted or request.has_no_fields:
            return ()
        return (replace(request, has_no_fields=True),)

    def accepted(self, request: Request) -> None:
        """Note that Braze accepts a request.

        Raises:
            BrazeError: If it refused the same request with the fields that are selected.
        """
        if request.has_no_fields:
            raise BrazeError(
                f"{self._last_error}, but not if only braze_id is asked for: check extra_export_fields, and deselect"
                " what Braze does not know"
            )
        self._fields_are_accepted = True

    def tell(self, identifiers: Iterable[Identifier]) -> None:
        """Log the rows of refused identifiers, which STATE is about to cover."""
        refused = list(identifiers)
        ranges = list(_ranges(refused))
        self._first_ranges += ranges[: _MAX_TOLD_RANGES + 1]
        self._count += len(refused)
        if refused:
            rows = ", ".join(str(each) for each in ranges)
            _log.warning("%s: %s; left out: %s", _counted(len(refused)), self._last_error, rows)

    def __str__(self) -> str:
        """All of them in one line for the end of the run; empty if there are none."""
        if not self.count:
            return ""
        told = [str(each) for each in self._first_ranges[:_MAX_TOLD_RANGES]]
        told += ["…"] * (len(self._first_ranges) > _MAX_TOLD_RANGES)
        told += [f"{self._before:,} in an earlier run"] * bool(self._before)
        reason = f": {self._last_error}" if self._count else ""
        return (
            f"{_counted(self.count)} and left out ({', '.join(told)}){reason}; everybody else was asked for. Correct or"
            " remove these rows, all of which stand in the log's warnings"
        )


def _counted(count: int) -> str:
    return f"{count:,} identifier{'s were' if count > 1 else ' was'} refused by Braze"


def _ranges(identifiers: Iterable[Identifier]) -> Iterator[_Range]:
    """The rows of identifiers, consecutive ones together."""
    numbered = enumerate(dict.fromkeys((each.setting, each.row) for each in identifiers))
    for (setting, _), group in itertools.groupby(numbered, lambda item: (item[1][0], item[1][1] - item[0])):
        rows = [row for _, (_, row) in group]
        yield _Range(setting, rows[0], rows[-1])
