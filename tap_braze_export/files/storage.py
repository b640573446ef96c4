"""A place in a cloud, reached through fsspec: calls are tried again, and failures told without its secrets."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import backoff
import fsspec

from tap_braze_export.errors import ConfigError, ExportError, InterruptedExportError, TapError, foreign_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tap_braze_export.clock import Clock

T = TypeVar("T")

_TRIES = 5
_SECRET_LENGTH = 4  # shorter option texts are words such as "on"
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
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
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StorageLabels:
    """What a place is called in errors, the settings that name it, and what its credentials must allow."""

    name: str
    url: str
    options: str
    needed: str
    out_of_reach: type[TapError] = InterruptedExportError


class Store:
    """A bucket or directory.

    Args:
        url: `s3://bucket/prefix`, `gs://…`, `abfs://…` or a local directory.
        options: fsspec's options for it, secrets.
        words: What errors call it.
        clock: The waits between tries.

    Attributes:
        files: Its file system.
        root: The path there.
        has_folders: Whether folders have to be made, as in no object store.

    Raises:
        ConfigError: If no file system can be made of them.
    """

    def __init__(self, url: str, options: Mapping[str, Any], words: StorageLabels, *, clock: Clock) -> None:
        self._words = words
        self._clock = clock
        self._secrets = list(_texts(options))
        self.has_folders = urlsplit(url).scheme not in _EXTRAS
        # gcsfs would first ask over gRPC for the bucket's kind, for a minute where a proxy lets only HTTP pass.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        try:
            # fsspec would keep file systems by their secrets.
            files, root = fsspec.url_to_fs(url, **{**options, "skip_instance_cache": True})
        except ImportError:
            scheme = urlsplit(url).scheme
            extra = _EXTRAS.get(scheme)
            command = f"pip install 'tap-braze-export[{extra}]'" if extra else "the library that fsspec needs for it"
            raise ConfigError(f"{words.url} starts with {scheme}://, which needs: {command}") from None
        except Exception as error:  # noqa: BLE001  each cloud library has its own
            raise ConfigError(f"{words.url} or {words.options} cannot be used: {self._said(error)}") from None
        self.files: Any = files
        self.root = str(root).rstrip("/")

    def tried(self, done: str, call: Callable[[], T]) -> T:
        """Call the cloud's library, again after failures that may pass.

        Args:
            done: What the call does with the place, for errors: listed, read, written.
            call: The call.

        Raises:
            TapError: If it cannot be done.
        """
        words = self._words
        waits = backoff.expo(max_value=60)
        next(waits)  # backoff's generators give one 0 before the first wait
        tries = 0
        while True:
            tries += 1
            try:
                return call()
            except TapError:
                raise
            except FileNotFoundError:
                if done == "read":
                    raise ExportError("a delivered file was deleted from the bucket before it was read") from None
                raise ConfigError(f"{words.url} names a bucket or directory that does not exist") from None
            except Exception as error:  # noqa: BLE001  each cloud library has its own
                said = self._said(error)
                if is_refusal(error):
                    raise ConfigError(
                        f"{words.name} cannot be {done}: {said}. Check the credentials ({words.options} or the"
                        f" environment) and that they may {words.needed}"
                    ) from None
                if tries >= _TRIES or self._clock.stopped:
                    raise words.out_of_reach(f"{words.name} could not be {done} {tries} times: {said}") from None
            _log.info("%s could not be %s: %s; tried again", words.name.capitalize(), done, said)
            self._clock.sleep(backoff.full_jitter(next(waits)))

    def _said(self, error: Exception) -> str:
        said = foreign_text(str(error), self._secrets)
        return f"{type(error).__name__}{f' ({said})' if said else ''}"


def is_refusal(error: Exception) -> bool:
    """Whether a store refuses the credentials: not each library has an error of its own for that."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return (
        isinstance(error, PermissionError)
        or type(error).__name__ in _CREDENTIAL_ERRORS
        or str(status) in {"401", "403"}
        or str(error).startswith("Forbidden: ")  # gcsfs
    )


def _texts(value: object) -> Iterator[str]:
    """Every text in the options: any of them may be a secret."""
    if isinstance(value, str) and len(value) >= _SECRET_LENGTH:
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _texts(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _texts(member)
