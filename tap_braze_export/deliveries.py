"""What a run emits piece by piece, each piece covered by one STATE: delivered files, or groups of ids requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tap_braze_export.files import objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.archive import Block, Member
    from tap_braze_export.files.bucket import Bucket
    from tap_braze_export.files.objects import Place
    from tap_braze_export.state import Bookmark


class Delivery(Protocol):
    """Users that are emitted together."""

    @property
    def export_id(self) -> str:
        """Braze's `object_prefix`, or `ids-…`."""

    @property
    def name(self) -> str:
        """Its name in `export_files`."""

    @property
    def source(self) -> str:
        """`segment`, `global_control_group` or `ids`."""

    @property
    def segment_id(self) -> str:
        """The segment; empty where there is none."""

    @property
    def exported_at(self) -> str:
        """The column of that name in all its rows."""

    @property
    def size(self) -> int:
        """Compressed bytes."""

    @property
    def invalid_user_ids(self) -> Sequence[dict[str, str]]:
        """Identifiers that matched nobody, as rows of that stream without `exported_at`."""

    def ahead(self) -> Iterator[ExportFile]:
        """Itself and the files that come next if nothing happens, where processes can read them."""

    def blocks(self) -> Iterator[Block]:
        """The users, one a line.

        Raises:
            ExportError: If they cannot be read to their end.
        """

    def emitted(self, users: int) -> None:
        """Note that all rows are written, before STATE is."""


class Deliveries(Protocol):
    """A run's source of users: segment exports or a resync.

    Attributes:
        failures: What was given up, and why; the run goes on and fails at its end.
    """

    failures: list[str]

    def deliveries(self) -> Iterator[Delivery]:
        """What is to be emitted, in the order it arrives."""

    def give_up(self, error: ExportError) -> None:
        """Go on without the last delivery: it cannot be read, now or at all."""

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE."""

    def finish(self) -> None:
        """Look back on the run: warn of what seems odd."""

    def reason_to_keep_rows(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""


@dataclass(frozen=True)
class ExportFile:
    """A delivered file and the export that it belongs to: a `Delivery`."""

    bookmark: Bookmark
    member: Member
    place: Place
    bucket: Bucket | None = field(default=None, repr=False, compare=False)
    invalid_user_ids: Sequence[dict[str, str]] = ()
    following: Callable[[], Sequence[ExportFile]] = field(default=tuple, repr=False, compare=False)

    @property
    def export_id(self) -> str:
        """Braze's `object_prefix`."""
        return self.bookmark.export_id

    @property
    def name(self) -> str:
        """The object's name, with its member where it is a zip."""
        return self.member.name

    @property
    def source(self) -> str:
        """`segment` or `global_control_group`."""
        return self.bookmark.source

    @property
    def segment_id(self) -> str:
        """The segment; empty for the control group."""
        return self.bookmark.segment_id

    @property
    def exported_at(self) -> str:
        """When the export was requested."""
        return self.bookmark.exported_at

    @property
    def size(self) -> int:
        """Compressed bytes."""
        return self.member.size

    def ahead(self) -> Iterator[ExportFile]:
        """Itself and the files that come next if nothing happens."""
        yield self
        yield from self.following()

    def blocks(self) -> Iterator[Block]:
        """Its lines; see `objects.blocks`."""
        return objects.blocks(self.place, self.member, self.bucket)

    def emitted(self, users: int) -> None:
        """Note that all its rows are written."""
        self.bookmark.emitted(self.name, users)
