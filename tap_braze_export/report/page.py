"""The page of a run: one HTML file with its facts, without scripts and without profiles."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import one_line
from tap_braze_export.report import charts
from tap_braze_export.report.facts import list_of_misses, notes
from tap_braze_export.report.history import PastRun, as_json
from tap_braze_export.report.units import duration, megabytes
from tap_braze_export.schema.user_object import INVALID_USER_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tap_braze_export.report.charts import Bar, Chart
    from tap_braze_export.report.facts import ExportFacts, RunFacts
    from tap_braze_export.report.record import ExportTimes, RunRecord

DONE, FAILED, STOPPED = "done", "failed", "stopped"
_OUTCOMES = {DONE: "done", FAILED: "failed", STOPPED: "stopped"}
_CHECK_OUTCOMES = {DONE: "no check fails", FAILED: "a check fails", STOPPED: "stopped"}
_MOST_SOURCES, _MOST_TIMELINES = 200, 5
_MOST_MEMBERS = 30
_MOST_NAME_CHARS = 200
_TEMPLATE = "page.html.j2"
_WAITING, _QUEUED, _READING, _BLOCKED, _SETTLING = "waiting", "queued", "reading", "blocked", "settling"
_IN_QUIET = "waiting for more files in a quiet bucket (settle_minutes)"
_NOTHING_READ = "Nothing, as the run ended before any line was read."
_NOTHING_OF_A_PART = "Nothing of the files that were read; the run ended before it had read all."
_PAST_COLUMNS = ("took", "waiting", "users", "unchanged", "rows", "rescued", "rejected", "peak memory")


@dataclass(frozen=True)
class Ending:
    """How a run, or a checklist, came to its end.

    Attributes:
        outcome: `done`, `failed` or `stopped`.
        error: Its ERROR line; empty without one.
    """

    outcome: str = DONE
    error: str = ""

    @property
    def is_done(self) -> bool:
        """True if all was done that should be."""
        return self.outcome == DONE

    @classmethod
    def of(cls, problem: BaseException, describe: Callable[[Exception], str]) -> Self:
        """The end that an exception has brought.

        Args:
            problem: The exception; a signal, and a loader that reads no more, only stop the run.
            describe: Makes the ERROR line.
        """
        if isinstance(problem, Exception) and not isinstance(problem, BrokenPipeError):
            return cls(FAILED, describe(problem))
        return cls(STOPPED)


@dataclass(frozen=True)
class _Timeline:
    id: str
    parts: Sequence[Bar]
    times: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class _ExportView:
    name: str
    counts: Sequence[tuple[str, str]]
    timelines: Sequence[_Timeline]


@dataclass(frozen=True)
class _ChartView:
    title: str
    kind: str
    note: str
    top: str
    drawn: Chart


def render_run(
    ending: Ending, facts: RunFacts, record: RunRecord, *, resync: bool, earlier: Sequence[PastRun] = ()
) -> str:
    """The page of a run.

    Args:
        ending: How it ended.
        facts: Its counts and times, as its end table has them.
        record: When things happened, and what was kept aside.
        resync: True if it fetched people by identifier.
        earlier: The last runs of its kind, the latest first.
    """
    this = _numbers_of(ending, facts, record, resync=resync)
    span = _span(facts, record)
    return _render(
        ending,
        record.started_at,
        facts.seconds,
        title="Resync of Braze profiles" if resync else "Export of Braze profiles",
        outcome_text=_OUTCOMES[ending.outcome],
        facts_json=as_json(this),
        checks=None,
        figures=[*_figures(this, facts)],
        scale=" to ".join(map(_moment, span)),
        time_parts=charts.shares((kind, seconds) for kind, _, seconds in _seconds(facts)),
        time_legend=[(kind, label, duration(seconds)) for kind, label, seconds in _seconds(facts)],
        exports=_exports(facts, record, *span),
        quiet_note=f", then {_IN_QUIET}" if any(assumed for _, assumed in facts.completed.values()) else "",
        streams=[(name, f"{rows:,}", f"{facts.rescued.get(name, 0):,}") for name, rows in facts.rows.items()],
        charts=[*_charts(record)],
        notes=_notes(ending, facts, record),
        members=_members(record),
        rejected=[*_rejected(record)],
        past=[_past(run) for run in (this, *earlier)],
        past_columns=_PAST_COLUMNS,
    )


def render_checks(
    ending: Ending, started_at: float, seconds: float, checks: Iterable[tuple[str, str, str, str]]
) -> str:
    """The page of a checklist.

    Args:
        ending: How it ended.
        started_at: Epoch seconds.
        seconds: How long it took.
        checks: Kind of the verdict, subject, verdict and remark of each check.
    """
    return _render(
        ending,
        started_at,
        seconds,
        title="Checklist of --test",
        outcome_text=_CHECK_OUTCOMES[ending.outcome],
        facts_json="",
        checks=[(kind, *map(_shown, texts)) for kind, *texts in checks],
    )


def _render(ending: Ending, started_at: float, seconds: float, **facts: Any) -> str:
    # Imported here, since it is an extra.
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text("utf-8"))
    return template.render(
        started_at=_moment(started_at),
        duration=duration(seconds),
        outcome=ending.outcome,
        error=one_line(ending.error),
        version=version("tap-braze-export"),
        **facts,
    )


def _numbers_of(ending: Ending, facts: RunFacts, record: RunRecord, *, resync: bool) -> PastRun:
    """The numbers that later runs are compared with."""
    return PastRun(
        started_at=timestamp(record.started_at),
        outcome=ending.outcome,
        resync=resync,
        seconds=round(facts.seconds, 3),
        seconds_waiting=round(facts.seconds_waiting, 3),
        users=facts.total("users"),
        unchanged=facts.total("unchanged"),
        rows=sum(facts.rows.values()),
        rescued=sum(facts.rescued.values()),
        rejected=facts.total("rejected"),
        memory=facts.peak_memory,
    )


def _figures(this: PastRun, facts: RunFacts) -> Iterable[tuple[str, str]]:
    yield "users", f"{this.users:,}"
    if this.unchanged:
        yield "unchanged users", f"{this.unchanged:,}"
    if facts.missed:
        yield "changed users not named by the filter", facts.missed
    yield "rows", f"{this.rows:,}"
    yield "files", f"{facts.total('files'):,}"
    if facts.seconds_reading > 0:
        yield "users a second of reading", f"{this.users / facts.seconds_reading:,.0f}"
    yield "retries", f"{facts.retries:,}"
    if facts.peak_memory:
        yield "peak memory", f"{megabytes(facts.peak_memory)} MB"


def _seconds(facts: RunFacts) -> Iterable[tuple[str, str, float]]:
    """The parts of the run's time."""
    yield _WAITING, "waiting for Braze", facts.seconds_for_braze
    if facts.seconds_quiet:
        yield _SETTLING, _IN_QUIET, facts.seconds_quiet
    yield _READING, "reading and writing", facts.seconds_reading
    yield _BLOCKED, "waiting for the loader", facts.seconds_blocked


