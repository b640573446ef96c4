"""A resync: requests the configured identifiers and delivers their users, group by group."""

from __future__ import annotations

import logging
import secrets
import struct
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.braze.rate_limit import RequestPacer
from tap_braze_export.deliveries import Deliveries, Delivery
from tap_braze_export.errors import BrazeError, TapError
from tap_braze_export.export import IDS, Export
from tap_braze_export.files.archive import Block
from tap_braze_export.files.disk import private_file
from tap_braze_export.report.facts import list_of_misses
from tap_braze_export.resync.id_requests import match_response, plan_requests
from tap_braze_export.resync.identifiers import Identifiers, digest
from tap_braze_export.resync.refusals import Refusals
from tap_braze_export.resync.request_pool import RequestPool, RequestThreads
from tap_braze_export.state import VERSION, ResyncProgress, none_or_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tap_braze_export.braze.client import Braze, IdsResponse
    from tap_braze_export.clock import Clock
    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.resync.id_requests import Request
    from tap_braze_export.resync.identifiers import Identifier
    from tap_braze_export.resync.request_pool import Response
    from tap_braze_export.schema.selection import RequestedFields
    from tap_braze_export.settings import Settings

_GROUP_REQUESTS = 50
_GROUP_SECONDS = 30.0
_MAX_UNCONFIRMED_REQUESTS = 100
"""Requests sent since the last STATE: those of the group that is emitted, and of the next one, fetched meanwhile."""
_PLAN_VERSION = 2
"""Raise it when the same identifiers make other requests than before: STATE counts requests."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Group:
    """The responses to consecutive requests, emitted together and covered by one STATE.

    All its rows carry the time of its first response: one value, so that a user's rows agree, and the earliest one,
    so that no row claims to be newer than it is.

    Attributes:
        first: Position of its first request in the resync, from 0.
        began: Seconds of the monotonic clock at its beginning.
        since: Epoch seconds then.
        responded_at: Epoch seconds of its first response.
        requests: How many of its requests have a response.
        users: The users that no group had before, as JSON.
        digests: Of the `braze_id` of each of them.
        refused: The identifiers that Braze refused.
        is_complete: True once it can be emitted.
        is_settled: True once it is emitted, or given up.
    """

    export_id: str
    first: int
    began: float
    since: float
    responded_at: float | None = None
    requests: int = 0
    size: int = 0
    users: list[bytes] = field(default_factory=list, repr=False)
    digests: list[bytes] = field(default_factory=list, repr=False)
    invalid_user_ids: list[dict[str, str]] = field(default_factory=list, repr=False)
    refused: list[Identifier] = field(default_factory=list, repr=False)
    is_complete: bool = False
    is_settled: bool = False

    @property
    def end(self) -> int:
        """Requests of the resync up to and with this group."""
        return self.first + self.requests

    def blocks(self) -> Iterator[Block]:
        """The users, in the order of the identifiers."""
        if self.users:
            yield Block(1, self.users)


class Resync(Deliveries):
    """Requests the configured identifiers and delivers their users in groups: `Deliveries`.

    Args:
        fields: What the catalog selects.
        client: Braze.
        clock: Time.
        spool: Keeps digests of the users already emitted, for a run that continues this one.
        settings: The tap's settings.
        state: The value of `bookmarks.export_files` that the run was given.
        rows_signature: Hash of everything that shapes rows.
        lists_misses: True if the stream `invalid_user_ids` is selected.
        threads: Where requests are made; as many as `concurrent_requests` by default.

    Attributes:
        failures: Why requests were left out.
    """

    def __init__(
        self,
        fields: RequestedFields,
        *,
        client: Braze,
        clock: Clock,
        spool: Spool,
        settings: Settings,
        state: Mapping[str, Any],
        rows_signature: str,
        lists_misses: bool,
        threads: RequestThreads | None = None,
    ) -> None:
        self.failures: list[str] = []
        self._fields = fields
        self._client = client
        self._clock = clock
        self._spool = spool
        self._settings = settings
        self._state = {"version": VERSION, "exports": [], **state, "resync": none_or_one(state.get("resync"))}
        self._rows_signature = rows_signature
        self._lists_misses = lists_misses
        self._threads = threads or RequestThreads(settings.concurrent_requests)
        self._misses: Counter[str] = Counter()
        self._failure: TapError | None = None
        self._finished = False
        self._refusals: Refusals
        self._pool: RequestPool[Request]
        self._emitted: _EmittedUsers
        self._group: Group

    def __enter__(self) -> Self:
        """See `Deliveries`.

        Raises:
            ConfigError: If the file of identifiers cannot be read.
        """
        identifiers = Identifiers(self._settings, clock=self._clock)
        progress = self._begin(identifiers.fingerprint(self._settings.api_key.encode()))
        export_id, requests_done = progress.export_id, progress.requests
        self._refusals = Refusals(progress.refused)
        self._emitted = _EmittedUsers(self._spool.folder(export_id) / "profiles", requests_done)
        self._group = self._new_group(export_id, requests_done)
        self._pool = RequestPool(
            islice(plan_requests(identifiers), requests_done, None),
            self._send,
            self._refusals.smaller_requests,
            pacer=RequestPacer(self._settings.requests_per_minute),
            clock=self._clock,
            threads=self._threads,
            max_in_flight=self._settings.concurrent_requests,
            max_unconfirmed=_MAX_UNCONFIRMED_REQUESTS,
        )
        self._pool.start()
        return self

    def __exit__(self, *_: object) -> None:
        """See `Deliveries`."""
        self._pool.close()

    def poll(self) -> Sequence[Delivery]:
        """See `Deliveries`; there is one group at a time, in the order of the identifiers.

        Raises:
            TapError: If a request failed for good; the responses to earlier requests are delivered first.
        """
        if self._group.is_settled:
            self._pool.confirm(self._group.requests)  # the STATE that covers them is written by now
            self._group = self._new_group(self._group.export_id, self._group.end)
        if not (self.ended or self._group.is_complete):
            self._fill(self._group)
        return [self._delivery(self._group)] if self._group.is_complete else []

    def advance(self) -> None:
        """See `Deliveries`; a group has one block."""

    @property
    def ended(self) -> bool:
        """See `Deliveries`."""
        return self._finished or self._clock.stopped

    def wait(self) -> None:
        """See `Deliveries`."""
        self._pool.wait()

    def _delivery(self, group: Group) -> Delivery:
        return Delivery(
            Export(IDS, "", group.export_id, group.since if group.responded_at is None else group.responded_at),
            f"requests {group.first}-{group.end - 1}",
            group.size,
            group.blocks,
            lambda *_: self._done(group),
            partial(self._failed, group),
            invalid_user_ids=group.invalid_user_ids,
        )

    def _done(self, group: Group) -> None:
        """Note that a group's rows are written."""
        self._emitted.save(group.digests, group.end)
        (entry,) = self._state["resync"]
        self._refusals.tell(group.refused)
        self._state["resync"] = [{**entry, "requests": group.end, "refused": self._refusals.count}]
        group.is_settled = True

    def _failed(self, group: Group, error: ExportError) -> None:
        """Note that a group cannot be emitted."""
        self.failures.append(str(error))
        group.is_settled = True

    def state(self) -> dict[str, Any]:
        """See `Deliveries`; the part of segment exports stays as it came."""
        return dict(self._state)

    def review(self) -> None:
        """Log how many identifiers matched nobody."""
        if self._misses:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in self._misses.items())
            _log.info("Identifiers that matched nobody: %s (%s)", counts, list_of_misses(selected=self._lists_misses))

    def reason_to_keep_rows(self) -> str:
        """See `Deliveries`."""
        return "a resync exports single users only"

    def _send(self, request: Request) -> IdsResponse:
        response = self._client.export_ids(request.body(self._fields))
        self._refusals.accepted(request)
        return response

    def _begin(self, fingerprint: str) -> ResyncProgress:
        """The resync that an earlier run has begun with the same identifiers, else a new one."""
        source = {"source": f"{_PLAN_VERSION}-{fingerprint}", "rows_signature": self._rows_signature}
        earlier = self._state["resync"]
        for entry in earlier:
            if (found := ResyncProgress.of(entry)) and source.items() <= entry.items():
                _log.info("Resync %s continues after %s requests", found.export_id, f"{found.requests:,}")
                return found
        # Random, as another run may begin the same resync in the same second, for another loader.
        export_id = f"ids-{fingerprint[:16]}-{int(self._clock.now())}-{secrets.token_hex(4)}"
        dropped = "; an unfinished one of other identifiers is dropped" if earlier else ""
        _log.info("Resync %s begins%s", export_id, dropped)
        self._state["resync"] = [{"export_id": export_id, **source, "requests": 0, "refused": 0}]
        return ResyncProgress(export_id, 0)

    def _new_group(self, export_id: str, first: int) -> Group:
        return Group(export_id, first, self._clock.monotonic(), self._clock.now())

    def _fill(self, group: Group) -> None:
        """Add the responses that have come to a group; the resync ends here if there is nothing more to add."""
        try:
            while not self._failure and (responses := self._pool.poll(_GROUP_REQUESTS - group.requests)):
                for parts in responses:
                    group.requests += 1
                    for part in parts:
                        self._add(group, part)
        except TapError as error:
            self._failure = error
        is_last = bool(self._failure) or self._pool.ended
        if group.requests:
            is_old = self._clock.monotonic() - group.began >= _GROUP_SECONDS
            group.is_complete = is_last or is_old or group.requests == _GROUP_REQUESTS
        elif self._failure:
            raise self._failure
        elif is_last:
            self._finish(group.export_id)

    def _add(self, group: Group, response: Response[Request]) -> None:
        if isinstance(response.content, BrazeError):
            group.refused += response.request.identifiers
            return
        group.responded_at = min(group.responded_at or response.at, response.at)
        found, misses = match_response(response.request, response.content)
        for braze_id, line in found:
            group.size += len(line)
            value = digest(braze_id)
            if not braze_id or self._emitted.add(value):
                group.users.append(line)
                group.digests.append(value)
        for miss in misses:
            self._misses[miss.kind] += 1
            row = {"identifier_type": miss.kind, "identifier": miss.value, "alias_label": miss.alias_label}
            group.invalid_user_ids.append(row)

    def _finish(self, export_id: str) -> None:
        if refusals := str(self._refusals):
            self.failures.append(refusals)
        self._state["resync"] = []
        self._spool.clear(export_id)
        self._finished = True


class _EmittedUsers:
    """The users that were emitted: digests, on disk with the number of requests that were done by then.

    Args:
        path: A file that an earlier run may have left. Without it nothing is lost: a user may be emitted again.
        requests_done: Requests that STATE covers; users written after them count as not emitted.
    """

    _RECORD = struct.Struct("<8sQ")

    def __init__(self, path: Path, requests_done: int) -> None:
        self._path = path
        self._digests: set[bytes] = set()
        if path.exists():
            with path.open("rb") as file:
                while len(record := file.read(self._RECORD.size)) == self._RECORD.size:
                    value, end = self._RECORD.unpack(record)
                    if end <= requests_done:
                        self._digests.add(value)

    def add(self, value: bytes) -> bool:
        """Add a user; True if it is new."""
        if value in self._digests:
            return False
        self._digests.add(value)
        return True

    def save(self, values: Iterable[bytes], end: int) -> None:
        """Keep the digests of a group for a run that continues this one."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)  # a run with the same STATE, which ended, has removed it
        with private_file(self._path, append=True) as file:
            file.write(b"".join(self._RECORD.pack(value, end) for value in values))
