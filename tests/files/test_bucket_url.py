"""The setting `bucket_url`: forms that are read, and forms that are refused with the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.bucket_url import read_bucket_url, read_storage_url, shown_bucket_url
from tests.files.test_bucket import deliver
from tests.support.s3 import CONTENT, EXPORT, names

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tests.support.fakes import FakeClock, Server
    from tests.support.s3 import ScriptedS3

SEGMENT = "0f1e2d3c-aaaa-bbbb-cccc-0123456789ab"


@pytest.mark.parametrize("tail", ["", "/", "//", "/segment-export", "/segment-export/", f"/segment-export/{SEGMENT}"])
@pytest.mark.parametrize(
    "bucket", ["s3://bucket", "gs://bucket/a/prefix", "abfs://container@account.dfs.core.windows.net/p"]
)
def test_what_braze_appends_is_cut_off(bucket: str, tail: str) -> None:
    assert read_bucket_url(f" {bucket}{tail}\n").rstrip("/") == bucket


@pytest.mark.parametrize("url", ["s3://my-segment-export", "s3://segment-export-eu/x", "s3://b/segment-export/emea"])
def test_what_a_customer_calls_so_is_kept(url: str) -> None:
    assert read_bucket_url(url) == url


def test_scheme_may_be_in_capitals() -> None:
    assert read_bucket_url("S3://Bucket/Prefix") == "s3://Bucket/Prefix"


@pytest.mark.parametrize(
    "form", ["{}", "{}/", "{}/segment-export", "{}/segment-export/", "file://{}", "file:{}", "local://{}"]
)
def test_directory_in_any_form(tmp_path: Path, clock: FakeClock, form: str) -> None:
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a.zip")

    assert names(Bucket(form.format(tmp_path), {}, clock=clock).objects(EXPORT, "seg")) == ["a.zip"]


def test_directory_of_the_home_directory(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    deliver(tmp_path / "exports", f"seg/2026-01-02/{EXPORT}/a.zip")

    for url in ("~/exports", "file://~/exports", "~/exports/segment-export"):
        assert names(Bucket(url, {}, clock=clock).objects(EXPORT, "seg")) == ["a.zip"]


def test_directory_of_the_working_directory(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    deliver(tmp_path, f"seg/2026-01-02/{EXPORT}/a.zip")

    for url in (".", "segment-export"):
        assert names(Bucket(url, {}, clock=clock).objects(EXPORT, "seg")) == ["a.zip"]


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3-eu-west-1.amazonaws.com/p?X-Amz-Signature=secret",
        "https://account.blob.core.windows.net/box/p?sv=1&sig=secret",
        "HTTP://user:secret@minio.example:9000/bucket/p",
    ],
)
def test_web_address_is_refused_with_the_form_to_use(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_bucket_url(url)
    assert "is a web address: name the bucket as s3://bucket/prefix, gs://bucket/prefix or" in str(caught.value)
    assert "secret" not in str(caught.value)


POINT = "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/name"
NO_BUCKET = (
    "is an ARN, but of no bucket and of no access point in one region: name the bucket as s3://bucket/prefix, or an"
    " access point by its alias"
)
ARNS = {
    "{}": POINT,
    "{}/": POINT,
    "{}/a/prefix": f"{POINT}/a/prefix",
    "{}/a/segment-export/": f"{POINT}/a",
    "{}:a": NO_BUCKET,
    "arn:aws:s3::123456789012:accesspoint/x.mrap/prefix": NO_BUCKET,
    "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-1/accesspoint/name": NO_BUCKET,
    "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/name": NO_BUCKET,
    "arn:aws:s3:::bucket/prefix": "is an ARN: name s3://bucket/prefix",
    "arn:aws:iam::123456789012:role/x": NO_BUCKET,
    "arn:aws:s3:::": NO_BUCKET,
    "arn:aws:s3:eu-central-1:12345:accesspoint/name": NO_BUCKET,
}


def test_arns() -> None:
    """With s3:// or without: an access point's is a bucket; others are refused with the reason and what to name."""
    for form, expected in ARNS.items():
        for scheme in ("", "s3://", "S3://"):
            arn = form.replace("{}", POINT.removeprefix("s3://"))
            try:
                found = read_bucket_url(f"{scheme}{arn}")
            except ConfigError as error:
                found = str(error).removeprefix("bucket_url ")[: len(expected)]
            assert found == expected, (scheme, arn)


