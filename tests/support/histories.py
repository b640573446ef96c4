"""Random histories of one pipeline: nights that change users, runs that are killed, loaders that fail, and damage."""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tap_braze_export.fingerprints.columns import Version
from tap_braze_export.fingerprints.store import run_of
from tests.support import batches
from tests.support.model_loader import ModelLoader, emitted_files, emitted_users, read_messages
from tests.support.nights import DAY, STREAMS, user
from tests.support.runs import Output, selecting, settings
from tests.support.steps import STARTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox
    from tests.support.killed_runs import KilledOutput, Runner

MODES: dict[str, dict[str, Any]] = {
    "url": {},
    "bucket": {"settle_minutes": 1},
    "batch": {},
    "workers": {"workers": 2},
    "resync": {},
}
PEOPLE = 16
CITIES = ("Berlin", "Paris")
APPS = (("Shop",), ("Shop", "News"))
SEGMENTS = ("a", "b")
_RETRY_SECONDS = 600.0
_FIRST_DAY = time.time() - 90 * DAY
"""In the past, since nothing in the spool may look old."""
_MORE_STREAMS = ("users", "apps", "custom_events", "segment_members", "export_files", "purchases")


@dataclass
class HistoryClock:
    """Braze's clock: it stands still while a run goes on."""

    now: float = _FIRST_DAY

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


@functools.cache
def _catalog(streams: tuple[str, ...]) -> dict[str, Any]:
    """A catalog of these streams alone, which is read faster."""
    entries = selecting(streams)["streams"]
    return {"streams": [entry for entry in entries if entry["tap_stream_id"] in streams]}


@dataclass
class Truth:
    """The users as Braze has them.

    Attributes:
        people: Users by id.
        segments: The segments of each user; the audience of a resync is everybody.
    """

    people: dict[str, dict[str, Any]] = field(default_factory=dict)
    segments: dict[str, set[str]] = field(default_factory=dict)

    def members(self, segment_id: str) -> list[str]:
        """The users of a segment."""
        return sorted(name for name in self.people if segment_id in self.segments[name])


