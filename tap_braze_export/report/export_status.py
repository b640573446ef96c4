"""The state of a running export, and its line on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from tap_braze_export.report.units import duration, megabytes

_LABEL_CHARS = 20
_CUT = "..."


@dataclass(frozen=True, kw_only=True)
class ExportStatus:
    """A running export.

    Attributes:
        export_id: Braze's `object_prefix`.
        name: What it exports.
        waits_since: Seconds of the monotonic clock at which it was requested.
        files_left: Number of files that are known and not yet read.
        received: Bytes that have come of the transfers under way, as far as that is known.
        expected: All bytes of the transfers under way; 0 if that is not known.
        waits_for_space: True if it is fetched once there is room on the disk.
        quiet_until: Monotonic seconds at which it counts as complete if no other file comes into the bucket; None
            unless that is all that it waits for.
    """

    export_id: str
    name: str
    waits_since: float
    files_left: int = 0
    received: int = 0
    expected: int = 0
    waits_for_space: bool = False
    quiet_until: float | None = None

    @property
    def is_downloading(self) -> bool:
        """True if bytes come, or are known to come."""
        return bool(self.received or self.expected)

    @property
    def label(self) -> str:
        """The segment, short enough to stand before the other facts; of a long id the beginning."""
        name = self.name.removeprefix("segment ")
        return name if len(name) <= _LABEL_CHARS else name[: _LABEL_CHARS - len(_CUT)] + _CUT


@dataclass
class ReadSoFar:
    """The files that a run has read of an export, or of all.

    Attributes:
        files: Number of files.
        users: Their users.
        seconds: Seconds that this took, without those in which the loader kept the run waiting.
        all_seconds: The same with them.
        received: Bytes of its transfer when the first of them were seen.
        received_at: Seconds of the monotonic clock then; None while there is no transfer.
        last_received: Bytes of it when they were last seen.
    """

    files: int = 0
    users: int = 0
    seconds: float = 0.0
    all_seconds: float = 0.0
    received: int = 0
    received_at: float | None = None
    last_received: int = 0

    def add(self, users: int, seconds: float, blocked: float) -> None:
        """Count a file."""
        self.files += 1
        self.users += users
        self.seconds += max(0.0, seconds - blocked)
        self.all_seconds += seconds

    @property
    def rate(self) -> str:
        """Users a second of reading."""
        return f"{self.users / self.seconds if self.seconds else 0:,.0f}"

    def time_left(self, files: int) -> str:
        """How long so many files will take, after a comma; nothing if there are none."""
        return f", {duration(self.all_seconds / self.files * files)} left" if files and self.files else ""

    def receives(self, received: int, now: float) -> None:
        """Note the bytes of a transfer, from whose first ones its speed is reckoned."""
        if not received:
            self.received_at = None
        elif self.received_at is None or received < self.last_received:
            self.received, self.received_at = received, now
        self.last_received = received


def size_of(received: int, expected: int) -> str:
    """The bytes of a transfer."""
    if not received:
        return f"{megabytes(expected)} MB"
    return f"{megabytes(received)} of {megabytes(expected)} MB" if expected else f"{megabytes(received)} MB so far"


def status_line(export: ExportStatus, read: ReadSoFar, now: float) -> tuple[str, float | None]:
    """The phase of an export with its facts, and the part of it that is done, if that is known."""
    if export.files_left:
        known = read.files + export.files_left
        return f"{read.files:,} of {known:,} files{_users(read)}{read.time_left(export.files_left)}", read.files / known
    if export.is_downloading:
        text = f"downloading {size_of(export.received, export.expected)}{_speed(export, read, now)}"
        return text, export.received / export.expected if export.received and export.expected else None
    if export.waits_for_space:
        return "waiting for room on the disk of spool_dir", None
    if export.quiet_until is not None:
        left = duration(max(0.0, export.quiet_until - now))
        return f"{read.files:,} files, quiet, ends in {left} (settle_minutes)", None
    if read.files:
        return f"{read.files:,} of {read.files:,} files so far{_users(read)}", None
    return f"waiting for Braze, {duration(now - export.waits_since)}", None


def _users(read: ReadSoFar) -> str:
    """The users that were read and the rate, after a comma; nothing before the first file."""
    return f", {read.users:,} users, {read.rate}/s" if read.files else ""


def _speed(export: ExportStatus, read: ReadSoFar, now: float) -> str:
    """Bytes a second and the time left, once there is something to reckon them from."""
    if read.received_at is None or now <= read.received_at or export.received <= read.received:
        return ""
    speed = (export.received - read.received) / (now - read.received_at)
    left = f", {duration((export.expected - export.received) / speed)} left" if export.expected else ""
    return f", {megabytes(speed)} MB/s{left}"