def _counts(export: ExportFacts) -> list[tuple[str, str]]:
    names = ("files", "lines", "users", "duplicates", "unchanged", "rejected")
    return [(name, f"{getattr(export, name):,}") for name in names]


def _exports(facts: RunFacts, record: RunRecord, start: float, end: float) -> list[_ExportView]:
    """The exports by source: their counts, and the times of each on a scale from `start` to `end`."""
    timelines: dict[str, list[_Timeline]] = {export.name: [] for export in facts.exports}
    for export in record.exports.values():
        completed_after, assumed = facts.completed.get(export.export_id, (None, False))
        steps = [*_steps(export, end)]
        times = [*_times(export)]
        if assumed and completed_after and export.done_at:
            completed_at = record.started_at + completed_after
            steps.append((_SETTLING, export.done_at, completed_at))
            times.append((_SETTLING, "assumed complete", _since_request(export, completed_at)))
        bars = charts.bars(steps, start=start, end=end)
        timelines.setdefault(export.name, []).append(_Timeline(_shown(export.export_id), bars, times))
    counts = {export.name: _counts(export) for export in facts.exports}
    return [
        _ExportView(_shown(name), counts.get(name, ()), own[:_MOST_TIMELINES])
        for name, own in [*timelines.items()][:_MOST_SOURCES]
    ]


def _span(facts: RunFacts, record: RunRecord) -> tuple[float, float]:
    """The time that the bars show: from the first request, but at most twice the time of the run."""
    earliest = min((export.requested_at for export in record.exports.values()), default=record.started_at)
    start = max(min(earliest, record.started_at), record.started_at - facts.seconds)
    return start, record.started_at + facts.seconds


