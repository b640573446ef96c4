"""The pieces that a run emits, each covered by one STATE: delivered files, or groups of ids requests."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from tap_braze_export.state import optional_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_braze_export.errors import ExportError
    from tap_braze_export.export import Export
    from tap_braze_export.files.archive import Block
    from tap_braze_export.files.objects import DeliveredFile
    from tap_braze_export.state import Bookmark


class Role(enum.Enum):
    """The part that an export has in measuring Braze's filter of updated users."""

    NONE = enum.auto()
    """None: most exports."""
    NAMES_USERS = enum.auto()
    """An incremental export, which a full one of the same segment follows in this run."""
    IS_COMPARED = enum.auto()
    """That full export, if this run has emitted all of the incremental one."""


class WriteState(Protocol):
    """Writes STATE, of a run."""

    def __call__(self, *, must: bool) -> None:
        """Write STATE; unless it `must` be, only as far as all messages are little beside the output."""


@dataclass(eq=False)
class Delivery:
    """Users that are emitted together, then covered by one STATE: a delivered file, or a group of ids requests.

    Attributes:
        export: Their export.
        name: Its name in `export_files`.
        size: Compressed bytes.
        blocks: Reads the users in this process, one a line; raises an ExportError if they cannot be read to their end.
        done: Called with the numbers of users and of rejected lines when all rows are written, before STATE is.
        failed: Called if it cannot be read: it is fetched once more, or its export is given up.
        file: The file that holds the users, so that workers can read it; None for users of an ids export.
        role: The part of its export in measuring the filter of updated users.
        invalid_user_ids: Identifiers that matched nobody, as rows of that stream without `exported_at`.
    """

    export: Export
    name: str
    size: int
    blocks: Callable[[], Iterator[Block]] = field(repr=False)
    done: Callable[[int, int], None] = field(repr=False)
    failed: Callable[[ExportError], None] = field(repr=False)
    file: DeliveredFile | None = None
    role: Role = Role.NONE
    invalid_user_ids: Sequence[dict[str, str]] = ()


def audit_row(delivery: Delivery, *, read_at: str) -> dict[str, Any]:
    """The row of `export_files` for a delivery, whose counts are still 0."""
    export = delivery.export
    return {
        "export_id": export.export_id,
        "file": delivery.name,
        "source": export.source,
        "segment_id": export.segment_id or None,
        "exported_at": export.exported_at,
        "updated_since": optional_timestamp(export.updated_since),
        "read_at": read_at,
        "bytes": delivery.size,
        **dict.fromkeys(("lines", "users", "duplicates", "unchanged", "rejected"), 0),
        "missed": None,
    }


class Deliveries(Protocol):
    """A run's source of users: segment exports or a resync. Used as a context manager: it holds locks and ports.

    Attributes:
        failures: What was given up, and why; the run goes on and fails at its end.
    """

    failures: list[str]

    def __enter__(self) -> Self:
        """Lock what no other run may use, and open what is listened on."""

    def __exit__(self, *_: object) -> None:
        """Release it."""

    def poll(self) -> Sequence[Delivery]:
        """Start and look for what is due, without waiting.

        Returns:
            What can be read now, in order. Each stays listed until it is `done` or `failed`.
        """

    def advance(self) -> None:
        """Start and look for transfers that are due while a delivery is emitted; called between its blocks."""

    @property
    def ended(self) -> bool:
        """True once nothing more will come."""

    def wait(self) -> None:
        """Wait until the next `poll` may find something."""

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE."""

    def stated(self) -> None:
        """Note that a STATE message with `state` was written."""
        return  # whoever keeps no journal has nothing to do

    def second_part(self) -> Deliveries | None:
        """The full exports that were put off until incremental ones were read; None if there is none."""
        return None

    def complete_exports(self) -> Sequence[Bookmark]:
        """The exports of everybody of which every file has come and was emitted: known, not only assumed."""
        return ()

    def review(self) -> None:
        """At the end of a run: warn of what seems odd."""

    def reason_to_keep_rows(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""
