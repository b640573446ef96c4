"""When an export counts as requested: by the request that Braze accepted, or did not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tap_braze_export.braze.client import Braze
from tap_braze_export.exports.job import ExportJob
from tap_braze_export.exports.journal import Journal
from tap_braze_export.exports.scope import Scope, Source
from tap_braze_export.files.spool import Spool
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings
from tests.support.deliveries import shared
from tests.support.fakes import FakeClock, Server, as_json, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fakes import Answer

PREFIX = "bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1800000000"
STARTED = as_json({"object_prefix": PREFIX, "url": "https://store.example.org/users.zip"})
EVERYBODY = Scope(None)
SOURCES = [
    Source("segment", "all-users", RequestedFields(("braze_id",))),
    Source("global_control_group", "", RequestedFields(("braze_id",))),
]


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Journal:
    spool = Spool(str(tmp_path / "spool"), clock=clock)
    spool.open()
    return Journal(spool, "https://rest.example.org", ("segment", "all-users"), {})


def job_of(
    source: Source,
    url: str,
    *,
    clock: FakeClock,
    journal: Journal,
    session: requests.Session,
    bucket_url: str | None = None,
    scope: Scope = EVERYBODY,
) -> ExportJob:
    """An export that is requested at this address."""
    settings = Settings(api_url=url, api_key="key", bucket_url=bucket_url)
    client = Braze(url, "key", clock=clock, session=session)
    return ExportJob(source, scope, journal, shared(settings, journal.spool, client=client, clock=clock))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def limited(clock: FakeClock, seconds: int) -> Answer:
    """A refusal because of the rate limit."""
    reset = str(int(clock.time) + seconds)
    return as_json({"message": "Rate limited"}, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset)


def at_this_time(clock: FakeClock, times: list[float], answer: Answer) -> Callable[..., None]:
    """An answer that notes when its request came."""

    def give(handler: object) -> None:
        times.append(clock.time)
        handler.give(answer)  # type: ignore[attr-defined]

    return give


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_a_request_that_waited_for_the_rate_limit_is_dated_by_the_accepted_try(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session, source: Source
) -> None:
    """Twenty minutes of refusals are no age of the data."""
    began, times = clock.time, list[float]()
    accepted = at_this_time(clock, times, STARTED)
    server.answers = [limited(clock, 600), limited(clock, 1_200), accepted]

    job = job_of(source, server.url, clock=clock, journal=journal, session=session)
    assert job.start()

    assert job.bookmark.export.requested_at == pytest.approx(times[0], abs=1e-5)
    assert times[0] > began + 1_200
    assert job.bookmark.export.exported_at == job.bookmark.to_dict()["requested_at"]


def test_a_request_repeated_after_a_failed_connection_is_dated_by_the_accepted_try(
    server: Server, clock: FakeClock, journal: Journal
) -> None:
    """Whatever came first reached nobody."""

    class Unreachable(requests.Session):
        failures = 3

        def send(self, request: requests.PreparedRequest, **options: object) -> requests.Response:
            if self.failures:
                self.failures -= 1
                raise requests.ConnectTimeout
            return super().send(request, **options)  # type: ignore[arg-type]

    began, times = clock.time, list[float]()
    server.answers = [at_this_time(clock, times, STARTED)]

    with Unreachable() as session:
        job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session)
    assert job.start()

    assert job.bookmark.export.requested_at == pytest.approx(times[0], abs=1e-5)
    assert times[0] > began


def test_a_lost_response_is_dated_by_the_request_that_it_belongs_to(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session, tmp_path: Path
) -> None:
    """After a wait for the rate limit, too: else its folder in the bucket is not known again by its time."""
    server.answers = [limited(clock, 600), hang_up]
    (tmp_path / "bucket").mkdir()
    bucket_url = str(tmp_path / "bucket")
    job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session, bucket_url=bucket_url)

    assert not job.start()
    sent_at = clock.time
    journalled = journal.read()
    assert journalled is not None
    assert journalled.export.requested_at == pytest.approx(sent_at, abs=1e-5)
    folder = tmp_path / "bucket" / "segment-export" / "all-users" / "2027-01-15" / f"some-name-{int(sent_at)}"
    folder.mkdir(parents=True)
    (folder / "a.zip").write_bytes(b"")
    clock.time += 3_600
    assert job.start()

    assert job.bookmark.export.requested_at == pytest.approx(sent_at, abs=1e-5)
    assert len(server.seen) == 2


def test_a_lost_response_keeps_the_time_of_the_first_request(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session
) -> None:
    server.answers = [hang_up]
    job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session)
    began = clock.time

    for _ in range(3):
        assert not job.start()
        clock.time += 60

    journalled = journal.read()
    assert journalled is not None
    assert journalled.export.requested_at == began


def test_a_request_that_waited_for_another_export_is_dated_by_the_accepted_try(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session
) -> None:
    running = as_json({"message": "An export is already in progress"}, 429)
    server.answers = [running, STARTED]
    job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session)

    assert not job.start()
    clock.time += 1_000
    assert job.start()

    assert job.bookmark.export.requested_at == clock.time


def test_long_waits_for_another_export_are_logged(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Each that is longer than half a minute, with its reason."""
    caplog.set_level("INFO", "tap_braze_export")
    server.answers = [as_json({"message": "An export is already in progress"}, 429)]
    job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session)

    waits = []
    for _ in range(8):
        assert not job.start()
        waits.append(job.timer.next - clock.elapsed)
        clock.elapsed = job.timer.next

    assert [message for message in caplog.messages if "requested again" in message] == [
        f"The export of segment all-users is requested again in {wait:.0f} s: Braze is still exporting it"
        for wait in waits
        if wait > 30
    ]
    assert max(waits) == 60


def test_a_refused_filter_is_told_with_every_error(
    server: Server, clock: FakeClock, journal: Journal, session: requests.Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Braze may list several; the advice for other parameters is left out."""
    errors = [{"id": "bad-time", "message": "no such parameter"}, {"id": "second", "message": "another one"}]
    server.answers = [as_json({"errors": errors}, 400), STARTED]
    since = Scope(1_800_000_000.0, is_full=False)
    job = job_of(SOURCES[0], server.url, clock=clock, journal=journal, session=session, scope=since)
    assert job.start()

    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.partition("refused with ")[2] == "400 (no such parameter; another one)"