@pytest.mark.slow
def test_access_point_is_read(server: Server, scripted_s3: ScriptedS3, clock: FakeClock, tmp_path: Path) -> None:
    """Its name and account are in the host of the requests; a proxy sees that."""

    def access_point(handler: BaseHTTPRequestHandler) -> None:
        hosts.add(str(urlsplit(handler.path).hostname))
        handler.path = f"/bucket{handler.path.partition('.com')[2]}"
        scripted_s3(handler)

    hosts: set[str] = set()
    server.answers = [access_point]
    options = {"key": "k", "secret": "s", "use_ssl": False, "config_kwargs": {"proxies": {"http": server.url}}}
    for prefix in ("", "exports/", "/exports//"):
        folder = f"{prefix}segment-export/seg/2026-01-02/{EXPORT}"
        scripted_s3.objects = {f"{folder}/a.zip": CONTENT}
        bucket = Bucket(f"{POINT}/{prefix.strip('/')}", options, clock=clock)
        assert bucket.check() is None
        assert bucket.find_misplaced() == (prefix == "/exports//")
        (found,) = bucket.objects(EXPORT, "seg")
        bucket.fetch(found, tmp_path / "object")
        assert (tmp_path / "object").read_bytes() == CONTENT
        assert found.path == f"{POINT.removeprefix('s3://')}/{folder}/a.zip"
        assert Bucket(f"{POINT}/x", options, clock=clock).elsewhere(EXPORT, "seg")[1] == (prefix != "/exports//")
    assert hosts == {"name-123456789012.s3-accesspoint.eu-central-1.amazonaws.com"}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("gs:// /prefix", "names no bucket"),
        ("s3:/bucket/prefix", "has no :// after its scheme"),
        ("s3:bucket", "has no :// after its scheme"),
        ("foo:bar", "has no :// after its scheme"),
        ("s3://key:secret@bucket/prefix", "holds credentials, which go into bucket_options"),
        ("abfs://box/p?sv=1&sig=secret", "holds a query: credentials go into bucket_options"),
        ("file://exports/x", "names a directory without a slash before it: name file:///exports/x"),
    ],
)
def test_what_names_no_bucket_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^bucket_url {problem}") as caught:
        read_bucket_url(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["S3://bucket/segment-export ", "segment-export", " s3://bucket/segment-export\n"])
def test_another_storage_may_have_any_folder(url: str) -> None:
    """Braze appends its own to the bucket's address only."""
    assert read_storage_url(url, setting="other_url") == url.strip().replace("S3", "s3")


@pytest.mark.parametrize("url", ["s3://", "arn:aws:s3:::bucket", "https://bucket.s3.amazonaws.com", "s3://a:b@bucket"])
def test_a_refusal_names_the_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^other_url "):
        read_storage_url(url, setting="other_url")


@pytest.mark.parametrize("scheme", ["foo", "s4", "aws"])
def test_unknown_scheme_is_refused(clock: FakeClock, scheme: str) -> None:
    with pytest.raises(ConfigError, match=f"^bucket_url starts with {scheme}://, which names no storage: use s3://"):
        Bucket(f"{scheme}://bucket", {}, clock=clock)


def test_address_is_shown_without_secrets() -> None:
    assert shown_bucket_url("sftp://user:secret@host/exports?key=secret") == "sftp://host/exports"
    assert shown_bucket_url("abfs://box@account.dfs.core.windows.net/p") == "abfs://box@account.dfs.core.windows.net/p"
