"""The files at `fingerprints_url`: a folder for each run, with its parts, its version, and a mark while it goes on.

No name is used twice and no file is changed, so that two runs at once cannot spoil each other's.
"""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import filelock
from fsspec.implementations.local import LocalFileSystem

from tap_braze_export.clock import Clock
from tap_braze_export.errors import DiskFullError, TapError
from tap_braze_export.files.bucket_url import read_storage_url
from tap_braze_export.files.disk import FLUSH, MAP, REMOVE, RENAME, WRITE, file_lock, private_file, try_out
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.fingerprints.columns import Part, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from tap_braze_export.files.spool import Spool

_SETTING = "fingerprints_url"
_UNFINISHED = "."
"""Prefix of a file that is being written."""
_RUNNING = "running"
_TIME = "%Y%m%dT%H%M%SZ"
_is_own = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}/[^/.][^/]*").fullmatch
_find_part = re.compile(r"(.+)/(\d{6,})\.npz").fullmatch
_LONGEST_RUN_SECONDS = 7 * 24 * 3600
_PROBED_SECONDS = 2.0
"""For so long another run may hold a lock that it only looks at."""
_LABELS = StorageLabels(
    "the storage of fingerprints",
    url=_SETTING,
    options="bucket_options, sent only where the scheme is that of bucket_url,",
    needed="list, get, put and delete objects",
    unreachable_error=TapError,
)


def new_run_id(clock: Clock) -> str:
    """A name that no other run has."""
    return f"{datetime.fromtimestamp(clock.now(), UTC):{_TIME}}-{uuid.uuid4().hex[:12]}"


def run_of(name: str) -> str:
    """The run that a file belongs to."""
    return name.partition("/")[0]


def began_at(name: str) -> float:
    """When the run of a file began, in epoch seconds."""
    return datetime.strptime(name.partition("-")[0], _TIME).replace(tzinfo=UTC).timestamp()


def part_name(run_id: str, number: int) -> str:
    """The name of a run's part; parts are counted from 0 in the order in which they are emitted."""
    return f"{run_id}/{number:06}.npz"


def version_name(run_id: str, what: str = "version") -> str:
    """The name of the version that a run leaves, or of another one that it needs; with it begin those of its files."""
    return f"{run_id}/{what}"


