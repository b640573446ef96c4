"""A function for each door: it takes any bytes, and raises where the tap fails in an undocumented way."""

from __future__ import annotations

import functools
import io
import json
import logging
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from singer_sdk.exceptions import SingerSDKError

from fuzz.stand_ins import Caller, ScriptedAnswers, StoppedAfterWaits, named, unanswered
from tap_braze_export.braze.callback import Callbacks
from tap_braze_export.braze.client import Braze
from tap_braze_export.clock import Clock
from tap_braze_export.errors import DamagedFileError, TapError, texts_in
from tap_braze_export.exports.journal import Journal
from tap_braze_export.exports.lifecycle import Exports
from tap_braze_export.exports.scope import sources_of
from tap_braze_export.exports.shared import Shared
from tap_braze_export.files import archive
from tap_braze_export.files.download import Download
from tap_braze_export.files.spool import Spool
from tap_braze_export.fingerprints.lifecycle import Confirmed
from tap_braze_export.http.session import Session
from tap_braze_export.report.facts import RunFacts
from tap_braze_export.report.progress import Progress
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.resync.lifecycle import Resync
from tap_braze_export.resync.requests import plan_requests, request_body
from tap_braze_export.schema.selection import RequestedFields
from tap_braze_export.settings import Settings
from tap_braze_export.singer.command import describe
from tap_braze_export.singer.given_files import read_catalog, read_config, read_state
from tests.support.fakes import FakeClock
from tests.support.rows import both_paths, selected
from tests.support.runs import tap_class
from tests.support.simulation import SimulatedThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tap_braze_export.schema.selection import Selection

    Target = Callable[[bytes], None]

KEY = "5f0c-secret-key-77aa"
TOKEN = "token-of-a-running-export"  # noqa: S105 - of these targets only
_LINK = f"https://store.invalid/users.zip?Signature={KEY}"
_MAX_WAIT_SECONDS = 3_800.0
"""Braze's longest window is an hour."""
_CONFIG = {"api_url": "https://rest.invalid", "api_key": KEY, "segment_ids": ["seg"]}
_ENDED: dict[str, Any] = {"version": 1, "exports": [], "resync": []}
"""STATE of a run after which nothing runs."""
_ATTEMPTS = 30
_BLOCK_BYTES = 64
_FEWEST_BLANK_LINES = 1_000
"""Blank lines in a row that are in no block; fewer are lines as others."""
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def archives(data: bytes) -> None:
    """A delivered object: its members and their lines, or one line that says that it is damaged."""
    file = io.BytesIO(data)
    try:
        for member in archive.members(file, "object"):
            following = 1
            for block in archive.blocks(file, member, limit=_BLOCK_BYTES):
                passed_over = block.first_line - following
                assert passed_over == 0 or passed_over >= _FEWEST_BLANK_LINES, "a line is lost or read twice"
                following = block.first_line + len(block.lines)
    except DamagedFileError as error:
        _check_message(error)


def lines(data: bytes) -> None:
    """A catalog's number, then the lines of a file: both paths give the same rows, which every loader can store."""
    number, _, content = data.partition(b"\n")
    selections = _SELECTIONS[sum(number) % len(_SELECTIONS)]()
    fast, careful = both_paths(selections, [content.split(b"\n")])
    assert fast == careful, f"{fast} != {careful}"
    texts = (
        text
        for rows, *_ in fast
        for found in rows.values()
        for row in found
        for text in texts_in(json.loads(row, parse_int=str), min_chars=1)
    )
    assert not any(_UNSTORABLE.search(text) for text in texts)


def answers(data: bytes) -> None:
    """A call's number and a status, headers, an empty line and the body of Braze's answer, given to each try."""
    script = ScriptedAnswers(data)
    clock = StoppedAfterWaits()
    with Session() as session:
        session.trust_env = False  # proxies and certificates of this machine are no part of it
        script.mount(session)
        braze = Braze("https://rest.invalid", KEY, clock=clock, session=session)
        try:
            _CALLS[script.number % len(_CALLS)](braze)
        except TapError as error:
            _check_message(error)
    assert all(0 <= seconds <= _MAX_WAIT_SECONDS for seconds in clock.slept), f"waited {clock.slept}"


