"""A resync: requests the configured identifiers and delivers their users, group by group."""

from __future__ import annotations

import logging
import math
import secrets
import struct
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from tap_braze_export.clock import WAIT_SLICE_SECONDS
from tap_braze_export.deliveries import Deliveries, Delivery
from tap_braze_export.export import IDS, Export
from tap_braze_export.files.archive import Block
from tap_braze_export.files.disk import private_file
from tap_braze_export.http.threads import DaemonThreads
from tap_braze_export.report.facts import list_of_misses
from tap_braze_export.resync.calls import IdsCalls
from tap_braze_export.resync.identifiers import Identifiers, digest
from tap_braze_export.resync.refusals import Refusals
from tap_braze_export.resync.requests import plan_requests
from tap_braze_export.state import VERSION, ResyncProgress, none_or_one

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from tap_braze_export.braze.client import Braze
    from tap_braze_export.clock import Clock
    from tap_braze_export.errors import ExportError
    from tap_braze_export.files.spool import Spool
    from tap_braze_export.resync.calls import Answer
    from tap_braze_export.resync.identifiers import Identifier
    from tap_braze_export.resync.requests import Request
    from tap_braze_export.schema.selection import RequestedFields
    from tap_braze_export.settings import Settings

_GROUP_REQUESTS = 50
_GROUP_SECONDS = 30.0
_MAX_UNCONFIRMED_REQUESTS = 100
"""Requests sent since the last STATE: those of the group that is emitted, and of the next one, fetched meanwhile."""
_PLAN_VERSION = 2
"""Raise it when the same identifiers make other requests than before: STATE counts requests."""
_DIGEST_AND_END = struct.Struct("<8sQ")
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Group:
    """The answers to consecutive requests, emitted together and covered by one STATE.

    All its rows carry the time of its first response: one value, so that a user's rows agree, and the earliest one,
    so that no row claims to be newer than it is.

    Attributes:
        first: Position of its first request in the resync, from 0.
        began: Seconds of the monotonic clock at its beginning.
        requests: How many of its requests have a response.
        size: Bytes of all users in them.
        at: Epoch seconds of the first response.
        users: The users that no group had before, as JSON.
        digests: Of the `braze_id` of each of them.
        refused: The identifiers that Braze refused, and `refusal` its error.
        is_settled: True once it is emitted, or given up.
    """

    first: int
    began: float
    requests: int = 0
    size: int = 0
    at: float = math.inf
    users: list[bytes] = field(default_factory=list, repr=False)
    digests: list[bytes] = field(default_factory=list, repr=False)
    invalid_user_ids: list[dict[str, str]] = field(default_factory=list, repr=False)
    refused: list[Identifier] = field(default_factory=list, repr=False)
    refusal: str = ""
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
    """Requests the configured identifiers and delivers their users in groups.

    Args:
        fields: The selected fields.
        client: Braze.
        clock: Time.
        spool: Keeps digests of the users already emitted, for a run that continues this one.
        settings: The tap's settings.
        state: The value of `bookmarks.export_files` that the run was given.
        rows_signature: Hash of everything that shapes rows.
        lists_misses: True if the stream `invalid_user_ids` is selected.
        threads: Where requests are made; as many as `concurrent_requests` by default.
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
        threads: Executor | None = None,
    ) -> None:
        self.failures: list[str] = []
        self._clock = clock
        self._spool = spool
        self._settings = settings
        self._state = {"version": VERSION, "exports": [], **state, "resync": none_or_one(state.get("resync"))}
        self._rows_signature = rows_signature
        self._lists_misses = lists_misses
        self._calls = IdsCalls(client, fields, clock=clock, requests_per_minute=settings.requests_per_minute)
        self._threads = threads or DaemonThreads(settings.concurrent_requests)
        self._answers: deque[Future[Answer]] = deque()
        self._max_unconfirmed = 1  # the first request goes alone: its response tells the rate
        self._misses: Counter[str] = Counter()
        self._finished = False
        self._requests: Iterator[Request]
        self._refusals: Refusals
        self._emitted: _EmittedUsers
        self._export_id = ""
        self._group: _Group
        self._deliveries: list[Delivery] = []
        """The group as a delivery, once it can be emitted."""

    @override
    def __enter__(self) -> Self:
        """Read the identifiers once, to find out if an earlier run has begun with the same ones."""
        identifiers = Identifiers(self._settings, clock=self._clock)
        progress = self._begin(identifiers.fingerprint(self._settings.api_key.encode()))
        self._refusals = Refusals(progress.refused)
        self._emitted = _EmittedUsers(self._spool.folder(progress.export_id) / "profiles", progress.requests)
        self._export_id = progress.export_id
        self._group = _Group(progress.requests, self._clock.monotonic())
        self._requests = islice(plan_requests(identifiers), progress.requests, None)
        return self

    @override
    def __exit__(self, *_: object) -> None:
        """Send nothing more; nobody waits for what is under way."""
        self._calls.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @override
    def poll(self) -> Sequence[Delivery]:
        """One group at a time, in the order of the identifiers; an error comes after what was sent before it."""
        if self._group.is_settled:  # the STATE that covers it is written by now
            self._group = _Group(self._group.end, self._clock.monotonic())
            self._deliveries = []
        if not (self.ended or self._deliveries) and self._fill(self._group):
            self._deliveries = [self._delivery(self._group)]
        return self._deliveries

    @override
    def advance(self) -> None:
        """Do nothing: a group has one block."""

    @property
    @override
    def ended(self) -> bool:
        return self._finished or self._clock.stopped

    @override
    def wait(self) -> None:
        if self._answers:
            with suppress(TimeoutError):
                self._answers[0].exception(WAIT_SLICE_SECONDS)

    @override
    def state(self) -> dict[str, Any]:
        """The part of segment exports stays as it came."""
        return dict(self._state)

    @override
    def review(self) -> None:
        """Log how many identifiers matched nobody."""
        if self._misses:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in self._misses.items())
            _log.info("Identifiers that matched nobody: %s (%s)", counts, list_of_misses(selected=self._lists_misses))

    @override
    def reason_to_keep_rows(self) -> str:
        return "a resync exports single users only"

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

    def _delivery(self, group: _Group) -> Delivery:
        return Delivery(
            Export(IDS, "", self._export_id, group.at),
            f"requests {group.first}-{group.end - 1}",
            group.size,
            group.blocks,
            lambda *_: self._done(group),
            partial(self._failed, group),
            invalid_user_ids=group.invalid_user_ids,
        )

    def _done(self, group: _Group) -> None:
        """Note that a group's rows are written."""
        self._emitted.save(group.digests, group.end)
        self._refusals.tell(group.refused, group.refusal)
        (entry,) = self._state["resync"]
        self._state["resync"] = [{**entry, "requests": group.end, "refused": self._refusals.count}]
        group.is_settled = True

    def _failed(self, group: _Group, error: ExportError) -> None:
        """Note that a group cannot be emitted."""
        self.failures.append(str(error))
        group.is_settled = True

    def _fill(self, group: _Group) -> bool:
        """Add what has come, and send more; True once the group can be emitted. If nothing is left, the resync ends."""
        error = None
        while group.requests < _GROUP_REQUESTS and self._answers and self._answers[0].done():
            if error := self._answers[0].exception():
                break
            self._add(group, self._answers.popleft().result())
        if not error:
            self._send(group)
        is_last = bool(error) or not self._answers
        if group.requests:
            is_old = self._clock.monotonic() - group.began >= _GROUP_SECONDS
            return is_last or is_old or group.requests == _GROUP_REQUESTS
        if error and self._clock.stopped:
            return False  # it may have failed because of that, and is asked for again
        if error:
            raise error
        if is_last:
            self._finish()
        return False

    def _send(self, group: _Group) -> None:
        """Have as many requests sent as are safe before the next STATE."""
        while group.requests + len(self._answers) < self._max_unconfirmed:
            try:
                request = next(self._requests)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - raised in its place, after the responses to earlier requests
                self._answers.append(Future())
                self._answers[-1].set_exception(error)
                return
            self._answers.append(self._threads.submit(self._calls.answer, request))

    def _add(self, group: _Group, answer: Answer) -> None:
        self._max_unconfirmed = _MAX_UNCONFIRMED_REQUESTS
        group.requests += 1
        group.at = min(group.at, answer.at)
        group.refused += answer.refused
        group.refusal = answer.refusal or group.refusal
        for braze_id, line in answer.users:
            group.size += len(line)
            value = digest(braze_id)
            if not braze_id or self._emitted.add(value):
                group.users.append(line)
                group.digests.append(value)
        for miss in answer.misses:
            self._misses[miss.kind] += 1
            row = {"identifier_type": miss.kind, "identifier": miss.value, "alias_label": miss.alias_label}
            group.invalid_user_ids.append(row)

    def _finish(self) -> None:
        if refusals := str(self._refusals):
            self.failures.append(refusals)
        self._state["resync"] = []
        self._spool.clear(self._export_id)
        self._finished = True


class _EmittedUsers:
    """The users that were emitted: digests, on disk with the number of requests that were done by then.

    Args:
        path: A file that an earlier run may have left. Without it nothing is lost: a user may be emitted again.
        requests_done: Requests that STATE covers; users written after them count as not emitted.
    """

    def __init__(self, path: Path, requests_done: int) -> None:
        self._path = path
        self._digests: set[bytes] = set()
        if path.exists():
            with path.open("rb") as file:
                while len(record := file.read(_DIGEST_AND_END.size)) == _DIGEST_AND_END.size:
                    value, end = _DIGEST_AND_END.unpack(record)
                    if end <= requests_done:
                        self._digests.add(value)

    def add(self, value: bytes) -> bool:
        """Add a user; True if it is new."""
        is_new = value not in self._digests
        self._digests.add(value)
        return is_new

    def save(self, values: Iterable[bytes], end: int) -> None:
        """Keep the digests of a group for a run that continues this one."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)  # a run with the same STATE, which ended, has removed it
        with private_file(self._path, append=True) as file:
            file.write(b"".join(_DIGEST_AND_END.pack(value, end) for value in values))
