"""An export of which no file is found in the bucket: empty, or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.exports.test_polling import USERS, bucket_settings
from tests.support import ports
from tests.support.estimates import estimate
from tests.support.runs import sync
from tests.support.steps import Steps, braze, exports, nothing

if TYPE_CHECKING:
    from pathlib import Path


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
        (tmp_path / "elsewhere").mkdir()
        config["bucket_url"] = str(tmp_path / "elsewhere")
        run = sync(
            config,
            clock=clock,
            catalog=USERS,
            state=first.states[-1] if known_by == "last export" else None,
            fails=True,
        )
    assert f"not one file is in {tmp_path / 'elsewhere'}" in run.error
    assert "bucket_url must be" in run.error
    assert {"last export": "the last export had 9 users", "estimate": "Braze estimates 2,000,000 users"}[
        known_by
    ] in run.error
