"""A client of a scripted server on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_braze_export.braze.client import Braze
from tap_braze_export.sessions import Session
from tests.support.braze_calls import KEY
from tests.support.fakes import FakeClock, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def braze(server: Server, clock: FakeClock) -> Iterator[Braze]:
    with Session() as session:
        yield Braze(f" {server.url}/ ", f"{KEY}\n", clock=clock, session=session)
