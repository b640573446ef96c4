"""Threads that never keep the process from ending, however long a call on them hangs."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(Executor):
    """An executor on daemon threads; calls wait in order for one of them.

    A `ThreadPoolExecutor` does the same, but the interpreter joins its threads before it ends: a request that hangs
    would then delay the end of a run that was told to stop.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)

        if len(self._threads) < self._max_threads:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()
        self._calls.put(call)
        return future

    @override
    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Let the threads end after the calls that they have begun; nobody waits for them."""
        with suppress(queue.Empty):
            while cancel_futures:
                self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while call := self._calls.get():
            call()
            del call  # with its result, while the thread waits for the next one
