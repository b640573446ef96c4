"""The facts of a run, which its progress, its end table and its page show."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_braze_export.report.samples import Samples, peak_memory
from tap_braze_export.schema.user_object import INVALID_USER_IDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tap_braze_export.clock import Clock
    from tap_braze_export.export import Export

COUNTS = ("files", "lines", "users", "duplicates", "unchanged", "rejected")
_MOST_REJECTED_FILES = 50


REQUESTED, READY, BEGUN, DONE, ASSUMED = "requested", "ready", "reading began", "done", "assumed complete"
"""The steps of an export: something can be read, is read, all is emitted; only a quiet bucket says that it is all."""


class Timeline(NamedTuple):
    """The name of an export's source, and by step the epoch seconds at which this run saw it."""

    name: str
    moments: dict[str, float]


class RunFacts:
    """Collects the facts of a run, in memory that does not grow with the number of its files.

    Args:
        clock: Time.
        compares: True if users are skipped that did not change.

    Attributes:
        started_at: When it began, in epoch seconds.
        seconds: How long it took.
        seconds_reading: The part of them in which the tap read and wrote.
        seconds_blocked: The part of them in which the loader kept the tap waiting.
        seconds_quiet: The part of them in which only the end of exports in a quiet bucket was waited for.
        counts: The counts of each source, in the order of their first files. `missed` of them, if a full export was
            compared: changed users that the incremental one just before did not have.
        named: Changed users that those incremental exports had.
        timelines: The exports by id.
        rows: Rows emitted, by stream.
        rescued: Rows of them with rescued members, by stream; 0 may be left out.
        rescued_members: The same by stream and member, which is empty for all whose names are not shown.
        rejected_files: Number of unreadable lines and the numbers of the first of them, by file, of the first files.
        more_rejected_files: Number of the files after them.
        misses: Identifiers of a resync that matched nobody.
        retries: Calls that were repeated, and files that were fetched once more, after a failure.
        peak_memory: Most bytes of memory that the process held; 0 if the system does not say.
        samples: Users and memory over time.
    """

    def __init__(self, clock: Clock, *, compares: bool = False) -> None:
        self.compares = compares
        self.started_at, self._began = clock.now(), clock.monotonic()
        self.seconds = self.seconds_reading = self.seconds_blocked = self.seconds_quiet = 0.0
        self.counts: dict[str, Counter[str]] = {}
        self.named = 0
        self.timelines: dict[str, Timeline] = {}
        self.rows: Mapping[str, int] = {}
        self.rescued: Counter[str] = Counter()
        self.rescued_members: Counter[tuple[str, str]] = Counter()
        self.rejected_files: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.more_rejected_files = self.misses = self.retries = self.peak_memory = 0
        self.samples = Samples()
        self._clock = clock
        self._retries_before = clock.retries
        self._users = 0

    def reached(self, step: str, exports: Iterable[Export]) -> None:
        """Note that exports have reached a step, perhaps long ago; files may come after they are `DONE`."""
        moment = self._moment
        for export in exports:
            if export.export_id not in self.timelines:
                requested_at = moment - self._clock.age(export.requested_at)
                self.timelines[export.export_id] = Timeline(_name(export), {REQUESTED: requested_at})
            moments = self.timelines[export.export_id].moments
            moments[step] = moment if step == DONE else moments.get(step, moment)
        self.emitted(0)

    def emitted(self, users: int) -> None:
        """Note the users of a block."""
        self._users += users
        self.samples.take(self._clock.monotonic() - self._began, self._users)

    def rejected(self, file: str, lines: int, first_numbers: Sequence[int]) -> None:
        """Note lines of a file that could not be read; a file that is read once more has them once."""
        if not lines:
            return
        if file in self.rejected_files or len(self.rejected_files) < _MOST_REJECTED_FILES:
            self.rejected_files[file] = lines, tuple(first_numbers)
        else:
            self.more_rejected_files += 1

    def done(
        self,
        export: Export,
        row: Mapping[str, Any],
        rescued: Mapping[str, int],
        *,
        misses: int,
        seconds: float,
        blocked: float,
    ) -> None:
        """Note that a delivery is emitted.

        Args:
            export: Its export.
            row: Its row of `export_files`.
            rescued: Rows that have rescued members, by stream.
            misses: Its identifiers that matched nobody.
            seconds: How long it took.
            blocked: The part of them in which the loader kept the run waiting.
        """
        counts = self.counts.setdefault(_name(export), Counter())
        counts.update({"files": 1, **{name: row[name] for name in COUNTS if name != "files"}})
        if row["missed"] is not None:
            counts["missed"] += row["missed"]
        self.rescued.update(rescued)
        self.misses += misses
        self.seconds_reading += max(0.0, seconds - blocked)
        self.seconds_blocked += blocked
        self.reached(DONE, [export])

    def finish(self, rows: Mapping[str, int]) -> None:
        """Note the end of the run."""
        self.emitted(0)
        self.seconds = self._clock.monotonic() - self._began
        self.retries = self._clock.retries - self._retries_before
        self.rows, self.peak_memory = rows, peak_memory()

    @property
    def seconds_waiting(self) -> float:
        """Seconds in which nothing could be read."""
        return max(0.0, self.seconds - self.seconds_reading - self.seconds_blocked)

    @property
    def seconds_for_braze(self) -> float:
        """Seconds in which the run waited for what Braze had not done yet."""
        return max(0.0, self.seconds_waiting - self.seconds_quiet)

    @property
    def users_a_second(self) -> float:
        """Users a second of reading."""
        return self.total("users") / self.seconds_reading if self.seconds_reading else 0.0

    @property
    def missed(self) -> str:
        """How many of the changed users Braze's filter has not named; empty if that was not measured."""
        if not any("missed" in counts for counts in self.counts.values()):
            return ""
        return f"{self.total('missed'):,} of {self.total('missed') + self.named:,}"

    def total(self, count: str) -> int:
        """The sum of a count over all exports."""
        return sum(counts[count] for counts in self.counts.values())

    @property
    def _moment(self) -> float:
        """The time of day, reckoned from the begin of the run, so that differences of such moments are durations."""
        return self.started_at + (self._clock.monotonic() - self._began)


def _name(export: Export) -> str:
    """The name under which the exports of one source are counted, and without an article."""
    return export.subject.removeprefix("the ").removeprefix("a ")


def list_of_misses(*, selected: bool) -> str:
    """Say where the identifiers that matched nobody are listed, if that stream is `selected`, or would be."""
    name = INVALID_USER_IDS.stream
    return f"the stream {name} lists them" if selected else f"select the stream {name} to have them listed"


def notes(facts: RunFacts) -> Iterator[str]:
    """Explain the counts that may surprise."""
    if duplicates := facts.total("duplicates"):
        yield (
            f"duplicates: {duplicates:,} of {facts.total('lines'):,} lines; the last line of a user in a file counts"
        )
    if facts.total("rejected"):
        yield "rejected: lines that are no user objects, kept in spool_dir"
    if facts.rescued.total():
        yield "rescued: rows with values that fit no column, kept in their _rescued_data"
    if facts.compares:
        unchanged, users = facts.total("unchanged"), facts.total("users")
        yield f"unchanged: {unchanged:,} of {users:,} users were skipped, as the target has them"
    if facts.missed:
        yield f"missed: {facts.missed} changed users were not named by the filter (user_last_updated_at)"
