"""The demo: a sandbox Braze, one `meltano run` into DuckDB, and three answers in SQL.

A demo continues the one before, as one night follows another: Braze is asked only for the users that changed since.
"""  # noqa: INP001

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "output" / "demo"
MELTANO = ROOT / ".cache" / "meltano" / "bin" / "meltano"
LOADER_PYTHON = ROOT / ".meltano" / "loaders" / "target-duckdb" / "venv" / "bin" / "python"
USERS = 20_000
START_SECONDS = 60
STOP_SECONDS = 10


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(text: str) -> NoReturn:
    raise SystemExit(f"demo: {text}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Wait for a process that is ending; make it end if it does not."""
    for end in (process.terminate, process.kill):
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            end()
    process.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load made-up users of a local Braze into DuckDB, and ask it.")
    parser.add_argument("--users", type=int, default=USERS, help="number of users")
    parser.add_argument("--changed", type=float, default=0, metavar="PERCENT", help="share of changed users")
    parser.add_argument("--full-refresh", action="store_true", help="as Meltano's: load everybody again")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the database and all else is kept")
    return parser.parse_args()


def _prepare(folder: Path) -> bool:
    """Keep what the last demo has left if it came to its end and its database is there; else start afresh.

    Only together do database, STATE and fingerprints fit: a database that was removed has none of the users that
    STATE says it has, and a demo that was interrupted has an export in a sandbox that is gone.

    Returns:
        True if this is the first demo.
    """
    complete = folder / "complete"
    is_first = not (complete.exists() and _database(folder).exists())
    try:
        if is_first and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        complete.unlink(missing_ok=True)
    except OSError as error:
        _fail(f"{_shown(folder)} cannot be written: {error}")
    return is_first


def _database(folder: Path) -> Path:
    return folder / "demo.duckdb"


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


@contextmanager
def _sandbox(folder: Path, *, users: int, changed: float) -> Iterator[dict[str, str]]:
    """Start the sandbox, yield the environment that points the tap at it, and stop it by its pid."""
    ready, log = folder / "sandbox.json", folder / "sandbox.log"
    ready.unlink(missing_ok=True)
    # Without delay: an export is ready when it is written, so the demo waits for nothing but work.
    command = [
        "--users",
        str(users),
        "--seed",
        "1",
        "--changed",
        str(changed),
        "--delay",
        "0",
        "--ready-file",
        str(ready),
    ]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603
            [str(Path(sys.executable).with_name("braze-sandbox")), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us: we stop the sandbox when the pipeline has ended.
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                _fail(f"the sandbox did not start; its last words are in {log}")
            threading.Event().wait(0.05)
        facts = json.loads(ready.read_text(encoding="utf-8"))
        yield {
            "TAP_BRAZE_EXPORT_API_URL": facts["api_url"],
            "TAP_BRAZE_EXPORT_API_KEY": facts["api_key"],
            "TAP_BRAZE_EXPORT_SEGMENT_IDS": json.dumps(facts["segment_ids"][:1]),
        }
    finally:
        process.terminate()
        _stop(process)


def _meltano(folder: Path, environment: dict[str, str], *, is_full: bool) -> str:
    """Run the pipeline, its log on the terminal as it comes, and return that log."""
    ours = {
        "TAP_BRAZE_EXPORT_SPOOL_DIR": str(folder / "spool"),
        "TAP_BRAZE_EXPORT_INCREMENTAL": "true",
        "TAP_BRAZE_EXPORT_FINGERPRINTS_URL": str(folder / "fingerprints"),
        "TAP_BRAZE_EXPORT_POLL_INTERVAL_SECONDS": "1",
        "TARGET_DUCKDB_FILEPATH": str(_database(folder)),
        # With each load, however small, DuckDB works out the CSV file's dialect anew: every table is loaded once. A
        # second thread of DuckDB would only compete with the tap and Meltano.
        "TARGET_DUCKDB_BATCH_SIZE_ROWS": "150000",
        "TARGET_DUCKDB_SETTINGS": json.dumps({"threads": 1}),
        # Bookmarks of the demo stay with the demo's files.
        "MELTANO_DATABASE_URI": f"sqlite:///{folder / 'meltano.db'}",
    }
    process = subprocess.Popen(  # noqa: S603
        [str(MELTANO), "run", *(["--full-refresh"] if is_full else []), "demo"],
        cwd=ROOT,
        env={**os.environ, **ours, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    lines = []
    try:
        for line in process.stdout or ():
            lines.append(line)
            _say("  " + line.rstrip())
    except BaseException:
        process.terminate()
        raise
    finally:
        _stop(process)
    if process.returncode != 0:
        _fail("the pipeline failed; the lines above say why")
    return "".join(lines)


def main() -> None:
    """Run the demo; what it starts ends with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    folder = options.folder.resolve()
    is_first = _prepare(folder)
    _say(f"A sandbox Braze with {options.users:,} users -> tap-braze-export -> {_shown(_database(folder))}")
    with _sandbox(folder, users=options.users, changed=options.changed) as environment:
        began = time.monotonic()
        log = _meltano(folder, environment, is_full=options.full_refresh)
        seconds = time.monotonic() - began
    (folder / "complete").touch()
    _say("")
    show = [
        str(LOADER_PYTHON),
        str(ROOT / "demo" / "show.py"),
        str(_database(folder)),
        str(ROOT / "demo" / "answers.sql"),
    ]
    if subprocess.run(show, check=False).returncode != 0:  # noqa: S603
        _fail("the answers could not be read")
    speeds = re.findall(r"([\d,]+) users a second", log)
    read = f"; the tap alone read {speeds[-1]} users a second" if speeds else ""
    _say(f"The pipeline took {seconds:.1f} seconds{read}.")
    if is_first:
        _say("Try `make demo` again, then `make demo DEMO_CHANGED=5`: only users that changed are exported and loaded.")
        return
    asked = (folder / "sandbox.log").read_text(encoding="utf-8")
    for came, users, since in re.findall(r"([\d,]+) of ([\d,]+) users, asked for those updated since (\S+)", asked):
        _say(f"The tap asked only for users updated since {since}: {came} of {users} came.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
