"""A file of a segment export as a delivery of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_braze_export.deliveries import Role
    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.archive import Block
    from tap_braze_export.files.objects import DeliveredFile, Opener


@dataclass(frozen=True)
class ExportDelivery:
    """A file of an export: a `Delivery`.

    Attributes:
        file: The file.
        role: See `Delivery`.
        opener: Opens its object, where it stayed in the bucket.
        on_done: Called with the numbers of users and of rejected lines when its rows are written.
        on_failed: Called with the error if it cannot be read.
    """

    file: DeliveredFile
    role: Role
    opener: Opener | None = field(repr=False, compare=False)
    on_done: Callable[[int, int], None] = field(repr=False, compare=False)
    on_failed: Callable[[ExportError], None] = field(repr=False, compare=False)
    invalid_user_ids: Sequence[dict[str, str]] = ()

    @property
    def export_id(self) -> str:
        """See `Delivery`."""
        return self.file.export_id

    @property
    def name(self) -> str:
        """See `Delivery`."""
        return self.file.name

    @property
    def source(self) -> str:
        """See `Delivery`."""
        return self.file.source

    @property
    def segment_id(self) -> str:
        """See `Delivery`."""
        return self.file.segment_id

    @property
    def exported_at(self) -> str:
        """See `Delivery`."""
        return self.file.exported_at

    @property
    def updated_since(self) -> str | None:
        """See `Delivery`."""
        return self.file.updated_since

    @property
    def size(self) -> int:
        """See `Delivery`."""
        return self.file.size

    def blocks(self) -> Iterator[Block]:
        """See `Delivery`."""
        return self.file.blocks(self.opener)

    def done(self, users: int, rejected: int = 0) -> None:
        """See `Delivery`."""
        self.on_done(users, rejected)

    def failed(self, error: ExportError) -> None:
        """See `Delivery`."""
        self.on_failed(error)
