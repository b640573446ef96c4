"""The queries of docs/warehouse.md, after two nights of the sandbox in DuckDB and in PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support import documents
from tests.support.fakes import FakeClock
from tests.support.loaders import SCHEMA, duckdb_rows, load
from tests.support.runs import Run, selecting, settings, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.external

USERS: dict[str, Any] = {"users": 12, "seed": 39057, "odd_users": False}
"""Users with few events, of which some change as the expected rows below say."""
CHANGED = 50
NIGHTS = (datetime(2026, 11, 24, 3, tzinfo=UTC), datetime(2026, 11, 25, 3, tzinfo=UTC))
SECONDS_A_CALL = 1.0
"""Each look at the clock takes so long, so that the exports of a night begin one after the other."""
STREAMS = ("users", "devices", "push_tokens", "custom_events", "segment_members", "export_files")
LEAVERS = "Users that left a segment, and when"
WITHOUT_FINGERPRINTS = "Members of a segment since its last full export, without fingerprints"

# The rows by the title of their query. A braze_id is shown as the user's number, a long key by its first eight letters,
# a time by its day. Users 0, 1, 2, 3 and 6 have changed in the second night; user 9 has joined vip-users.
EXPECTED = {
    # Users 2 and 6 have a Pixel 10 instead of a Pixel 5 and a Pixel 6.
    "Current devices": """
        user 6  | b9bfce1f | Pixel 10   | Android (B)
        user 5  | 7b70167a | Roku Ultra | Roku OS 12
        user 2  | ccc1200d | Pixel 10   | Android (B)
        user 2  | 7db8c4e4 | Roku Ultra | Roku OS 12
        user 8  | 401d775a | Roku Ultra | Roku OS 12
        user 9  | 31e31376 | iPhone 13  | iOS 16.4
        user 4  | 74101b05 | iPhone 13  | iOS 16.4
        user 0  | 4eaea892 | Pixel 4    | Android (Q)
        user 3  | anonymou | Chrome     | Mac OS X
        user 11 | 43829449 | iPhone 13  | iOS 16.4
        user 1  | 2dc343e6 | Pixel 6    | Android (S)
        user 7  | 572c6b02 | iPhone 13  | iOS 16.4
        user 10 | 15ed8d63 | Pixel 4    | Android (Q)
    """,
    # Those of users 2 and 6 are the new devices'; the old ones began with db8c4e48 and 5b08767d.
    "Current push tokens": """
        user 6  | Shop Android | Android | a8cc014a | True
        user 2  | Shop Android | Android | 8738bb64 | True
        user 9  | Shop iOS     | iOS     | 31e31376 | True
        user 4  | Shop iOS     | iOS     | 74101b05 | True
        user 0  | Shop Android | Android | 4eaea892 | True
        user 11 | Shop iOS     | iOS     | 43829449 | True
        user 1  | Shop Android | Android | 2dc343e6 | True
        user 7  | Shop iOS     | iOS     | 572c6b02 | True
        user 10 | Shop Android | Android | 15ed8d63 | True
    """,
    # User 2 has lost added_store, user 3 has viewed once more, and users 0, 1 and 6 have each done something new.
    "Current events": """
        user 6  | added_store     | 1  | 2026-09-01
        user 6  | shared_video    | 1  | 2020-08-10
        user 6  | shared_wishlist | 1  | 2022-01-15
        user 5  | added_cart      | 3  | 2019-02-22
        user 5  | added_wishlist  | 9  | 2023-06-02
        user 5  | opened_order    | 3  | 2024-06-30
        user 5  | opened_review   | 2  | 2024-07-22
        user 2  | added_article   | 2  | 2025-07-08
        user 2  | added_order     | 1  | 2025-04-20
        user 2  | added_profile   | 17 | 2021-07-08
        user 4  | added_article   | 1  | 2025-04-21
        user 4  | added_cart      | 30 | 2021-02-04
        user 4  | added_coupon    | 5  | 2023-02-23
        user 4  | added_order     | 1  | 2023-02-19
        user 4  | added_profile   | 1  | 2024-08-05
        user 4  | added_review    | 5  | 2023-03-27
        user 4  | added_store     | 1  | 2020-04-01
        user 4  | added_video     | 2  | 2021-10-11
        user 4  | added_wishlist  | 6  | 2024-05-25
        user 4  | opened_order    | 57 | 2023-05-08
        user 4  | opened_review   | 2  | 2019-10-15
        user 0  | added_order     | 21 | 2019-08-14
        user 0  | shared_profile  | 1  | 2026-09-01
        user 3  | Viewed_Item     | 2  | 2026-09-01
        user 11 | added_order     | 21 | 2019-08-14
        user 1  | viewed_item     | 1  | 2026-09-01
    """,
    # In the first night they were users 0 and 10.
    "Members of a segment today": """
        user 9  | 100009
        user 10 | fbdcf533-8692-4282-8da6-000000000a00
    """,
    WITHOUT_FINGERPRINTS: """
        user 9  | 100009
        user 10 | fbdcf533-8692-4282-8da6-000000000a00
    """,
    LEAVERS: """
        vip-users | user 0 | user-0000000 | 2026-11-24 | 2026-11-25
    """,
    "Users that changed since yesterday": """
        user 6 | None                                 | 2026-11-25
        user 2 | c2f3625f-2f60-4461-8123-000000000200 | 2026-11-25
        user 9 | 100009                               | 2026-11-25
        user 0 | user-0000000                         | 2026-11-25
        user 3 | member3@crm.example.com              | 2026-11-25
        user 1 | 100001                               | 2026-11-25
    """,
}
WITH_OR_WITHOUT = {"Current devices", "Current push tokens", "Current events"}
"""The queries that hold without fingerprints, too."""
QUERIES = {query.splitlines()[0].removeprefix("-- "): query for query in documents.queries("warehouse.md")}


def _shown(name: str, value: Any) -> str:
    if name == "braze_id":
        return f"user {int(value[-8:], 16)}"
    if name in {"device_key", "token"}:
        return str(value)[:8]
    if name in {"last", "exported_at", "left_after", "left_before"}:
        return str(value)[:10]
    return str(value)


def _expected(title: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in EXPECTED[title].strip().splitlines()]


def some_nights(folder: Path, *plan: tuple[datetime, int, bool], **more: Any) -> list[Run]:
    """Runs of the tap, each with the STATE of the one before: when, with how many changed users, incremental or not."""
    nights: list[Run] = []
    for begins, changed, incremental in plan:
        clock = FakeClock(begins.timestamp(), tick=SECONDS_A_CALL)
        with Sandbox(**USERS, changed=changed, clock=lambda clock=clock: clock.time) as sandbox:
            config = settings(sandbox, folder, segment_ids=["all-users", "vip-users"], incremental=incremental, **more)
            state = nights[-1].states[-1] if nights else None
            nights.append(sync(config, catalog=selecting(STREAMS), state=state, clock=clock))
    return nights


def two_nights(folder: Path, **more: Any) -> list[Run]:
    """Two full exports, the second of a sandbox that is a day older."""
    first, second = NIGHTS
    return some_nights(folder, (first, 0, False), (second, CHANGED, False), **more)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two nights with fingerprints: the second has the rows of changed users only."""
    folder = tmp_path_factory.mktemp("nights")
    return two_nights(folder, fingerprints_url=str(folder / "fingerprints"))


