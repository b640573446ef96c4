"""Random histories of a pipeline with `incremental`: the definition of what such nights must load, and of what not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tap_braze_export.sandbox.updates import is_missed
from tests.support.histories import PEOPLE, SEGMENTS, History, content_of
from tests.support.model_loader import emitted_users, read_messages, rows_of
from tests.support.nights import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_braze_export.sandbox.exports import Export
    from tests.support.killed_runs import KilledOutput
    from tests.support.runs import Output

    Pair = tuple[str, str]
    """A user, and a segment that the user is in."""

_MINUTE = 60.0
_CLOCK_TOLERANCE = 61.0
"""Seconds by which the tap's clock may differ from Braze's before it goes by Braze's, and one for whole seconds."""
_NOON = 300.0
"""Seconds between a run and the changes after it, within a night."""
_EMPTY_FAULTS = ("empty-archive", "empty-bucket", "empty-never-ready")
_FAULTS = ((), (), (), (), ("filter-ignored",), ("filter-refused",), *((name,) for name in _EMPTY_FAULTS))
_MOST_STEPS = 200
"""A run that measures the filter has twice as many as others."""


@dataclass(frozen=True)
class Known:
    """The complete exports of a segment, by a STATE.

    Attributes:
        full_at: When Braze accepted the last one of everybody.
        accepted_at: When Braze accepted the last one.
        catalog: The number of the selection.
    """

    full_at: float
    accepted_at: float
    catalog: int


@dataclass
class Night:
    """The requests of an undisturbed run, and the target before it.

    Attributes:
        held: Content of each user in the target.
        members: Users of each segment, in the target.
        new: The exports that the run has started, by segment.
        needed: By segment the time from which it had to ask; None for everybody.
        faults: Those of Braze.
    """

    held: dict[str, tuple[Any, ...]]
    members: set[Pair]
    new: dict[str, list[Export]]
    needed: dict[str, float | None]
    faults: tuple[str, ...]

    def contained(self, *, is_full: bool | None = None, asked: Mapping[str, str | None] | None = None) -> set[Pair]:
        """The users in these exports; only in those of everybody or only in the others, by what each one asked."""
        return {
            (user.braze_id, segment_id)
            for segment_id, exports in self.new.items()
            for export in exports
            if is_full is None or ((asked or {})[export.object_prefix] is None) == is_full
            for user in users_of(export)
        }


