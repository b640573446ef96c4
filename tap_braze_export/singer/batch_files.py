"""Writes rows to batch files, JSON lines or Parquet, in any storage that fsspec supports."""

from __future__ import annotations

import os
import re
import stat
import uuid
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem
from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig, StorageTarget

from tap_braze_export.clock import Clock
from tap_braze_export.errors import ConfigError, TapError
from tap_braze_export.files.bucket_url import check_storage_url
from tap_braze_export.files.disk import MODE, REMOVE, WRITE, set_mode, try_out
from tap_braze_export.files.inflate import fast_zlib
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.singer import parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tap_braze_export.rows.rendered import Rows

_TAP_NAME = "tap-braze-export"
_SETTING = "batch_config.storage.root"
_LABELS = StorageLabels(
    "the storage of batch files",
    url=_SETTING,
    options="batch_config.storage.params",
    needed="put objects",
    unreachable_error=TapError,
)
_GZIP_WBITS = 31
"""zlib's code for a gzip header and trailer."""
_GZIP_LEVEL = 1
"""On rendered rows isal's level 1 leaves a seventh of the bytes at 1 GB/s, zlib's at 250 MB/s; isal's level 3 is no
smaller and three times slower."""
_KNOWN_MEMBERS = {
    "batch_config": {"encoding", "storage", "batch_size"},
    "batch_config.encoding": {"format", "compression"},
    "batch_config.storage": {"root", "prefix", "params"},
}


def errors_in(given: Any) -> list[str]:
    """List the errors in a value of `batch_config` that the SDK's schema does not find."""
    if not isinstance(given, dict):
        return []
    encoding, storage = given.get("encoding") or {}, given.get("storage") or {}
    if not isinstance(encoding, dict) or not isinstance(storage, dict):
        return []
    parts = {"batch_config": given, "batch_config.encoding": encoding, "batch_config.storage": storage}
    errors = [
        f"{part} knows no {name}: it takes {', '.join(sorted(_KNOWN_MEMBERS[part]))}"
        for part, members in parts.items()
        for name in members
        if name not in _KNOWN_MEMBERS[part]
    ]
    file_format = encoding.get("format")
    if not file_format:
        errors.append("batch_config.encoding.format is missing: set it to jsonl or parquet")
    if file_format == "parquet" and not find_spec("pyarrow"):
        errors.append(f"batch_config.encoding.format parquet needs: pip install '{_TAP_NAME}[parquet]'")
    if root := storage.get("root"):
        try:
            check_storage_url(str(root), setting=_LABELS.url)
        except ConfigError as error:
            errors.append(str(error))
    else:
        errors.append(
            "batch_config.storage.root is missing: set it to a directory or to a URL such as s3://bucket/prefix"
        )
    size = given.get("batch_size", 1)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        errors.append("batch_config.batch_size must be an integer of at least 1")
    return errors


@dataclass(frozen=True)
class BatchFile:
    """A written file: its address in the storage, and the number of its rows."""

    url: str
    count: int


@dataclass
class BatchFiles:
    """Writes batch files. It connects on first use, because it is pickled for other processes.

    Attributes:
        batch_size: Rows of the largest stream at which a group of files is complete.
        schemas: The JSON schema of each stream; it sets the column types of Parquet.
        run_id: Part of every file name, so that no run replaces files of another.
    """

    encoding: BaseBatchFileEncoding
    storage: StorageTarget = field(repr=False)
    batch_size: int
    clock: Clock
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _store: Storage | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], clock: Clock) -> BatchFiles:
        """Make a writer for a value of `batch_config`."""
        config = BatchConfig.from_dict(dict(given))
        return cls(config.encoding, config.storage, config.batch_size, clock)

    def elsewhere(self) -> BatchFiles:
        """A copy for another process, without the connection."""
        storage = self.storage
        if self.is_local:
            storage = replace(storage, root=self.connect().root)  # another process may be in another directory
        return replace(self, clock=Clock(), storage=storage, _store=None)

    @property
    def is_local(self) -> bool:
        """True if the files go into a local directory."""
        return isinstance(self.connect().files, LocalFileSystem)

    def connect(self) -> Storage:
        """Connect to the storage, unless connected; `ConfigError` if it cannot be used as configured."""
        if self._store is None:
            self._store = Storage(self.storage.root, self.storage.params, _LABELS, clock=self.clock)
        return self._store

    def check(self) -> None:
        """Connect to the storage; in a local folder, make the calls that a run needs."""
        root = Path(self.connect().root)
        if not self.is_local:
            return
        try:
            _make_private_folder(root)
        except OSError as error:
            raise ConfigError(
                f"{_SETTING} {root} cannot be made ready ({error.strerror}): name a folder of the tap's own user"
            ) from None
        try_out(root, (WRITE, MODE, REMOVE), setting=_SETTING)

    def write(self, rows: Mapping[str, Rows], name: str) -> dict[str, BatchFile]:
        """Write one file for each stream; a second call with the same name replaces the files of the first."""
        store = self.connect()
        names = {stream: self._name(stream, name) for stream in rows}
        contents = {f"{store.root}/{names[stream]}": self._encode(stream, part) for stream, part in rows.items()}
        if self.is_local:
            store.retrying("written", lambda: _make_private_files(contents))
        elif store.has_folders:
            folder = next(iter(contents)).rpartition("/")[0]
            store.retrying("written", lambda: store.files.makedirs(folder, exist_ok=True))
        store.retrying("written", lambda: store.files.pipe(contents))  # the cloud libraries write several at a time
        # Not the SDK's get_url(): it quotes a blank in a local path, and loaders do not unquote it.
        urls = {stream: store.files.unstrip_protocol(f"{store.root}/{names[stream]}") for stream in rows}
        return {stream: BatchFile(urls[stream], part.count) for stream, part in rows.items()}

    def _name(self, stream: str, name: str) -> str:
        json_suffix = "json.gz" if self._is_gzip else "json"
        suffix = "parquet" if self.encoding.format == "parquet" else json_suffix
        safe_stream = re.sub(r"[^A-Za-z0-9._-]", lambda char: f"={ord(char[0]):x}=", stream)
        return f"{self.storage.prefix or ''}{_TAP_NAME}--{safe_stream}-{self.run_id}-{name}.{suffix}"

    @property
    def _is_gzip(self) -> bool:
        return self.encoding.compression == "gzip"

    def _encode(self, stream: str, rows: Rows) -> bytes:
        if self.encoding.format == "parquet":
            compression = "gzip" if self._is_gzip else "zstd"
            return parquet.encode(stream, rows, self.schemas[stream], compression=compression)
        return _gzipped(rows.parts) if self._is_gzip else rows.jsonl


def _make_private_files(paths: Iterable[str]) -> None:
    """Make empty files, for their owner alone: they will hold profiles. In a set-group-ID folder its group may read."""
    for path in paths:
        is_shared = _make_private_folder(Path(path).parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        set_mode(descriptor, 0o640 if is_shared else 0o600)
        os.close(descriptor)


def _make_private_folder(folder: Path) -> bool:
    """Make a folder, and those above it, if they are not there; True if its group may read what is in it."""
    if not folder.exists():
        _make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)  # it has the set-group-ID bit if the one above has
        if folder.stat().st_mode & stat.S_ISGID:
            folder.chmod(0o2750)
    return bool(folder.stat().st_mode & stat.S_ISGID)


def _gzipped(parts: Iterable[bytes]) -> bytes:
    compressor = fast_zlib.compressobj(_GZIP_LEVEL, fast_zlib.DEFLATED, _GZIP_WBITS)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
