"""One workspace of Braze: segments, users, exports, permissions, rate limits and faults."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tap_braze_export.sandbox.attributes import attribute_list
from tap_braze_export.sandbox.changes import ChangedPopulation
from tap_braze_export.sandbox.exports import BucketDelivery, Export, hosted_steps, steps_to_readiness
from tap_braze_export.sandbox.faults import Faults
from tap_braze_export.sandbox.limits import RateLimit
from tap_braze_export.sandbox.lookup import identity, is_named_by, possible_indexes
from tap_braze_export.sandbox.segments import GivenUser, MadeUser, Segment, User
from tap_braze_export.sandbox.updates import GivenUpdates
from tap_braze_export.sandbox.users import Population

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tap_braze_export.sandbox.bucket import Bucket
    from tap_braze_export.sandbox.selection import Selection

PERMISSIONS = (
    "users.export.segment",
    "users.export.ids",
    "users.export.global_control_group",
    "segments.list",
    "segments.details",
    "segments.data_series",
    "custom_attributes.get",
)
CONTROL_GROUP = "global-control-group-segment"
MOST_EXPORTS = 100  # of a company that run at once
LINK_SECONDS = 4 * 3600
_MOST_CALLS_KEPT = 50_000


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Call:
    """One request that the sandbox received or, for a callback, sent."""

    service: str  # rest, download or callback
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None
    status: int = 0


@dataclass(kw_only=True)
class Options:
    """How a workspace behaves; `Sandbox` has the same keywords."""

    users: int = 1000
    seed: int = 1
    changed: float = 0.0
    odd_users: bool = True
    users_per_file: int = 5000
    api_keys: Collection[str] = ("sandbox-key",)
    deny: Collection[str] = ()
    delay: float = 0.0
    empty_polls: int = 0
    hold: bool = False
    ids_limit: int = 250
    ids_per_second: int | None = 40
    ids_latency: float = 0.0
    faults: Collection[str] = ()
    bucket: Bucket | None = None
    clock: Callable[[], float] = time.time
    wait: Callable[[float], object] | None = None
    filter_misses: float = 0.0
    log: Callable[[str], object] | None = None


@dataclass
class Workspace:
    """The state of both servers."""

    options: Options
    download_url: str = ""
    calls: list[Call] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    violations: int = 0
    most_running: int = 0
    most_ids_in_flight: int = 0

    def __post_init__(self) -> None:
        """Make the users and the default segments."""
        options = self.options
        unknown = set(options.deny) - set(PERMISSIONS)
        if unknown:
            raise ValueError(f"unknown permission: {', '.join(sorted(unknown))}")
        self.clock = options.clock
        self.given_updates = GivenUpdates(self.clock)
        self.faults = Faults(tuple(options.faults))
        self.folder = Path(tempfile.mkdtemp(prefix="braze-sandbox-"))
        self.stopped = threading.Event()
        self.wait = options.wait or self.stopped.wait
        self.attributes = attribute_list()
        self.pool_limit = RateLimit(250_000, 3600, self.clock)
        self.catalog_limit = RateLimit(1000, 3600, self.clock)
        self.ids_limit = RateLimit(options.ids_limit, 60, self.clock)
        # Only a workspace with the default limit has the faster limit for small requests.
        fast = options.ids_per_second if options.ids_limit == Options.ids_limit else None
        self.ids_fast_limit = RateLimit(fast, 1, self.clock) if fast else None
        self._secret = hashlib.sha256(str(self.folder).encode()).digest()
        self._lock = threading.RLock()
        self._due: deque[tuple[str, dict[str, Any]]] = deque()
        self._workers: list[threading.Thread] = []
        self._running_ids = 0
        self._settle()

    def _settle(self) -> None:
        options, now = self.options, self.clock()
        changed = ChangedPopulation(options.seed, options.changed, now) if options.changed else None
        people = self.population = changed or Population(options.seed, now)
        odd: list[GivenUser] = []
        if options.odd_users:
            shipped = (resources.files("tap_braze_export.sandbox") / "odd_users.jsonl").read_text("utf-8").splitlines()
            odd = [GivenUser(json.loads(line), people.last_update) for line in shipped[: options.users]]
        made = self._made = range(options.users - len(odd))
        self.segments = {
            segment.id: segment
            for segment in (
                Segment("all-users", "All users", people, odd, made),
                Segment("vip-users", "VIP users", people, [], people.members(made[::10], made)),
                Segment("empty-segment", "Nobody", people),
            )
        }
        self.control_group = Segment(CONTROL_GROUP, "Global Control Group", people, [], made[3::20])

    def close(self) -> None:
        """Cancel the exports and remove their files."""
        self.stopped.set()
        for export in self.exports:
            export.cancelled = True
        for worker in self._workers:
            worker.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def estimated(self, size: int) -> int:
        """The size of a segment as Braze estimates it; the largest segment stands for the workspace."""
        error = -(-max(map(len, self.segments.values())) // 100)
        return max(0, size + error * (("estimates-high" in self.faults) - ("estimates-low" in self.faults)))

    def record(self, call: Call) -> None:
        """Remember a call; the oldest are dropped beyond 50,000."""
        with self._lock:
            self.calls.append(call)
            if len(self.calls) > _MOST_CALLS_KEPT:
                del self.calls[: _MOST_CALLS_KEPT // 10]

    # Exports

    def running(self, segment_id: str | None = None) -> list[Export]:
        """The running exports of one segment, or of all."""
        with self._lock:
            return [
                export
                for export in self.exports
                if export.running and not export.cancelled and segment_id in (None, export.segment.id)
            ]

    def begin(self, export: Export) -> bool:
        """Start an export and return True, unless one of the same segment runs."""
        options = self.options
        with self._lock:
            if self.running(export.segment.id):
                return False
            if options.bucket:
                delivery = BucketDelivery(export, self.folder, self.faults, options.users_per_file, options.bucket)
                steps = delivery.steps()
            else:
                steps = hosted_steps(export, self.folder, self.faults, options.users_per_file)
                export.url = self._signed_url(export)
            export.steps = steps_to_readiness(export, self.faults, steps)
            self._forget_expired()
            self.exports.append(export)
            self.most_running = max(self.most_running, len(self.running()))
        if options.hold or (options.empty_polls and not options.bucket):
            return True
        if options.delay:
            worker = threading.Thread(target=self._work, args=(export,), daemon=True)
            self._workers.append(worker)
            worker.start()
        else:
            export.proceed()
            self._note_completion(export)
        return True

    def tell(self, export: Export, members: int) -> None:
        """Log one line on an export that began, of a segment with so many members."""
        if self.options.log is None:
            return
        since = export.updated_since
        limit = "" if since is None else f", asked for those updated since {_utc(since)}"
        self.options.log(
            f"{_utc(export.requested_at)} export of segment {export.segment.id}: "
            f"{len(export.segment):,} of {members:,} users{limit}"
        )

    def _forget_expired(self) -> None:
        """Remove the archives whose URLs have expired, or they would fill the disk."""
        for export in list(self.exports):
            if not export.running and self.clock() > export.requested_at + LINK_SECONDS:
                self.exports.remove(export)
                if export.archive:
                    export.archive.unlink(missing_ok=True)

    def _work(self, export: Export) -> None:
        while not self.stopped.is_set() and (step := export.upcoming()):
            if step.later or step.completes:
                self.wait(self.options.delay)
            if not self.stopped.is_set():
                export.advance()
            self._note_completion(export)
            self.send_callbacks()

    def poll(self, export: Export) -> bool:
        """Count a request for a download; return True if it is ready."""
        with self._lock:
            export.polls += 1
            if self.options.empty_polls and not self.options.hold and export.polls > self.options.empty_polls:
                export.finish()
                self._note_completion(export)
            return export.ready

    def finish_exports(self) -> None:
        """Complete every running export now."""
        for export in self.running():
            export.finish()
            self._note_completion(export)
        self.send_callbacks()

    def deliver_next_file(self) -> str | None:
        """Let the next file of any export appear, and return its path."""
        for export in self.exports:
            if delivered := export.deliver_next_file():
                return delivered
        return None

    def cancel(self, segment_id: str) -> int:
        """Cancel the running exports of a segment; return their number."""
        running = self.running(segment_id)
        for export in running:
            export.cancelled = True
        return len(running)

    # Callbacks

    def _note_completion(self, export: Export) -> None:
        with self._lock:
            if export.ready and export.callback:
                body = {"success": True} | ({} if self.options.bucket else {"url": export.url})
                self._due.append((export.callback, body))
                export.callback = ""

    def send_callbacks(self) -> None:
        """Post the callbacks of exports that are ready; one that fails is not repeated."""
        while self._due:
            try:
                url, body = self._due.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                status = requests.post(url, json=body, timeout=10).status_code
            except requests.RequestException:
                status = 0
            self.record(Call("callback", "POST", url, {}, {}, body, status))

    # Signed addresses

    def _signed_url(self, export: Export) -> str:
        expires_at = int(self.clock()) + LINK_SECONDS
        day = time.strftime("%Y-%m-%d", time.gmtime(export.requested_at))
        ending = "gz" if export.kind == "gzip" else "zip"
        name = f"{hashlib.sha256(export.object_prefix.encode()).hexdigest()[:32]}.{ending}"
        path = f"/segment-export/{export.segment.id}/{day}/{export.object_prefix}/{name}"
        signature = self.signature(path, str(expires_at))
        return f"{self.download_url}{path}?X-Amz-Expires={expires_at}&X-Amz-Signature={signature}"

    def signature(self, path: str, expires_at: str) -> str:
        """The signature of a URL that this sandbox made."""
        return hmac.new(self._secret, f"{path}?{expires_at}".encode(), "sha256").hexdigest()

    # People

    def people(self, kind: str, wanted: str | tuple[str, str]) -> list[User]:
        """The users that an identifier names."""
        text = wanted if isinstance(wanted, str) else wanted[1]
        # The lists are short; generated users are found by the index in their identifiers.
        candidates: list[User] = [
            user
            for segment in [*self.segments.values(), self.control_group]
            for user in [*segment.given, *(user for file in segment.files or [] for user in file)]
        ]
        candidates += [
            MadeUser(self.population, index) for index in sorted(possible_indexes(text)) if index in self._made
        ]
        return [user for user in candidates if is_named_by(identity(user), kind, wanted)]

    def enter_ids(self, selection: Selection) -> RateLimit:
        """Count an ids request that begins; return its rate limit."""
        with self._lock:
            self._running_ids += 1
            self.most_ids_in_flight = max(self.most_ids_in_flight, self._running_ids)
        heavy = {"canvases_received", "campaigns_received"} & selection.names
        return self.ids_limit if heavy or self.ids_fast_limit is None else self.ids_fast_limit

    def violate(self) -> None:
        """Count an ids request above the limit."""
        with self._lock:
            self.violations += 1

    def leave_ids(self) -> None:
        """Count an ids request that ends."""
        with self._lock:
            self._running_ids -= 1
