"""The whole tap with the stores of three clouds, over HTTP: Braze delivers there, the tap may only list and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import ports
from tests.support.fakes import FakeClock, Server, as_json
from tests.support.night import at_night
from tests.support.runs import Output, command, selecting, settings, sync, written

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from tests.support.clouds import Store

WANTED = ["users", "devices", "segment_members", "export_files"]


pytestmark = pytest.mark.external
CLOUDS = ["s3", "gcs", "azure"]
each_cloud = pytest.mark.parametrize("store", CLOUDS, indirect=True)
s3_by_day = pytest.mark.parametrize("store", at_night(CLOUDS, but=["s3"]), indirect=True)


def run(config: dict[str, Any], folder: Path) -> Output:
    """Run the installed command, which must write nothing to standard error but its log."""
    done = command("--config", written(folder, config), "--catalog", written(folder, selecting(WANTED), "catalog.json"))
    assert done.code == 0, done.stderr
    assert not done.errors
    assert not [line for line in done.stderr.splitlines() if " | " not in line]
    return done


def delivering(store: Store, folder: Path, **options: Any) -> Sandbox:
    """A Braze whose partner settings name a folder of the store."""
    return Sandbox(bucket_url=store.at(folder.name), bucket_options=store.writer, **options)


def reading(store: Store, folder: Path, sandbox: Sandbox, **more: Any) -> dict[str, Any]:
    return settings(sandbox, folder, bucket_url=store.at(folder.name), bucket_options=store.reader, **more)


@each_cloud
def test_export(store: Store, tmp_path: Path) -> None:
    """Every user of a segment and of the control group, past other exports and CSV files, and no secret in STATE."""
    faults = ["foreign-export", "other-date-folder"]
    with delivering(store, tmp_path, users=60, users_per_file=20, odd_users=False, faults=faults) as sandbox:
        config = reading(store, tmp_path, sandbox, global_control_group=True, settle_minutes=0, poll_interval_seconds=1)
        done = run(config, tmp_path)
    assert len(set(done.ids())) == done.counts["users"] == 60
    assert done.counts["segment_members"] == 60 + 3
    assert sorted(row["users"] for row in done.rows("export_files")) == [3, 20, 20, 20]
    assert all(row["file"].partition("!")[0].endswith(".zip") for row in done.rows("export_files"))
    for secret in store.secrets:
        assert secret.encode() not in done.stdout


@s3_by_day
def test_files_are_read_as_they_come(store: Store, tmp_path: Path) -> None:
    """Each new file is found at the next poll, also gzip; settle_minutes without a new one end the export."""
    with delivering(store, tmp_path, users=9, users_per_file=3, odd_users=False, hold=True) as sandbox:
        seen: list[str | None] = []

        class Delivering(FakeClock):
            """A clock that lets one more file appear at each wait."""

            def sleep(self, seconds: float) -> None:
                super().sleep(seconds)
                seen.append(sandbox.deliver_next_file())

        clock = Delivering()
        config = reading(store, tmp_path, sandbox, output_format="gzip")
        done = sync(config, catalog=selecting(WANTED), clock=clock)
    files = [path.rpartition("/")[2] for path in seen if path]
    assert len(files) == 3
    assert [row["file"] for row in done.rows("export_files")] == files
    assert all(file.endswith(".gz") for file in files)
    assert 600 <= sum(clock.slept) <= 700


@s3_by_day
def test_late_file_is_read_by_the_next_run(store: Store, tmp_path: Path) -> None:
    """A file that came after the end is recognised as new in a listing of the real store."""
    with delivering(store, tmp_path, users=9, users_per_file=3, odd_users=False, faults=["late-file"]) as sandbox:
        config = reading(store, tmp_path, sandbox, settle_minutes=0)
        first = sync(config, catalog=selecting(WANTED), clock=(clock := FakeClock()))
        late = sandbox.deliver_next_file()
        sandbox.set_faults()
        second = sync(config, catalog=selecting(WANTED), clock=clock, state=first.states[-1])
    assert late is not None
    assert len(first.rows("export_files")) == 2
    assert second.rows("export_files")[0]["file"].partition("!")[0] == late.rpartition("/")[2]
    assert second.rows("export_files")[0]["export_id"] == first.rows("export_files")[0]["export_id"]
    assert len(second.rows("export_files")) == 1 + 3


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    at_night(
        [
            ("s3://exports/braze", "s3fs", "s3"),
            ("gs://exports/braze", "gcsfs", "gcs"),
            ("abfs://exports/braze", "adlfs", "azure"),
        ],
        but=[("gs://exports/braze", "gcsfs", "gcs")],
    ),
)
@pytest.mark.fault("Bucket", "the cloud's library is not installed", "one line, before Braze is asked for anything")
def test_missing_extra(tmp_path: Path, url: str, library: str, extra: str) -> None:
    """Without its library a bucket is refused before any request to Braze, with the command that installs it."""
    (tmp_path / f"{library}.py").write_text("raise ImportError('not installed')")
    with Sandbox(users=1) as sandbox:
        config = settings(sandbox, tmp_path, bucket_url=url)
        ended = command("--config", written(tmp_path / "c", config), PYTHONPATH=str(tmp_path))
        assert not sandbox.calls
    assert f"pip install 'tap-braze-export[{extra}]'" in ended.error
    assert not ended.states


WRONG: dict[str, dict[str, Any]] = {
    "s3": {"secret": "never-mind-wrong"},
    "gcs": {"token": {"type": "service_account", "private_key": "never-mind-wrong", "client_email": "a@b"}},
    "azure": {"connection_string": "BlobEndpoint={url};SharedAccessSignature=sv=2024&sig=never-mind-wrong;"},
}


@each_cloud
@pytest.mark.fault("Bucket", "wrong credentials (S3, GCS, Azure)", "one line, without them")
def test_wrong_credentials(store: Store, tmp_path: Path) -> None:
    """One line says at once what to check, and shows neither the credentials nor the store's own error."""
    kind = {"s3://exports": "s3", "gs://exports": "gcs", "abfs://exports": "azure"}[store.url]
    endpoint = str(store.reader.get("connection_string", "")).removeprefix("BlobEndpoint=").partition(";")[0]
    wrong = {
        name: value.replace("{url}", endpoint) if isinstance(value, str) else value
        for name, value in WRONG[kind].items()
    }
    with Sandbox(users=5, faults=["url-null"]) as sandbox:
        config = reading(store, tmp_path, sandbox)
        config["bucket_options"] = {**config["bucket_options"], **wrong}
        ended = command("--config", written(tmp_path, config))
    assert "bucket_options" in ended.error
    for secret in (*store.secrets, "never-mind-wrong"):
        assert secret not in ended.stderr
        assert secret.encode() not in ended.stdout


