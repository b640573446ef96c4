"""A bucket, directory or file reached through fsspec: calls are repeated, and errors hold none of its secrets."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from typing_extensions import override

from tap_braze_export.errors import ConfigError, DamagedFileError, InterruptedExportError, TapError, described, texts_in
from tap_braze_export.files.objects import BucketObject
from tap_braze_export.files.stored_bytes import StoredBytes, is_encoded, pieces_of
from tap_braze_export.http.certificates import OVER_AIOHTTP, OVER_BOTO, certificate_problem, variable_fault
from tap_braze_export.http.retry import GaveUpError, RetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from _typeshed import WriteableBuffer

    from tap_braze_export.clock import Clock

T = TypeVar("T")

_RETRIES = RetryPolicy(max_tries=5, max_seconds=3 * 3_600)  # one try may copy a large file
_STREAM_BUFFER_BYTES = 2**20
_SHORTEST_SECRET_CHARS = 4  # shorter options are words such as "on"
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""The package's extra that brings the library for a scheme."""
_CERTIFICATES = {"s3": OVER_BOTO}
"""The environment variables that name trusted certificates, by extra; the other libraries use aiohttp."""
_ENDPOINT_VARIABLES = ("STORAGE_EMULATOR_HOST", "AZURE_STORAGE_CONNECTION_STRING")
# By name: the libraries that raise these are optional.
_CREDENTIAL_ERRORS = frozenset(
    {
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RefreshError",
    }
)


@dataclass(frozen=True)
class StorageLabels:
    """How errors speak of a storage: `url` and `options` are the settings that hold them.

    Its credentials must allow what is `needed`. `shown_url` is its URL without secrets, if errors are to hold it.
    """

    name: str
    url: str
    options: str
    needed: str
    kind: str = "a bucket or directory"
    unreachable_error: type[TapError] = InterruptedExportError
    shown_url: str = ""

    @property
    def full_name(self) -> str:
        """The name and the URL."""
        return f"{self.name} {self.shown_url}".rstrip()


class Storage:
    """A bucket, a directory, or one file, with fsspec's options for it, which are secrets.

    Attributes:
        files: Its file system.
        root: The path of the URL there.
        stored_bytes: Its objects that have a Content-Encoding.
        has_folders: True if folders have to be made before files, as in no object store.

    Raises:
        ConfigError: If there is no file system for URL and options.
    """

    def __init__(self, url: str, options: Mapping[str, Any], labels: StorageLabels, *, clock: Clock) -> None:
        parts = urlsplit(url)
        self._labels = labels
        self._clock = clock
        self._secrets = [*texts_in(dict(options), min_chars=_SHORTEST_SECRET_CHARS), parts.query, parts.password or ""]
        self.has_folders = parts.scheme not in _EXTRAS
        is_local = parts.scheme in {"", "file", "local"}
        self._certificates = () if is_local else _CERTIFICATES.get(_EXTRAS.get(parts.scheme, ""), OVER_AIOHTTP)
        # aiohttp ignores a file of certificates that it cannot load, and trusts others or none.
        if (
            self._certificates == OVER_AIOHTTP
            and not _is_plain(url, options)
            and (fault := variable_fault(OVER_AIOHTTP))
        ):
            raise ConfigError(f"{labels.name} cannot be reached: {fault}")
        # gcsfs would first ask over gRPC for the bucket's kind, for a minute where a proxy lets only HTTP pass.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            # fsspec would keep file systems by their secrets.
            files, root = fsspec.url_to_fs(url, **{**options, "skip_instance_cache": True})
        except ImportError:
            extra = _EXTRAS.get(parts.scheme)
            command = f"pip install 'tap-braze-export[{extra}]'" if extra else "the library that fsspec needs for it"
            raise ConfigError(f"{labels.url} starts with {parts.scheme}://, which needs: {command}") from None
        except Exception as error:  # noqa: BLE001  each cloud library has its own
            if parts.scheme and parts.scheme not in fsspec.available_protocols() and "::" not in url:
                raise ConfigError(
                    f"{labels.url} starts with {parts.scheme}://, which names no storage: use s3://, gs://, abfs://"
                    " or a local path"
                ) from None
            problem = described(error, self._secrets)
            raise ConfigError(f"{labels.url} or {labels.options} cannot be used: {problem}") from None
        self.files: Any = files
        self.stored_bytes = StoredBytes(files, url, options)
        self.root = str(root).rstrip("/")

    def retrying(self, done: str, call: Callable[[], T]) -> T:
        """Call the storage's library, again after failures that may pass; `done` is listed, read or written.

        Raises:
            TapError: If it does not succeed.
        """

        def attempt() -> T:
            try:
                return call()
            except Exception as error:  # noqa: BLE001  each cloud library has its own
                raise self._error(error, done) from None

        failed = f"{self._labels.full_name} could not be {done}"
        try:
            return _RETRIES.call(attempt, failed=failed[0].upper() + failed[1:], clock=self._clock)
        except GaveUpError as error:
            raise self._labels.unreachable_error(f"{failed} {error.tries} times: {error.last.problem}") from None

    def open(self, path: str, mode: str = "rb", **text_options: Any) -> IO[Any]:
        """Open a file for reading from its beginning: `rb`, or `r` with the options of `io.TextIOWrapper`.

        Raises:
            TapError: It cannot be opened; reading it may raise this, too.
        """
        info = self.once("read", lambda: self.files.info(path))
        raw: io.RawIOBase
        if is_encoded(info):
            raw = RangedFile(self, BucketObject(path, path, info["size"], "", is_encoded=True))
        else:
            raw = _Stream(self, self.once("read", lambda: self.files.open(path, "rb")))
        file = io.BufferedReader(raw, _STREAM_BUFFER_BYTES)
        return io.TextIOWrapper(file, **text_options) if mode == "r" else file

    def once(self, done: str, call: Callable[[], T]) -> T:
        """Call the storage's library; a failure is not repeated.

        Raises:
            TapError: If it does not succeed.
        """
        try:
            return call()
        except Exception as error:  # noqa: BLE001  each cloud library has its own
            raised = self._error(error, done)
        if isinstance(raised, RetryableError):
            raised = self._labels.unreachable_error(f"{self._labels.full_name} cannot be {done}: {raised.problem}")
        raise raised

    def _error(self, error: Exception, done: str) -> TapError | RetryableError:
        """The error to raise for one of the library's."""
        labels = self._labels
        if isinstance(error, TapError):
            return error
        if self._certificates and (problem := certificate_problem(error, labels.name, self._certificates)):
            return labels.unreachable_error(f"{labels.name} cannot be {done}: {problem}")
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            where = f": {labels.shown_url}" if labels.shown_url else ""
            return ConfigError(f"{labels.url} names {labels.kind} that does not exist{where}")
        problem = described(error, self._secrets)
        if is_refusal(error):
            return ConfigError(
                f"{labels.full_name} cannot be {done}: {problem}. Check the credentials ({labels.options} or the"
                f" environment) and that they may {labels.needed}"
            )
        return RetryableError(problem)


