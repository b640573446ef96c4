"""A Dask cluster whose workers read files out of the bucket and write batch files; only counts and names come back."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import uuid
import warnings
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.errors import ConfigError, TapError, described
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.workers.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tap_braze_export.clock import Clock
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.workers.file_reader import FileReader, ReadResult

_TAP = "tap-braze-export"
_LEAST_CAPACITY = 32
"""Files for a cluster of few workers: it may start more when it sees them."""
_CLOSE_SECONDS = 3
_SECONDS_WITHOUT_WORKERS = 10
"""After that long the log says that the cluster has no worker."""
_SILENCED_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")
_log = logging.getLogger(__name__)


def errors_in(config: Mapping[str, Any]) -> list[str]:
    """Say what a configuration with `dask_scheduler` lacks, or what does not go with it, in one line each."""
    if not config.get("dask_scheduler"):
        return []
    needed = {"bucket_url": "read files out of the bucket", "batch_config": "write batch files"}
    errors = [
        f"dask_scheduler needs {name}: its workers {work}" for name, work in needed.items() if not config.get(name)
    ]
    if changing := [name for name in ("stream_maps", "flattening_enabled") if config.get(name)]:
        errors.append(f"dask_scheduler does not go with {' and '.join(changing)}: its workers write rows as they are")
    if not find_spec("distributed"):
        errors.append(f"dask_scheduler needs: pip install '{_TAP}[dask]'")
    return errors


class DaskCluster(Executor):
    """Reads files on a Dask cluster. Results stay on its workers until the run emits them.

    Args:
        address: The scheduler's.
        reader: Reads the files; each worker gets a copy.
        clock: Time.

    Raises:
        TapError: If the scheduler cannot be reached.
    """

    def __init__(self, address: str, reader: FileReader, *, clock: Clock) -> None:
        self._address = address
        self._reader = pickle.dumps(reader)
        self._clock = clock
        self._run_id = uuid.uuid4().hex
        self._tasks: dict[Future[ReadResult], Any] = {}
        self._waits_since = clock.monotonic()
        self._has_warned = False
        self._client, threads = _connect(address)
        self.capacity = max(_LEAST_CAPACITY, 2 * sum(threads))
        _log.info("Files are read by Dask at %s: %d workers, %d threads", address, len(threads), sum(threads))

    @override
    def submit(self, file: DeliveredFile) -> Future[ReadResult]:
        """Dask begins each file at once, except those that only this machine has.

        Raises:
            TapError: If the connection to the scheduler is lost.
        """
        future: Future[ReadResult] = Future()
        if isinstance(file.stored, BucketObject):
            future.set_running_or_notify_cancel()
            task = _task(self._run_id, version(_TAP), self._reader, pickle.dumps(file))
            try:
                self._tasks[future] = self._client.submit(task, key=f"{_TAP}-{uuid.uuid4()}")
            except Exception:  # noqa: BLE001 - the client has given up
                raise self._lost_connection() from None
        return future

    @override
    def wait(self, futures: Collection[Future[ReadResult]], seconds: float) -> None:
        """Fetch the result of the first file that is done, and leave those of the others.

        Raises:
            TapError: If the connection to the scheduler is lost.
        """
        from distributed import wait  # noqa: PLC0415

        tasks = {future: self._tasks[future] for future in futures if future in self._tasks}
        if seconds and not any(task.done() for task in tasks.values()):
            try:
                with self._client.as_current():
                    wait([*tasks.values()], seconds, "FIRST_COMPLETED")
            except TimeoutError:
                self._warn_without_workers()
            except CancelledError:
                raise self._lost_connection() from None
        for future, task in tasks.items():
            if task.done():
                del self._tasks[future]
                try:
                    future.set_result(self._result(task))
                except TapError as error:
                    future.set_exception(error)
                self._waits_since = self._clock.monotonic()
                return

    @override
    def close(self) -> None:
        """Leave the cluster; its workers finish what they are reading, and nobody fetches the results."""
        with suppress(Exception):
            self._client.cancel([*self._tasks.values()])
            self._client.close(timeout=_CLOSE_SECONDS)

    def _result(self, task: Any) -> ReadResult:
        from distributed import KilledWorker  # noqa: PLC0415

        try:
            result: ReadResult | TapError | str = task.result()
        except KilledWorker as error:
            raise TapError(
                f"{error.allowed_failures + 1} Dask workers died while they read the same file, perhaps for lack of "
                "memory: look at their logs, give each more memory or fewer threads, and run again, the next run "
                "continues from the last STATE"
            ) from None
        except (CancelledError, OSError):
            raise self._lost_connection() from None
        except Exception as error:  # noqa: BLE001 - whatever a cluster of other versions may make of it
            raise ConfigError(
                f"the Dask workers at {self._address} cannot run the tap: {described(error)}. Python, distributed "
                f"and {_TAP} must have the same versions there as here"
            ) from None
        if isinstance(result, str):  # of `_version_check`
            raise ConfigError(result)
        if isinstance(result, ConfigError):
            raise ConfigError(f"on a Dask worker: {result}")
        if isinstance(result, TapError):
            raise result
        return result

    def _lost_connection(self) -> TapError:
        return TapError(
            f"the connection to the Dask scheduler at {self._address} was lost, or the run's tasks were cancelled "
            "there: see that it runs, and run again, the next run continues from the last STATE"
        )

    def _warn_without_workers(self) -> None:
        if self._has_warned or self._clock.monotonic() - self._waits_since < _SECONDS_WITHOUT_WORKERS:
            return
        with suppress(OSError):
            self._has_warned = not self._client.nthreads()
            if self._has_warned:
                _log.warning("The Dask cluster at %s has no worker: waiting for one", self._address)


def check(address: str) -> str:
    """Count the workers and threads of a cluster.

    Raises:
        TapError: If the scheduler cannot be reached, or its workers cannot run the tap.
    """
    client, threads = _connect(address)
    with client:
        problems = {*client.run(_version_check(version(_TAP))).values()} - {""}
    if problems:
        raise ConfigError(problems.pop())
    return f"{len(threads)} workers, {sum(threads)} threads"


def _connect(address: str) -> tuple[Any, list[int]]:
    """A client of a scheduler, and the threads of each of its workers."""
    # Imported here, since it is an extra and takes a second.
    from distributed import Client  # noqa: PLC0415

    for name in _SILENCED_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the run reports in its own words what they log as errors
    try:
        # A client that cannot connect would print a traceback when the process ends.
        asyncio.run(_try_connection(address))
        with warnings.catch_warnings():
            # It is a table, also of libraries that do not matter here; where they do, the first file shows it.
            warnings.filterwarnings("ignore", "Mismatched versions")
            client = Client(address, set_as_default=False, name=_TAP)
        return client, [*client.nthreads().values()]
    except OSError as error:
        raise TapError(
            f"the Dask scheduler at {address} cannot be reached ({type(error).__name__}): see that it runs, and that "
            "dask_scheduler names it"
        ) from None
    except Exception as error:  # noqa: BLE001 - the run tells of it
        raise ConfigError(f"dask_scheduler {address} cannot be used: {described(error)}") from None


async def _try_connection(address: str) -> None:
    """Open a connection as a client does, and close it."""
    from distributed.comm import connect  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    connection = await connect(address, **Security().get_connection_args("client"))
    await connection.close()


def _task(run_id: str, needed_version: str, reader: bytes, file: bytes) -> Callable[[], Any]:
    """The function that a worker runs.

    It is sent as code, so that the scheduler needs no tap; it holds what it needs, since Dask shows arguments in logs.
    """
    problem_of_worker = _version_check(needed_version)

    def read() -> Any:
        if problem := problem_of_worker():
            return problem
        from tap_braze_export.workers.dask_cluster import read_on_worker  # noqa: PLC0415

        return read_on_worker(run_id, reader, file)

    return read


def _version_check(needed: str) -> Callable[[], str]:
    """A function, sent as code, that returns why a worker cannot run this version of the tap; empty if it can."""

    def problem() -> str:
        from importlib.metadata import version  # noqa: PLC0415

        try:
            import tap_braze_export  # noqa: F401, PLC0415

            found = version("tap-braze-export")
        except ImportError as error:
            found = f"none ({error})"
        if found == needed:
            return ""
        return (
            f"the Dask workers need tap-braze-export {needed}, which runs here, and have {found}: install it there, "
            "with the extras of the storage that they read and write"
        )

    return problem


_of_thread = threading.local()
"""The reader of each of a worker's threads, since it learns from each file what the next one may hold."""


def read_on_worker(run_id: str, reader: bytes, file: bytes) -> ReadResult | TapError:
    """Read a file on a worker."""
    if getattr(_of_thread, "run_id", None) != run_id:
        _of_thread.reader = pickle.loads(reader)  # noqa: S301 - the run has made it
        _of_thread.run_id = run_id
    result: ReadResult | TapError = _of_thread.reader.result(pickle.loads(file))  # noqa: S301
    return result
