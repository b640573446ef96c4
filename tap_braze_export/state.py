"""STATE's record of an export: enough to adopt it in Braze and to skip the files that the target has.

`bookmarks.export_files` is `{"version": 1, "exports": [...], "resync": [...], "fingerprints": [...]}`. No secret, no
URL, no user data. A member keeps one kind of value for ever, as STATE is merged: what may be absent is a list.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

from tap_braze_export.clock import timestamp
from tap_braze_export.export import Export

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION = 1
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_DIGEST_BYTES = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompleteExports:
    """The complete exports of a segment that STATE knows: every file was read, and no line rejected beyond the limit.

    Attributes:
        full_at: When Braze accepted the last one that asked for everybody, in epoch seconds of Braze's clock.
        full_since: The last update from which that one asked (`start_date`), in epoch seconds; None for everybody.
        accepted_at: When Braze accepted the last one, full or incremental.
        rows_signature: The hash of fields, selection, schema and settings that all of them had.
    """

    full_at: float
    full_since: float | None
    accepted_at: float
    rows_signature: str

    def to_dict(self) -> dict[str, Any]:
        """Its entry in STATE."""
        return {
            "full_at": optional_timestamp(self.full_at),
            "full_since": optional_timestamp(self.full_since),
            "accepted_at": optional_timestamp(self.accepted_at),
            "rows_signature": self.rows_signature,
        }


@dataclass
class Bookmark:
    """One export: its request, and which of its files were emitted.

    Attributes:
        export: Which one it is.
        accepted_at: When it was requested by Braze's clock, where the two differ much, or as it was sent, where
            `requested_at` had to be later than that of the last export; None if neither is so.
        requested_fields: The fields requested, custom attributes as `custom_attributes.<name>`.
        rows_signature: Hash of everything that shapes rows: fields, selection, schema, settings.
        running: True while files may still come.
        in_bucket: True if they come into the company's bucket.
        users: Users emitted so far.
        last_users: Users of the last full export before this one that had any.
        is_full: True if everybody was asked for, as far as `start_date` allows.
        rejected: Lines of it that could not be read so far.
        complete: The complete exports of this segment, this one included once it is.
        digests: Of the files that were emitted.
    """

    export: Export
    requested_fields: tuple[str, ...]
    rows_signature: str
    running: bool = True
    in_bucket: bool = False
    users: int = 0
    last_users: int | None = None
    is_full: bool = True
    accepted_at: float | None = None
    rejected: int = 0
    complete: CompleteExports | None = None
    digests: dict[bytes, None] = field(default_factory=dict, repr=False)

    def has_emitted(self, file: str) -> bool:
        """True if the target was given this file."""
        return _digest(file) in self.digests

    def emitted(self, file: str, users: int, rejected: int = 0) -> None:
        """Note that a file's rows are written."""
        self.digests[_digest(file)] = None
        self.users += users
        self.rejected += rejected

    def note_complete(self) -> None:
        """Note that the export is complete: later incremental ones ask from its request on."""
        accepted_at, since = self.accepted_at or self.export.requested_at, self.export.updated_since
        if self.is_full:
            self.complete = CompleteExports(accepted_at, since, accepted_at, self.rows_signature)
        elif self.complete is not None and self.complete.rows_signature == self.rows_signature:
            self.complete = replace(self.complete, accepted_at=accepted_at)

    @property
    def users_to_compare(self) -> int | None:
        """Users of the last full export that had any: what the next full one is compared with."""
        return self.users if self.is_full and self.users and not self.running else self.last_users

    def forget(self, file: str) -> None:
        """Note that a file is to be emitted again."""
        self.digests.pop(_digest(file), None)

    def emitted_whole(self, name: str, files: list[str]) -> None:
        """Note that an object was emitted to its end: one digest stands for all its files."""
        for file in files:
            self.digests.pop(_digest(file), None)
        self.digests[_digest(name)] = None

    @property
    def files(self) -> int:
        """Number of files, or of whole objects, that the target was given."""
        return len(self.digests)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in STATE; 4,000 files take 43 KB."""
        export = self.export
        return {
            "source": export.source,
            "segment_id": export.segment_id,
            "export_id": export.export_id,
            "requested_at": export.exported_at,
            "requested_fields": list(self.requested_fields),
            "rows_signature": self.rows_signature,
            "running": self.running,
            "in_bucket": self.in_bucket,
            "users": self.users,
            "last_users": self.last_users,
            "updated_since": optional_timestamp(export.updated_since),
            "full": self.is_full,
            "accepted_at": optional_timestamp(self.accepted_at),
            "rejected": self.rejected,
            "complete": [self.complete.to_dict()] if self.complete else [],
            "files": self.files,
            "emitted": base64.urlsafe_b64encode(b"".join(self.digests)).decode(),
        }

    @classmethod
    def from_dict(cls, entry: object) -> Bookmark:
        """Read an entry of STATE.

        Raises:
            ValueError: If it does not describe an export.
        """
        try:
            known = msgspec.convert(entry, _Entry)
            return known.bookmark()
        except (msgspec.ValidationError, OverflowError, UnicodeError) as error:
            raise ValueError("no entry of an export") from error


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _CompleteEntry(msgspec.Struct):
    """The complete exports of a segment in STATE."""

    full_at: _Moment
    full_since: _Moment | None
    accepted_at: _Moment
    rows_signature: str

    def value(self) -> CompleteExports:
        """The same in epoch seconds."""
        since = None if self.full_since is None else _seconds(self.full_since)
        return CompleteExports(_seconds(self.full_at), since, _seconds(self.accepted_at), self.rows_signature)


class _Entry(msgspec.Struct):
    """An export in STATE: whoever keeps STATE may have changed it, so each member is checked.

    What has a default is missing in STATE from before incremental exports.
    """

    source: str
    segment_id: str
    export_id: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]{0,200}$")]
    requested_at: _Moment
    requested_fields: tuple[str, ...]
    rows_signature: str
    running: bool
    in_bucket: bool
    users: Count
    last_users: Count | None
    emitted: str
    updated_since: _Moment | None = None
    full: bool = True
    accepted_at: _Moment | None = None
    rejected: Count = 0
    complete: tuple[_CompleteEntry, ...] = ()

    def bookmark(self) -> Bookmark:
        """The same as the tap works with it."""
        digests = base64.urlsafe_b64decode(self.emitted)
        since = None if self.updated_since is None else _seconds(self.updated_since)
        return Bookmark(
            Export(self.source, self.segment_id, self.export_id, _seconds(self.requested_at), since),
            requested_fields=self.requested_fields,
            rows_signature=self.rows_signature,
            running=self.running,
            in_bucket=self.in_bucket,
            users=self.users,
            last_users=self.last_users,
            is_full=self.full,
            accepted_at=None if self.accepted_at is None else _seconds(self.accepted_at),
            rejected=self.rejected,
            complete=self.complete[-1].value() if self.complete else None,
            digests=dict.fromkeys(
                digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)
            ),
        )


class ResyncProgress(msgspec.Struct):
    """How far a resync has come.

    Attributes:
        export_id: The `export_id` of its rows.
        requests: Requests whose users the target has.
        refused: Identifiers among theirs that Braze refused.
    """

    export_id: str
    requests: Count
    refused: Count = 0

    @classmethod
    def of(cls, found: Any) -> Self | None:
        """Read an entry of the member `resync`; None if it is none of the tap's own."""
        try:
            return msgspec.convert(found, cls)
        except msgspec.ValidationError:
            return None


