"""Everything that can be made to go wrong, each in one line."""

from __future__ import annotations

import threading

FAULTS = {
    "answer-200": "POST answers 200 instead of 201",
    "queued-202": 'export POSTs answer 202 {"message": "queued"}, without object_prefix, and start nothing',
    "lost-answer": "the next export POST is carried out, but its connection closes without an answer",
    "server-error": "the first GET of each address answers 503 with an HTML page",
    "rate-limited": "the next REST call answers 429 with Remaining 0 and a reset within a second",
    "url-null": "export POSTs answer with url null, whatever the delivery",
    "url-absent": "export POSTs answer without url, whatever the delivery",
    "url-empty": "export POSTs answer with an empty url, whatever the delivery",
    "not-ready-404": "a download that is not ready answers 404 instead of 403",
    "never-ready": "no export ever gets ready, nothing is delivered",
    "never-complete": "a bucket gets every file, but the export goes on running and no callback comes",
    "expires": "a download works once, then answers 403 as expired",
    "no-range": "downloads ignore Range",
    "changed-etag": "each answer of the download server has another ETag",
    "slow-download": "downloads arrive in 64 KiB pieces with pauses",
    "connection-reset": "the first download of each export breaks off halfway",
    "damaged-once": "the first download of each export is a truncated archive, the second is good",
    "truncated-file": "the first file of an export lacks its second half",
    "wrong-crc": "the first member of an export has a wrong checksum",
    "not-an-archive": "the first file of an export is an HTML page",
    "empty-zip": "files are archives without any member",
    "no-file": "a bucket export completes without writing a file",
    "macosx-entries": "zips hold a directory, __MACOSX members and members with an odd extension",
    "bad-line": "the first file has a line that is no JSON and one that is no object",
    "no-braze-id": "the first file has a user without braze_id",
    "duplicate-user": "the first user of the first file comes twice",
    "unasked-fields": "every user carries appboy_id and a brand-new member, though nobody asked",
    "huge-line": "the first file has a line of more than 64 MiB",
    "other-date-folder": "bucket files stand in the date folders of tomorrow and the day after, in turn",
    "foreign-export": "another export's folder and a CSV export lie beside the bucket files",
    "half-written-file": "the last bucket file appears with its first half and grows later",
    "late-file": "the last bucket file appears after the export is complete",
    "slow-trickle": "bucket files after the first come one by one, later",
}


class Faults:
    """The faults that are switched on, and which of them have already struck."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        """Switch on the faults of these names."""
        self._lock = threading.Lock()
        self.set(names)

    def set(self, names: tuple[str, ...]) -> None:
        """Switch on exactly these, all of them unspent."""
        unknown = sorted(set(names) - FAULTS.keys())
        if unknown:
            raise ValueError(f"unknown fault: {', '.join(unknown)}")
        with self._lock:
            self._names = frozenset(names)
            self._spent: set[tuple[str, str]] = set()

    def __contains__(self, name: object) -> bool:
        """Whether the fault is on."""
        return name in self._names

    def strikes_once(self, name: str, key: str = "") -> bool:
        """Whether a fault that strikes once (for each key) strikes now."""
        with self._lock:
            if name not in self._names or (name, key) in self._spent:
                return False
            self._spent.add((name, key))
            return True