@dataclass(frozen=True)
class Warehouse:
    """A database, the loader that fills it, and queries to it."""

    loader: str
    config: dict[str, Any]
    rows: Callable[[str], list[dict[str, Any]]]

    @property
    def schema(self) -> str:
        return str(self.config["default_target_schema"])

    def load(self, nights: list[Run], folder: Path) -> None:
        for night in nights:
            done = load(self.loader, self.config, night.stdout, folder)
            assert done.returncode == 0, done.stderr

    def shown(self, query: str) -> list[list[str]]:
        """The rows of a query, as they are shown here."""
        return [[_shown(name, value) for name, value in row.items()] for row in self.rows(query)]

    def answers(self, titles: Iterable[str]) -> dict[str, list[list[str]]]:
        """The rows of the document's queries by their title."""
        return {title: self.shown(QUERIES[title]) for title in titles}


def duckdb_warehouse(folder: Path) -> Warehouse:
    path = folder / "warehouse.duckdb"
    config = {"filepath": str(path), "default_target_schema": SCHEMA, "flush_all_streams": True}
    return Warehouse("target-duckdb", config, lambda query: duckdb_rows(path, f"set schema = '{SCHEMA}'; {query}"))


def postgres_warehouse(folder: Path, server: Postgres) -> Warehouse:
    schema = f"{SCHEMA}_{folder.name}".lower()
    config = {**server.target_config, "default_target_schema": schema, "use_copy": True}
    return Warehouse("target-postgres", config, lambda query: server.rows(query, schema=schema))


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """An empty database of each kind."""
    return (
        duckdb_warehouse(tmp_path)
        if request.param == "duckdb"
        else postgres_warehouse(tmp_path, request.getfixturevalue("postgres"))
    )


