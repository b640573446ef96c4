"""The page of a run: one HTML file with its facts, without scripts and without profiles."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tap_braze_export.clock import timestamp
from tap_braze_export.errors import one_line
from tap_braze_export.report import charts
from tap_braze_export.report.facts import ASSUMED, BEGUN, COUNTS, DONE, READY, REQUESTED, list_of_misses, notes
from tap_braze_export.report.history import PastRun, as_json
from tap_braze_export.report.units import duration, megabytes
from tap_braze_export.schema.user_object import INVALID_USER_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tap_braze_export.report.charts import Bar, Chart
    from tap_braze_export.report.facts import RunFacts, Timeline

_CHECK_OUTCOMES = {"done": "no check fails", "failed": "a check fails", "stopped": "stopped"}
_MOST_SOURCES, _MOST_TIMELINES = 200, 5
_MOST_MEMBERS = 30
_MOST_NAME_CHARS = 200
_TEMPLATE = "page.html.j2"
_WAITING, _QUEUED, _READING, _BLOCKED, _SETTLING = "waiting", "queued", "reading", "blocked", "settling"
_KINDS = {REQUESTED: _WAITING, READY: _QUEUED, BEGUN: _READING, DONE: _READING, ASSUMED: _SETTLING}
"""The kind of each step; it is that of the time after it, too, but for `DONE`."""
_IN_QUIET = "waiting for more files in a quiet bucket (settle_minutes)"


@dataclass(frozen=True)
class Ending:
    """How a run or a checklist ended: `done`, `failed` or `stopped`; with its ERROR line, empty without one."""

    outcome: str = "done"
    error: str = ""

    @property
    def is_done(self) -> bool:
        """True if all was done that should be."""
        return self.outcome == "done"

    @classmethod
    def of(cls, problem: BaseException, describe: Callable[[Exception], str]) -> Self:
        """The end that an exception has brought: a signal, and a loader that reads no more, only stop the run."""
        if isinstance(problem, Exception) and not isinstance(problem, BrokenPipeError):
            return cls("failed", describe(problem))
        return cls("stopped")


class _DrawnTimeline(NamedTuple):
    """An export: parts of its bar, and the kind, name and moment of each step."""

    id: str
    parts: Sequence[Bar]
    steps: Sequence[tuple[str, str, str]]


class _DrawnChart(NamedTuple):
    title: str
    kind: str
    note: str
    top: str
    drawn: Chart


def render_run(ending: Ending, facts: RunFacts, *, resync: bool, earlier: Sequence[PastRun] = ()) -> str:
    """The page of a run.

    Args:
        ending: How it ended.
        facts: Its facts.
        resync: True if it fetched people by identifier.
        earlier: The last runs of its kind, the latest first.
    """
    this = PastRun(
        started_at=timestamp(facts.started_at),
        outcome=ending.outcome,
        resync=resync,
        seconds=round(facts.seconds, 3),
        seconds_waiting=round(facts.seconds_waiting, 3),
        users=facts.total("users"),
        unchanged=facts.total("unchanged"),
        rows=sum(facts.rows.values()),
        rescued=facts.rescued.total(),
        rejected=facts.total("rejected"),
        memory=facts.peak_memory,
    )
    time_parts = [*_time_parts(facts)]
    span = _span(facts)
    timelines = _timelines(facts, *span)
    return _render(
        ending,
        facts.started_at,
        facts.seconds,
        title="Resync of Braze profiles" if resync else "Export of Braze profiles",
        outcome_text=ending.outcome,
        facts_json=as_json(this),
        facts=facts,
        runs=[this, *earlier],
        counts=COUNTS,
        time_parts=time_parts,
        shares=charts.shares((kind, value) for kind, _, value in time_parts),
        timelines={name: timelines[name][:_MOST_TIMELINES] for name in [*timelines][:_MOST_SOURCES]},
        span=span,
        quiet_note=f", then {_IN_QUIET}" if any(ASSUMED in each.moments for each in facts.timelines.values()) else "",
        charts=[*_charts(facts)],
        notes=_notes(ending, facts),
        members=_members(facts),
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
        checks=checks,
        facts_json="",
    )


def _render(ending: Ending, started_at: float, seconds: float, **more: Any) -> str:
    # Imported here, since it is an extra.
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "duration": duration,
        "megabytes": megabytes,
        "moment": _moment,
        "number": "{:,}".format,
        "shown": _shown,
    }
    template = environment.from_string(files(__package__).joinpath(_TEMPLATE).read_text("utf-8"))
    return template.render(
        started_at=_moment(started_at),
        duration=duration(seconds),
        outcome=ending.outcome,
        error=one_line(ending.error),
        version=version("tap-braze-export"),
        **more,
    )


def _time_parts(facts: RunFacts) -> Iterable[tuple[str, str, float]]:
    """The kinds, names and seconds of the parts of the run's time."""
    yield _WAITING, "waiting for Braze", facts.seconds_for_braze
    if facts.seconds_quiet:
        yield _SETTLING, _IN_QUIET, facts.seconds_quiet
    yield _READING, "reading and writing", facts.seconds_reading
    yield _BLOCKED, "waiting for the loader", facts.seconds_blocked