def test_credentials_for_the_prefix_alone(tmp_path: Path) -> None:
    """A policy that allows to list below the prefix only is enough, also before the first file is there."""

    def listing(handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        allowed = query.get("prefix", [""])[0].startswith("braze/")
        body = b"<ListBucketResult/>" if allowed else b"<Error><Code>AccessDenied</Code></Error>"
        handler.send_response(200 if allowed else 403)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with Server() as amazon, Sandbox(users=5, faults=["url-null"]) as sandbox:
        amazon.answers = [listing]
        config = settings(sandbox, tmp_path, bucket_url="s3://exports/braze", export_timeout_minutes=1)
        config["bucket_options"] = {"key": "k", "secret": "s", "endpoint_url": amazon.url}
        run = sync(config, clock=FakeClock(), fails=True)
    assert "no file has come" in run.error


@pytest.mark.fault("Bucket", "403 of GCS without a message", "one line at once")
def test_google_says_forbidden(tmp_path: Path) -> None:
    """Google's 403, which has no error of its own, is the credentials' fault, too: it is not tried five times."""
    refusal = as_json({"error": {"code": 403, "message": "tap@x.iam does not have storage.objects.list access"}}, 403)
    with Server() as google, Sandbox(users=5, faults=["url-null"]) as sandbox:
        google.answers = [refusal]
        config = settings(sandbox, tmp_path, bucket_url="gs://exports/braze")
        config["bucket_options"] = {"token": "anon", "endpoint_url": google.url}
        run = sync(config, clock=(clock := FakeClock()), fails=True)
    assert "Check the credentials (bucket_options or the environment)" in run.error
    assert not clock.slept


@pytest.mark.fault("Bucket", "a store that cannot be reached", "one line; the next run goes on with the same export")
def test_store_that_cannot_be_reached_keeps_the_export(tmp_path: Path) -> None:
    """The run fails, and the next one continues the same export: the store was to blame, not the export."""
    with Sandbox(users=5, bucket_url=str(tmp_path / "bucket")) as sandbox:
        gone = f"http://127.0.0.1:{ports.free_port()}"
        away = settings(
            sandbox,
            tmp_path,
            bucket_url="s3://exports/braze",
            bucket_options={
                "key": "k",
                "secret": "s3-topsecret",
                "endpoint_url": gone,
                "config_kwargs": {"retries": {"max_attempts": 0}},
            },
        )
        first = sync(away, clock=(clock := FakeClock()), fails=True)
        here = settings(sandbox, tmp_path, bucket_url=str(tmp_path / "bucket"))
        second = sync(here, state=first.states[-1], clock=clock)
        assert [call.status for call in sandbox.calls if call.path == "/users/export/segment"] == [201]
    assert "could not be listed" in first.error
    assert "topsecret" not in first.error + "".join(first.lines)
    assert second.counts["users"] == 5
