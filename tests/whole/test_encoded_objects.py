"""Objects whose metadata names a Content-Encoding: libraries would inflate them, and cut or refuse pieces."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import fsspec
import pytest

from tap_braze_export.files.bucket import Bucket
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.sandbox import Sandbox
from tests.support.clouds import upload_encoded
from tests.support.fakes import FakeClock
from tests.support.night import at_night
from tests.support.runs import selecting, settings, sync

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.clouds import Store

pytestmark = pytest.mark.external
each_cloud = pytest.mark.parametrize("store", at_night(["s3", "gcs", "azure"], but=["s3", "gcs"]), indirect=True)


@each_cloud
@pytest.mark.parametrize("output_format", at_night(["zip", "gzip"], but=["zip"]))
@pytest.mark.fault("Bucket", "objects with Content-Encoding: gzip", "the same rows as without it")
def test_export(store: Store, tmp_path: Path, output_format: str) -> None:
    """Each is read as it is stored; a zip, which that metadata calls gzip, too."""
    url = store.at(tmp_path.name)
    stored: dict[str, bytes] = {}

    class Encoding(FakeClock):
        """A clock that lets one more file appear at each wait, with the metadata."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if sandbox.deliver_next_file():
                files = fsspec.filesystem(url.partition(":")[0], **store.writer, skip_instance_cache=True)
                (path,) = set(files.find(f"exports/{tmp_path.name}")) - set(stored)
                stored[path] = files.cat_file(path)
                files.rm(path)
                upload_encoded(store, path, stored[path])

    clock = Encoding()
    with Sandbox(
        bucket_url=url,
        bucket_options=store.writer,
        users=9,
        users_per_file=3,
        odd_users=False,
        hold=True,
        clock=clock.now,
    ) as sandbox:
        config = settings(
            sandbox,
            tmp_path,
            bucket_url=url,
            bucket_options=store.reader,
            output_format=output_format,
            settle_minutes=2,
        )
        run = sync(config, clock=clock, catalog=selecting(["users", "export_files"]))
        found = Bucket(url, store.reader, clock=clock).objects(run.rows("export_files")[0]["export_id"], "all-users")

    assert run.counts == {"users": 9, "export_files": 3}
    assert not run.warnings
    bucket = Bucket(url, store.reader, clock=clock)
    for each in found:
        with bucket.open(each, end_bytes=20) as in_place:  # as Dask's workers do
            assert in_place.read() == stored[each.path]
    assert [each.is_encoded for each in found] == [not url.startswith("s3:")] * 3


@each_cloud
def test_other_files(store: Store, tmp_path: Path) -> None:
    """A library would deliver as many bytes of the inflated file as the object has, and no error."""
    content = gzip.compress(b"external_id\n" + b"".join(b"%d\n" % number for number in range(10_000)))
    upload_encoded(store, f"exports/{tmp_path.name}/ids.csv", content)
    labels = StorageLabels("it", url="identifiers_url", options="bucket_options", needed="read it")
    storage = Storage(f"{store.at(tmp_path.name)}/ids.csv", store.reader, labels, clock=FakeClock())

    with storage.open(storage.root) as file:
        assert file.read() == content
