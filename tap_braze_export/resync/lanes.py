"""Threads that work beside the run and end with the process, so that a signal never waits for them."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_LOOK_SECONDS = 0.5
_MOST_THREADS = 64  # as many connections as the client keeps


class Lanes(Protocol):
    """Where calls are made, several at a time."""

    def start(self, number: int, call: Callable[[], Any]) -> None:
        """Make a call."""

    def wait(self, seconds: float) -> tuple[int, Any] | None:
        """The number and result (or exception) of a call that is done; None after so many seconds, or when woken."""

    def wake(self) -> None:
        """End a wait."""

    def aside(self, items: Iterator[T]) -> Iterator[T | None]:
        """The items of an iterator that runs while its taker is busy; None now and then while there is none."""

    def close(self) -> None:
        """Take no more calls."""


class Threads:
    """Calls on threads, as many as are needed."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[int, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def start(self, number: int, call: Callable[[], Any]) -> None:
        """See `Lanes`."""
        if not self._idle.acquire(blocking=False) and len(self._threads) < _MOST_THREADS:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._calls.put((number, call))

    def wait(self, seconds: float) -> tuple[int, Any] | None:
        """See `Lanes`."""
        try:
            return self._results.get(timeout=seconds)
        except queue.Empty:
            return None

    def wake(self) -> None:
        """See `Lanes`."""
        self._results.put(None)

    def aside(self, items: Iterator[T]) -> Iterator[T | None]:
        """See `Lanes`."""
        made: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        threading.Thread(target=_put_all, args=(items, made), daemon=True).start()
        while True:
            try:
                item = made.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(item, _End):
                if item.error:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """See `Lanes`."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while todo := self._calls.get():
            number, call = todo
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 - raised where the result is awaited
                result = error
            self._idle.release()
            self._results.put((number, result))


class _End:
    """The end of an iterator, and the error that it ended with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def _put_all(items: Iterator[T], made: queue.SimpleQueue[T | _End]) -> None:
    try:
        for item in items:
            made.put(item)
    except Exception as error:  # noqa: BLE001 - raised where the item is awaited
        made.put(_End(error))
    else:
        made.put(_End())
