"""A scripted server on loopback, and a bucket of a stand-in for S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.files.bucket import Bucket
from tests.support.fakes import FakeClock, Server
from tests.support.s3 import SECRET, ScriptedS3

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
def store(server: Server) -> ScriptedS3:
    store = ScriptedS3()
    server.answers = [store]
    return store


@pytest.fixture
def options(server: Server) -> dict[str, Any]:
    return {
        "key": "s3-access-key",
        "secret": SECRET,
        "endpoint_url": server.url,
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }


@pytest.fixture
def s3(options: dict[str, Any], clock: FakeClock) -> Bucket:
    return Bucket("s3://bucket/braze/users", options, clock=clock)