def downloads(data: bytes) -> None:
    """A store's responses, one for each request: a file of the announced length, another attempt, or one line."""
    path = Path(_folder()) / "object"
    for left in path.parent.glob("object*"):
        left.unlink()
    with Session() as session:
        session.trust_env = False
        ScriptedAnswers(data).mount(session)
        download = Download(_LINK, path=path, session=session, clock=FakeClock(tick=1), deadline=2e9)
        try:
            is_complete = any(download.attempt() for _ in range(_ATTEMPTS))
        except TapError as error:
            _check_message(error)
        else:
            assert path.exists() == is_complete
            assert not is_complete or path.stat().st_size == download.received
            assert download.expected is None or not is_complete or download.expected == download.received


def journal(data: bytes) -> None:
    """The record of an export in `spool_dir`, up to what the next run makes of it."""
    journal_of_segment().path.write_bytes(data)
    exports = _exports(_ENDED, FakeClock(), Path(_folder()))
    with _documented_errors(), exports:
        json.dumps(exports.state(), allow_nan=False).encode()
    for failure in exports.failures:
        _check_message(TapError(failure))


def configuration(data: bytes) -> None:
    """A file given with --config, up to the streams of the tap that is made with it."""
    path = Path(_folder()) / "config.json"
    path.write_bytes(data)
    with _documented_errors():
        tap = tap_class(FakeClock())(config=read_config(str(path)), catalog=discovered_catalog())
        for stream in tap.streams.values():
            json.dumps(stream.schema, allow_nan=False).encode()
        assert tap.settings.api_key


def state(data: bytes) -> None:
    """A file given with --state, up to the exports, the resync and the fingerprints that it names."""
    with _documented_errors():
        found = _tap(state=read_state(named(data, "state.json"))).streams["export_files"].stream_state
        clock, folder = FakeClock(), Path(_folder())
        for each in (_exports(found, clock, folder), _resync(found, clock, folder)):
            with suppress(TapError), each:
                each.poll()
            json.dumps(each.state(), allow_nan=False).encode()
        for name in Confirmed.of(found.get("fingerprints")).part_names[:10]:
            name.encode()


def catalog(data: bytes) -> None:
    """A file given with --catalog, up to the fields that it selects and the SCHEMA messages."""
    with _documented_errors():
        tap = _tap(catalog=read_catalog(named(data, "catalog.json")))
        selections = {name: stream.selection for name, stream in tap.streams.items() if stream.selected}
        fields = RequestedFields.of(selections.values())
        assert "braze_id" in fields.fields_to_export
        both_paths(
            {name: selection for name, selection in selections.items() if selection.table.path is not None},
            [[b'{"braze_id":"b","devices":[{"model":"m"}],"custom_attributes":{"plan":1.5}}']],
        )


def identifiers(data: bytes) -> None:
    """The name of a file in the first line, then the file of `identifiers_url`: the requests made from it."""
    name, _, content = data.partition(b"\n")
    suffix = (".csv", ".jsonl", "", ".csv.gz")[sum(name) % 4]
    path = f"/fuzz{suffix}"
    memory = fsspec.filesystem("memory")
    memory.pipe_file(path, content)
    given = Settings(api_url="u", api_key=KEY, identifiers_url=f"memory:/{path}")
    with _documented_errors():
        found = Identifiers(given, clock=FakeClock())
        found.fingerprint(b"key")
        for request in plan_requests(found):
            json.dumps(request_body(request, RequestedFields.of(()))).encode()


def callbacks(data: bytes) -> None:
    """A request to the callback listener: only the right path and token with `"success": true` is a callback."""
    received = Callbacks("https://tap.invalid/braze", None)
    received.expect(TOKEN)
    responded = Caller(data).respond(received)
    assert not responded or re.match(rb"HTTP/1\.[01] (200|400|404|100) ", responded), responded[:80]
    if received.received(TOKEN):
        assert TOKEN.encode() in data or b"%" in data
        assert b"success" in data or b"\\u" in data
        assert b" 200 " in responded


