"""Where an object in the bucket stands on its way from the first listing to its last row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tap_braze_export.files.objects import DeliveredFile, LocalObject

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tap_braze_export.errors import DamagedFileError, TapError
    from tap_braze_export.files.objects import BucketObject, StoredObject
    from tap_braze_export.files.prefetch import Fetched


@dataclass(eq=False)
class UnreadObject:
    """An object of the export that is not yet read to its end.

    Attributes:
        listed: The object as the last listing showed it.
        fetching: The transfer under way.
        fetched: The object as it was when its transfer began.
        fetched_at: Seconds of the monotonic clock then.
        failure: Why that transfer has failed, if not because of damage.
        stored: Where it can be read.
        files: Its files that are still to be read.
        names: The names of all its files.
        damaged: The version of it that proved damaged.
        may_retry: True if that version is to be fetched once more.
        lost: Why that version cannot be read: it was fetched once more.
    """

    listed: BucketObject
    fetching: Future[Fetched] | None = None
    fetched: BucketObject | None = None
    fetched_at: float = 0.0
    failure: TapError | None = None
    stored: StoredObject | None = None
    files: list[DeliveredFile] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    damaged: BucketObject | None = None
    may_retry: bool = False
    lost: DamagedFileError | None = None

    @property
    def is_busy(self) -> bool:
        """True while it is fetched or read, and if its transfer has failed."""
        return bool(self.fetching or self.stored or self.failure)

    @property
    def is_due(self) -> bool:
        """True if it can be fetched now."""
        return not self.is_busy and (self.listed != self.damaged or self.may_retry)

    @property
    def is_lost(self) -> bool:
        """True if it is damaged and nothing more can be tried."""
        return self.lost is not None and self.listed == self.damaged and not self.is_busy

    def drop_copy(self) -> None:
        """Remove the local copy; an object in the bucket is its owner's."""
        if isinstance(self.stored, LocalObject):
            self.stored.path.unlink()
        self.stored = None


def remark(error: str, twin: BucketObject | None) -> str:
    """Add to the error of a truncated object what it may be."""
    if twin:
        return (
            f", and begins as {twin.name} does, so it may be left from a first try to write that: delete it, let"
            " Braze's account delete objects, and set callback_url, with which this is no error"
        )
    if "truncated" in error:
        return (
            ": it may be left from a first try to write another object, where Braze's account cannot delete objects;"
            " then delete it"
        )
    return ""
