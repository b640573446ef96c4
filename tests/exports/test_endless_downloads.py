"""A download is given up some time after its deadline, whatever it waits for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tap_braze_export.clock import PollTimer
from tap_braze_export.errors import ExportError
from tap_braze_export.export import Export
from tap_braze_export.exports.polling import HostedExport
from tap_braze_export.files.download import Download
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.state import Bookmark
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.http.session import Session
    from tests.support.fakes import Server

SECONDS = 30


def test_download_that_never_ends_is_given_up(server: Server, session: Session, tmp_path: Path) -> None:
    """Each of its steps has a limit, but redirects, for example, may be thirty steps."""
    clock, may_end, path = FakeClock(), threading.Event(), tmp_path / "download"
    deadline = clock.elapsed + 60
    server.answers = [lambda handler: setattr(handler, "close_connection", may_end.wait(SECONDS))]
    export = HostedExport(
        Bookmark(Export("segment", "seg", "0a1b2c3d-1800000000", clock.time), (), ""),
        Download(f"{server.url}/users.zip", path=path, session=session, clock=clock, deadline=deadline),
        path,
        timer=PollTimer(clock, 10),
        threads=DaemonThreads(1),
        clock=clock,
        deadline=deadline,
    )
    assert not export.poll()
    clock.elapsed = deadline + 599
    assert not export.poll()
    clock.elapsed = deadline + 601
    with pytest.raises(
        ExportError, match=r"users\.zip was still awaited 10 min after export_timeout_minutes were over"
    ):
        export.poll()
    may_end.set()
