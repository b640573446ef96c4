"""STATE's record of an export: enough to adopt it in Braze and to skip the files that the target has.

`bookmarks.export_files` is `{"version": 1, "exports": [...], "resync": [...], "fingerprints": [...]}`.
No secret, no URL, no user data.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

import msgspec

from tap_braze_export.clock import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_DIGEST_BYTES = 8
_log = logging.getLogger(__name__)


class OfExport(Protocol):
    """Something of one export: which one it is, and when it was requested."""

    @property
    def export_id(self) -> str:
        """Braze's `object_prefix`, or `ids-…`."""

    @property
    def source(self) -> str:
        """`segment`, `global_control_group` or `ids`."""

    @property
    def segment_id(self) -> str:
        """The segment; empty where there is none."""

    @property
    def exported_at(self) -> str:
        """When Braze was asked for it: the column of that name in all its rows."""


@dataclass
class Bookmark:
    """One export: its request, and which of its files were emitted.

    Attributes:
        source: `segment` or `global_control_group`.
        segment_id: The segment's API identifier.
        export_id: Braze's `object_prefix`; empty while it is not known whether Braze started the export.
        requested_at: Epoch seconds of the request.
        requested_fields: The fields requested, custom attributes as `custom_attributes.<name>`.
        rows_signature: Hash of everything that shapes rows: fields, selection, schema, settings.
        running: True while files may still come.
        in_bucket: True if they come into the company's bucket.
        users: Users emitted so far.
        last_users: Users of the export before this one.
        digests: Of the files that were emitted.
    """

    source: str
    segment_id: str
    export_id: str
    requested_at: float
    requested_fields: tuple[str, ...]
    rows_signature: str
    running: bool = True
    in_bucket: bool = False
    users: int = 0
    last_users: int | None = None
    digests: dict[bytes, None] = field(default_factory=dict, repr=False)

    @property
    def exported_at(self) -> str:
        """The `exported_at` of its rows."""
        return timestamp(self.requested_at)

    @property
    def key(self) -> tuple[str, str]:
        """Source and segment: Braze runs one export of it at a time."""
        return self.source, self.segment_id

    def has_emitted(self, file: str) -> bool:
        """True if the target was given this file."""
        return _digest(file) in self.digests

    def emitted(self, file: str, users: int) -> None:
        """Note that a file's rows are written."""
        self.digests[_digest(file)] = None
        self.users += users

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
        entry: dict[str, Any] = {
            "source": self.source,
            "segment_id": self.segment_id,
            "export_id": self.export_id,
            "requested_at": self.exported_at,
            "requested_fields": list(self.requested_fields),
            "rows_signature": self.rows_signature,
            "running": self.running,
            "in_bucket": self.in_bucket,
            "users": self.users,
            "last_users": self.last_users,
            "files": self.files,
            "emitted": base64.urlsafe_b64encode(b"".join(self.digests)).decode(),
        }
        return entry

    @classmethod
    def from_dict(cls, entry: object) -> Bookmark:
        """Read an entry of STATE.

        Raises:
            ValueError: If it does not describe an export.
        """
        try:
            known = msgspec.convert(entry, _Entry)
            requested_at = known.requested_at.timestamp()
            timestamp(requested_at)  # in UTC it may lie beyond the years that there are
            digests = base64.urlsafe_b64decode(known.emitted)
        except (msgspec.ValidationError, OverflowError, UnicodeError) as error:
            raise ValueError("no entry of an export") from error
        return cls(
            source=known.source,
            segment_id=known.segment_id,
            export_id=known.export_id,
            requested_at=requested_at,
            requested_fields=known.requested_fields,
            rows_signature=known.rows_signature,
            running=known.running,
            in_bucket=known.in_bucket,
            users=known.users,
            last_users=known.last_users,
            digests=dict.fromkeys(
                digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES)
            ),
        )


class _Entry(msgspec.Struct):
    """An export in STATE: whoever keeps STATE may have changed it, so each member is checked."""

    source: str
    segment_id: str
    export_id: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]{0,200}$")]
    requested_at: Annotated[datetime, msgspec.Meta(tz=True)]
    requested_fields: tuple[str, ...]
    rows_signature: str
    running: bool
    in_bucket: bool
    users: Count
    last_users: Count | None
    emitted: str


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


def read_bookmarks(state: Mapping[str, Any]) -> dict[tuple[str, str], Bookmark]:
    """The exports in the value of `bookmarks.export_files`; of another version or form, none."""
    try:
        if state and state["version"] != VERSION:
            raise ValueError("STATE of another version")  # noqa: TRY301
        found = [Bookmark.from_dict(entry) for entry in state["exports"]] if state else []
    except (KeyError, TypeError, ValueError):
        found = []
        _log.warning("STATE is of another version or damaged, so it is not used: starting anew")
    return {bookmark.key: bookmark for bookmark in found}


def _digest(file: str) -> bytes:
    return hashlib.blake2b(file.encode(), digest_size=_DIGEST_BYTES).digest()
