"""Objects that come next are made ready by threads while others are read."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from tap_braze_export.clock import Interruption

if TYPE_CHECKING:
    from tap_braze_export.clock import Clock
    from tap_braze_export.files.archive import Member
    from tap_braze_export.files.objects import BucketObject, Fetcher, Place

    Landed = tuple[Place, list[Member]]

_MOST = 8
"""Objects on their way at a time."""
_LOOK_SECONDS = 0.2


class Prefetcher:
    """A `Fetcher` that can begin early.

    Args:
        landing: Makes an object ready.
        clock: Tells whether the run was told to end.
    """

    def __init__(self, landing: Fetcher, clock: Clock) -> None:
        self._landing = landing
        self._clock = clock
        self._coming: dict[BucketObject, Future[Landed]] = {}

    def expect(self, found: BucketObject) -> None:
        """Begin with an object that will be taken."""
        if found not in self._coming and len(self._coming) < _MOST:
            future: Future[Landed] = Future()
            self._coming[found] = future
            # A daemon: a fetch that hangs must not keep the process from ending.
            threading.Thread(target=self._fulfil, args=(future, found), daemon=True).start()

    def take(self, found: BucketObject) -> Landed:
        """See `Fetcher`: what has gone wrong with an object is raised here, in its turn."""
        future = self._coming.pop(found, None)
        if future is None:
            return self._landing.take(found)
        while not wait([future], _LOOK_SECONDS).done:
            if self._clock.stopped:
                raise Interruption
        return future.result()

    def _fulfil(self, future: Future[Landed], found: BucketObject) -> None:
        try:
            future.set_result(self._landing.take(found))
        except Exception as error:  # noqa: BLE001 - raised by take
            future.set_exception(error)
