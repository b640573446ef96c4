"""An export of which no file is found in the bucket: empty, or elsewhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.exports.test_polling import USERS, bucket_settings
from tests.support import ports
from tests.support.estimates import estimate
from tests.support.runs import settings, sync
from tests.support.steps import Steps, braze, exports, nothing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.s3 import ScriptedS3

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("estimated", [0, 1, 30, 20_000])
def test_empty_segment_with_callback(tmp_path: Path, estimated: int) -> None:
    """No file and the callback: complete, without users; a small estimate proves nothing about a segment."""
    port = ports.free_port()
    clock = Steps()
    with braze(clock, tmp_path, hold=True, faults=["no-file"]) as sandbox:
        clock.steps = [nothing, sandbox.finish_exports, nothing]
        listening = {"callback_url": f"http://127.0.0.1:{port}", "callback_listen": f"127.0.0.1:{port}"}
        sandbox.add_segment("nobody", [])
        estimate(sandbox, "nobody", estimated)
        config = bucket_settings(sandbox, tmp_path, segment_ids=["nobody"], **listening)
        run = sync(config, clock=clock, catalog=USERS)
    assert not run.counts
    assert [line for line in run.warnings if "it counts as empty" in line]
    assert exports(run.states[-1])[0]["running"] is False


@pytest.mark.parametrize("known_by", ["last export", "estimate"])
@pytest.mark.fault(
    "Bucket", "Braze says that it has delivered, and nothing is there", "one line, unless the segment is empty"
)
def test_callback_without_a_file(tmp_path: Path, known_by: str) -> None:
    """Braze says that it has delivered, and nothing is here: that is the wrong bucket, unless the segment is empty."""
    port = ports.free_port()
    clock = Steps()
    listening = {"callback_url": f"http://127.0.0.1:{port}", "callback_listen": f"127.0.0.1:{port}"}
    with braze(clock, tmp_path) as sandbox:
        config = bucket_settings(sandbox, tmp_path, **listening)
        first = sync(config, clock=clock, catalog=USERS)
        if known_by == "last export":
            sandbox.workspace.options.deny = ("segments.data_series",)
        estimate(sandbox, "all-users", 2_000_000)
        (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
        config["bucket_url"] = str(tmp_path / "elsewhere" / "deep")
        run = sync(
            config,
            clock=clock,
            catalog=USERS,
            state=first.states[-1] if known_by == "last export" else None,
            fails=True,
        )
    assert f"not one file is in {tmp_path / 'elsewhere' / 'deep'}" in run.error
    assert "bucket_url must be" in run.error
    assert {"last export": "the last export had 9 users", "estimate": "Braze estimates 2,000,000 users"}[
        known_by
    ] in run.error


@pytest.mark.parametrize("is_called_back", [True, False])
@pytest.mark.fault("Bucket", "files below another prefix than that of bucket_url", "one line that names it")
def test_files_beside_the_prefix(tmp_path: Path, *, is_called_back: bool) -> None:
    """Files of the export itself are proof: no estimate and no earlier export is needed."""
    clock, port = Steps(), ports.free_port()
    listening = {"callback_url": f"http://127.0.0.1:{port}", "callback_listen": f"127.0.0.1:{port}"}
    with braze(clock, tmp_path) as sandbox:
        config = bucket_settings(sandbox, tmp_path, **(listening if is_called_back else {}))
        run = sync({**config, "bucket_url": str(tmp_path)}, clock=clock, catalog=USERS, fails=True)
        again = sync(config, clock=clock, catalog=USERS, state=run.states[-1])
    assert f"{tmp_path / 'bucket' / 'segment-export'}/ has its files" in run.error
    assert again.counts["users"] == 9


def copy(bucket: Path, objects: dict[str, bytes], prefix: str) -> None:
    """Copy the files of a directory into a store, below a prefix."""
    objects |= {f"{prefix}{path.relative_to(bucket)}": path.read_bytes() for path in bucket.rglob("*.zip")}


@pytest.mark.fault("Bucket", "a slash too many in Braze's folder setting", "the rows, and a warning")
def test_slashes_too_many(scripted_s3: ScriptedS3, s3_options: dict[str, Any], tmp_path: Path) -> None:
    """Braze writes the setting before its own folder, as it is."""
    for prefix in ("exports/", "/exports//", "/"):  # each slash alone: tests/files/test_nearby_keys.py
        scripted_s3.objects = {}
        folder = tmp_path / prefix.replace("/", "_")
        folder.mkdir()
        clock = Steps()
        clock.steps = [partial(copy, folder / "bucket", scripted_s3.objects, prefix), nothing]
        with braze(clock, folder) as sandbox:
            url = "s3://bucket/exports" if "exports" in prefix else "s3://bucket"
            config = settings(sandbox, folder, bucket_url=url, bucket_options=s3_options)
            run = sync(config, clock=clock, catalog=USERS)
        assert run.counts == {"users": 9, "export_files": 3}, prefix
        warned = [line for line in run.warnings if "a slash too many" in line]
        assert len(warned) == (prefix != "exports/"), prefix
        assert all(f"s3://bucket/{prefix}segment-export/" in line for line in warned)
