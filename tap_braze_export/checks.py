"""`--test`: what can be proven without starting an export, as a checklist on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_braze_export.client import Braze
from tap_braze_export.errors import TapError
from tap_braze_export.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_braze_export.tap import TapBrazeExport

WORKS, FAILS, UNKNOWN = "works", "fails", "cannot be checked"


def check(tap: TapBrazeExport) -> None:
    """Print the checklist.

    Raises:
        TapError: If something fails.
    """
    failed = []
    for subject, verdict, remark in _checks(tap):
        tap.logger.info("%s: %s%s", subject, verdict, f" ({remark})" if remark else "")
        if verdict == FAILS:
            failed.append(f"{subject}: {remark}")
    if failed:
        raise TapError("; ".join(failed))


def _checks(tap: TapBrazeExport) -> Iterator[tuple[str, str, str]]:
    config = tap.config
    client = Braze(config["api_url"], config["api_key"], clock=tap.clock)
    for segment_id in config.get("segment_ids", ()):
        subject = f"Segment {segment_id}"
        try:
            name = client.segment_details(segment_id).get("name")
        except TapError as error:
            yield subject, FAILS, str(error)
        else:
            yield subject, WORKS, str(name)
    try:
        Spool(config.get("spool_dir"), clock=tap.clock).open()
    except TapError as error:
        yield "Spool directory", FAILS, str(error)
    else:
        yield "Spool directory", WORKS, ""
    yield "Permission users.export.segment", UNKNOWN, "only an export can show it, and --test starts none"