class _Stream(io.RawIOBase):
    """The bytes of a file from its beginning, with the errors of a storage; a failed read is not repeated."""

    def __init__(self, storage: Storage, opened: Any) -> None:
        super().__init__()
        self._storage = storage
        self._opened = opened

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer)
        content = self._storage.once("read", lambda: self._opened.read(len(into)))
        into[: len(content)] = content
        return len(content)

    @override
    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


def _is_plain(url: str, options: Mapping[str, Any]) -> bool:
    """True if a storage is reached without TLS."""
    named = (url, *texts_in(dict(options), min_chars=1), *(os.environ.get(name, "") for name in _ENDPOINT_VARIABLES))
    return any("http://" in text or "protocol=http;" in text.lower() for text in named)


def is_refusal(error: Exception) -> bool:
    """True if a storage refuses the credentials: not each library has an error of its own for that."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return (
        isinstance(error, PermissionError)
        or type(error).__name__ in _CREDENTIAL_ERRORS
        or str(status) in {"401", "403"}
        or str(error).startswith("Forbidden: ")  # gcsfs
    )


class RangedFile(io.RawIOBase):
    """A file of a storage; each piece of it is fetched by a call of its own, which is repeated like any other."""

    def __init__(self, storage: Storage, stored: BucketObject, fetched_first: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self._storage = storage
        self._stored = stored
        self._position = 0
        starts = [start for start, _ in fetched_first]
        self._pieces = dict(zip(starts, self._fetched(fetched_first), strict=True))

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stored.size}[whence]
        if position < 0:
            raise ValueError("before the start of the file")
        self._position = position
        return position

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer)
        begin, end = self._position, min(self._position + len(into), self._stored.size)
        for start, piece in self._pieces.items():
            if start <= begin < start + len(piece):
                content = piece[begin - start : end - start]
                break
        else:
            (content,) = self._fetched([(begin, end)]) if begin < end else [b""]
        into[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _fetched(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Pieces of the file from a byte to another, all at once where the library can."""
        starts, ends = [start for start, _ in ranges], [end for _, end in ranges]

        def fetch() -> list[bytes]:
            try:
                if self._stored.is_encoded:
                    return self._storage.stored_bytes.pieces(self._stored.path, starts, ends)
                return pieces_of(self._storage.files, self._stored.path, starts, ends)
            except FileNotFoundError:
                raise deleted_error(self._stored) from None

        return self._storage.retrying("read", fetch) if ranges else []


def deleted_error(stored: BucketObject) -> DamagedFileError:
    """The error of a file that is gone: renamed or repaired, as the next listing will show, or lost."""
    return DamagedFileError(f"{stored.name} was deleted from the bucket before it was read")