def _steps(export: ExportTimes, end: float) -> Iterable[tuple[str, float, float]]:
    """The parts of an export's time: until its first file, until it was read, and until it was done."""
    yield _WAITING, export.requested_at, export.ready_at or end
    if export.ready_at is not None:
        yield _QUEUED, export.ready_at, export.read_at or end
    if export.read_at is not None:
        yield _READING, export.read_at, export.done_at or end


def _times(export: ExportTimes) -> Iterable[tuple[str, str, str]]:
    yield _WAITING, "requested", _moment(export.requested_at)
    for kind, step, moment in (
        (_QUEUED, "ready", export.ready_at),
        (_READING, "reading began", export.read_at),
        (_READING, "done", export.done_at),
    ):
        if moment is None:
            yield kind, step, "not in this run"
            return
        yield kind, step, _since_request(export, moment)


def _since_request(export: ExportTimes, moment: float) -> str:
    return f"after {duration(max(0.0, moment - export.requested_at))}"


def _charts(record: RunRecord) -> Iterable[_ChartView]:
    if speed := charts.speed(record.samples.taken):
        note = f"Users a second of the whole run, averaged, waits included: at most {speed.highest:,.0f}"
        yield _ChartView("Speed", _READING, note, f"{speed.top:,.0f}", speed)
    if memory := charts.memory(record.samples.taken):
        note = f"Memory of the tap's own process, at most {megabytes(int(memory.highest))} MB"
        yield _ChartView("Memory", "memory", note, f"{megabytes(int(memory.top))} MB", memory)


def _notes(ending: Ending, facts: RunFacts, record: RunRecord) -> Iterable[str]:
    """Say in sentences what was left out or kept aside."""
    found = [*notes(facts)]
    if record.misses:
        where = list_of_misses(selected=INVALID_USER_IDS.stream in facts.rows)
        found.append(f"misses: {record.misses:,} identifiers matched nobody; {where}")
    if found:
        return found
    if ending.is_done:
        return ["Nothing: every line was read, and every value has its column."]
    return [_NOTHING_OF_A_PART if facts.total("lines") else _NOTHING_READ]


def _members(record: RunRecord) -> list[tuple[str, str, str]]:
    """The rescued members by number of rows; those without a name to be shown come last."""
    named = [(rows, stream, member) for (stream, member), rows in record.rescued_members.items() if member]
    named.sort(key=lambda found: (-found[0], found[1:]))
    shown = [(stream, _shown(member), f"{rows:,}") for rows, stream, member in named[:_MOST_MEMBERS]]
    others = [(rows, stream) for (stream, member), rows in record.rescued_members.items() if not member]
    others += [(rows, stream) for rows, stream, _ in named[_MOST_MEMBERS:]]
    by_stream: dict[str, int] = {}
    for rows, stream in others:
        by_stream[stream] = by_stream.get(stream, 0) + rows
    return shown + [(stream, "other members", f"{rows:,}") for stream, rows in sorted(by_stream.items())]


def _rejected(record: RunRecord) -> Iterable[tuple[str, str, str]]:
    for file in record.rejected_files.values():
        more = ", …" if file.lines > len(file.first_numbers) else ""
        yield _shown(file.file), f"{file.lines:,}", ", ".join(map(str, file.first_numbers)) + more
    if record.more_rejected_files:
        yield f"{record.more_rejected_files:,} more files", "", ""


def _past(run: PastRun) -> dict[str, Any]:
    values = (
        duration(run.seconds),
        duration(run.seconds_waiting),
        *(f"{number:,}" for number in (run.users, run.unchanged, run.rows, run.rescued, run.rejected)),
        f"{megabytes(run.memory)} MB" if run.memory else "unknown",
    )
    return {
        "began": run.started_at.replace("T", " ")[:19],
        "outcome": run.outcome,
        "outcome_text": _OUTCOMES[run.outcome],
        "numbers": values,
    }


def _shown(text: str) -> str:
    """Foreign text in one line of printable characters, cut off where it is long."""
    line = one_line(text)
    return line if len(line) <= _MOST_NAME_CHARS else f"{line[: _MOST_NAME_CHARS - 1]}…"


def _moment(seconds: float) -> str:
    return timestamp(seconds).replace("T", " ")[:19]
