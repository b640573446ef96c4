"""The phases of an export, and every step between them: what causes it, and what journal and STATE say then."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Phase(enum.Enum):
    """Where an export stands; the value says it in words."""

    PLANNED = "it is to be requested, or an earlier run has left it"
    REQUESTED = "the request is on its way to Braze"
    LOST = "no response came, so nobody knows if Braze has started it"
    REFUSED = "Braze still runs another export of the segment"
    RUNNING = "Braze has started it, and nothing of it is here to be fetched or read"
    FETCHING = "what Braze has written comes to this machine"
    READING = "files of it are here, and are emitted one after the other"
    ENDED = "every file is emitted, and no STATE says so yet"
    KEPT = "STATE says that it has ended; journal and download stay until the next run, in case the loader fails"
    EMPTY = "it has ended without a file, and nothing proves that it had none"
    LATE = "an earlier run has ended it, and files that came into the bucket since are fetched and emitted"
    INTERRUPTED = "this run cannot go on with it, and the next run does"
    GIVEN_UP = "it cannot be read to its end"
    CLEARED = "this machine has nothing of it any more"

    @property
    def waits(self) -> bool:
        """True until it runs: somebody has to request it, or to take it up."""
        return self in (Phase.PLANNED, Phase.LOST, Phase.REFUSED)

    @property
    def runs(self) -> bool:
        """True while its files are waited for, or emitted."""
        return self in (Phase.RUNNING, Phase.FETCHING, Phase.READING, Phase.LATE)

    @property
    def is_complete(self) -> bool:
        """True if every file was emitted."""
        return self in (Phase.ENDED, Phase.KEPT, Phase.CLEARED)


class Record(enum.Enum):
    """The effect of a step on the journal's record; the value says it in words."""

    STAYS = "stays as it is"
    WRITTEN = "is written, with all that is known by now"
    ENDS = "says that it has ended, and which files it had"
    REMOVED = "is removed, and the download with it"


class Step(NamedTuple):
    """A step from one phase to another.

    Attributes:
        cause: The reason for it.
        record: What it does with the journal's record of the export.
        state: What the next STATE says.
    """

    before: Phase
    after: Phase
    cause: str
    record: Record
    state: str


_SAME, _RUNS, _FILES = "the same", "`running` is true", "`running` is true, and each emitted file is named"
_ENDED, _GONE = "`running` is false", "the entry goes; `last_users` and `complete` stay in one without `export_id`"
_WHILE_IT_RUNS = (Phase.RUNNING, Phase.FETCHING, Phase.READING)
STEPS = (
    Step(Phase.PLANNED, Phase.REQUESTED, "the run asks Braze; the record is there before", Record.WRITTEN, _SAME),
    Step(Phase.PLANNED, Phase.LOST, "an earlier run got no response", Record.STAYS, _SAME),
    Step(Phase.PLANNED, Phase.RUNNING, "an earlier run has requested it", Record.WRITTEN, _RUNS),
    Step(Phase.PLANNED, Phase.KEPT, "an earlier run has read it, and the loader has not all", Record.STAYS, _SAME),
    Step(Phase.PLANNED, Phase.LATE, "STATE says that it has ended, in a bucket", Record.STAYS, _SAME),
    Step(Phase.PLANNED, Phase.INTERRUPTED, "the disk has no room for the record", Record.STAYS, _SAME),
    Step(Phase.REQUESTED, Phase.INTERRUPTED, "the disk has no room for the record", Record.STAYS, _SAME),
    Step(Phase.REQUESTED, Phase.RUNNING, "Braze accepts", Record.WRITTEN, _RUNS),
    Step(Phase.REQUESTED, Phase.REFUSED, "429: Braze runs another export of it", Record.REMOVED, _SAME),
    Step(Phase.REQUESTED, Phase.LOST, "the connection breaks before a response", Record.WRITTEN, _SAME),
    Step(Phase.REQUESTED, Phase.GIVEN_UP, "Braze refuses for good", Record.REMOVED, _SAME),
    Step(Phase.REFUSED, Phase.REQUESTED, "the next try is due", Record.WRITTEN, _SAME),
    Step(Phase.REFUSED, Phase.INTERRUPTED, "`on_running_export`, or the deadline, ends the wait", Record.STAYS, _SAME),
    Step(Phase.REFUSED, Phase.GIVEN_UP, "the other export cannot be cancelled", Record.STAYS, _SAME),
    Step(Phase.LOST, Phase.RUNNING, "its folder is found, or Braze accepts a later try", Record.WRITTEN, _RUNS),
    Step(Phase.LOST, Phase.INTERRUPTED, "Braze refuses, or responses are lost again and again", Record.STAYS, _SAME),
    Step(Phase.RUNNING, Phase.FETCHING, "a download or a copy begins", Record.STAYS, _FILES),
    Step(Phase.RUNNING, Phase.READING, "files are here", Record.STAYS, _FILES),
    Step(Phase.FETCHING, Phase.READING, "files are here", Record.STAYS, _FILES),
    Step(Phase.FETCHING, Phase.RUNNING, "the download is not ready, or a file is damaged", Record.STAYS, _FILES),
    Step(Phase.READING, Phase.FETCHING, "what is here is emitted, and more comes", Record.STAYS, _FILES),
    Step(Phase.READING, Phase.RUNNING, "what is here is emitted, and Braze may write more", Record.STAYS, _FILES),
    *(
        step
        for phase in _WHILE_IT_RUNS
        for step in (
            Step(phase, Phase.ENDED, "the last file is emitted, or there was none", Record.STAYS, _ENDED),
            Step(phase, Phase.EMPTY, "no file has come, and nothing proves that there is none", Record.REMOVED, _ENDED),
            Step(phase, Phase.INTERRUPTED, "disk, network, store or settings stop it", Record.STAYS, _FILES),
            Step(phase, Phase.GIVEN_UP, "damaged, gone, expired, or past the deadline", Record.REMOVED, _GONE),
        )
    ),
    Step(Phase.LATE, Phase.ENDED, "the last of them is emitted", Record.STAYS, "each file is named"),
    Step(Phase.LATE, Phase.INTERRUPTED, "disk, network or store stop it", Record.STAYS, _SAME),
    Step(Phase.LATE, Phase.GIVEN_UP, "a late file is damaged or gone", Record.STAYS, "`complete` is empty"),
    Step(Phase.ENDED, Phase.KEPT, "STATE is written", Record.ENDS, _ENDED),
    Step(Phase.KEPT, Phase.RUNNING, "the next run reads it again", Record.STAYS, _RUNS),
    Step(Phase.KEPT, Phase.CLEARED, "the next run begins, or the disk is full", Record.REMOVED, _ENDED),
    Step(Phase.LOST, Phase.CLEARED, "the next run cannot use it any more", Record.REMOVED, _SAME),
    Step(Phase.RUNNING, Phase.CLEARED, "the next run cannot use it any more", Record.REMOVED, _SAME),
)
_BY_PHASES = {(step.before, step.after): step for step in STEPS}


def step_between(before: Phase, after: Phase) -> Step:
    """The step from one phase to another.

    Raises:
        RuntimeError: No export goes this way.
    """
    if (step := _BY_PHASES.get((before, after))) is None:
        raise RuntimeError(f"no export goes from {before.name} to {after.name}")
    return step
