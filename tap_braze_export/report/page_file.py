"""The file of a run's page: `report_path` is checked before the run, and written at its end."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import ConfigError, unforeseen
from tap_braze_export.report.history import last_runs
from tap_braze_export.report.page import render_checks, render_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from tap_braze_export.report.facts import RunFacts
    from tap_braze_export.report.page import Ending
    from tap_braze_export.settings import Settings

_STARTED_AT = "{started_at}"
_log = logging.getLogger(__name__)


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


def write_run(settings: Settings, ending: Ending, facts: RunFacts) -> None:
    """Write the page of a run, if `report_path` is set."""

    def render(path: Path) -> str:
        earlier = last_runs(path, resync=settings.is_resync)
        return render_run(ending, facts, resync=settings.is_resync, earlier=earlier)

    _write_or_warn(settings.report_path, facts.started_at, render)


def write_checks(
    settings: Settings, ending: Ending, started_at: float, seconds: float, checks: Sequence[tuple[str, str, str, str]]
) -> None:
    """Write the page of a checklist, if `report_path` is set; see `render_checks`."""
    _write_or_warn(settings.report_path, started_at, lambda _: render_checks(ending, started_at, seconds, checks))


def _write_or_warn(report_path: str | None, started_at: float, render: Callable[[Path], str]) -> None:
    """Write a page; if it cannot be written there is a warning, since the run itself has done its work."""
    if report_path is None:
        return
    path = page_path(report_path, started_at)
    try:
        write(path, render(path))
        _log.info("The page of this run: %s", path)
    except OSError as error:
        _log.warning("The page %s is not written: %s", path, error.strerror)
    except Exception as error:  # noqa: BLE001 - the run is not to fail for its page
        _log.warning("The page %s is not written: %s", path, unforeseen(error))


def write(path: Path, page: str) -> None:
    """Write a page, which takes the place of an earlier one at once, and which only its owner can read.

    Raises:
        OSError: It cannot be written; the earlier one stays.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(page.encode("utf-8", "replace"))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