def test_every_query_has_expected_rows() -> None:
    assert QUERIES.keys() == EXPECTED.keys()


def test_the_second_night_is_short(nights: list[Run]) -> None:
    first, second = ({_shown("braze_id", braze_id) for braze_id in night.ids()} for night in nights)
    assert first == {f"user {number}" for number in range(12)}
    assert second == {"user 0", "user 1", "user 2", "user 3", "user 6", "user 9"}


def test_queries_after_two_nights(warehouse: Warehouse, nights: list[Run], tmp_path: Path) -> None:
    """Each query gives the rows of the second night, though that night loads no user who is as before."""
    warehouse.load(nights, tmp_path)
    titles = QUERIES.keys() - {WITHOUT_FINGERPRINTS}
    assert warehouse.answers(titles) == {title: _expected(title) for title in titles}


def test_queries_without_fingerprints(tmp_path: Path) -> None:
    """Every night loads every user, and the join for current rows gives the same."""
    warehouse = duckdb_warehouse(tmp_path)
    warehouse.load(two_nights(tmp_path), tmp_path)
    titles = {*WITH_OR_WITHOUT, WITHOUT_FINGERPRINTS}
    assert warehouse.answers(titles) == {title: _expected(title) for title in titles}


def test_leavers_after_an_incremental_night(tmp_path: Path) -> None:
    """The night between has nobody, and says nothing of who has left: the full exports around it do."""
    first, between = NIGHTS
    plan = [(first, 0, False), (between, 0, True), (between + timedelta(days=1), CHANGED, False)]
    nights = some_nights(tmp_path, *plan, fingerprints_url=str(tmp_path / "fingerprints"))
    assert nights[1].ids() == []
    warehouse = duckdb_warehouse(tmp_path)
    warehouse.load(nights, tmp_path)
    (leaver,) = warehouse.answers([LEAVERS])[LEAVERS]
    assert leaver == ["vip-users", "user 0", "user-0000000", "2026-11-24", "2026-11-26"]


def test_members_after_an_incremental_night_without_fingerprints(tmp_path: Path) -> None:
    """Those of the last full export, and user 9, who has joined; that user 0 has left, no row says."""
    first, second = NIGHTS
    nights = some_nights(tmp_path, (first, 0, False), (second, CHANGED, True))
    warehouse = duckdb_warehouse(tmp_path)
    warehouse.load(nights, tmp_path)
    members = warehouse.answers([WITHOUT_FINGERPRINTS])[WITHOUT_FINGERPRINTS]
    assert {name for name, _external_id in members} == {"user 0", "user 9", "user 10"}
