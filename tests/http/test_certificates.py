"""Certificates that are not trusted, and files of certificates that are no such file: one line at once."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import zipfile
from typing import TYPE_CHECKING, Any

import aiohttp
import certifi
import pytest

from tap_braze_export.braze.client import Braze
from tap_braze_export.errors import BrazeError, ConfigError, InterruptedExportError
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.download import Download
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.http.session import Session
from tests.support.braze_calls import ALL, refused
from tests.support.fakes import Server, as_json
from tests.support.night import at_night
from tests.support.runs import selecting, sync
from tests.support.s3 import EXPORT, SECRET, ScriptedS3
from tests.support.tls import TlsServer, bad_bundles, self_signed, set_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fakes import FakeClock

pytestmark = pytest.mark.external  # it needs the command openssl and servers that speak TLS

ALL_USERS = {"message": "success", "name": "All users"}
BAD = ["missing", "a page", "empty", "cut off", "below a file"]
OVER_REQUESTS = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]


@pytest.fixture
def store() -> Iterator[TlsServer]:
    with TlsServer() as server:
        yield server


def downloaded(url: str, folder: Path, clock: FakeClock) -> str:
    """The message of the error in which a download's first attempt ends; it keeps the export."""
    with Session() as session:
        download = Download(
            f"{url}/users.zip?Signature=topsecret",
            path=folder / "object",
            session=session,
            clock=clock,
            deadline=clock.elapsed + 3_600,
        )
        with pytest.raises(InterruptedExportError) as caught:
            download.attempt()
    message = str(caught.value)
    assert "\n" not in message
    assert "topsecret" not in message
    return message


