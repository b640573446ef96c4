"""A Dask cluster that reads files: its workers read the bucket and write the batch files, counts come back."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import uuid
import warnings
from collections import deque
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tap_braze_export.clock import Interruption
from tap_braze_export.errors import ConfigError, ExportError, TapError, foreign_text, unforeseen
from tap_braze_export.files import archive
from tap_braze_export.files.objects import on_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_braze_export.clock import Clock
    from tap_braze_export.workers.file_reader import FileReader, Job, Result
    from tap_braze_export.workers.processes import Answer

_TAP = "tap-braze-export"
_FEWEST = 32
"""Files in flight while a cluster has few workers: it may grow when it sees them."""
_MOST_BYTES = 64 * 2**20
"""Downloaded files on their way to workers, which a scheduler keeps in memory."""
_LOOK_SECONDS = 0.2
_CLOSE_SECONDS = 3
_LOOKS_ALONE = 50
"""After so many looks at a cluster without workers the log tells of it."""
_CHATTY = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")
_log = logging.getLogger(__name__)


class Cluster:
    """An executor, as `Processes` is one: `submit` gives a future at once, `result` waits for it.

    Results stay on the workers until they are asked for.

    Args:
        address: The scheduler's.
        reader: Goes to each worker, and reads the files there.
        clock: Tells whether the run was told to end.

    Attributes:
        ahead: So many files keep the cluster busy.

    Raises:
        TapError: If the scheduler cannot be reached.
    """

    def __init__(self, address: str, reader: FileReader, *, clock: Clock) -> None:
        self._address = address
        self._reader = pickle.dumps(reader)
        self._clock = clock
        self._run_id = uuid.uuid4().hex
        self._queue: deque[tuple[Job, Answer]] = deque()
        self._tasks: dict[Answer, Any] = {}
        self._sizes: dict[Answer, int] = {}
        self._looks = 0
        self._client, threads = _connected(address)
        self.ahead = max(_FEWEST, 2 * sum(threads))
        _log.info("Files are read by Dask at %s: %d workers, %d threads", address, len(threads), sum(threads))

    def submit(self, job: Job) -> Answer:
        """Have a file read."""
        answer: Answer = Future()
        self._queue.append((job, answer))
        self._feed()
        return answer

    def result(self, answer: Answer) -> Result:
        """What a file gives, see `FileReader.read`.

        Raises:
            TapError: If it cannot be read, or the cluster cannot do it.
        """
        while not answer.done():
            if self._clock.stopped:
                raise Interruption
            self._look(answer)
            self._feed()
        return answer.result()

    def close(self) -> None:
        """Leave the cluster; what its workers are reading is finished there, and told to nobody."""
        with suppress(Exception):
            self._client.cancel([*self._tasks.values()])
            self._client.close(timeout=_CLOSE_SECONDS)

    def _feed(self) -> None:
        while self._queue:
            job, answer = self._queue[0]
            carried = job.member.size if isinstance(job.place, Path) else 0
            under_way = sum(size for other, size in self._sizes.items() if not self._tasks[other].done())
            if under_way and under_way + carried > _MOST_BYTES:
                return
            self._queue.popleft()
            if carried > _MOST_BYTES:
                answer.set_result(None)
                continue
            try:
                task = _task(self._run_id, version(_TAP), self._reader, pickle.dumps(_portable(job)))
            except ExportError as error:
                answer.set_exception(error)
                continue
            self._tasks[answer] = self._sent(task)
            self._sizes[answer] = carried

    def _sent(self, task: Callable[[], Any]) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # a downloaded file may well have 10 MB
            try:
                return self._client.submit(task, key=f"{_TAP}-{uuid.uuid4()}")
            except Exception:  # noqa: BLE001 - the client has given up
                raise self._loss() from None

    def _look(self, answer: Answer) -> None:
        from distributed import wait  # noqa: PLC0415

        under_way = [task for task in self._tasks.values() if not task.done()]
        task = self._tasks.get(answer)
        try:
            with self._client.as_current():
                wait(under_way[:1] if task is None else [task], _LOOK_SECONDS)
        except TimeoutError:
            self._tell_if_alone()
            return
        except CancelledError:
            raise self._loss() from None
        if task is not None:
            del self._tasks[answer], self._sizes[answer]
            self._take(task, answer)

    def _take(self, task: Any, answer: Answer) -> None:
        from distributed import KilledWorker  # noqa: PLC0415

        try:
            result = task.result()
        except KilledWorker as error:
            raise TapError(
                f"{error.allowed_failures + 1} Dask workers died while they read the same file, perhaps for lack of "
                "memory: look at their logs, give each more memory or fewer threads, and run again, the next run "
                "continues from the last STATE"
            ) from None
        except (CancelledError, OSError):
            raise self._loss() from None
        except Exception as error:  # noqa: BLE001 - whatever a cluster of other versions may make of it
            raise ConfigError(
                f"the Dask workers at {self._address} cannot run the tap: {_said(error)}. Python, distributed and "
                f"{_TAP} must have the same versions there as here"
            ) from None
        if isinstance(result, str):
            answer.set_exception(ConfigError(result))
        elif isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _loss(self) -> TapError:
        return TapError(
            f"the connection to the Dask scheduler at {self._address} was lost, or the run's tasks were cancelled "
            "there: see that it runs, and run again, the next run continues from the last STATE"
        )

    def _tell_if_alone(self) -> None:
        self._looks += 1
        with suppress(OSError):
            if self._looks == _LOOKS_ALONE and not self._client.nthreads():
                _log.warning("The Dask cluster at %s has no worker: waiting for one", self._address)


def check(address: str) -> str:
    """What there is at a scheduler's address.

    Raises:
        TapError: If it cannot be reached, or its workers cannot run the tap.
    """
    client, threads = _connected(address)
    with client:
        problems = {*client.run(_missing(version(_TAP))).values()} - {""}
    if problems:
        raise ConfigError(problems.pop())
    return f"{len(threads)} workers, {sum(threads)} threads"


def _connected(address: str) -> tuple[Any, list[int]]:
    """A client of a scheduler, and the threads of each of its workers."""
    # Here, since it is an extra, and takes a second.
    from distributed import Client  # noqa: PLC0415

    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it logs as errors, the run tells in its own words
    try:
        # A client whose address is none would print a traceback when the process ends.
        asyncio.run(_look_for(address))
        with warnings.catch_warnings():
            # As a table, also of libraries that do not matter here; where they do, the first file shows it.
            warnings.filterwarnings("ignore", "Mismatched versions")
            client = Client(address, set_as_default=False, name=_TAP)
        return client, [*client.nthreads().values()]
    except OSError as error:
        raise TapError(
            f"the Dask scheduler at {address} cannot be reached ({type(error).__name__}): see that it runs, and that "
            "dask_scheduler names it"
        ) from None
    except Exception as error:  # noqa: BLE001 - of its many libraries
        raise ConfigError(f"dask_scheduler {address} cannot be used: {_said(error)}") from None


async def _look_for(address: str) -> None:
    """Open a connection as a client does, and close it."""
    from distributed.comm import connect  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    connection = await connect(address, **Security().get_connection_args("client"))
    await connection.close()


def _said(error: Exception) -> str:
    return f"{type(error).__name__} ({foreign_text(str(error))})"


def _portable(job: Job) -> Job:
    """A job that another machine can do: it carries what only this one has."""
    if not isinstance(job.place, Path):
        return job
    with on_disk(job.place, job.member.name) as file:
        member, content = archive.cut_out(file, job.member)
    return replace(job, place=content, member=member)


def _task(run_id: str, needed: str, reader: bytes, job: bytes) -> Callable[[], Any]:
    """What a worker runs.

    It travels as code, so that the scheduler can do without the tap; and what it needs travels inside it, for Dask
    shows arguments in logs.
    """
    missing = _missing(needed)

    def read() -> Any:
        if problem := missing():
            return problem
        from tap_braze_export.workers.dask_cluster import perform  # noqa: PLC0415

        return perform(run_id, reader, job)

    return read


def _missing(needed: str) -> Callable[[], str]:
    """What tells, on a worker, why it cannot run this version of the tap; it travels as code, too."""

    def missing() -> str:
        from importlib.metadata import version  # noqa: PLC0415

        try:
            import tap_braze_export  # noqa: F401, PLC0415

            found = version("tap-braze-export")
        except ImportError as error:
            found = f"none ({error})"
        return (
            ""
            if found == needed
            else f"the Dask workers need tap-braze-export {needed}, which runs here, and have {found}: install it "
            "there, with the extras of the storage that they read and write"
        )

    return missing


_here = threading.local()
"""The reader of a thread, since it learns from each file what the next one may hold."""


def perform(run_id: str, reader: bytes, job: bytes) -> Result | Exception:
    """What a file gives, or the error, on a worker: what Dask knows as an error it would log, argument and all."""
    try:
        if getattr(_here, "run_id", None) != run_id:
            _here.reader = pickle.loads(reader)  # noqa: S301 - the run that it was made by sends it
            _here.run_id = run_id
        result: Result = _here.reader.read(pickle.loads(job))  # noqa: S301
    except ConfigError as error:
        return ConfigError(f"on a Dask worker: {error}")
    except TapError as error:
        return error
    except ImportError as error:
        return ConfigError(f"a Dask worker lacks {error.name}: install {_TAP} there with the same extras as here")
    except Exception as error:  # noqa: BLE001 - the run tells of it
        return TapError(unforeseen(error))
    return result