def _span(facts: RunFacts) -> tuple[float, float]:
    """The time that the bars show: from the first request, but at most twice the time of the run."""
    first = min([facts.started_at, *(each.moments[REQUESTED] for each in facts.timelines.values())])
    return max(first, facts.started_at - facts.seconds), facts.started_at + facts.seconds


def _timelines(facts: RunFacts, start: float, end: float) -> dict[str, list[_DrawnTimeline]]:
    """The timelines by source, on a scale from `start` to `end`."""
    drawn: dict[str, list[_DrawnTimeline]] = {name: [] for name in facts.counts}
    for export_id, timeline in facts.timelines.items():
        parts = charts.bars(_parts(timeline, end), start=start, end=end)
        drawn.setdefault(timeline.name, []).append(_DrawnTimeline(export_id, parts, [*_steps(timeline)]))
    return drawn


def _parts(timeline: Timeline, end: float) -> Iterable[tuple[str, float, float]]:
    """The parts of an export's time, each from one step to the next; what was not done lasts until the end."""
    steps = [step for step in _KINDS if step in timeline.moments]
    for step, following in zip_longest(steps, steps[1:]):
        kind = _SETTLING if step == DONE else _KINDS[step]
        if following or step not in (DONE, ASSUMED):
            yield kind, timeline.moments[step], timeline.moments.get(following, end)


def _steps(timeline: Timeline) -> Iterable[tuple[str, str, str]]:
    requested = timeline.moments[REQUESTED]
    yield _WAITING, REQUESTED, _moment(requested)
    for step in (READY, BEGUN, DONE, ASSUMED):
        if (moment := timeline.moments.get(step)) is not None:
            yield _KINDS[step], step, f"after {duration(max(0.0, moment - requested))}"
        elif step != ASSUMED:
            yield _KINDS[step], step, "not in this run"
            return


def _charts(facts: RunFacts) -> Iterable[_DrawnChart]:
    if speed := charts.speed(facts.samples.taken):
        note = f"Users a second of the whole run, averaged, waits included: at most {speed.highest:,.0f}"
        yield _DrawnChart("Speed", _READING, note, f"{speed.top:,.0f}", speed)
    if memory := charts.memory(facts.samples.taken):
        note = f"Memory of the tap's own process, at most {megabytes(memory.highest)} MB"
        yield _DrawnChart("Memory", "memory", note, f"{megabytes(memory.top)} MB", memory)


def _notes(ending: Ending, facts: RunFacts) -> Sequence[str]:
    """Say in sentences what was left out or kept aside."""
    found = [*notes(facts)]
    if facts.misses:
        where = list_of_misses(selected=INVALID_USER_IDS.stream in facts.rows)
        found.append(f"misses: {facts.misses:,} identifiers matched nobody; {where}")
    if found:
        return found
    if ending.is_done:
        return ["Nothing: every line was read, and every value has its column."]
    if facts.total("lines"):
        return ["Nothing of the files that were read; the run ended before it had read all."]
    return ["Nothing, as the run ended before any line was read."]


def _members(facts: RunFacts) -> list[tuple[str, str, int]]:
    """Stream, name and rows of the rescued members that most rows have; those without a name to be shown come last."""
    ordered = sorted(facts.rescued_members.items(), key=lambda found: (-found[1], found[0]))
    named = [(stream, member, rows) for (stream, member), rows in ordered if member]
    others: Counter[str] = Counter()
    for stream, _, rows in named[_MOST_MEMBERS:]:
        others[stream] += rows
    for (stream, member), rows in ordered:
        others[stream] += 0 if member else rows
    return [*named[:_MOST_MEMBERS], *((stream, "other members", rows) for stream, rows in sorted((+others).items()))]


def _shown(text: str) -> str:
    """Foreign text in one line of printable characters, cut off where it is long."""
    line = one_line(text)
    return line if len(line) <= _MOST_NAME_CHARS else f"{line[: _MOST_NAME_CHARS - 1]}…"


def _moment(seconds: float) -> str:
    return timestamp(seconds).replace("T", " ")[:19]
