"""Stand-ins for what the tap meets outside."""

from __future__ import annotations

from tap_braze_export.clock import Clock


class FakeClock(Clock):
    """Sleeping advances the time and takes none; each look at the time advances it by `tick`."""

    def __init__(self, now: float = 1_800_000_000.0, *, tick: float = 0.0) -> None:
        super().__init__()
        self.time = now
        self.tick = tick
        self.slept: list[float] = []

    def now(self) -> float:
        self.time += self.tick
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += max(0.0, seconds)
