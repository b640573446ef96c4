"""Night after night on one spool_dir and one STATE: nothing grows. `python -m tests.support.soak` runs 200 nights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.night import at_night
from tests.support.soak import grown, soak

if TYPE_CHECKING:
    from pathlib import Path

NIGHTS = 36
"""Fingerprints are kept for fourteen days: after sixteen nights each one removes what another has left."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", at_night([{}, {"fingerprints_url": None}], but=[{}]), ids=["fingerprints", "without"]
)
def test_nothing_grows(tmp_path: Path, config: dict[str, Any]) -> None:
    """The later nights leave no more files, bytes, STATE, memory, open files and threads than the earlier ones."""
    traces = list(soak(tmp_path, NIGHTS, **config))

    assert traces[0].spool_files
    assert bool(traces[-1].fingerprint_files) == ("fingerprints_url" not in config)
    assert grown(traces) == {}