def parts_of(names: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of the parts of each run."""
    numbers: dict[str, set[int]] = {}
    for found in filter(None, map(_find_part, names)):
        numbers.setdefault(found[1], set()).add(int(found[2]))
    return numbers


class Store:
    """The files of fingerprints; it can be sent to other processes. Where the storage refuses, a TapError is raised.

    Args:
        url: A local directory or fsspec URL.
        options: fsspec's options for it, secrets.
        spool: Receives copies of files that are not on the local disk; None for a temporary directory.
        clock: The waits between tries.

    Raises:
        ConfigError: If the URL cannot be one.
    """

    def __init__(self, url: str, options: Mapping[str, Any], spool: Spool | None, clock: Clock) -> None:
        self._url = read_storage_url(url, setting=_SETTING)
        self._options = options
        self._spool = spool
        self._clock = clock
        self._copies: Path | None = None
        self._temporary: TemporaryDirectory[str] | None = None
        self._lock: filelock.BaseFileLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        own = {"_spool": None, "_clock": Clock(), "_temporary": None, "_lock": None}
        return {name: value for name, value in vars(self).items() if name != "_storage"} | own

    def close(self) -> None:
        """Remove the copies."""
        if self._copies is not None and self._spool is not None:
            self._spool.clear_run_folder(self._copies)

    @cached_property
    def _storage(self) -> Storage:
        options = {**self._options, "use_listings_cache": False} if "://" in self._url else {}
        return Storage(self._url, options, _LABELS, clock=self._clock)

    @property
    def is_local(self) -> bool:
        """True if it is a directory, so that its files are read where they are."""
        return isinstance(self._storage.files, LocalFileSystem)

    def names(self) -> list[str]:
        """The names of all files, sorted; what is not the tap's is left alone."""
        storage = self._storage
        paths = storage.retrying("listed", lambda: storage.files.find(storage.root))
        found = (str(path).removeprefix(storage.root).lstrip("/") for path in paths)
        return sorted(filter(_is_own, found))

    def check(self) -> None:
        """Do what each run does: make the calls that it needs, list the files, write a mark and remove it."""
        self.names()
        run_id = new_run_id(self._clock)
        self.mark(run_id)
        self.unmark(run_id)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A new file; it is there as a whole, or not at all."""
        with self._written(name) as path, private_file(path) as file:
            yield file

    def mark(self, run_id: str) -> None:
        """Say that a run has begun, and has not ended until `unmark` or its death."""
        name = f"{run_id}/{_RUNNING}"
        if self.is_local:
            self._try_out()
        with self._written(name) as path, private_file(path):
            pass
        if self.is_local:
            self._lock = file_lock(Path(self._storage.root, name))
            with suppress(OSError):  # without locks the run counts as live for a week, as elsewhere
                self._lock.acquire(timeout=_PROBED_SECONDS)

    def _try_out(self) -> None:
        """Make the calls that a run needs in a local directory; locks it can do without."""
        folder = Path(self._storage.root)
        try:
            with suppress(FileExistsError):  # a directory, or a file, which the trial finds
                folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise self._unwritable(error) from None
        with suppress(DiskFullError):  # the first part that finds no room says so
            try_out(folder, (WRITE, FLUSH, RENAME, MAP, REMOVE), setting=_SETTING)

    def unmark(self, run_id: str) -> None:
        """Say that a run has ended."""
        if self._lock is not None:
            self._lock.release()
        self.remove([f"{run_id}/{_RUNNING}"])

    def live_runs(self, names: Iterable[str]) -> frozenset[str]:
        """The runs whose marks are among these files, and that may go on, as far as can be known.

        In a directory with locks, that of a run that was killed is free. Elsewhere a run counts as live for a week.
        """
        return frozenset(run_of(name) for name in names if name.endswith(f"/{_RUNNING}") and self._is_live(name))

    def _is_live(self, name: str) -> bool:
        try:
            if self.is_local:
                with file_lock(Path(self._storage.root, name)):
                    return False
        except filelock.Timeout:
            return True
        except FileNotFoundError:  # it has ended meanwhile
            return False
        except OSError:  # the file system has no locks
            pass
        return self._clock.age(began_at(name)) < _LONGEST_RUN_SECONDS

    def part(self, name: str) -> Part:
        """Read a part."""
        return Part.read(self.path(name))

    def version(self, name: str, *, is_checked: bool = False) -> Version:
        """Read a version, see `Version.read`."""
        return Version.read(lambda end: self.path(name + end), is_checked=is_checked)

    def path(self, name: str) -> Path:
        """A file on the local disk; none is there if the storage has none."""
        path = Path(self._storage.root, name) if self.is_local else self._copy(name)
        if not (self.is_local or path.exists()):
            draft, storage = path.with_name(f"{path.name}.{uuid.uuid4().hex}"), self._storage

            def fetch() -> None:
                with suppress(FileNotFoundError):  # another run was faster, or a person
                    storage.files.get_file(f"{storage.root}/{name}", str(draft))
                    draft.replace(path)

            storage.retrying("read", fetch)
        return path

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, in this order, and the folders of runs that are empty then."""
        storage = self._storage
        if self.is_local:
            for path in (Path(storage.root, name) for name in names):
                storage.once("written", lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
                with suppress(OSError):  # not empty, or another run was faster
                    for unfinished in path.parent.glob(f"{_UNFINISHED}*"):
                        unfinished.unlink()
                    path.parent.rmdir()
        elif names:
            storage.retrying("written", lambda: self._remove_from_store(names))

    def _remove_from_store(self, names: Sequence[str]) -> None:
        storage = self._storage
        paths = [f"{storage.root}/{name}" for name in names]
        try:
            storage.files.rm(paths)
        except FileNotFoundError:  # another run was faster
            for path in paths:
                with suppress(FileNotFoundError):
                    storage.files.rm(path)

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """A path to write to; what is written there becomes the file."""
        storage = self._storage
        if not self.is_local:
            copy = self._copy(name)
            yield copy
            storage.retrying("written", lambda: storage.files.put_file(str(copy), f"{storage.root}/{name}"))
            return
        path = Path(storage.root, name)
        part = path.with_name(f"{_UNFINISHED}{path.name}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            yield part
            part.replace(path)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> TapError:
        return TapError(
            f"fingerprints_url {self._storage.root} cannot be written ({error.strerror}): name a directory of the tap's"
            " own user, or remove the setting to emit all users"
        )

    def _copy(self, name: str) -> Path:
        if self._copies is None and self._spool is not None:
            self._copies = self._spool.run_folder("fingerprints")
        elif self._copies is None or not self._copies.is_dir():  # a worker on another machine
            self._temporary = TemporaryDirectory(prefix="tap-braze-export-")
            self._copies = Path(self._temporary.name)
        return self._copies / name.replace("/", "-")
