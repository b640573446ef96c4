"""Fixtures that several test modules share, and the marks that follow from them."""

from __future__ import annotations

import contextlib
import functools
import gc
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.braze.client import Braze
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.http.session import Session
from tap_braze_export.sandbox import Sandbox
from tests.support import clouds
from tests.support.braze_calls import KEY
from tests.support.fakes import FakeClock, Server
from tests.support.night import NIGHT
from tests.support.postgres import Postgres, running_postgres
from tests.support.s3 import SECRET, ScriptedS3
from tests.support.sandbox_client import CallbackReceiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import LocalCluster

SERVERS = ("cloud", "cluster", "postgres")
"""Fixtures that start servers: a test that uses one is external."""

LONGEST_NAMED_BYTES = 40


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, leave those of the night to it, and put the long ones first.

    So all processes end at about the same time.
    """
    if not NIGHT:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("night")])
        items[:] = [item for item in items if not item.get_closest_marker("night")]
    for item in items:
        if not {*SERVERS}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.external)
    items.sort(key=lambda item: not (item.get_closest_marker("slow") or item.get_closest_marker("external")))


def pytest_collection_finish() -> None:
    """Take the collected tests, which stay, from the garbage collector's list: it looks through it all the time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Give them back: libraries in C complain of objects that outlive them."""
    gc.unfreeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes after their parameter: an archive holds the time, and all processes need the same names."""
    return argname if isinstance(val, bytes) and len(val) > LONGEST_NAMED_BYTES else None


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A local Braze with 40 users, or with the options of the mark `sandbox`.

    The mark takes the arguments of `Sandbox`, and `segments`: lists of users by the id of their segment.
    """
    mark = request.node.get_closest_marker("sandbox")
    options = {"users": 40, **(mark.kwargs if mark else {})}
    segments = options.pop("segments", {})
    with Sandbox(**options) as sandbox:
        for segment_id, users in segments.items():
            sandbox.add_segment(segment_id, users)
        yield sandbox


@pytest.fixture
def clock() -> FakeClock:
    """A clock on which waiting takes no time."""
    return FakeClock()


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server that gives the responses that a test lines up."""
    with Server() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    """A session of HTTP requests."""
    with Session() as session:
        yield session


@pytest.fixture
def braze(server: Server, clock: FakeClock, session: Session) -> Braze:
    """A client of that server."""
    return Braze(server.url, f"{KEY}\n", clock=clock, session=session)


@pytest.fixture
def scripted_s3(server: Server) -> ScriptedS3:
    """A stand-in for S3 behind that server, whose responses a test can change."""
    stand_in = ScriptedS3()
    server.answers = [stand_in]
    return stand_in


@pytest.fixture
def s3_options(server: Server) -> dict[str, Any]:
    """The options of fsspec for that stand-in."""
    return {
        "key": "s3-access-key",
        "secret": SECRET,
        "endpoint_url": server.url,
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }


@pytest.fixture
def s3(s3_options: dict[str, Any], clock: FakeClock) -> Bucket:
    """A bucket in that stand-in."""
    return Bucket("s3://bucket/braze/users", s3_options, clock=clock)


@pytest.fixture
def listener() -> Iterator[CallbackReceiver]:
    """A server that receives the callbacks of a sandbox."""
    with CallbackReceiver() as listener:
        yield listener


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], clouds.Store]]:
    """Give the store of a cloud, s3, gcs or azure; its server starts when it is first needed."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def store(name: str) -> clouds.Store:
            return servers.enter_context(clouds.SERVERS[name](tmp_path_factory.mktemp(name)))

        yield store


@pytest.fixture
def store(request: pytest.FixtureRequest, cloud: Callable[[str], clouds.Store]) -> clouds.Store:
    """The store of one cloud: S3's, unless the test is parametrized with another."""
    return cloud(getattr(request, "param", "s3"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole run; each test keeps to a schema of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A Dask cluster of two processes with a thread each; a task that killed two is not given to a third.

    It ends with the tests of a file: clusters that idle cost more than one that starts. So does their profiler.
    """
    import dask
    from distributed import LocalCluster

    from tests.support.dask import ANY_PORT

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1, "distributed.worker.profile.enabled": False}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=ANY_PORT) as cluster,
    ):
        yield cluster
