"""Whom the next export of a segment asks for: each row of the table in docs/state.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.exports import scope as scope_module
from tap_braze_export.exports.scope import (
    CLOCK_SET_BACK,
    NO_FULL_EXPORT,
    OTHER_ROWS,
    OTHER_START,
    TOO_OLD,
    Scope,
    asks_enough,
    scope_of,
)
from tap_braze_export.settings import Settings
from tap_braze_export.state import CompleteExports
from tests.support.loaders import ROOT

HOUR, DAY = 3600.0, 24 * 3600.0


def at(text: str) -> float:
    """Epoch seconds of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


FULL = at("2026-11-28T02:00:00.25")
LAST = at("2026-11-30T02:00:00.75")
NOW = at("2026-12-01T02:00:00")
COMPLETE = CompleteExports(full_at=FULL, full_since=None, accepted_at=LAST, rows_signature="rows")


def scope(complete: CompleteExports | None = COMPLETE, *, now: float = NOW, rows: str = "rows", **config: Any) -> Scope:
    given = {"api_url": "https://rest.example.com", "api_key": "key", "segment_ids": ["s"], "incremental": True}
    return scope_of(complete, settings=Settings.of({**given, **config}), rows_signature=rows, now=now)


def test_incremental() -> None:
    """From an hour before the last complete export was accepted, in whole seconds, not later."""
    assert scope() == Scope(at("2026-11-30T01:00:00"), is_full=False, full_again_at=at("2026-12-05T02:00:00.25"))
    assert scope().requested == "2026-11-30T01:00:00Z"
    assert str(scope()) == "incremental since 2026-11-30T01:00:00Z; full again on 2026-12-05"
    assert scope(overlap_minutes=0).requested == "2026-11-30T02:00:00Z"
    assert scope(overlap_minutes=90).requested == "2026-11-30T00:30:00Z"


@pytest.mark.parametrize(
    ("complete", "now", "rows", "config", "reason"),
    [
        pytest.param(COMPLETE, NOW, "rows", {"incremental": False}, "", id="not incremental"),
        pytest.param(None, NOW, "rows", {}, NO_FULL_EXPORT, id="none known"),
        pytest.param(COMPLETE, NOW, "other rows", {}, OTHER_ROWS, id="other request or rows"),
        pytest.param(COMPLETE, FULL + 7 * DAY + 1, "rows", {}, TOO_OLD, id="too old"),
        pytest.param(COMPLETE, FULL + DAY + 1, "rows", {"full_export_days": 1}, TOO_OLD, id="one day"),
        pytest.param(COMPLETE, FULL - DAY - 1, "rows", {}, CLOCK_SET_BACK, id="clock set back"),
        pytest.param(COMPLETE, LAST - DAY - 1, "rows", {}, CLOCK_SET_BACK, id="clock set back since the last one"),
    ],
)
def test_full(complete: CompleteExports | None, now: float, rows: str, config: dict[str, Any], reason: str) -> None:
    found = scope(complete, now=now, rows=rows, **config)
    assert found == Scope(None, reason=reason)
    assert str(found) == ("full export" if not reason else f"full export ({reason})")


def test_not_too_old_yet() -> None:
    assert not scope(now=FULL + 7 * DAY).is_full
    assert not scope(replace(COMPLETE, accepted_at=FULL), now=FULL + DAY, full_export_days=1).is_full


def test_a_clock_that_differs_by_hours() -> None:
    """The times in STATE are Braze's: an hour or two say nothing of a clock that was set back."""
    assert not scope(now=LAST - 5 * HOUR).is_full
    assert not scope(now=LAST + 5 * HOUR).is_full


def test_start_date() -> None:
    """It bounds every export; one that begins there is a full one, as no other asks for more."""
    start = "2026-11-29T00:00:00Z"
    assert scope(None, start_date=start) == Scope(at("2026-11-29"), reason=NO_FULL_EXPORT)
    assert scope(incremental=False, start_date=start) == Scope(at("2026-11-29"))
    assert str(scope(incremental=False, start_date=start)) == (
        "full export, of users updated since 2026-11-29T00:00:00Z"
    )
    assert scope(start_date=start).requested == "2026-11-30T01:00:00Z"
    assert scope(start_date="2026-11-30T01:00:00Z") == Scope(at("2026-11-30T01:00:00"))
    assert scope(start_date="2026-11-30T03:00:00+01:00") == Scope(at("2026-11-30T02:00:00"))


def test_times_far_away() -> None:
    """The request holds a date-time, and the log can say when everybody is asked for again."""
    assert scope(overlap_minutes=1_000_000_000).requested == "1970-01-01T00:00:00Z"
    assert scope(None, start_date="0987-06-05").requested == "0987-06-05T00:00:00Z"
    assert str(scope(full_export_days=36_500)).endswith("; full again on 2126-11-04")
    with pytest.raises(ConfigError, match="start_date must be a date-time"):
        scope(None, start_date="0001-01-01T00:00:00+05:00")


def test_an_earlier_start_date_needs_a_full_export() -> None:
    since_november = replace(COMPLETE, full_since=at("2026-11-01"))
    assert scope(since_november).reason == OTHER_START
    assert scope(since_november, start_date="2026-10-31").reason == OTHER_START
    assert not scope(since_november, start_date="2026-11-01").is_full
    assert not scope(since_november, start_date="2026-11-02").is_full


def test_who_asked_for_no_less() -> None:
    """A running export is continued only if it asked for everybody that is needed now."""
    everybody, earlier, later = None, 1.0, 2.0
    assert [asks_enough(asked, needed) for asked, needed in [(everybody, everybody), (everybody, later)]] == [True] * 2
    assert [asks_enough(asked, needed) for asked, needed in [(earlier, later), (later, later)]] == [True] * 2
    assert [asks_enough(asked, needed) for asked, needed in [(later, earlier), (earlier, everybody)]] == [False] * 2


def test_the_table_has_the_reasons_of_the_code() -> None:
    """In the order in which they are looked for, each once."""
    page = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    table = page.partition("## Full or incremental\n")[2].partition("\n\nEverybody means")[0]
    told = [row.split("|")[3].strip().strip("`") for row in table.splitlines() if row.startswith("| ")][1:]
    texts = [value for name, value in vars(scope_module).items() if name.isupper() and isinstance(value, str)]
    reasons = [text for text in texts if " " in text]  # SEGMENT is none
    assert [reason for reason in told if reason] == [*reasons, "incremental since …; full again on …"]