class History:
    """A random history; the seed decides everything.

    Args:
        seed: A number.
        mode: One of `MODES`.
        braze: A sandbox on a clock of histories, which goes from night to night.
        folder: Receives all files.
        runners: Two makers of runs.
        fingerprints: True if users are compared with what was emitted before.
    """

    def __init__(
        self, seed: int, mode: str, braze: Sandbox, folder: Path, runners: tuple[Runner, Runner], *, fingerprints: bool
    ) -> None:
        self.random = random.Random(f"{mode} {fingerprints} {seed}")
        self.mode = mode
        self.braze = braze
        self.folder = folder
        self.runners = runners
        assert isinstance(braze.workspace.clock, HistoryClock)
        self.clock = braze.workspace.clock
        self.truth = Truth()
        self.loader = ModelLoader()
        self.given_states: dict[str, Any] = {}  # by the export that was read, the STATE that the run was given
        self.other_state: dict[str, Any] | None = None
        self.catalogs = [_catalog(STREAMS), _catalog(_MORE_STREAMS)]
        self.catalog = self.catalogs[0]
        self.nights = 3
        self.night_seconds = 5 * 3600.0  # nothing that began earlier is continued
        self.most_steps = 120  # a run has about so many; some kills come too late
        self.codes = {0, -9, -15, 143}  # -15: before it listens
        self.codes_of_undisturbed = {0}
        self.lost_leavers = mode == "bucket" or not fingerprints
        self.torn: set[str] = set()  # users of whom others may have loaded only some rows
        self.has_leftovers = False
        self.repeats_are_right = False
        self.told: list[str] = []
        self.config = self._config(fingerprints=fingerprints)
        for number in range(PEOPLE):
            self._set(f"u{number:02}", segments={self.random.choice(SEGMENTS)})
        self._deliver()

    def _config(self, *, fingerprints: bool) -> dict[str, Any]:
        config = settings(self.braze, self.folder, poll_interval_seconds=1, **MODES[self.mode])
        config["segment_ids"] = [*SEGMENTS]
        if fingerprints:
            config["fingerprints_url"] = str(self.folder / "fingerprints")
        if self.mode == "bucket":
            config["bucket_url"] = str(self.folder / "bucket")
        if self.mode == "batch":
            config["batch_config"] = batches.config(self.folder / "out", batch_size=self.random.choice([3, 1000]))
        elif self.mode != "resync":
            config["emit_activate_version_messages"] = self.random.random() < 0.3
        if self.mode == "resync":
            del config["segment_ids"]
            config["braze_ids"] = [f"u{number:02}" for number in range(PEOPLE)]
            config["concurrent_requests"] = 2
        return config

    # Braze

    def _set(self, name: str, *, segments: set[str] | None = None) -> None:
        apps = self.random.choice(APPS)  # few contents, so that users change back
        self.truth.people[name] = user(name, self.random.choice(CITIES), apps=apps)
        if segments is not None:
            self._move(name, segments)

    def _move(self, name: str, segments: set[str]) -> None:
        self.truth.segments[name] = segments

    def _deliver(self) -> None:
        for segment_id in SEGMENTS:
            members = [_reordered(self.truth.people[name], self.random) for name in self.truth.members(segment_id)]
            self.random.shuffle(members)
            cut = self.random.randint(0, len(members))
            self.braze.add_segment(segment_id, files=[members[:cut], members[cut:], []])
        if self.mode == "resync":
            self.braze.add_segment("everybody", list(self.truth.people.values()))

    def change(self) -> set[str]:
        """Change some users, let some move, leave or return; the next night begins. Returns who is to be emitted."""
        before = {name: (content_of(person), self.truth.segments[name]) for name, person in self.truth.people.items()}
        self.clock.now += DAY / 2
        self._change_people()
        self._deliver()
        self.clock.now += DAY / 2
        self.told.append("a night")
        changed = set()
        for name, (had, segments) in before.items():
            now = self.truth.segments[name]
            if (now and had != content_of(self.truth.people[name])) or now != segments:
                changed.add(name)
        return changed

    def _change_people(self) -> None:
        for name in self.random.sample([*self.truth.people], self.random.randint(0, 5)):
            self._set(name)
        for name in self.random.sample([*self.truth.people], self.random.randint(0, 3)):
            self._move(name, set(self.random.choice([(), ("a",), ("b",), ("a", "b")])))

    # Runs

    def attempt(self) -> None:
        """A run that is perhaps killed or told to end, and a loader that perhaps fails."""
        steps = self.random.choice([None, *(self.random.randrange(self.most_steps) for _ in range(2))])
        sends = self.random.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
        if self.random.random() < 0.2:
            self._lose_spool()
        output = self._run(steps=steps, sends=sends)
        assert output.code in self.codes, f"code {output.code}: {self._story(output)}"
        self.loader.read_some(output, self.random)
        self.told.append(f"attempt: {steps} steps, code {output.code}; {self.loader.told[-1]}")
        self.has_leftovers = True

    def undisturbed(self) -> KilledOutput:
        """A run to the end, of which all is loaded and confirmed."""
        output = self._run()
        assert output.code in self.codes_of_undisturbed, self._story(output)
        self.loader.read_all(output)
        self.told.append("undisturbed")
        return output

    def finish(self) -> KilledOutput:
        """Run undisturbed until nothing is left of earlier runs, and compare the loader with the truth."""
        if self.has_leftovers:
            self.undisturbed()  # it may continue an export, or a resync, of an earlier time
        output = self.undisturbed()
        self.has_leftovers = self.repeats_are_right = False
        self._check(output)
        return output

    def quiet_night(self) -> None:
        """With fingerprints exactly the users that changed are emitted, on the night after."""
        if "fingerprints_url" not in self.config:
            return
        self.finish()  # what two runs at once have emitted is emitted twice
        changed = self.change()
        quiet = self.finish()
        assert emitted_users(quiet) <= changed, self._story(quiet)

    def _run(self, **kill: Any) -> KilledOutput:
        self.clock.now += _RETRY_SECONDS
        given, to_continue = self.loader.state, self._exports_to_continue()
        for export in self.braze.workspace.running():
            if export.segment.id not in to_continue or self.random.random() < 0.5:
                export.finish()  # whether it is polled or not
        calls, catalog = len(self.braze.calls), self.catalog
        speed = 200.0 if self.mode == "resync" else 1.0  # a group of responses is emitted after thirty seconds
        output = self.runners[0].run(self.config, catalog, given, now=self.clock.now, speed=speed, **kill)
        assert "Unforeseen" not in output.log, self._story(output)  # such as a step that the table of phases has not
        for journalled in self._journals().values():
            if not journalled["running"]:
                self.given_states.setdefault(journalled["export_id"], given)
        started: dict[str, list[str | None]] = {}
        for call in self.braze.calls[calls:]:
            if call.path == STARTED and call.status == 201:
                started.setdefault(call.body["segment_id"], []).append(call.body.get("user_last_updated_at"))
        self._check_requests(started, output)
        self._note(output, given)
        twice = to_continue & started.keys()
        assert not twice or self.repeats_are_right, f"second exports of {twice}: {self._story(output)}"
        repeated = self.loader.files & emitted_files(read_messages(output))
        assert not repeated or self.repeats_are_right, f"repeated {repeated}: {self._story(output)}"
        return output

    def _check_requests(self, started: Mapping[str, list[str | None]], output: Output) -> None:
        """Check the requests that a run has made: of each segment `user_last_updated_at` of its exports."""
        assert all(asked == [None] for asked in started.values()), self._story(output)

    def _note(self, output: KilledOutput, given: Any) -> None:
        """Note what a run has written that was handed this STATE."""

    def _tick(self) -> float:
        self.clock.now += _RETRY_SECONDS
        return self.clock.now

    def _exports_to_continue(self) -> set[str]:
        """The segments of which the next run must not start another export, as the documents promise it."""
        bookmarks = (self.loader.state or {}).get("bookmarks", {}).get("export_files", {})
        in_state = {entry["segment_id"]: entry for entry in bookmarks.get("exports", ())}
        in_journal = self._journals()
        return {name for name in SEGMENTS if self._goes_on(in_state.get(name), in_journal.get(name))}

    def _goes_on(self, entry: dict[str, Any] | None, journalled: dict[str, Any] | None) -> bool:
        """True if an export of this night must be continued, or read again: by STATE's entry and the journal's."""
        if entry and journalled and entry["requested_at"] > journalled["requested_at"]:
            journalled = None
        known = journalled or entry
        began = datetime.fromisoformat(known["requested_at"]).timestamp() if known else 0.0
        if not known or not known["export_id"] or began < self.clock.now - self.night_seconds:
            return False
        if entry and entry["export_id"] == known["export_id"]:
            return bool(entry["running"] and (journalled or self.mode == "bucket"))
        is_unconfirmed = self.loader.state and self.given_states.get(known["export_id"]) == self.loader.state
        return bool(known["running"] or is_unconfirmed)

    def _journals(self) -> dict[str, Any]:
        journals = [json.loads(path.read_bytes()) for path in (self.folder / "spool" / "journal").glob("*.json")]
        return {journal["bookmark"]["segment_id"]: journal["bookmark"] for journal in journals}

    def _lose_spool(self) -> None:
        shutil.rmtree(self.folder / "spool", ignore_errors=True)
        self.told.append("spool lost")

    # What else happens at night

    def disturb(self) -> None:
        """Let something of the rest happen."""
        self.random.choice(self._events())()

    def _events(self) -> list[Callable[[], None]]:
        events: list[Callable[[], None]] = [self._lose_spool]
        if "fingerprints_url" in self.config:
            events += [self._resync_elsewhere, self._resync_elsewhere, self._damage, self._select]
            if self.mode in {"url", "bucket", "batch"}:
                events += [self._two_at_once, self._two_at_once]
        return events

    def _select(self) -> None:
        self.catalog = self.random.choice(self.catalogs)
        self.repeats_are_right = True
        self.told.append("another selection")

    def _resync_elsewhere(self) -> None:
        """Another pipeline emits some users into the same target; it is perhaps killed, or its loader fails."""
        wanted = self.random.sample([*self.truth.people], 3)
        config = {**self.config, "spool_dir": str(self.folder / "elsewhere"), "braze_ids": wanted}
        self.braze.add_segment("everybody", [self.truth.people[name] for name in wanted])
        steps = self.random.choice([None, self.random.randrange(60)])
        output = self.runners[1].run(config, self.catalogs[0], self.other_state, now=self._tick(), steps=steps)
        state, files = self.loader.state, self.loader.files
        self.loader.state = self.other_state
        self.loader.read_some(output, self.random)
        self.loader.state, self.other_state = state, self.loader.state
        self.loader.files = files
        self.torn.update(wanted)
        self.told.append(f"resync elsewhere of {wanted}: {self.loader.told[-1]}")

    def _two_at_once(self) -> None:
        """The pipeline runs on two machines; one of both STATEs is confirmed, or none."""
        configs = [self.config, {**self.config, "spool_dir": str(self.folder / "second machine")}]
        now, state = self._tick(), self.loader.state
        with ThreadPoolExecutor(2) as threads:
            futures = [
                threads.submit(runner.run, config, self.catalog, state, now=now)
                for runner, config in zip(self.runners, configs, strict=True)
            ]
            outputs = [future.result() for future in futures]
        for output in outputs:
            self._note(output, state)
        self.torn.update(self.truth.people)
        kept = self.random.choice([None, 0, 1])
        alone = [output for output in outputs if not self._saw_its_end(output, outputs)]
        if len(alone) == len(outputs):
            self.loader.read_all(_interleaved(outputs, self.random))
        else:  # the machine was so busy that one had ended before the other began
            for output in sorted(outputs, key=lambda output: output not in alone):
                self.loader.read_all(output)
        self.loader.state = state if kept is None or not outputs[kept].states else outputs[kept].states[-1]
        self.told.append(f"two at once, codes {[output.code for output in outputs]}, kept {kept}")
        self.has_leftovers = self.repeats_are_right = True

    def _saw_its_end(self, output: KilledOutput, outputs: list[KilledOutput]) -> bool:
        """True if another of these runs had ended when this one began: its version knows that one's, and no mark."""
        own, *others = (
            next((found["version"] for found in _confirmed(each.states[-1] if each.states else None)), "")
            for each in sorted(outputs, key=lambda each: each is not output)
        )
        folder = self.folder / "fingerprints"
        known = Version.read(lambda end: folder / f"{own}{end}").facts.includes if own else {}
        return any(run_of(each) in known for each in others)

    def _damage(self) -> None:
        """Damage a file of fingerprints, or remove one that is named by STATE, or all."""
        folder = self.folder / "fingerprints"
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        if not files:
            return
        named = [folder / found["version"] for found in _confirmed(self.loader.state) if found["version"]]
        what = self.random.choice(["flip", "remove", "remove all"])
        if what == "flip":
            path = self.random.choice(files)
            content = bytearray(path.read_bytes())
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            path.write_bytes(content)
        elif what == "remove all" or not named:
            shutil.rmtree(folder)
        else:
            named[0].with_name("version.json").unlink(missing_ok=True)
        self.lost_leavers = True
        self.told.append(f"damage: {what}")

    # The end

    def held(self) -> dict[str, tuple[Any, ...]]:
        """The content of each user in the target."""
        tables = self.loader.tables
        users = {row["braze_id"]: row for row in tables.get("users", {}).values()}
        current: dict[tuple[str, str], list[str]] = {}
        for stream in ("apps", "custom_events"):
            for row in tables.get(stream, {}).values():
                if row["braze_id"] in users and row["exported_at"] == users[row["braze_id"]]["exported_at"]:
                    current.setdefault((row["braze_id"], stream), []).append(row["name"])
        return {
            name: (row["home_city"], *(sorted(current.get((name, stream), [])) for stream in ("apps", "custom_events")))
            for name, row in users.items()
        }

    def _check(self, output: Output) -> None:
        story = self._story(output)
        wanted = (
            self.truth.people
            if self.mode == "resync"
            else {name: person for name, person in self.truth.people.items() if self.truth.segments[name]}
        )
        held = self.held()
        found = {name: held[name] for name in wanted if name in held}
        assert found == {name: content_of(person) for name, person in wanted.items()}, story
        for segment_id in SEGMENTS if self.mode != "resync" else ():
            members, now = self.loader.members(segment_id), self.truth.members(segment_id)
            assert {*now} <= {*members}, story
            assert self.lost_leavers or members == now, story

    def _story(self, output: Output) -> str:
        log = getattr(output, "log", "")
        return "\n".join(["", *self.told, "the last log:", log[-3000:], f"files: {self.folder}"])


def _confirmed(state: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The member `fingerprints` of a STATE."""
    found: list[dict[str, Any]] = state["bookmarks"]["export_files"]["fingerprints"] if state else []
    return found


def content_of(person: Mapping[str, Any]) -> tuple[Any, ...]:
    """The part of a user that is compared."""
    events = sorted(event["name"] for event in person["custom_events"])
    return person["home_city"], sorted(app["name"] for app in person["apps"]), events


def _reordered(person: Mapping[str, Any], seed: random.Random) -> dict[str, Any]:
    """The same user with members and items in another order."""
    members = [
        (name, seed.sample(value, len(value)) if isinstance(value, list) else value) for name, value in person.items()
    ]
    return dict(seed.sample(members, len(members)))


def _interleaved(outputs: list[KilledOutput], seed: random.Random) -> Output:
    """The lines of several runs, as loaders that work at the same time read them."""
    lines = [output.stdout.splitlines(keepends=True) for output in outputs]
    turns = seed.sample([index for index, own in enumerate(lines) for _ in own], sum(map(len, lines)))
    iterators = [iter(own) for own in lines]
    return Output(b"".join(next(iterators[index]) for index in turns))