def listed(url: str, clock: FakeClock) -> str:
    """The message of the error in which the first listing of a bucket ends; it keeps the export."""
    options = {
        "key": "s3-access-key",
        "secret": SECRET,
        "endpoint_url": url,
        "client_kwargs": {"region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }
    with pytest.raises(InterruptedExportError) as caught:
        Bucket("s3://bucket/braze", options, clock=clock).objects(EXPORT, "seg")
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


# Braze


@pytest.mark.parametrize("call", ALL)
def test_braze_behind_an_untrusted_certificate_is_told_at_once(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, call: Callable[[Braze], object]
) -> None:
    set_only(monkeypatch)

    message = refused(call, Braze(store.url, "key", clock=clock), BrazeError)

    assert "the certificate of the host of api_url is not trusted (self-signed certificate)" in message
    assert "set REQUESTS_CA_BUNDLE" in message
    assert clock.slept == []
    assert store.seen == []


@pytest.mark.parametrize("variable", OVER_REQUESTS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_file_of_certificates_is_named_for_braze(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, variable: str, bad: str
) -> None:
    path, fault = bad_bundles(tmp_path)[bad]
    set_only(monkeypatch, **{variable: path})

    message = refused(ALL[0], Braze(store.url, "key", clock=clock), BrazeError)

    assert f"{variable} names {path}, which {fault}: " in message
    assert clock.slept == []


@pytest.mark.parametrize("variable", OVER_REQUESTS)
def test_variable_with_the_right_certificate_is_trusted(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    set_only(monkeypatch, **{variable: str(self_signed()[0])})
    store.answers = [as_json(ALL_USERS, 200)]

    assert Braze(store.url, "key", clock=clock).segment_details("seg") == ALL_USERS


def test_first_variable_decides_and_is_named(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in requests: a blank one counts as not set."""
    missing = str(tmp_path / "none.pem")
    set_only(monkeypatch, REQUESTS_CA_BUNDLE="", CURL_CA_BUNDLE=missing, SSL_CERT_FILE=str(self_signed()[0]))

    assert f"CURL_CA_BUNDLE names {missing}" in refused(ALL[0], Braze(store.url, "key", clock=clock), BrazeError)


def test_file_without_the_servers_certificate_is_named(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch, SSL_CERT_FILE=certifi.where())

    message = refused(ALL[0], Braze(store.url, "key", clock=clock), BrazeError)
    assert "SSL_CERT_FILE decides, so add your proxy's certificate, or the server's, to " in message


def test_bad_file_of_certificates_does_not_matter_without_tls(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is it blamed for another failure."""
    set_only(monkeypatch, REQUESTS_CA_BUNDLE=str(tmp_path / "none.pem"))
    with Server() as server:
        server.answers = [as_json(ALL_USERS, 200)]
        assert Braze(server.url, "key", clock=clock).segment_details("seg") == ALL_USERS
    message = refused(ALL[0], Braze(server.url, "key", clock=clock), BrazeError)
    assert "REQUESTS_CA_BUNDLE" not in message


# Downloads


def test_download_behind_an_untrusted_certificate_is_told_at_once(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_only(monkeypatch)

    message = downloaded(store.url, tmp_path, clock)

    assert message.startswith("users.zip cannot be fetched: the certificate of the store is not trusted (self-signed")


@pytest.mark.parametrize("variable", OVER_REQUESTS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_file_of_certificates_is_named_for_a_download(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, variable: str, bad: str
) -> None:
    path, fault = bad_bundles(tmp_path)[bad]
    set_only(monkeypatch, **{variable: path})

    assert f"{variable} names {path}, which {fault}: " in downloaded(store.url, tmp_path, clock)


def test_redirect_to_an_untrusted_host_is_told_at_once(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_only(monkeypatch)
    with Server() as first:
        first.answers = [(302, {"Location": f"{store.url}/users.zip"}, b"")]

        assert "the certificate of the store is not trusted" in downloaded(first.url, tmp_path, clock)


def test_export_whose_store_is_not_trusted_is_kept(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy signs anew for the store's host alone: the run fails with one line, and the next one continues."""
    prefix = f"bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-{int(clock.time)}"
    users = selecting(["users", "export_files"])
    set_only(monkeypatch)
    with Server() as braze:
        braze.answers = [as_json({"object_prefix": prefix, "url": f"{store.url}/users.zip?Signature=topsecret"})]
        spool = str(tmp_path / "spool")
        config: dict[str, Any] = {"api_url": braze.url, "api_key": "key", "segment_ids": ["s"], "spool_dir": spool}
        run = sync(config, clock=clock, catalog=users, fails=True)
        assert [seen.path for seen in braze.seen] == ["/users/export/segment"]
        assert "the certificate of the store is not trusted (self-signed certificate): " in run.error
        assert "topsecret" not in json.dumps([record.getMessage() for record in run.log])
        assert clock.slept == []

        set_only(monkeypatch, REQUESTS_CA_BUNDLE=str(self_signed()[0]))
        store.answers = [(200, {}, one_user())]
        braze.answers = [as_json({}, 403)]
        second = sync(config, clock=clock, catalog=users, state=run.states[-1])
    assert second.ids() == ["b1"]
    assert [line for line in second.lines if line.startswith(f"Continuing export {prefix}")]


def one_user() -> bytes:
    """A zip with one user."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("users.txt", '{"braze_id":"b1"}\n')
    return content.getvalue()


# Buckets


def test_bucket_behind_an_untrusted_certificate_is_told_at_once(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch)

    message = listed(store.url, clock)

    assert message.startswith("the bucket cannot be listed: the certificate of the bucket is not trusted (self-signed")
    assert "set AWS_CA_BUNDLE" in message
    assert clock.slept == []


@pytest.mark.parametrize("variable", at_night(["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"], but=["AWS_CA_BUNDLE"]))
@pytest.mark.parametrize("bad", BAD)
def test_bad_file_of_certificates_is_named_for_a_bucket(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, variable: str, bad: str
) -> None:
    """Never as a bucket that does not exist."""
    path, fault = bad_bundles(tmp_path)[bad]
    set_only(monkeypatch, **{variable: path})

    message = listed(store.url, clock)

    assert message.startswith(f"the bucket cannot be listed: {variable} names {path}, which {fault}: ")
    assert clock.slept == []


def test_bucket_with_a_trusted_certificate_is_read(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_only(monkeypatch, AWS_CA_BUNDLE=str(self_signed()[0]))
    store.answers = [ScriptedS3()]
    options = {"key": "k", "secret": SECRET, "endpoint_url": store.url, "client_kwargs": {"region_name": "us-east-1"}}

    assert Bucket("s3://bucket/braze", options, clock=clock).objects(EXPORT, "seg") == []


def other_cloud(scheme: str, url: str, clock: FakeClock) -> Bucket:
    """A bucket of Google's or Microsoft's cloud at this address."""
    options: dict[str, dict[str, Any]] = {
        "gs": {"token": "anon", "endpoint_url": url},
        "abfs": {"connection_string": f"BlobEndpoint={url}/a;AccountName=a;AccountKey=c2VjcmV0"},
    }
    return Bucket(f"{scheme}://bucket/braze", options[scheme], clock=clock)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", at_night(["gs", "abfs"], but=["gs"]))
def test_other_clouds_behind_an_untrusted_certificate_are_told(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """After their libraries' own repetitions, and without any of the tap's."""
    set_only(monkeypatch)

    with pytest.raises(InterruptedExportError, match="the certificate of the bucket is not trusted"):
        other_cloud(scheme, store.url, clock).objects(EXPORT, "seg")
    assert clock.slept == []


@pytest.mark.parametrize("scheme", ["gs", "abfs"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_file_of_certificates_is_named_for_other_clouds(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, scheme: str, bad: str
) -> None:
    """Their libraries would ignore it."""
    path, fault = bad_bundles(tmp_path)[bad]
    set_only(monkeypatch, SSL_CERT_FILE=path)

    with pytest.raises(ConfigError) as caught:
        other_cloud(scheme, store.url, clock)
    assert str(caught.value).startswith(f"the bucket cannot be reached: SSL_CERT_FILE names {path}, which {fault}: ")
    other_cloud(scheme, store.url.replace("https://", "http://"), clock)


def test_certificate_error_of_aiohttp_is_recognised(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what the libraries of those clouds raise in the end."""
    set_only(monkeypatch)

    async def get() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get(store.url)

    labels = StorageLabels("the bucket", url="bucket_url", options="bucket_options", needed="list objects")
    storage = Storage("gs://bucket", {"token": "anon"}, labels, clock=clock)
    with pytest.raises(InterruptedExportError, match=r"^the bucket cannot be listed: the certificate of the bucket is"):
        storage.retrying("listed", lambda: asyncio.run(get()))
    assert clock.slept == []


def test_wrong_certificate_is_no_retry_in_the_log(
    store: TlsServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_only(monkeypatch)
    caplog.set_level(logging.INFO, "tap_braze_export")

    listed(store.url, clock)

    assert [record for record in caplog.records if record.name.startswith("tap_braze_export")] == []
