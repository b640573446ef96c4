"""The life of a segment or control-group export: start, adopt, wait, cancel; its entry in STATE."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tap_braze_export.arrival import Hosted
from tap_braze_export.bookmarks import VERSION, Bookmark
from tap_braze_export.delivery import Download
from tap_braze_export.errors import AnswerLostError, AuthError, BrazeError, ExportError, RunningExportError
from tap_braze_export.progress import duration
from tap_braze_export.schema import GLOBAL_CONTROL_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from tap_braze_export.arrival import Arrival
    from tap_braze_export.client import Braze, Started
    from tap_braze_export.clock import Clock
    from tap_braze_export.files import ExportFile
    from tap_braze_export.progress import Progress
    from tap_braze_export.selection import RequestedFields
    from tap_braze_export.spool import Spool

SEGMENT = "segment"
_LONGEST_INTERVAL = 60.0
_GROWTH = 1.5
_ESTIMATE_TOLERANCE = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Something that Braze can be asked to export."""

    kind: str
    """`segment` or `global_control_group`."""
    segment_id: str
    fields: RequestedFields

    def __str__(self) -> str:
        return "the Global Control Group" if self.kind == GLOBAL_CONTROL_GROUP else f"segment {self.segment_id}"


class _Turn:
    """When something is looked at next: at intervals that grow to a minute."""

    def __init__(self, clock: Clock, first_interval: float) -> None:
        self._clock = clock
        self._first = self._interval = float(first_interval)
        self.next = clock.now()

    @property
    def due(self) -> bool:
        return self.next <= self._clock.now()

    def took(self, *, fruitful: bool) -> None:
        """Set the next time, soon if there was something."""
        self._interval = self._first if fruitful else self._interval
        self.next = self._clock.now() + self._interval
        self._interval = min(self._interval * _GROWTH, max(_LONGEST_INTERVAL, self._first))


@dataclass
class _Waiting:
    """An export still to be started."""

    source: Source
    turn: _Turn
    since: float
    told: bool = False


@dataclass
class _Running:
    """An export running in Braze."""

    source: Source
    arrival: Arrival
    turn: _Turn


