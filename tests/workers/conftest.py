"""The Dask cluster that several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import pytest
from distributed import LocalCluster

from tests.support.dask import ANY_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two processes with a thread each; a task that killed two is not given to a third."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=ANY_PORT) as cluster,
    ):
        yield cluster
