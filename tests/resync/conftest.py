"""The local Braze of these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.resyncs import PEOPLE

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A workspace with PEOPLE, and a limit that no test comes near."""
    with Sandbox(users=0, ids_limit=1_000_000) as sandbox:
        sandbox.add_segment("people", PEOPLE)
        yield sandbox