class Exports:
    """Runs the configured exports in Braze, so many at a time, and gives their files as they arrive.

    Args:
        sources: What to export, in this order.
        client: Braze.
        clock: Time and waiting.
        spool: Takes the downloads.
        session: Fetches them; it knows no key.
        progress: Is told while there is nothing to read.
        config: The tap's settings.
        shape: Hash of everything that shapes rows.
        remember: Writes STATE; called as soon as an export has been started, before any waiting.

    Attributes:
        bookmarks: The exports of this run by source and segment, as STATE remembers them.
        failures: Why exports were given up.
        all_proven: Whether every export so far is known to be complete.
    """

    def __init__(
        self,
        sources: list[Source],
        *,
        client: Braze,
        clock: Clock,
        spool: Spool,
        session: requests.Session,
        progress: Progress,
        config: Mapping[str, Any],
        shape: str,
        remember: Callable[[], None],
    ) -> None:
        self.bookmarks: dict[tuple[str, str], Bookmark] = {}
        self.failures: list[str] = []
        self.all_proven = True
        self._client = client
        self._clock = clock
        self._spool = spool
        self._session = session
        self._progress = progress
        self._config = config
        self._shape = shape
        self._remember = remember
        self._timeout = config["export_timeout_minutes"] * 60
        self._since = clock.now()
        self._waiting = [_Waiting(source, self._new_turn(), clock.now()) for source in sources]
        self._running: list[_Running] = []
        self._delivered: Bookmark

    def deliveries(self) -> Iterator[ExportFile]:
        """The files of all exports, in whatever order Braze delivers them."""
        while self._waiting or self._running:
            self._start_due()
            fruitful = False
            for running in [running for running in self._running if running.turn.due]:
                for file in self._look(running):
                    fruitful = True
                    self._delivered = file.bookmark
                    yield file
            if not fruitful:
                self._wait()

    def state(self) -> dict[str, Any]:
        """The value of `bookmarks.export_files` in STATE."""
        return {"version": VERSION, "exports": [b.to_dict() for b in self.bookmarks.values()], "resync": None}

    def unsafe_to_delete(self) -> str:
        """Why loaders must not delete what this run did not emit; empty if they may."""
        if self.failures:
            return "an export failed"
        if not self.all_proven:
            return "an export was only assumed to be complete; a callback proves it"
        for bookmark in self.bookmarks.values():
            if not bookmark.users:
                return f"segment {bookmark.segment_id} had no user"
            if bookmark.last_users and bookmark.users < bookmark.last_users / 2:
                return (
                    f"segment {bookmark.segment_id} had {bookmark.last_users:,} users before and {bookmark.users:,} now"
                )
        return ""

    def finish(self) -> None:
        """Compare with Braze's estimates, where the key may ask for them: they are rough, so never a failure."""
        for bookmark in self.bookmarks.values():
            if bookmark.source != SEGMENT or bookmark.running:
                continue
            try:
                estimate = self._client.segment_size(bookmark.segment_id)
            except BrazeError as error:
                _log.debug("No estimate to compare with: %s", error)
                continue
            if estimate and abs(bookmark.users - estimate) > estimate * _ESTIMATE_TOLERANCE:
                _log.warning(
                    "Segment %s: %s users came, Braze estimates %s; estimates are rough, but look at it if this is new",
                    bookmark.segment_id,
                    f"{bookmark.users:,}",
                    f"{estimate:,}",
                )

    def give_up(self, error: ExportError) -> None:
        """Drop the export of the last delivery, which cannot be read; the others go on."""
        self._drop(self._delivered, error)

    def _drop(self, bookmark: Bookmark, error: ExportError) -> None:
        running = next(running for running in self._running if running.arrival.bookmark is bookmark)
        self._fail(running.source, f"export {bookmark.export_id}: {error}")
        self._end(running)
        del self.bookmarks[bookmark.key]

    def _look(self, running: _Running) -> Iterator[ExportFile]:
        arrival, found = running.arrival, False
        try:
            for file in arrival.look():
                found = True
                yield file
                if running not in self._running:
                    return
            if not arrival.complete and self._clock.now() > arrival.bookmark.requested_at + self._timeout:
                waited = duration(self._clock.now() - arrival.bookmark.requested_at)
                raise ExportError(f"{waited} after it was requested {arrival.overdue()}")  # noqa: TRY301
        except ExportError as error:
            self._drop(arrival.bookmark, error)
            return
        if arrival.complete:
            arrival.bookmark.running = False
            self.all_proven = self.all_proven and arrival.proven
            self._end(running)
        running.turn.took(fruitful=found)

    def _end(self, running: _Running) -> None:
        self._running.remove(running)
        self._spool.clear(running.arrival.bookmark.export_id)

    def _wait(self) -> None:
        turns = [item.turn.next for item in self._waiting] + [item.turn.next for item in self._running]
        if turns and (seconds := min(turns) - self._clock.now()) > 0:
            names = [running.arrival.bookmark.export_id for running in self._running]
            self._progress.waiting(names or [str(waiting.source) for waiting in self._waiting], self._since)
            self._clock.sleep(seconds)

    def _start_due(self) -> None:
        for waiting in [waiting for waiting in self._waiting if waiting.turn.due]:
            if len(self._running) >= self._config["concurrent_exports"]:
                return
            self._start(waiting)

    def _start(self, waiting: _Waiting) -> None:
        source, requested_at = waiting.source, self._clock.now()
        try:
            started = self._post(source)
        except AuthError:
            raise
        except RunningExportError:
            self._already_running(waiting)
        except AnswerLostError as error:
            _log.warning("%s; asking again in a while shows whether Braze has received it", error)
            waiting.turn.took(fruitful=False)
        except BrazeError as error:
            self._waiting.remove(waiting)
            self._fail(source, str(error))
        else:
            self._waiting.remove(waiting)
            self._started(source, started, requested_at)

    def _post(self, source: Source) -> Started:
        output_format = self._config["output_format"]
        if source.kind == GLOBAL_CONTROL_GROUP:
            return self._client.start_control_group_export(
                fields_to_export=source.fields.fields_to_export, output_format=output_format
            )
        return self._client.start_segment_export(
            source.segment_id,
            fields_to_export=source.fields.fields_to_export,
            custom_attributes_to_export=source.fields.custom_attributes_to_export,
            output_format=output_format,
        )

    def _started(self, source: Source, started: Started, requested_at: float) -> None:
        _log.info(
            "Asked Braze for %s: export %s, %d fields",
            source,
            started.object_prefix,
            len(source.fields.asked_for),
        )
        bookmark = Bookmark(
            source=source.kind,
            segment_id=source.segment_id,
            export_id=started.object_prefix,
            requested_at=requested_at,
            asked_for=source.fields.asked_for,
            shape=self._shape,
        )
        if started.url is None:
            self._fail(
                source,
                "Braze answered without a url, so this workspace delivers exports into its own bucket: "
                "set bucket_url (and bucket_options) to that bucket",
            )
            return
        self.bookmarks[bookmark.key] = bookmark
        path = self._spool.folder(bookmark.export_id) / "download"
        download = Download(
            started.url,
            path=path,
            session=self._session,
            clock=self._clock,
            deadline=requested_at + self._timeout,
        )
        self._running.append(_Running(source, Hosted(bookmark, download, path), self._new_turn()))
        self._remember()

    def _already_running(self, waiting: _Waiting) -> None:
        source, choice = waiting.source, self._config["on_running_export"]
        waited = self._clock.now() - waiting.since
        if choice == "fail" or waited > self._timeout:
            self._waiting.remove(waiting)
            self._fail(
                source,
                f"Braze is already exporting it{f', for {duration(waited)} now' if waited else ''}: wait until that "
                "export has ended, or set on_running_export to wait or cancel",
            )
            return
        if choice == "cancel":
            self._client.cancel_segment_export(source.segment_id)
        if not waiting.told:
            waiting.told = True
            action = "cancelled that export" if choice == "cancel" else "waiting until it has ended"
            _log.info("Braze is already exporting %s: %s", source, action)
        waiting.turn.took(fruitful=False)

    def _fail(self, source: Source, reason: str) -> None:
        _log.warning("Giving up %s: %s", source, reason)
        self.failures.append(f"{source}: {reason}")

    def _new_turn(self) -> _Turn:
        return _Turn(self._clock, self._config["poll_interval_seconds"])
