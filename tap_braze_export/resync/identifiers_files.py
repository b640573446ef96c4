"""The files that `identifiers_url` names: one, those of a folder, or those that match a pattern."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tap_braze_export.errors import ConfigError
from tap_braze_export.files.storage import Storage, StorageLabels
from tap_braze_export.resync.identifiers_file import IdentifiersFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tap_braze_export.clock import Clock

_MAX_FILES = 10_000
_PATTERN_SIGNS = "*?["


class IdentifiersFiles:
    """All files of identifiers, in the order of their names, listed once.

    Args:
        url: A local path or any address that fsspec knows, of a file, a folder or a pattern with `*`.
        options: fsspec's options for it, secrets.
        clock: The waits between tries to reach their storage.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, clock: Clock) -> None:
        self._url = url
        self._address = f"identifiers_url {without_secrets(url)}"
        labels = StorageLabels(
            name=self._address,
            url=self._address,
            options="bucket_options, sent only where the scheme is that of bucket_url,",
            needed="read it",
            kind="a file",
            unreachable_error=ConfigError,
        )
        self._storage = Storage(url, options, labels, clock=clock)

    def __iter__(self) -> Iterator[IdentifiersFile]:
        """Yield each file.

        Raises:
            ConfigError: If they cannot be listed, or there are none.
        """
        return iter(self._files)

    @cached_property
    def _files(self) -> Sequence[IdentifiersFile]:
        storage, root = self._storage, self._storage.root
        kind = storage.retrying("listed", self._kind)
        is_pattern = not kind and any(sign in root for sign in _PATTERN_SIGNS)
        if kind != "directory" and not is_pattern:
            return [IdentifiersFile(storage, root, self._address)]
        folder = root.partition("*")[0].rpartition("/")[0] if is_pattern else root
        found = storage.retrying("listed", lambda: self._listed(is_pattern=is_pattern))
        names = {path.removeprefix(folder).lstrip("/"): path for path in found}
        # Programs that write many files mark what is no data so: _SUCCESS, .part-0.crc.
        shown = sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")))
        if not shown:
            raise ConfigError(f"{self._address} names no file: check the path, and that something was unloaded there")
        if len(shown) > _MAX_FILES:
            raise ConfigError(
                f"{self._address} names more than {_MAX_FILES:,} files: name a folder of identifiers only"
            )
        return [IdentifiersFile(storage, names[name], f"{self._address}: {name}", name) for name in shown]

    def _kind(self) -> str:
        """Look up the type of the address itself, empty if nothing is there; a file needs no listing of a bucket."""
        if urlsplit(self._url).scheme in {"http", "https"}:
            return "file"
        try:
            return str(self._storage.files.info(self._storage.root)["type"])
        except FileNotFoundError:
            return ""

    def _listed(self, *, is_pattern: bool) -> list[str]:
        files, root = self._storage.files, self._storage.root
        found = files.glob(root, detail=True) if is_pattern else files.find(root, detail=True)
        return [str(path) for path, info in found.items() if info["type"] != "directory"]


def without_secrets(url: str) -> str:
    """An address without user, password and query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
