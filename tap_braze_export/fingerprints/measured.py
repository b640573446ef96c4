"""Measures Braze's filter of updated users: whom a full export finds changed that an incremental one did not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tap_braze_export.fingerprints.columns import Column
    from tap_braze_export.fingerprints.known import BlockFingerprints

_MOST_NAMED = 5_000_000
"""Users that incremental exports may have, so that their keys take 40 MB at most."""


class MeasuredFilter:
    """The users of the incremental exports of a run, to be compared with those of the full exports that follow.

    Attributes:
        changed: Users of the incremental exports that had changed.
    """

    def __init__(self) -> None:
        self.changed = 0
        self._count = 0
        self._blocks: list[Column] = []
        self._keys: Column | None = None

    def named(self, block: BlockFingerprints) -> None:
        """Note the users of a block of an incremental export: the filter has named them."""
        self.changed += int(np.count_nonzero(block.are_emitted))
        self._count += len(block.seen)
        if self._count <= _MOST_NAMED:
            self._blocks.append(block.seen)

    def missed(self, block: BlockFingerprints) -> int | None:
        """Count the changed users of a full export's block that no incremental one had; None if it has too many."""
        if self._count > _MOST_NAMED:
            return None
        if self._keys is None:
            self._keys = np.unique(np.concatenate(self._blocks)) if self._blocks else np.zeros(0, "<u8")
            self._blocks.clear()
        emitted = block.keys[block.are_emitted]
        return int(np.count_nonzero(~np.isin(emitted, self._keys)))
