"""One run, from its first request to its last STATE."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tap_braze_export.clock import timestamp
from tap_braze_export.deliveries import Role, audit_row
from tap_braze_export.errors import ExportError, TapError
from tap_braze_export.files.spool import Spool
from tap_braze_export.parts import Parts
from tap_braze_export.report.facts import BEGUN, READY, RunFacts
from tap_braze_export.report.page import Ending
from tap_braze_export.report.page_file import write_run
from tap_braze_export.report.progress import Progress
from tap_braze_export.report.summary import log_table
from tap_braze_export.rows.conform import as_loaded
from tap_braze_export.rows.rendered import Rows, membership_rows
from tap_braze_export.rows.rescued_members import add
from tap_braze_export.schema.user_object import INVALID_USER_IDS, SEGMENT_MEMBERS
from tap_braze_export.singer.command import describe
from tap_braze_export.singer.state_messages import StateMessages
from tap_braze_export.workers.worker import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from singer_sdk.helpers.types import Record

    from tap_braze_export.clock import Clock
    from tap_braze_export.deliveries import Deliveries, Delivery
    from tap_braze_export.fingerprints.lifecycle import Fingerprints
    from tap_braze_export.fingerprints.measured import MeasuredFilter
    from tap_braze_export.settings import Settings
    from tap_braze_export.singer.batch_messages import Batches
    from tap_braze_export.singer.file_stream import FileStream
    from tap_braze_export.singer.messages import MessageWriter
    from tap_braze_export.workers.file_reader import ReadBlock
    from tap_braze_export.workers.read_ahead import ReadAhead

_FINGERPRINTS = "fingerprints"
"""The member of `bookmarks.export_files` that names the fingerprints of what the target has; a list of none or one."""
_log = logging.getLogger(__name__)


class Run:
    """Reads one delivery after the other and emits its rows, then the STATE that covers them."""

    def __init__(
        self,
        settings: Settings,
        parent: FileStream,
        streams: Sequence[FileStream],
        *,
        writer: MessageWriter,
        clock: Clock,
        state: dict[str, Any],
        send_state: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._parent = parent
        self._streams = {stream.name: stream for stream in streams}
        self._selections = {stream.name: stream.selection for stream in streams if stream is not parent}
        self._writer = writer
        self._clock = clock
        self._state = state
        self._state_messages = StateMessages(state, writer, send_state)
        self._spool = Spool(settings.spool_dir, clock=clock)
        self._facts = RunFacts(clock, compares=bool(settings.fingerprints_url) and not settings.is_resync)
        self._progress = Progress(self._facts, clock, parent.plugin.logger)
        self._batches: Batches | None = None
        self._fingerprints: Fingerprints | None = None
        self._measured: MeasuredFilter | None = None
        self._read_ahead: ReadAhead
        self._deliveries: Deliveries
        self._all_deliveries: list[Deliveries] = []
        self._parts = Parts(settings, streams, self._selections, writer, clock, self._spool, self._progress)
        self._rejected_lines = 0

    def records(self) -> Iterator[Record]:
        """Run from the first request to the last STATE; yields each written row of `export_files`.

        Raises:
            TapError: If the run cannot go on, or an export failed, or too many lines could not be read.
        """
        ending = Ending()
        try:
            yield from self._emit_all()
            for part in self._all_deliveries:
                part.review()
            self._fail_if_incomplete()
            self._activate_versions()
        except BaseException as error:
            ending = Ending.of(error, describe)
            raise
        finally:
            rows = {name: stream.emitted for name, stream in self._streams.items()}
            self._facts.finish(rows)
            if ending.is_done or self._facts.counts:
                log_table(self._parent.plugin.logger, self._facts, done=ending.is_done)
            write_run(self._settings, ending, self._facts)

    def _emit_all(self) -> Iterator[Record]:
        keep_freed_memory()
        self._spool.open()
        with ExitStack() as stack:
            for stream in self._streams.values():
                stack.callback(stream.finish)
            stack.enter_context(self._progress)
            self._batches = self._parts.batches()
            yield from self._emit_part(self._parts.deliveries)
            while following := self._deliveries.second_part():
                _log.info("Now everybody is exported, as a full export is due")
                yield from self._emit_part(lambda *_, following=following: following, keeps_fingerprints=True)

    def _emit_part(self, make: Callable[..., Deliveries], *, keeps_fingerprints: bool = False) -> Iterator[Record]:
        """Emit some deliveries of the run, mostly all of them."""
        with ExitStack() as stack:
            self._fingerprints = self._parts.fingerprints(self._state.get(_FINGERPRINTS), keeps_all=keeps_fingerprints)
            if self._fingerprints:
                stack.enter_context(self._fingerprints)
            known_users = self._fingerprints.known if self._fingerprints else None
            self._read_ahead = stack.enter_context(self._parts.read_ahead(known_users))
            self._deliveries = make(self._state, self._read_ahead.capacity, self._write_state_of_exports, known_users)
            self._all_deliveries.append(self._deliveries)
            with self._deliveries:
                yield from self._emit_deliveries()
                self._write_schemas()  # so that tables exist even if no user is delivered
                if self._fingerprints:
                    self._emit_leavers(self._fingerprints)
                    self._fingerprints.finish(only_own=self._may_delete_rows)
                self._write_state()

    def _emit_deliveries(self) -> Iterator[Record]:
        while not all(stream.limit_reached for stream in self._streams.values()):
            if deliveries := self._deliveries.poll():
                self._facts.reached(READY, (delivery.export for delivery in deliveries))
                if record := self._emit_next(deliveries):
                    yield record
            elif self._deliveries.ended:
                return
            else:
                self._deliveries.wait()

    def _emit_next(self, deliveries: Sequence[Delivery]) -> Record | None:
        """Emit all rows of one of the deliveries, and STATE where it is due; None if it cannot be read."""
        self._write_schemas()
        started, waited = self._clock.monotonic(), self._writer.waited
        delivery, blocks = self._read_ahead.next(deliveries)
        self._facts.reached(BEGUN, [delivery.export])
        row: Record = audit_row(delivery, read_at=timestamp(self._clock.now()))
        rescued: Counter[str] = Counter()
        rejected = self._spool.rejected(delivery.export.export_id, delivery.name)
        try:
            for block in blocks:
                rejected.keep(block.rejected)
                rescued.update(block.rescued)
                self._emit_block(delivery, block, row)
                self._deliveries.advance()
        except ExportError as error:
            delivery.failed(error)  # rows that are written stay valid; a second fetch writes them again
            return None
        finally:
            rejected.tell()
            self._rejected_lines += rejected.count
            self._facts.rejected(delivery.name, rejected.count, rejected.first_numbers)
        row["rejected"] = rejected.count
        self._emit_own_rows(delivery, row)
        delivery.done(row["users"], rejected.count)
        self._facts.done(
            delivery.export,
            row,
            rescued,
            misses=len(delivery.invalid_user_ids),
            seconds=self._clock.monotonic() - started,
            blocked=self._writer.waited - waited,
        )
        self._progress.read()
        if self._is_state_due:
            self._write_state()
        self._writer.flush()  # the next file may be an hour away
        return row

    def _emit_block(self, delivery: Delivery, block: ReadBlock, row: Record) -> None:
        """Emit the rows of a block, whose part of fingerprints is written before; add its counts to the audit row."""
        if self._fingerprints:
            self._fingerprints.record(block.fingerprints, export_id=delivery.export.export_id)
            self._measure(delivery, block.fingerprints, row)
        for count in ("lines", "users", "duplicates", "unchanged"):
            row[count] += getattr(block, count)
        if self._batches is not None:
            for name, file in block.batch_files.items():
                self._batches.add_file(name, file)
                self._streams[name].count(file.count)
        self._parent.emit_to_children(block.rows, delivery.export.exported_at)
        add(self._facts.rescued_members, block.rescued_members.items())
        self._facts.emitted(block.users)

    def _measure(self, delivery: Delivery, block: Any, record: Record) -> None:
        """Compare the users of a full export with those that the incremental one just before had."""
        if delivery.role is Role.NONE:
            return
        self._measured = self._measured or self._parts.measured_filter()  # here, too, if the filter named nobody at all
        if delivery.role is Role.NAMES_USERS:
            self._measured.named(block)
            self._facts.named = self._measured.changed
        else:
            missed = self._measured.missed(block)
            record["missed"] = None if missed is None else (record["missed"] or 0) + missed

    def _emit_own_rows(self, delivery: Delivery, record: Record) -> None:
        """Emit the rows that come from no line: identifiers without a user, and the audit row."""
        given = {"exported_at": delivery.export.exported_at}
        if misses := delivery.invalid_user_ids:
            rows = Rows.of(miss | given for miss in misses)
            self._parent.emit_to_children({INVALID_USER_IDS.stream: rows}, delivery.export.exported_at)
        if self._parent.name in self._streams:
            row = as_loaded(self._parent.selection.columns, record)
            self._parent.emit(Rows.of([row]), delivery.export.exported_at)

    def _emit_leavers(self, fingerprints: Fingerprints) -> None:
        """Emit the users that left a segment, after a run that missed no user."""
        selection = self._selections.get(SEGMENT_MEMBERS.stream)
        if selection is None or self._rejected_lines or self._deliveries.failures:
            return
        for bookmark in self._deliveries.complete_exports():
            export, segment_id = bookmark.export, bookmark.export.segment_id or bookmark.export.source
            for braze_ids in fingerprints.leavers(export.export_id, segment_id, bookmark.users):
                rows = membership_rows(
                    selection, braze_ids, segment_id=segment_id, is_member=False, exported_at=export.exported_at
                )
                self._parent.emit_to_children({SEGMENT_MEMBERS.stream: rows}, export.exported_at)

    # STATE, and the end

    @property
    def _is_state_due(self) -> bool:
        if self._batches is not None:
            return self._batches.full
        return self._state_messages.go_with_output or self._settings.is_resync

    def _write_schemas(self) -> None:
        """Write the SCHEMA message of each stream that has none yet: not before there is something to load."""
        for stream in self._streams.values():
            stream.write_schema()

    def _write_state_of_exports(self, *, must: bool) -> None:
        """Write STATE for what has begun or ended in Braze, as far as it is not too much; the journals know it, too."""
        if must or self._state_messages.are_affordable:
            self._write_state()

    def _write_state(self) -> None:
        if self._batches is not None:
            self._batches.close_group()  # STATE names no file whose rows are not announced
        state = self._deliveries.state()
        if self._settings.is_resync:
            state[_FINGERPRINTS] = self._state.get(_FINGERPRINTS, [])
        else:
            state[_FINGERPRINTS] = self._fingerprints.state() if self._fingerprints else []
        self._state_messages.write(state)
        self._deliveries.stated()

    def _fail_if_incomplete(self) -> None:
        problems = [failure for part in self._all_deliveries for failure in part.failures]
        allowed = self._settings.max_rejected_lines
        if self._rejected_lines > allowed:
            problems.append(
                f"{self._rejected_lines} lines could not be read, more than max_rejected_lines ({allowed}) allows; "
                f"they are kept in {self._spool.root / 'rejected'}: check them, then raise the setting or ask Braze"
            )
        if problems:
            raise TapError("; ".join(problems))

    @property
    def _may_delete_rows(self) -> bool:
        """True if the target may be told to delete every row that this run has not emitted."""
        wanted = self._settings.emit_activate_version_messages and not self._facts.total("unchanged")
        return wanted and not any(part.reason_to_keep_rows() for part in self._all_deliveries)

    def _activate_versions(self) -> None:
        if not self._settings.emit_activate_version_messages:
            return
        reason = next((reason for part in self._all_deliveries if (reason := part.reason_to_keep_rows())), "")
        if self._rejected_lines:
            reason = "lines could not be read"
        elif self._facts.total("unchanged"):
            reason = "users that did not change were skipped"
        elif not self._settings.segment_ids:
            reason = "no segment was exported"
        if reason:
            _log.warning("No ACTIVATE_VERSION, loaders keep the rows of earlier runs: %s", reason)
            return
        for stream in self._streams.values():
            stream.activate_version()