def none_or_one(found: Any) -> list[dict[str, Any]]:
    """A member in the form that it has in every STATE: a list with its one object, or empty.

    A list, since orchestrators merge one STATE into another and fail where null meets an object, which earlier
    versions of the tap wrote.
    """
    entries = found if isinstance(found, list) else [found]
    return [entry for entry in entries if isinstance(entry, dict)][-1:]


def exports_in_state(bookmarks: Iterable[Bookmark]) -> list[dict[str, Any]]:
    """The member `exports` of STATE. An entry with the same fields as the one before leaves them out: they are many."""
    entries = [bookmark.to_dict() for bookmark in bookmarks]
    for entry, before in reversed([*zip(entries[1:], entries, strict=False)]):
        if entry["requested_fields"] == before["requested_fields"]:
            entry["requested_fields"] = []
    return entries


def read_bookmarks(state: Mapping[str, Any]) -> dict[tuple[str, str], Bookmark]:
    """The exports in the value of `bookmarks.export_files`; of another version or form, none."""
    try:
        if state and state["version"] != VERSION:
            raise ValueError("STATE of another version")  # noqa: TRY301
        found = [Bookmark.from_dict(entry) for entry in state["exports"]] if state else []
        for bookmark, before in zip(found[1:], found, strict=False):
            bookmark.requested_fields = bookmark.requested_fields or before.requested_fields
    except (KeyError, TypeError, ValueError):
        found = []
        _log.warning("STATE is of another version or damaged, so it is not used: starting anew")
    return {bookmark.export.key: bookmark for bookmark in found}


def optional_timestamp(seconds: float | None) -> str | None:
    """Epoch seconds in the form of `exported_at`; None stays None."""
    return None if seconds is None else timestamp(seconds)


def _seconds(moment: datetime) -> float:
    seconds = moment.timestamp()
    timestamp(seconds)  # in UTC it may lie beyond the years that there are
    return seconds


def _digest(file: str) -> bytes:
    return hashlib.blake2b(file.encode(), digest_size=_DIGEST_BYTES).digest()
