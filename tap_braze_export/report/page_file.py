"""The file of a run's page: `report_path` is checked before the run, and written at its end."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_STARTED_AT = "{started_at}"


def errors_in(config: Mapping[str, Any]) -> list[str]:
    """List the error of `report_path`, if no page can be written there."""
    if not isinstance(text := config.get("report_path"), str) or not text.strip():
        return []
    if not find_spec("jinja2"):
        return ["report_path needs: pip install 'tap-braze-export[report]'"]
    try:
        _check(text)
    except ConfigError as error:
        return [f"report_path {error}"]
    except OSError as error:
        return [f"report_path cannot be written ({error.strerror}): name a file in a directory of the tap's own user"]
    return []


def page_path(report_path: str, started_at: float) -> Path:
    """The path of the page of a run that began at some epoch seconds."""
    moment = timestamp(started_at)[:19].replace("-", "").replace(":", "") + "Z"
    return Path(report_path.replace(_STARTED_AT, moment)).expanduser()


def write(path: Path, page: str) -> None:
    """Write a page, which takes the place of an earlier one at once, and which only its owner can read.

    Raises:
        OSError: It cannot be written; the earlier one stays.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(page.encode("utf-8", "replace"))
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _check(text: str) -> None:
    """Check that a page can be written.

    Raises:
        ConfigError: The path cannot be one of a page.
        OSError: It cannot be written.
    """
    if not text.isprintable():
        raise ConfigError("holds characters that no name of a file should have")
    if "://" in text:
        raise ConfigError("is a path on this machine, not an address")
    if {*text.replace(_STARTED_AT, "")} & {*"{}"}:
        raise ConfigError(f"may hold {_STARTED_AT}, and no other braces")
    try:
        path = page_path(text, 0.0)
    except RuntimeError:  # pathlib's for a home that nobody has
        raise ConfigError("begins with the home of a user who does not exist") from None
    if _STARTED_AT in os.path.dirname(text):  # noqa: PTH120 - pathlib drops a slash at the end
        raise ConfigError(f"may hold {_STARTED_AT} in the name of the file only, since its directory must exist")
    if not os.path.basename(text) or path.is_dir():  # noqa: PTH119 - the same
        raise ConfigError(f"names a directory: add the name of a file, such as run-{_STARTED_AT}.html")
    if not path.parent.is_dir():
        raise ConfigError(f"lies in {path.parent}, which is no directory: make it, or name another")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ConfigError(f"names {path}, which is no regular file: name another")
    with tempfile.TemporaryFile(dir=path.parent):
        pass
