"""The cases: the tap in several ways, and other programs that could do its work."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.export import CACHE, braze, gzipped, path_of
from benchmarks.measure import Case
from tap_braze_export.tap import TapBrazeExport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

ROOT = Path(__file__).parents[1]
TAP = str(Path(sys.executable).with_name("tap-braze-export"))
LOADERS = ROOT / ".meltano" / "loaders"
MELTANO = ROOT / ".cache" / "meltano" / "bin" / "meltano"
CORE = ("users", "devices", "purchases", "custom_events", "campaigns_received")
NOT_OF_THE_FILES = ("segment_members", "invalid_user_ids")
MAPS = {"stream_maps": {"users": {"email": "md5(email or '')"}, "purchases": {"product": "name"}}}

TAP_NAME = "this tap, RECORD, one worker"
TWO_WORKERS = "this tap, RECORD, two workers"
BATCH = "this tap, BATCH JSONL with gzip, one worker"
PARQUET = "this tap, BATCH Parquet, one worker"
ALL_STREAMS = "this tap, all streams"
MAPPED = "this tap, stream maps"
PLAIN = "SDK, parent and children of each user"
PLAIN_MAPPED = "SDK, parent and children, stream maps"
DUCKDB = "DuckDB, one thread"
DUCKDB_TWO = "DuckDB, two threads"
FLOOR = "floor: inflate, decode, encode"
LOADER = "target-jsonl, fed from a file"
PIPELINE = "meltano run into target-jsonl"


def growth(users: int) -> str:
    """The row of the tap with so many users."""
    return f"this tap, {users:,} users"


def cases(users: int) -> Iterator[Case]:
    """All that is done with the same number of users; the slow ones with fewer."""
    few = min(users, 5_000)
    yield _tap(TAP_NAME, users)
    yield _python(FLOOR, users, lambda size: ["-m", "benchmarks.floor", str(path_of(size))])
    yield _python(DUCKDB, users, partial(_duckdb, threads=1))
    yield _tap(ALL_STREAMS, users, streams=None)
    yield _tap(TWO_WORKERS, users, config={"workers": 2})
    yield _python(DUCKDB_TWO, users, partial(_duckdb, threads=2))
    yield _parent_child(PLAIN, few, {})
    yield _tap(BATCH, users, config={"batch_config": {"encoding": {"format": "jsonl", "compression": "gzip"}}})
    yield _tap(PARQUET, users, config={"batch_config": {"encoding": {"format": "parquet"}}})
    yield _tap(MAPPED, min(users, 20_000), config=MAPS)
    yield _parent_child(PLAIN_MAPPED, few, MAPS)


def sizes(users: Collection[int]) -> Iterator[Case]:
    """The tap alone, with ever more users."""
    for number in users:
        yield _tap(growth(number), number)


def loader_cases(users: int) -> Iterator[Case]:
    """A loader fed from a file, and the whole pipeline; nothing where Meltano is not set up."""
    loader = LOADERS / "target-jsonl" / "venv" / "bin" / "target-jsonl"
    if not loader.exists() or not MELTANO.exists():
        return

    def fed(folder: Path, messages: str) -> list[str]:
        (folder / "target.json").write_text(json.dumps({"destination_path": str(folder)}))
        return ["bash", "-c", f"'{loader}' --config '{folder}/target.json' < '{messages}'"]

    def whole(folder: Path, url: str) -> list[str]:
        variables = {
            "TAP_BRAZE_EXPORT_API_URL": url,
            "TAP_BRAZE_EXPORT_API_KEY": "key",
            "TAP_BRAZE_EXPORT_SEGMENT_IDS": '["all-users"]',
            "TAP_BRAZE_EXPORT_SPOOL_DIR": str(folder / "spool"),
            "TARGET_JSONL_DESTINATION_PATH": str(folder),
            "MELTANO_DATABASE_URI": f"sqlite:///{folder / 'meltano.db'}",
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        return ["env", *given, str(MELTANO), "run", "tap-braze-export", "target-jsonl"]

    for name, command, beside in ((LOADER, fed, _messages), (PIPELINE, whole, braze)):
        empty = Case(name, 0, command, beside=partial(beside, 0))
        yield Case(name, users, command, beside=partial(beside, users), empty=empty)


def _tap(
    name: str, users: int, *, streams: Collection[str] | None = CORE, config: dict[str, Any] | None = None
) -> Case:
    """The installed command, with these streams or all that come from files."""

    def command(folder: Path, url: str) -> list[str]:
        return tap_command(folder, url, streams, config or {})

    empty = Case(name, 0, command, beside=partial(braze, 0))
    return Case(name, users, command, beside=partial(braze, users), empty=empty)


def tap_command(folder: Path, url: str, streams: Collection[str] | None, config: dict[str, Any]) -> list[str]:
    """The installed command, with its files in a directory."""
    given: dict[str, Any] = {"api_url": url, "api_key": "key", "segment_ids": ["all-users"]}
    given |= {"spool_dir": str(folder / "spool"), "workers": 1} | config
    if "batch_config" in config:
        given["batch_config"] = config["batch_config"] | {"storage": {"root": f"file://{folder}/batches"}}
    (folder / "config.json").write_text(json.dumps(given))
    (folder / "catalog.json").write_text(json.dumps(_catalog(streams)))
    return [TAP, "--config", str(folder / "config.json"), "--catalog", str(folder / "catalog.json")]


def _catalog(streams: Collection[str] | None) -> dict[str, Any]:
    catalog = TapBrazeExport(validate_config=False, setup_mapper=False).catalog_dict
    for entry in catalog["streams"]:
        name = entry["tap_stream_id"]
        selected = name not in NOT_OF_THE_FILES if streams is None else name in streams
        next(item for item in entry["metadata"] if not item["breadcrumb"])["metadata"]["selected"] = selected
    return dict(catalog)


def _python(name: str, users: int, words: Callable[[int], list[str]]) -> Case:
    """One of the programs beside this one."""

    def of(size: int) -> Callable[[Path, str], list[str]]:
        return lambda _folder, _given: [sys.executable, *words(size)]

    return Case(name, users, of(users), empty=Case(name, 0, of(0)))


def _duckdb(users: int, *, threads: int) -> list[str]:
    return ["-m", "benchmarks.duckdb_tables", str(gzipped(users) / "*.json.gz"), str(threads)]


def _parent_child(name: str, users: int, config: dict[str, Any]) -> Case:
    """The SDK's plain pattern, run as any tap is."""

    def of(size: int) -> Callable[[Path, str], list[str]]:
        def command(folder: Path, _given: str) -> list[str]:
            (folder / "config.json").write_text(json.dumps(config | {"zip": str(path_of(size))}))
            return [sys.executable, "-m", "benchmarks.parent_child", "--config", str(folder / "config.json")]

        return command

    return Case(name, users, of(users), empty=Case(name, 0, of(0)))


@contextmanager
def _messages(users: int) -> Iterator[str]:
    """A file of what the tap writes, made once."""
    path = CACHE / f"{users}.messages"
    if not path.exists():
        draft = path.with_suffix(".draft")
        with TemporaryDirectory() as folder, braze(users) as url, draft.open("wb") as output:
            command = tap_command(Path(folder), url, None, {})
            subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, check=True)
        draft.rename(path)
    yield str(path)
