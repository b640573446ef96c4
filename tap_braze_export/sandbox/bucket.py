"""The customer's own bucket: a local folder or any address that fsspec knows."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import fsspec

if TYPE_CHECKING:
    from pathlib import Path


class Bucket:
    """A bucket to which Braze writes files, below an optional folder."""

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        """Connect to the bucket; the address may end in a folder."""
        self._files, root = fsspec.core.url_to_fs(url, **(options or {}))
        self._root = str(root).rstrip("/")
        protocol = self._files.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def put(self, content: bytes | Path, key: str) -> str:
        """Write one object, which readers see only when it is complete; return its path."""
        path = f"{self._root}/{key}"
        target = f"{self._root}/.incoming-{uuid.uuid4().hex}" if self._local else path
        if self._local:
            self._files.makedirs(self._root, exist_ok=True)
        if isinstance(content, bytes):
            self._files.pipe_file(target, content)
        else:
            self._files.put_file(str(content), target)
        if self._local:  # a store shows only complete objects; a folder needs the renaming
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.mv(target, path)
        return path
