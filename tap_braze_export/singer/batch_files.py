"""Rows → batch files: JSON lines or Parquet, written whole to any storage that fsspec reaches."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem
from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig, StorageTarget

from tap_braze_export.clock import Clock
from tap_braze_export.errors import TapError
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.singer import parquet

try:
    from isal import isal_zlib as deflating
except ImportError:  # no wheel for this machine
    import zlib as deflating  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tap_braze_export.rows.rendered import Rows

_TAP = "tap-braze-export"
_WORDS = StorageLabels(
    "the storage of batch files",
    url="batch_config.storage.root",
    options="batch_config.storage.params",
    needed="put objects",
    unreachable_error=TapError,
)
_GZIP = 31  # zlib's wbits
_LEVEL = 1
"""Measured on rendered rows: isal leaves a seventh at 1 GB/s (3: no less at a third of the pace), zlib at 250 MB/s."""
_MEMBERS = {
    "batch_config": {"encoding", "storage", "batch_size"},
    "batch_config.encoding": {"format", "compression"},
    "batch_config.storage": {"root", "prefix", "params"},
}


def errors_in(given: Any) -> list[str]:
    """What is wrong with the value of `batch_config`; the SDK's schema leaves most of it open."""
    if not isinstance(given, dict) or not all(
        isinstance(given.get(name) or {}, dict) for name in ("encoding", "storage")
    ):
        return []  # the schema says so
    parts = {
        "batch_config": given,
        "batch_config.encoding": given.get("encoding") or {},
        "batch_config.storage": given.get("storage") or {},
    }
    errors = [
        f"{part} knows no {name}: it takes {', '.join(sorted(_MEMBERS[part]))}"
        for part, members in parts.items()
        for name in members
        if name not in _MEMBERS[part]
    ]
    file_format = parts["batch_config.encoding"].get("format")
    if not file_format:
        errors.append("batch_config.encoding.format is missing: set it to jsonl or parquet")
    if file_format == "parquet" and not find_spec("pyarrow"):
        errors.append(f"batch_config.encoding.format parquet needs: pip install '{_TAP}[parquet]'")
    if not parts["batch_config.storage"].get("root"):
        errors.append(
            "batch_config.storage.root is missing: set it to a directory or to a URL such as s3://bucket/prefix"
        )
    size = given.get("batch_size", 1)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        errors.append("batch_config.batch_size must be an integer of at least 1")
    return errors


@dataclass(frozen=True)
class BatchFile:
    """A file of one stream that stands in the storage."""

    url: str
    count: int


@dataclass
class BatchFiles:
    """Writes batch files. It travels to other processes, so it connects to the storage when it is first used.

    Attributes:
        encoding: Their format.
        storage: Where they go.
        batch_size: Rows of the largest stream with which a group of them is full.
        clock: The waits between tries.
        schemas: The JSON schema of each stream, which gives Parquet its types.
        run_id: Part of their names.
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
        """Those that a value of `batch_config` asks for."""
        config = BatchConfig.from_dict(dict(given))
        return cls(config.encoding, config.storage, config.batch_size, clock)

    def elsewhere(self) -> BatchFiles:
        """The same for another process."""
        storage, files = self.storage, self.connect()
        if isinstance(files.files, LocalFileSystem):
            storage = replace(storage, root=files.root)  # another process may be in another directory
        return replace(self, clock=Clock(), storage=storage, _store=None)

    def connect(self) -> Storage:
        """The storage.

        Raises:
            ConfigError: If it cannot work.
        """
        if self._store is None:
            self._store = Storage(self.storage.root, self.storage.params, _WORDS, clock=self.clock)
        return self._store

    def write(self, rows: Mapping[str, Rows], name: str) -> dict[str, BatchFile]:
        """Write a file of each stream.

        Args:
            rows: By stream.
            name: Part of their names: written once more, they replace those of that name.

        Raises:
            TapError: If they cannot be written.
        """
        store = self.connect()
        names = {stream: self._name(stream, name) for stream in rows}
        contents = {f"{store.root}/{names[stream]}": self._encode(stream, found) for stream, found in rows.items()}
        if store.has_folders:
            folder = next(iter(contents)).rpartition("/")[0]
            store.retrying("written", lambda: store.files.makedirs(folder, exist_ok=True))
        store.retrying("written", lambda: store.files.pipe(contents))  # several at a time, where the library can
        # Not the SDK's get_url(): it quotes a blank in a local path, and loaders then look for a file of that name.
        urls = {stream: store.files.unstrip_protocol(f"{store.root}/{names[stream]}") for stream in rows}
        return {stream: BatchFile(urls[stream], found.count) for stream, found in rows.items()}

    def _name(self, stream: str, name: str) -> str:
        plain = "json.gz" if self._is_gzip else "json"
        suffix = "parquet" if self.encoding.format == "parquet" else plain
        safe = re.sub(r"[^A-Za-z0-9._-]", lambda odd: f"={ord(odd[0]):x}=", stream)
        return f"{self.storage.prefix or ''}{_TAP}--{safe}-{self.run_id}-{name}.{suffix}"

    @property
    def _is_gzip(self) -> bool:
        return self.encoding.compression == "gzip"

    def _encode(self, stream: str, rows: Rows) -> bytes:
        if self.encoding.format == "parquet":
            compression = "gzip" if self._is_gzip else "zstd"
            return parquet.encode(stream, rows, self.schemas[stream], compression=compression)
        return _gzipped(rows.parts) if self._is_gzip else rows.jsonl


def _gzipped(parts: Iterable[bytes]) -> bytes:
    compressor = deflating.compressobj(_LEVEL, deflating.DEFLATED, _GZIP)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])