class IncrementalHistory(History):
    """A random history with `incremental`: some changes move no time of last update, and Braze misses some users.

    The model, for each user of each segment: *named* is whose time of last update is not before the last change of
    content and the joining, and whom Braze's filter does not miss. After an undisturbed night

    * who is named, or came in an export of that night, has in the target what Braze has,
    * everybody else has in the target what was there before,
    * after a full export everybody has what Braze has, and who has left is no member (unless half of them have left).

    *Torn* is who came unasked for in a run or resync that was loaded in part: who is not named since is whole again
    with the next full export.
    """

    @override
    def __init__(self, seed: int, mode: str, *arguments: Any, **options: Any) -> None:
        self.updated_at: dict[str, float] = {}
        self.changed_at: dict[str, float] = {}
        self.joined_at: dict[Pair, float] = {}
        self.exports: dict[str, Export] = {}  # by object_prefix
        self.asked: dict[str, str | None] = {}  # by object_prefix: user_last_updated_at
        self.known: dict[str, dict[str, Known]] = {"null": {}}  # by STATE as JSON, and segment
        self.rejected: set[str] = set()  # object_prefix of exports with unreadable lines
        self.earlier_states: list[Any] = [None]
        self.faults: tuple[str, ...] = ()
        self.last_output: KilledOutput
        super().__init__(seed, mode, *arguments, **options)
        self.days = self.random.choice([1, 2, 2, 3])
        self.overlap = self.random.choice([0, 60])
        self.nights = self.random.randint(2, 4)
        self.most_steps = _MOST_STEPS
        self.codes = {*self.codes, 1}  # of exports that never come to anything, or have unreadable lines
        self.braze.workspace.options.filter_misses = self.random.choice([0.0, 30.0])
        self.night_seconds = 80 * _MINUTE
        self.config |= {
            "incremental": True,
            "full_export_days": self.days,
            "overlap_minutes": self.overlap,
            "export_timeout_minutes": 90,  # a link that is never ready is waited for until then
        }

    # Braze

    @override
    def _set(self, name: str, *, segments: set[str] | None = None) -> None:
        before = self.truth.people.get(name)
        super()._set(name, segments=segments)
        is_change = before is None or content_of(before) != content_of(self.truth.people[name])
        if is_change:
            self.changed_at[name] = self.clock.now
        if before is None or self.random.random() < (0.8 if is_change else 0.3):
            self.updated_at[name] = self.clock.now

    @override
    def _move(self, name: str, segments: set[str]) -> None:
        before = self.truth.segments.get(name, set())
        super()._move(name, segments)
        self.joined_at |= {(name, segment_id): self.clock.now for segment_id in segments - before}
        if self.random.random() < 0.3:
            self.updated_at[name] = self.clock.now

    @override
    def _deliver(self) -> None:
        super()._deliver()
        for segment in self.braze.workspace.segments.values():
            for user in [*segment.given, *(user for file in segment.files or [] for user in file)]:
                user.updated_at = self.updated_at.get(user.braze_id, 0.0)

    def _is_named(self, name: str, segment_id: str) -> bool:
        """True if Braze's filter names what the target has to have of a user."""
        visible_at = max(self.changed_at[name], self.joined_at[name, segment_id])
        return self._is_found(name) and self.updated_at[name] >= visible_at

    def _is_found(self, name: str) -> bool:
        return not is_missed(self.braze.workspace.options.filter_misses, name)

    # Runs

    @override
    def attempt(self) -> None:
        if self.random.random() < 0.3:
            self.clock.now += _NOON
            self._change_people()
            self._deliver()
            self.told.append("changes within the night")
        if self.random.random() < 0.15:
            self._lose_state()
        self._choose_faults(("bad-line",))
        options = self.braze.workspace.options
        options.hold = self.random.random() < 0.15
        self.told.append(f"faults {self.faults}, hold {options.hold}")
        super().attempt()
        options.hold = False
        self._set_faults()
        self.earlier_states.append(self.loader.state)
        if self.last_output.code or _key(self.loader.state) != _key(self.last_output.states[-1]):
            self.torn |= emitted_users(self.last_output) - self._users_that_come_again()

    @override
    def undisturbed(self) -> KilledOutput:
        for export in self.braze.workspace.running():
            export.finish()
        self.codes_of_undisturbed = {0, 1} if self.has_leftovers else {0}
        output = super().undisturbed()
        self.earlier_states.append(self.loader.state)
        read = {row["export_id"] for row in _rows(output, "export_files")}
        self.torn -= {
            user.braze_id for export_id in read & self.exports.keys() for user in users_of(self.exports[export_id])
        }
        return output

    def _users_that_come_again(self) -> set[str]:
        """The users that the next run asks for, whose filter is neither ignored nor refused."""
        known = self._known()
        needed = {segment_id: self._needed(known.get(segment_id)) for segment_id in SEGMENTS}
        return {
            name
            for segment_id, since in needed.items()
            for name in self.truth.members(segment_id)
            if since is None or (self._is_found(name) and self.updated_at[name] >= since)
        }

    def _choose_faults(self, *more: tuple[str, ...]) -> None:
        if all(self.truth.members(segment_id) for segment_id in SEGMENTS):  # else a full export is empty, too
            self._set_faults(*self.random.choice([*_FAULTS, *more]))

    def _set_faults(self, *names: str) -> None:
        self.faults = names
        self.braze.set_faults(*names)

    @override
    def finish(self) -> KilledOutput:
        if self.mode == "resync":
            return super().finish()
        if self.has_leftovers:
            self.undisturbed()
        self.has_leftovers = False
        self._choose_faults()
        known = self._known()
        needed = {segment_id: self._needed(known.get(segment_id)) for segment_id in SEGMENTS}
        held, members, before = self.held(), self._members(), {*self.exports}
        self.told.append(f"faults {self.faults}, needed {needed}")
        output, faults = self.undisturbed(), self.faults
        self._set_faults()
        new = {
            segment_id: [
                export
                for name, export in self.exports.items()
                if name not in before and export.segment.id == segment_id
            ]
            for segment_id in SEGMENTS
        }
        self.night = Night(held, members, new, needed, faults)
        self.repeats_are_right = False
        self._check_night(output, self.night)
        return output

    @override
    def quiet_night(self) -> None:
        """Exactly the users are emitted that came and differ from the target; a full export measures the filter."""
        if self.mode == "resync" or "fingerprints_url" not in self.config:
            return
        self.clock.now += self.days * DAY
        self.finish()  # everybody, so that damage is healed
        healed = self.night.contained()
        self.change()
        if self.random.random() < 0.6:
            self.clock.now += self.days * DAY
        quiet = self.finish()
        differing = self._differing(self.night)
        contained = self.night.contained()
        wanted = {name for name, _ in differing & contained}
        returned = {name for name, _ in contained - healed}  # nobody knows any more that the target has them
        emitted = {row["braze_id"] for row in _rows(quiet, "users")}
        assert wanted <= emitted <= wanted | returned, self._story(quiet)
        leavers = {name for name, segment_id in self.night.members if name not in self.truth.members(segment_id)}
        assert emitted_users(quiet) <= wanted | returned | leavers, self._story(quiet)
        full = self.night.contained(is_full=True, asked=self.asked)
        named = {name for name, _ in self.night.contained(is_full=False, asked=self.asked)}
        missed = {name for name, _ in differing & full} - named
        self._check_measured(quiet, named, missed, returned)

    def _differing(self, night: Night) -> set[Pair]:
        """The users whom the target had not as Braze has them."""
        return {
            (name, segment_id)
            for segment_id in SEGMENTS
            for name in self.truth.members(segment_id)
            if (name, segment_id) not in night.members or night.held.get(name) != content_of(self.truth.people[name])
        }

    def _check_measured(self, output: Output, named: set[str], missed: set[str], returned: set[str]) -> None:
        """Check that n of m in `export_files.missed` and in the log are the model's."""
        night = self.night
        pairs = {segment_id: exports for segment_id, exports in night.new.items() if len(exports) == 2}
        rows = _rows(output, "export_files")
        full_ids = {exports[1].object_prefix for exports in pairs.values()}
        counted = {row["export_id"]: 0 for row in rows if row["missed"] is not None}
        for row in rows:
            if row["missed"] is not None:
                counted[row["export_id"]] += row["missed"]
        proven = {exports[1].object_prefix for exports in pairs.values() if self._is_complete(exports[0])}
        assert counted.keys() == proven & full_ids, self._story(output)
        if not proven:
            return
        ids = {row["exported_at"]: row["export_id"] for row in rows}
        emitted = [(row["braze_id"], ids.get(row["exported_at"])) for row in _rows(output, "users")]
        n = [name for name, export_id in emitted if export_id in proven and name not in named]
        m = [name for name, export_id in emitted if name in named and self.asked.get(export_id or "") is not None]
        if proven == full_ids:
            assert missed <= set(n) <= missed | returned, self._story(output)
        assert sum(counted.values()) == len(n), self._story(output)
        told = f"missed: {len(n)} of {len(n) + len(m)} changed users were not named by the filter"
        assert told in getattr(output, "log", ""), f"{told}: {self._story(output)}"

    def _members(self) -> set[Pair]:
        return {(name, segment_id) for segment_id in SEGMENTS for name in self.loader.members(segment_id)}

    @override
    def _events(self) -> list[Callable[[], None]]:
        return [*super()._events(), self._lose_state]

    def _lose_state(self) -> None:
        """STATE is lost, or an old one is handed."""
        self.loader.state = self.random.choice(self.earlier_states)
        self.loader.files = set()
        self.lost_leavers = True
        if self.loader.state:
            self.torn.update(self.truth.people)  # by runs that it knows nothing of
        self.has_leftovers = self.repeats_are_right = True
        self.told.append(f"{'an earlier' if self.loader.state else 'no'} STATE")

    # What an undisturbed night has to load

    def _check_night(self, output: KilledOutput, night: Night) -> None:
        story, held, members = self._story(output), self.held(), self._members()
        contained = night.contained()
        names = {name for name, _ in contained}
        asked = {segment_id: [self.asked[each.object_prefix] for each in new] for segment_id, new in night.new.items()}
        self._check_decision(asked, night, story)
        truth = {name: content_of(person) for name, person in self.truth.people.items()}
        deletes = any(message["type"] == "ACTIVATE_VERSION" for message in read_messages(output))
        named = {
            (name, segment_id)
            for segment_id in SEGMENTS
            for name in self.truth.members(segment_id)
            if self._is_named(name, segment_id) and name not in self.torn
        }
        for name, wanted in truth.items():
            if name in names or any(each == name for each, _ in named):
                assert held.get(name) == wanted, f"{name} is not as Braze has it: {story}"
            elif not deletes:
                assert held.get(name) == night.held.get(name), f"{name} has changed, and did not come: {story}"
        assert named <= members, f"{named - members} are no members: {story}"
        assert contained <= members, f"{contained - members} are no members: {story}"
        for segment_id, requests in asked.items():
            now = {(name, segment_id) for name in self.truth.members(segment_id)}
            had = {pair for pair in members if pair[1] == segment_id}
            if None in requests:
                assert now <= contained, story
                is_doubted = len(now) < PEOPLE / 2 and f"No user leaves segment {segment_id} in this run" in output.log
                assert self.lost_leavers or is_doubted or had == now, f"{segment_id} after a full export: {story}"
            else:
                before = {pair for pair in night.members if pair[1] == segment_id}
                came = {pair for pair in contained if pair[1] == segment_id}
                assert had == before | came, f"{segment_id} after an incremental export: {story}"

    def _check_decision(self, asked: dict[str, list[str | None]], night: Night, story: str) -> None:
        """Full or incremental, and from when: exactly."""
        for segment_id, requests in asked.items():
            needed = night.needed[segment_id]
            if needed is not None and "filter-refused" not in night.faults:
                (since,) = requests
                assert since is not None, f"{segment_id} was asked for everybody: {story}"
                assert abs(_seconds(since) - needed) <= _CLOCK_TOLERANCE, (
                    f"{segment_id} was asked since {since}: {story}"
                )
            elif needed is None:
                assert requests[-1] is None, f"{segment_id} was not asked for everybody: {story}"

    # Each run

    @override
    def _check_requests(self, started: Mapping[str, list[str | None]], output: Output) -> None:
        known = self._known()
        for segment_id, asked in started.items():
            last = known.get(segment_id)
            is_measured = self._is_due(last) and "fingerprints_url" in self.config
            story = f"{segment_id} was asked since {asked}, known is {last}: {self._story(output)}"
            assert len(asked) == 1 or (is_measured and len(asked) == 2 and asked[0] and asked[1] is None), story
            for since in filter(None, asked):
                assert last, story
                assert last.catalog == self._selection, story
                assert self._needed(last) is not None or is_measured, story
                assert _seconds(since) <= last.accepted_at - self.overlap * _MINUTE + _CLOCK_TOLERANCE, story

    @override
    def _goes_on(self, entry: dict[str, Any] | None, journalled: dict[str, Any] | None) -> bool:
        if not super()._goes_on(entry, journalled):
            return False
        if entry and journalled and entry["requested_at"] > journalled["requested_at"]:
            journalled = None
        going = journalled or entry
        assert going
        last = self._known().get(going["segment_id"])
        return self.asked.get(going["export_id"]) is None or bool(
            last and self._needed(last) is not None and self._asked_enough(going["export_id"], last)
        )

    @override
    def _note(self, output: KilledOutput, given: Any) -> None:
        self._note_exports()
        self.last_output = output
        messages = read_messages(output)
        known = dict(self.known[_key(given)])
        ended = {entry["export_id"] for entry in _entries(given) if not entry["running"]}
        self.rejected |= {row["export_id"] for row in _rows(output, "export_files") if row["rejected"]}
        times: dict[str, str] = {}
        for message in messages:
            if message["type"] != "STATE":
                continue
            for entry in _entries(message["value"]):
                times[entry["requested_at"]] = entry["export_id"]
                if entry["export_id"] and not entry["running"] and entry["export_id"] not in ended:
                    ended.add(entry["export_id"])
                    self._note_complete(known, entry["segment_id"], entry["export_id"])
            self.known[_key(message["value"])] = dict(known)
        for row in _rows(output, "segment_members"):
            is_incremental = self.asked.get(times.get(row["exported_at"], "")) is not None
            assert row["is_member"] or not is_incremental, f"a leaver {row}: {self._story(output)}"
        if any(message["type"] == "ACTIVATE_VERSION" for message in messages):
            last = {entry["export_id"] for message in messages[-1:] for entry in _entries(message.get("value"))}
            row_ids = {row["export_id"] for row in _rows(output, "export_files")}
            assert all(self.asked[export_id] is None for export_id in row_ids | last), self._story(output)

    def _note_exports(self) -> None:
        """Note what the new exports of Braze were asked; an ignored filter is in the requests alone."""
        calls: dict[str, list[str | None]] = {}
        for call in self.braze.calls:
            if call.path == "/users/export/segment" and call.status == 201:
                calls.setdefault(call.body["segment_id"], []).append(call.body.get("user_last_updated_at"))
        counts: dict[str, int] = {}
        for export in self.exports.values():
            counts[export.segment.id] = counts.get(export.segment.id, 0) + 1
        for export in self.braze.workspace.exports:
            if export.object_prefix not in self.exports:
                number = counts.get(export.segment.id, 0)
                counts[export.segment.id] = number + 1
                self.exports[export.object_prefix] = export
                self.asked[export.object_prefix] = calls[export.segment.id][number]

    def _note_complete(self, known: dict[str, Known], segment_id: str, export_id: str) -> None:
        export = self.exports[export_id]
        if not self._is_complete(export):
            return
        if self.asked[export_id] is None:
            known[segment_id] = Known(export.requested_at, export.requested_at, self._selection)
        elif (
            (last := known.get(segment_id)) and last.catalog == self._selection and self._asked_enough(export_id, last)
        ):
            known[segment_id] = replace(last, accepted_at=max(last.accepted_at, export.requested_at))

    def _asked_enough(self, export_id: str, last: Known) -> bool:
        """True if an export has asked for no less than what is needed after the last complete one."""
        asked = self.asked[export_id]
        return asked is None or _seconds(asked) <= last.accepted_at - self.overlap * _MINUTE + _CLOCK_TOLERANCE

    def _is_complete(self, export: Export) -> bool:
        """True if Braze has written something, a file or an archive behind the link, and all of it could be read."""
        if export.object_prefix in self.rejected:
            return False
        if self.mode == "bucket":
            return any((self.folder / "bucket").rglob(export.object_prefix))
        return export.ready

    # What STATE knows

    @property
    def _selection(self) -> int:
        return self.catalogs.index(self.catalog)

    def _known(self) -> dict[str, Known]:
        return self.known[_key(self.loader.state)]

    def _is_due(self, last: Known | None) -> bool:
        """True if the next run's full export is due by age alone."""
        at = self.clock.now + _NOON
        return bool(last and last.catalog == self._selection and at > last.full_at + self.days * DAY)

    def _needed(self, last: Known | None) -> float | None:
        """From when the next run has to ask; None for everybody."""
        if last is None or last.catalog != self._selection or self._is_due(last):
            return None
        return last.accepted_at - self.overlap * _MINUTE


def users_of(export: Export) -> list[Any]:
    """The users that an export has."""
    return [*export.segment.given, *(user for file in export.segment.files or [] for user in file)]


def _rows(output: Output, stream: str) -> list[dict[str, Any]]:
    return [row for message in read_messages(output) if message.get("stream") == stream for row in rows_of(message)]


def _entries(state: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = state["bookmarks"]["export_files"]["exports"] if state else []
    return found


def _key(state: Any) -> str:
    return json.dumps(state, sort_keys=True)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
