"""A resync: the profiles of single people, asked for by identifier, group by group."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from tap_braze_export.braze.rate_limit import RequestPacer
from tap_braze_export.clock import timestamp
from tap_braze_export.errors import BrazeError, TapError
from tap_braze_export.files.archive import Block
from tap_braze_export.files.spool import private_file
from tap_braze_export.resync.digests import DigestSet, digest
from tap_braze_export.resync.id_requests import assign, requests
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.resync.request_pool import RequestPool
from tap_braze_export.schema.user_object import IDS
from tap_braze_export.state import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import ExportFile
    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.resync.id_requests import Request
    from tap_braze_export.resync.lanes import Lanes
    from tap_braze_export.resync.request_pool import Answer
    from tap_braze_export.schema.selection import RequestedFields
    from tap_braze_export.settings import Settings

_GROUP_REQUESTS = 50
_GROUP_SECONDS = 30.0
_UNCONFIRMED = 100
"""Requests that may have been sent since the last STATE: a group that is emitted, and one that is fetched meanwhile."""
_REFUSALS_IN_A_ROW = 10
_MOST_ROWS = 5
_PLAN = 1
"""Raise it when the same identifiers make other requests than before: positions in STATE count them."""
_log = logging.getLogger(__name__)


@dataclass
class Group:
    """The answers of consecutive requests, emitted together and covered by one STATE: a `Delivery`.

    All its rows carry the time of its first answer: one value, so that a user's rows agree, and the earliest one, so
    that no row claims to be newer than it is.
    """

    export_id: str
    first: int
    since: float
    note: Callable[[Group, int], None] = field(repr=False)
    source: str = IDS
    segment_id: str = ""
    requests: int = 0
    answered_at: float | None = None
    size: int = 0
    users: list[bytes] = field(default_factory=list, repr=False)
    digests: list[int] = field(default_factory=list, repr=False)
    invalid_user_ids: list[dict[str, str]] = field(default_factory=list, repr=False)

    @property
    def end(self) -> int:
        """How many requests of the resync are done with it."""
        return self.first + self.requests

    @property
    def name(self) -> str:
        """Its requests, counted from 0."""
        return f"requests {self.first}-{self.end - 1}"

    @property
    def exported_at(self) -> str:
        """When Braze first answered."""
        return timestamp(self.since if self.answered_at is None else self.answered_at)

    def ahead(self) -> Iterator[ExportFile]:
        """Nothing: no process reads what came with an answer."""
        return iter(())

    def blocks(self) -> Iterator[Block]:
        """Its users, in the order of the identifiers."""
        if self.users:
            yield Block(1, self.users)

    def emitted(self, users: int) -> None:
        """Note that all rows are written."""
        self.note(self, users)


class Resync:
    """Asks for the configured identifiers and gives the profiles in groups: the `Deliveries` of a resync.

    Args:
        fields: What the catalog selects.
        client: Braze.
        clock: Time.
        lanes: Makes requests, several at a time.
        spool: Remembers digests of the profiles already emitted, for a run that continues this one.
        settings: The tap's settings.
        state: `bookmarks.export_files` of the incoming STATE.
        rows_signature: Hash of everything that shapes rows.

    Attributes:
        failures: Requests that Braze refused; their profiles are not resynced.
    """

    def __init__(
        self,
        fields: RequestedFields,
        *,
        client: Braze,
        clock: Clock,
        lanes: Lanes,
        spool: Spool,
        settings: Settings,
        state: Mapping[str, Any],
        rows_signature: str,
    ) -> None:
        self.failures: list[str] = []
        self._fields = fields
        self._client = client
        self._clock = clock
        self._lanes = lanes
        self._spool = spool
        self._settings = settings
        self._state = {"version": VERSION, "exports": [], "resync": None, **state}
        self._rows_signature = rows_signature
        self._misses: Counter[str] = Counter()
        self._refused: list[str] = []
        self._refusals = 0
        self._refusal: BrazeError | None = None
        self._understood = False
        self._profiles: _Profiles

    def deliveries(self) -> Iterator[Group]:
        """The groups, in the order of the input.

        Raises:
            TapError: If a request fails for good; what was answered before it is given first.
        """
        identifiers = Identifiers(self._settings)
        export_id, done = self._begin(identifiers.fingerprint(self._settings.api_key.encode()))
        self._profiles = _Profiles(self._spool.folder(export_id) / "profiles", done)
        flight = RequestPool(
            islice(requests(identifiers), done, None),
            lambda request: self._client.export_ids(request.body(self._fields)),
            pace=RequestPacer(self._settings.requests_per_minute),
            clock=self._clock,
            lanes=self._lanes,
            most=self._settings.concurrent_requests,
            ahead=_UNCONFIRMED,
        )
        try:
            for group in self._groups(export_id, done, self._lanes.aside(flight.answers())):
                yield group
                flight.confirm(group.requests)  # STATE covers it now
        finally:
            flight.close()
        if not self._clock.stopped:
            self._end(export_id)

    def _begin(self, fingerprint: str) -> tuple[str, int]:
        """The id of this resync, and how many of its requests an earlier run has done."""
        source = f"{_PLAN}-{fingerprint}"
        left: Any = self._state["resync"]
        if isinstance(left, dict) and (left.get("source"), left.get("rows_signature")) == (
            source,
            self._rows_signature,
        ):
            _log.info("Resync %s continues after %s requests", left["export_id"], f"{left['requests']:,}")
            return left["export_id"], left["requests"]
        export_id = f"ids-{fingerprint[:16]}-{int(self._clock.now())}"
        _log.info(
            "Resync %s begins%s", export_id, "; an unfinished one of other identifiers is dropped" if left else ""
        )
        self._state["resync"] = {
            "export_id": export_id,
            "source": source,
            "rows_signature": self._rows_signature,
            "requests": 0,
        }
        return export_id, 0

    def _groups(self, export_id: str, done: int, answers: Iterable[Answer[Request] | None]) -> Iterator[Group]:
        group = self._group(export_id, done)
        failure: TapError | None = None
        try:
            for answer in answers:
                if self._clock.stopped:
                    return
                if answer is not None:
                    self._take(group, answer)
                old = self._clock.now() - group.since >= _GROUP_SECONDS
                if group.requests >= _GROUP_REQUESTS or (group.requests and old):
                    yield group
                    group = self._group(export_id, group.end)
        except TapError as error:
            failure = error
        if self._refusals and not self._understood:
            failure, group.requests = self._refusal, 0  # so that a mended configuration asks for them again
        if group.requests:
            yield group
        if failure:
            raise failure

    def _group(self, export_id: str, first: int) -> Group:
        return Group(export_id, first, self._clock.now(), self._emitted)

    def _take(self, group: Group, answer: Answer[Request]) -> None:
        group.requests += 1
        if isinstance(answer.content, BrazeError):
            self._refuse(answer.request, answer.content)
            return
        self._refusals, self._understood = 0, True
        group.answered_at = min(group.answered_at or answer.at, answer.at)
        found, misses = assign(answer.request, answer.content)
        for braze_id, line in found:
            group.size += len(line)
            value = digest(braze_id)
            if not braze_id or self._profiles.add(value):
                group.users.append(line)
                group.digests.append(value)
        for miss in misses:
            self._misses[miss.kind] += 1
            row = {"identifier_type": miss.kind, "identifier": miss.value, "alias_label": miss.alias_label}
            group.invalid_user_ids.append(row)

    def _refuse(self, request: Request, error: BrazeError) -> None:
        """Go on without a request that Braze finds fault with, unless it finds fault with one after the other."""
        self._refused.append(request.rows)
        self._refusals += 1
        self._refusal = BrazeError(f"{error}, for {request.rows}")
        if self._refusals == _REFUSALS_IN_A_ROW:
            raise self._refusal

    def _emitted(self, group: Group, _users: int) -> None:
        self._profiles.save(group.digests, group.end)
        self._state["resync"] = {**self._state["resync"], "requests": group.end}

    def _end(self, export_id: str) -> None:
        if self._refused:
            shown = ", ".join(self._refused[:_MOST_ROWS])
            more = ", …" if len(self._refused) > _MOST_ROWS else ""
            self.failures.append(f"{len(self._refused)} requests were left out ({shown}{more}): {self._refusal}")
        self._state["resync"] = None
        self._spool.clear(export_id)

    def give_up(self, error: ExportError) -> None:
        """See `Deliveries`; a group cannot fail to be read."""
        self.failures.append(str(error))

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE; what concerns segment exports is handed on as it came."""
        return dict(self._state)

    def finish(self) -> None:
        """Tell how many identifiers matched nobody."""
        if self._misses:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in self._misses.items())
            _log.info("Identifiers that matched nobody: %s (the stream invalid_user_ids lists them)", counts)

    def reason_to_keep_rows(self) -> str:
        """See `Deliveries`."""
        return "a resync exports single people only"


class _Profiles:
    """Profiles that were emitted, on disk as digests with the number of requests that were done with them.

    Args:
        path: A file that an earlier run may have left. Without it nothing is lost: a profile may be emitted again.
        done: Requests that STATE covers; what was written after them counts as not emitted.
    """

    _RECORD = struct.Struct("<QQ")

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        self._seen = DigestSet()
        if path.exists():
            with path.open("rb") as file:
                while len(record := file.read(self._RECORD.size)) == self._RECORD.size:
                    value, end = self._RECORD.unpack(record)
                    if end <= done:
                        self._seen.add(value)

    def add(self, value: int) -> bool:
        """Add a profile; whether it is new."""
        return self._seen.add(value)

    def save(self, values: Iterable[int], end: int) -> None:
        """Keep the digests of a group for a run that continues this one."""
        with private_file(self._path, append=True) as file:
            file.write(b"".join(self._RECORD.pack(value, end) for value in values))
