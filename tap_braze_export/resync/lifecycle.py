"""A resync: requests the configured identifiers and delivers their users, group by group."""

from __future__ import annotations

import logging
import secrets
import struct
from collections import Counter, deque
from concurrent.futures import Future
from contextlib import suppress
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


class Resync(Deliveries):
    """Requests the configured identifiers, and delivers the answers to consecutive requests in groups.

    All rows of a group carry the time of its first response: one value, so that a user's rows agree, and the earliest
    one, so that no row claims to be newer than it is.

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
        """Of the requests that were sent, in their order."""
        self._max_unconfirmed = 1  # the first request goes alone: its response tells the rate
        self._requests_done = 0
        self._group: list[Answer] = []
        self._group_began = 0.0
        self._deliveries: list[Delivery] = []
        """The group as a delivery, once it can be emitted."""
        self._misses: Counter[str] = Counter()
        self._finished = False
        self._requests: Iterator[Request]
        self._refusals: Refusals
        self._emitted: _EmittedUsers
        self._export_id = ""

    @override
    def __enter__(self) -> Self:
        """Read the identifiers once, to find out if an earlier run has begun with the same ones."""
        identifiers = Identifiers(self._settings, clock=self._clock)
        progress = self._begin(identifiers.fingerprint(self._settings.api_key.encode()))
        self._refusals = Refusals(progress.refused)
        self._emitted = _EmittedUsers(self._spool.folder(progress.export_id) / "profiles", progress.requests)
        self._export_id, self._requests_done = progress.export_id, progress.requests
        self._begin_group()
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
        if not (self.ended or self._deliveries) and self._fill():
            self._deliveries, self._group = [self._delivery(self._group)], []
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

    def _begin_group(self) -> None:
        self._group, self._group_began, self._deliveries = [], self._clock.monotonic(), []

    def _fill(self) -> bool:
        """Take the answers that have come, and send more; True once the group is complete.

        If nothing is left, the resync ends.
        """
        error = None
        while len(self._group) < _GROUP_REQUESTS and self._answers and self._answers[0].done():
            if error := self._answers[0].exception():
                break
            self._group.append(self._answers.popleft().result())
            self._max_unconfirmed = _MAX_UNCONFIRMED_REQUESTS
        if not error:
            self._send()
        if self._group:
            is_old = self._clock.monotonic() - self._group_began >= _GROUP_SECONDS
            return bool(error) or not self._answers or is_old or len(self._group) == _GROUP_REQUESTS
        if error and not self._clock.stopped:  # else it may have failed because of that, and is asked for again
            raise error
        if not self._answers:
            self._finish()
        return False

    def _send(self) -> None:
        """Have as many requests sent as are safe before the next STATE, which is written before a new group begins."""
        while len(self._group) + len(self._answers) < self._max_unconfirmed:
            try:
                request = next(self._requests)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - raised in its place, after the responses to earlier requests
                self._answers.append(Future())
                self._answers[-1].set_exception(error)
                return
            self._answers.append(self._threads.submit(self._calls.answer, request))

    def _delivery(self, answers: Sequence[Answer]) -> Delivery:
        """The users of a group that no group had before, in the order of the identifiers."""
        first, end = self._requests_done, self._requests_done + len(answers)
        lines: list[bytes] = []
        digests: list[bytes] = []
        for user in (user for answer in answers for user in answer.users):
            value = digest(user.braze_id)
            if not user.braze_id or self._emitted.add(value):
                lines.append(user.line)
                digests.append(value)
        refused = [identifier for answer in answers for identifier in answer.refused]
        refusal = next((answer.refusal for answer in reversed(answers) if answer.refusal), "")
        misses = [miss for answer in answers for miss in answer.misses]
        self._misses.update(miss.kind for miss in misses)

        def done(*_: int) -> None:
            self._emitted.save(digests, end)
            self._refusals.tell(refused, refusal)
            (entry,) = self._state["resync"]
            self._state["resync"] = [{**entry, "requests": end, "refused": self._refusals.count}]
            settle()

        def failed(error: ExportError) -> None:
            self.failures.append(str(error))
            settle()

        def settle() -> None:
            self._requests_done = end
            self._begin_group()

        return Delivery(
            Export(IDS, "", self._export_id, min(answer.at for answer in answers)),
            f"requests {first}-{end - 1}",
            sum(len(user.line) for answer in answers for user in answer.users),
            lambda: iter([Block(1, lines)] if lines else []),
            done,
            failed,
            invalid_user_ids=[
                {"identifier_type": miss.kind, "identifier": miss.value, "alias_label": miss.alias_label}
                for miss in misses
            ],
        )

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
