"""Faults that can be switched on, each described in one line."""

from __future__ import annotations

import threading

FAULTS = {
    "status-200": "POSTs get 200 instead of 201",
    "queued-202": 'export POSTs get 202 {"message": "queued"}, without object_prefix, and start nothing',
    "lost-response": "the next export POST starts an export, but its connection closes without a response",
    "server-error": "the first GET of each URL gets 503 with an HTML page",
    "rate-limited": "the next REST request gets 429 with Remaining 0 and a reset within a second",
    "retry-after": "the next REST request gets 429 with X-RateLimit-Retry-After 1 and a reset 50 minutes away",
    "errors-as-objects": 'refusals are {"errors": [{"id", "message"}]} instead of {"message"}',
    "estimates-high": "sizes of segments are too high by one per cent of the workspace",
    "estimates-low": "sizes of segments are too low by one per cent of the workspace, though not below 0",
    "ids-users-null": "ids POSTs get null for their users, as if that were success",
    "ids-no-users": "ids POSTs get no users beside a message that does not say success",
    "ids-queued": 'ids POSTs get 202 {"message": "queued"}',
    "url-null": "export POSTs get a null url, whatever the delivery",
    "url-absent": "export POSTs get no url, whatever the delivery",
    "url-empty": "export POSTs get an empty url, whatever the delivery",
    "not-ready-404": "a download that is not ready gets 404 instead of 403",
    "never-ready": "no export is ever ready, and no file is delivered",
    "never-complete": "a bucket gets every file, but the export goes on running and no callback comes",
    "expires": "a download works once, then gets 403 as expired",
    "no-range": "downloads ignore Range",
    "changed-etag": "each response of the download server has another ETag",
    "slow-download": "downloads arrive in 64 KiB pieces with pauses",
    "connection-reset": "the first download of each export breaks off halfway",
    "damaged-once": "the first download of each export is a truncated archive, the second is good",
    "truncated-file": "the first file of an export lacks its second half",
    "wrong-crc": "the first member of an export has a wrong checksum",
    "not-an-archive": "the first file of an export is an HTML page",
    "empty-zip": "files are archives without any member",
    "no-file": "a bucket export completes without writing a file",
    "filter-ignored": "user_last_updated_at is ignored, whatever it says, and everybody comes",
    "filter-refused": "an export with user_last_updated_at gets 400, whatever it says",
    "empty-archive": "an export without users is a zip without any member",
    "empty-bucket": "a bucket export without users completes without writing a file",
    "empty-never-ready": "an export without users is never ready: no download, no file and no callback",
    "macosx-entries": "zips hold a directory, __MACOSX members and members with an odd extension",
    "bad-line": "the first file has a line that is no JSON and one that is no object",
    "no-braze-id": "the first file has a user without braze_id",
    "duplicate-user": "the first user of the first file comes twice",
    "unrequested-fields": "every user has appboy_id and a new member, though the request names neither",
    "huge-line": "the first file has a line of more than 64 MiB",
    "other-date-folder": "bucket files are in the date folders of tomorrow and the day after, alternately",
    "foreign-export": "the bucket also holds another export's folder and a CSV export",
    "leftover-file": "the first bucket file also lies there without its second half, under another name",
    "half-written-file": "the last bucket file appears with its first half, and is complete later",
    "late-file": "the last bucket file appears after the export is complete",
    "slow-trickle": "bucket files after the first come later, one by one",
}


class Faults:
    """The faults that are switched on, and which of them have struck."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        """Switch on the faults of these names."""
        self._lock = threading.Lock()
        self.set(names)

    def set(self, names: tuple[str, ...]) -> None:
        """Switch on exactly these; those that strike once can strike again."""
        unknown = sorted(set(names) - FAULTS.keys())
        if unknown:
            raise ValueError(f"unknown fault: {', '.join(unknown)}")
        with self._lock:
            self._names = frozenset(names)
            self._struck: set[tuple[str, str]] = set()

    def __contains__(self, name: object) -> bool:
        """True if the fault is on."""
        return name in self._names

    def strikes_once(self, name: str, key: str = "") -> bool:
        """True if a fault that strikes once for each key strikes now."""
        with self._lock:
            if name not in self._names or (name, key) in self._struck:
                return False
            self._struck.add((name, key))
            return True
