"""Whole runs in which Braze goes one step further, or something fails, each time the tap waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tap_braze_export.errors import TapError
from tap_braze_export.sandbox import Sandbox
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STARTED = "/users/export/segment"


class Steps(FakeClock):
    """A clock that runs the next step at each wait; it repeats the last one."""

    def __init__(self, *steps: Callable[[], object], now: float = 1_800_000_000.0) -> None:
        super().__init__(now)
        self.steps = list(steps)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.steps:
            (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])()


def crash() -> None:
    """End the run as a crash does, without cleaning up."""
    raise TapError("crashed")


def nothing() -> None:
    """Let time pass."""


def braze(clock: FakeClock, folder: Path | None = None, **options: Any) -> Sandbox:
    """A sandbox on the tap's clock; with a folder it delivers there, three users a file."""
    if folder:
        (folder / "bucket").mkdir()
    bucket = {"bucket_url": str(folder / "bucket")} if folder else {}
    defaults = {"users": 9, "users_per_file": 3, "odd_users": False, "clock": lambda: clock.true_time}
    return Sandbox(**{**defaults, **bucket, **options})


def posts(sandbox: Sandbox) -> list[int]:
    """The statuses of the requests for exports of segments."""
    return [call.status for call in sandbox.calls if call.path == STARTED]


def exports(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The exports in a STATE."""
    found: list[dict[str, Any]] = state["bookmarks"]["export_files"]["exports"]
    return found