TARGETS: Mapping[str, Target] = {
    target.__name__: target
    for target in (
        *(archives, lines, answers, downloads, journal),
        *(configuration, state, catalog, identifiers, callbacks),
    )
}


# Their parts

_SELECTIONS: tuple[Callable[[], dict[str, Selection]], ...] = tuple(
    functools.cache(functools.partial(selected, **options))
    for options in (
        {},
        {"without": ("users._rescued_data", "devices.device_id", "campaigns_received.engaged")},
        {"attributes": {"plan": "string", "n": "integer", "at": "date-time", "x": "number", "b": "boolean"}},
        {"only": ("users", "segment_members")},
    )
)

_CALLS: tuple[Callable[[Braze], object], ...] = (
    lambda braze: braze.start_segment_export("seg", fields_to_export=["braze_id"]),
    lambda braze: braze.start_control_group_export(fields_to_export=["braze_id"]),
    lambda braze: braze.export_ids({"external_ids": ["ada@example.org"]}),
    lambda braze: braze.cancel_segment_export("seg"),
    lambda braze: braze.segment_details("seg"),
    lambda braze: braze.segment_size("seg"),
    lambda braze: [*zip(range(300), braze.segments(), strict=False)],
    lambda braze: [*zip(range(300), braze.custom_attributes(), strict=False)],
)


class _documented_errors:  # noqa: N801 - used as a function
    """Lets the errors pass that end in one line, and checks that line."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, (TapError, SingerSDKError)):
            return False
        _check_message(error)
        return True


def _check_message(error: Exception) -> None:
    """An error is one printable line without the key, and none that nobody foresaw."""
    message = describe(error)
    assert message.isprintable(), repr(message)
    assert KEY not in message, message
    assert "Unforeseen" not in message, message
    message.encode()


@functools.cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="fuzz-")


def _tap(**options: Any) -> Any:
    return tap_class(FakeClock())(config=_CONFIG, **{"catalog": discovered_catalog(), **options})


@functools.cache
def discovered_catalog() -> dict[str, Any]:
    """The catalog of discovery, two streams of it."""
    tap = tap_class(Clock())(config=_CONFIG)
    found: dict[str, Any] = tap.catalog_dict
    return {"streams": [entry for entry in found["streams"] if entry["tap_stream_id"] in ("export_files", "users")]}


def journal_of_segment() -> Journal:
    """The journal of the one segment, of a run that was handed a STATE after which nothing runs."""
    spool = _spool(FakeClock(), Path(_folder()))
    return Journal(spool, Settings.of(_CONFIG).workspace, ("segment", "seg"), _ENDED)


def _spool(clock: FakeClock, folder: Path) -> Spool:
    spool = Spool(str(folder / "spool"), clock=clock)
    spool.open()
    return spool


def _exports(found: Mapping[str, Any], clock: FakeClock, folder: Path) -> Exports:
    settings = Settings.of({**_CONFIG, "bucket_url": str(folder)})
    common = Shared(
        client=unanswered(),
        clock=clock,
        spool=_spool(clock, folder),
        progress=Progress(RunFacts(clock), clock, logging.getLogger("fuzz")),
        settings=settings,
        rows_signature="shape",
        files_ahead=0,
        write_state=lambda *, must: None,  # noqa: ARG005
    )
    return Exports(sources_of(settings, RequestedFields.of(()), with_memberships=False), common, dict(found))


def _resync(found: Mapping[str, Any], clock: FakeClock, folder: Path) -> Resync:
    return Resync(
        RequestedFields.of(()),
        client=unanswered(),
        clock=clock,
        spool=Spool(str(folder / "spool"), clock=clock),
        settings=Settings.of({**_CONFIG, "external_ids": ["a"]}),
        state=dict(found),
        rows_signature="shape",
        lists_misses=True,
        threads=SimulatedThreads(clock),
    )
